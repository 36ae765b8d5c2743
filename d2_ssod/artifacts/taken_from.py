"""``taken_from.json``: which model from elsewhere phase 0 is, if it was not trained in its run."""

from __future__ import annotations

from dataclasses import dataclass

from d2_ssod.json_files import read_record, write_json

from .layout import PhaseFolder


@dataclass(frozen=True)
class TakenFrom:
    """What a model that was taken from elsewhere was.

    Attributes:
        path: of its file, as it was named.
        sha256: digest of that file.
        learned_unlabeled: it had learned from unlabeled images, too; None if that was not known.
    """

    path: str
    sha256: str
    learned_unlabeled: bool | None = None


def write_taken_from(files: PhaseFolder, taken: TakenFrom) -> None:
    """Note which model a phase is; on the main process."""
    write_json(files.taken_from, {k: v for k, v in vars(taken).items() if v is not None})


def read_taken_from(files: PhaseFolder) -> TakenFrom | None:
    """Read which model a phase is; None where it was not taken from elsewhere."""
    if not files.taken_from.exists():
        return None
    note = read_record(files.taken_from, {"path": str, "sha256": str}, {"learned_unlabeled": bool})
    return TakenFrom(note["path"], note["sha256"], note.get("learned_unlabeled"))
