"""The numbers of a run, read from its folder; what is not there yet, or damaged, is left out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from detectron2.config import CfgNode

from d2_ssod.artifacts import PhaseFolder, RunFolder, load_classes, read_history
from d2_ssod.errors import ConfigError
from d2_ssod.json_files import read_json_lines, read_record

_T = TypeVar("_T")


@dataclass(frozen=True)
class Phase:
    """What is known of a phase.

    Attributes:
        number: 0..N.
        files: where it lies.
        metrics: of its model on the test images.
        validation: of its model on the validation images.
        manifest: how its labels came about.
        curves: losses and rates while it was trained, oldest first.
    """

    number: int
    files: PhaseFolder
    metrics: dict[str, float] | None
    validation: dict[str, float] | None
    manifest: dict[str, Any] | None
    curves: list[dict[str, float]]

    @property
    def is_trained(self) -> bool:
        """Whether its model is there."""
        return self.files.model.exists()


@dataclass(frozen=True)
class Run:
    """What is known of a run.

    Attributes:
        cfg: its config.
        classes: names of the classes; none before phase 0 begins.
        summary: the content of ``summary.json``.
        phases: 0..N.
        history: what it did, oldest first.
        control: metrics of another run's last model, to compare with, and where it lies.
        problems: what could not be read, each in a sentence.
    """

    cfg: CfgNode
    classes: list[str]
    summary: dict[str, Any] | None
    phases: list[Phase]
    history: list[dict[str, Any]]
    control: tuple[Path, dict[str, float]] | None
    problems: list[str] = field(default_factory=list)

    @property
    def folder(self) -> RunFolder:
        """Where it lies."""
        return RunFolder(self.cfg.OUTPUT_DIR)

    def read(self, reader: Callable[[], _T], default: _T) -> _T:
        """Call a reader; what is wrong with its file becomes one of the problems."""
        return _read(reader, default, self.problems)


def collect(cfg: CfgNode, control: Path | None = None) -> Run:
    """Read the numbers of a run.

    Args:
        cfg: its config, with ``OUTPUT_DIR`` where it lies now.
        control: the folder of another run, such as of labeled images only.
    """
    folder, problems = RunFolder(cfg.OUTPUT_DIR), []
    summary = _if_there(folder.summary(), _read_summary, problems)
    metrics = {phase["phase"]: phase["metrics"] for phase in summary["phases"]} if summary else {}
    return Run(
        cfg,
        _if_there(folder.classes, lambda path: load_classes(folder), problems) or [],
        summary,
        [
            _read_phase(folder, number, metrics.get(number), problems)
            for number in range(cfg.SSOD.NUM_PHASES + 1)
        ],
        read_history(folder),
        None if control is None else (control, _read_control(control)),
        problems,
    )


def _read_phase(
    folder: RunFolder, number: int, metrics: dict[str, float] | None, problems: list[str]
) -> Phase:
    files = folder.phase(number)
    validation = _if_there(files.validation, lambda p: read_record(p, {"metrics": dict}), problems)
    curves = list(read_json_lines(files.metrics)) if files.metrics.exists() else []
    return Phase(
        number,
        files,
        metrics,
        validation and validation["metrics"],
        _if_there(files.manifest, _read_manifest, problems),
        [row for row in curves if isinstance(row, dict) and "iteration" in row],
    )


def _read_summary(path: Path) -> dict[str, Any]:
    return read_record(path, {"dataset": str, "phases": list, "ensembles": dict})


def _read_manifest(path: Path) -> dict[str, Any]:
    return read_record(path, {"sources": dict, "selection": dict, "boxes": dict})


def _read_control(folder: Path) -> dict[str, float]:
    """Read the metrics of the last model of another run.

    Raises:
        ConfigError: it has none.
    """
    path = RunFolder(folder).summary()
    if not path.exists():
        raise ConfigError(f"{path}: no such file; name the folder of a run that has ended")
    return _read_summary(path)["phases"][-1]["metrics"]


def _if_there(path: Path, reader: Callable[[Path], _T], problems: list[str]) -> _T | None:
    return _read(lambda: reader(path), None, problems) if path.exists() else None


def _read(reader: Callable[[], _T], default: _T, problems: list[str]) -> _T:
    try:
        return reader()
    except ConfigError as error:
        problems.append(str(error))
        return default
