"""``trained_with.json``: the settings, labels and weights that a phase was trained with.

So a run is not gone on with by others, which would make its results a mixture of both.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode

from d2_ssod.json_files import read_record, write_json

from .differences import differences_between, refuse
from .digests import digest_of, digest_of_file
from .file_lengths import digest_of_lengths
from .initial_weights import describe_weights, other_weights
from .label_files import count_pseudo_labels
from .layout import PhaseFolder, RunFolder
from .settings import EMPTY_IMAGES, training_settings
from .taken_from import read_taken_from

_DELETE = "delete the file"
_LENGTHS = "labeled_bytes_sha256"  # None if not known; not of all versions
_COUNTS = ("labeled_images", "pseudo_images", "pseudo_boxes")


def record_training(
    own: CfgNode,
    phase: int,
    labeled: Sequence[dict],
    folder: RunFolder,
    unlabeled: Sequence[dict] = (),
) -> None:
    """Write what a phase is trained with, its pseudo-labels too; on the main process.

    Args:
        own: config of the phase.
        phase: 0..N.
        labeled: dicts of the labeled images.
        folder: of the run.
        unlabeled: dicts of those that it learns from without labels.
    """
    content = _describe(own, phase, labeled, unlabeled)
    files = folder.phase(phase)
    if files.trained_with.exists():  # and its weights may be gone since
        content["weights"] = read_training(files.trained_with)["weights"] | content["weights"]
    has_labels = phase > 0 and files.pseudo_labels.exists()
    if has_labels:
        content["pseudo_labels_sha256"] = digest_of_file(files.pseudo_labels)
    content["counts"] = _counts(own, len(labeled), files.pseudo_labels if has_labels else None)
    write_json(files.trained_with, content)


def counts_of_training(cfg: CfgNode, phase: int, folder: RunFolder, labeled: int) -> dict[str, int]:
    """Count the images and pseudo-boxes that a phase was trained on, or would be now.

    Args:
        cfg: of the run, as it is now.
        phase: 0..N.
        folder: of the run.
        labeled: number of the labeled images that there are now.

    Returns:
        ``labeled_images``, ``pseudo_images`` and ``pseudo_boxes``.
    """
    files = folder.phase(phase)
    is_known = files.has_weights() and files.trained_with.exists()
    known = read_training(files.trained_with).get("counts", {}) if is_known else {}
    if all(isinstance(known.get(name), int) for name in _COUNTS):
        return {name: known[name] for name in _COUNTS}
    return _counts(cfg, labeled, files.pseudo_labels if phase > 0 else None)


def _counts(cfg: CfgNode, labeled: int, pseudo_labels: Path | None) -> dict[str, int]:
    filter_empty, pseudo = cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS, (0, 0)
    if pseudo_labels is not None:
        pseudo = count_pseudo_labels(pseudo_labels, filter_empty=filter_empty)
    return dict(zip(_COUNTS, (labeled, *pseudo), strict=True))


def check_training(
    own: CfgNode,
    phase: int,
    labeled: Sequence[dict],
    folder: RunFolder,
    unlabeled: Sequence[dict] = (),
) -> None:
    """Check that what exists of a phase was trained with these settings, labels and images.

    Its pseudo-labels may have been changed only as long as nothing was learned from them.

    Args:
        own: config of the phase, as it would be trained now.
        phase: 0..N.
        labeled: dicts of the labeled images.
        folder: of the run.
        unlabeled: dicts of those that it learns from without labels.

    Raises:
        ConfigError: naming the first three settings that differ, or the images, or weights.
    """
    files = folder.phase(phase)
    if not files.trained_with.exists():
        return
    made, now = read_training(files.trained_with), _describe(own, phase, labeled, unlabeled)
    settings, filters = made["settings"], own.DATALOADER.FILTER_EMPTY_ANNOTATIONS
    if settings.get(EMPTY_IMAGES) != filters and not _has_empty_images(files):
        settings.pop(EMPTY_IMAGES, None)
    differences = differences_between(settings, now["settings"])
    if made["labeled_sha256"] != now["labeled_sha256"]:
        differences.append(
            "the labeled images that are trained on, or their objects, are others (DATASETS.TRAIN, "
            f"{EMPTY_IMAGES})"
        )
    elif None not in (made.get(_LENGTHS), now[_LENGTHS]) and made[_LENGTHS] != now[_LENGTHS]:
        differences.append(
            "labeled pictures were replaced by others of their names (their files have other "
            "lengths)"
        )
    if made["unlabeled_sha256"] != now["unlabeled_sha256"]:
        differences.append("the unlabeled images are others (DATASETS.UNLABELED)")
    differences += other_weights(made["weights"], now["weights"])
    if _has_other_pseudo_labels(files, made.get("pseudo_labels_sha256")):
        differences.append(
            f"{files.pseudo_labels} has been changed since (to train the phase again, delete "
            "model_*.pth beside it)"
        )
    refuse(own, f"phase {phase} in {folder.root} was trained with other settings", differences)


def _has_empty_images(files: PhaseFolder) -> bool:
    """Tell whether a phase's labels have, or may have had, images that a person has found empty."""
    path = files.pseudo_labels
    if not path.exists():
        return files.has_weights()
    without, with_them = (count_pseudo_labels(path, filter_empty=own) for own in (True, False))
    return without != with_them


def _has_other_pseudo_labels(files: PhaseFolder, trained_with: str | None) -> bool:
    """Tell whether a model, or a part of its training, is of other pseudo-labels than there are."""
    if trained_with is None or not files.has_weights() or not files.pseudo_labels.exists():
        return False
    return digest_of_file(files.pseudo_labels) != trained_with


def has_learned(folder: RunFolder, phase: int, labeled: Sequence[dict]) -> bool:
    """Tell whether a phase was trained on these labeled images, also where that is not known."""
    return digest_of_learned(folder, phase) in (None, digest_of(labeled, crowds=False))


def digest_of_learned(folder: RunFolder, phase: int, remedy: str = _DELETE) -> str | None:
    """Read the digest of the labeled images that a phase was trained on; None if not known."""
    path = folder.phase(phase).trained_with
    return read_training(path, remedy)["labeled_sha256"] if path.exists() else None


def has_learned_unlabeled(files: PhaseFolder) -> bool | None:
    """Tell whether a phase has learned from unlabeled images, too; None if that is not known."""
    if files.trained_with.exists():
        made = read_training(files.trained_with, "restore it")
        learned = made["unlabeled_sha256"] != digest_of((), crowds=False)
        return learned or "pseudo_labels_sha256" in made
    taken = read_taken_from(files)
    return None if taken is None else taken.learned_unlabeled


def had_teacher(folder: RunFolder, phase: int) -> bool:
    """Tell whether a phase is finished, and a mean teacher labeled its images."""
    files = folder.phase(phase)
    if not (files.model.exists() and files.trained_with.exists()):
        return False
    return bool(read_training(files.trained_with)["settings"].get("SSOD.TEACHER.ENABLED", False))


def read_training(path: Path, remedy: str = _DELETE) -> dict[str, Any]:
    """Read what a phase was trained with.

    Args:
        path: of ``trained_with.json``.
        remedy: what to do where it is damaged.

    Returns:
        ``settings``, ``weights``, ``labeled_sha256``, ``unlabeled_sha256``; ``counts`` and
        ``pseudo_labels_sha256`` where there are.
    """
    parts = {"settings": dict, "weights": dict, "labeled_sha256": str, "unlabeled_sha256": str}
    return read_record(path, parts, {"counts": dict}, remedy=remedy)


def _describe(
    own: CfgNode, phase: int, labeled: Sequence[dict], unlabeled: Sequence[dict]
) -> dict[str, Any]:
    return {
        "settings": training_settings(own, phase),
        "weights": describe_weights(own, phase),
        "labeled_sha256": digest_of(labeled, crowds=False),
        "unlabeled_sha256": digest_of(unlabeled, crowds=False),
        _LENGTHS: digest_of_lengths(labeled),
    }
