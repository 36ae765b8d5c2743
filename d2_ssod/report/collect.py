"""The numbers of a run, read from its folder; what is not there yet, or damaged, is left out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from detectron2.config import CfgNode

from d2_ssod.artifacts import (
    PhaseFolder,
    RunFolder,
    Summary,
    best_of,
    load_classes,
    load_ensemble_validation,
    load_summary,
    numbers_in,
    read_history,
)
from d2_ssod.errors import ConfigError, one_line, shortened
from d2_ssod.json_files import read_json_lines, read_record

from .labels import LabelTable, read_labels

_T = TypeVar("_T")


Metrics = dict[str, float]


@dataclass(frozen=True)
class Phase:
    """What is known of a phase.

    Attributes:
        number: 0..N.
        files: where it lies.
        validation: metrics of its model on the validation images.
        labels: how its labels came about.
        curves: losses and rates while it was trained, oldest first.
    """

    number: int
    files: PhaseFolder
    validation: Metrics | None
    labels: LabelTable | None
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
        summary: of its models; None before they are evaluated.
        phases: 0..N.
        history: what it did, oldest first.
        control: metrics of another run's last model, to compare with, and where it lies.
        problems: what could not be read, each in a sentence.
        ensembles: their AP on the validation images, where that is known.
    """

    cfg: CfgNode
    classes: list[str]
    summary: Summary | None
    phases: list[Phase]
    history: list[dict[str, Any]]
    control: tuple[Path, Metrics] | None
    problems: list[str] = field(default_factory=list)
    ensembles: dict[str, float] = field(default_factory=dict)

    @property
    def folder(self) -> RunFolder:
        """Where it lies."""
        return RunFolder(self.cfg.OUTPUT_DIR)

    @property
    def validated_best(self) -> Phase | None:
        """The phase that is best on the validation images; None unless all were validated."""
        best = best_of([(phase.validation or {}).get("AP") for phase in self.phases])
        return None if best is None else self.phases[best]

    def read(self, reader: Callable[[], _T], default: _T) -> _T:
        """Call a reader; what is wrong with its file becomes one of the problems."""
        try:
            return reader()
        except ConfigError as error:
            self.problems.append(str(error))
            return default


def collect(cfg: CfgNode, control: Path | None = None) -> Run:
    """Read the numbers of a run.

    Args:
        cfg: its config, with ``OUTPUT_DIR`` where it lies now.
        control: the folder of another run, such as of labeled images only.
    """
    folder, last, problems = RunFolder(cfg.OUTPUT_DIR), cfg.SSOD.NUM_PHASES, []
    return Run(
        cfg,
        _if_there(folder.classes, lambda path: load_classes(folder), problems) or [],
        _if_there(folder.summary(), load_summary, problems),
        [_read_phase(folder, number, problems) for number in range(last + 1)],
        read_history(folder),
        None if control is None else (control, _read_control(control)),
        problems,
        _if_there(folder.validation, lambda path: _read_ensembles(folder, last), problems) or {},
    )


def _read_ensembles(folder: RunFolder, num_phases: int) -> Metrics:
    return numbers_in(load_ensemble_validation(folder, num_phases) or {})


def _read_phase(folder: RunFolder, number: int, problems: list[str]) -> Phase:
    files = folder.phase(number)
    curves = read_json_lines(files.metrics) if files.metrics.exists() else ()
    rows = [numbers_in(row) for row in curves if isinstance(row, dict)]
    return Phase(
        number,
        files,
        _if_there(
            files.validation,
            lambda path: numbers_in(read_record(path, {"metrics": dict})["metrics"]),
            problems,
        ),
        _if_there(files.manifest, lambda path: read_labels(path, number), problems),
        [row for row in rows if "iteration" in row],
    )


def _read_control(folder: Path) -> Metrics:
    """Read the metrics of the last model of another run.

    Raises:
        ConfigError: it has none.
    """
    path = RunFolder(folder).summary()
    if not path.exists():
        raise ConfigError(
            f"{path}: no such file; name the folder of a run that has ended, and judged its models "
            "(with DATASETS.TEST; train_net.py --eval-only does it afterwards)"
        )
    phases = load_summary(path).phases
    return phases[max(phases)]


def _if_there(path: Path, reader: Callable[[Path], _T], problems: list[str]) -> _T | None:
    """Read a file of the run; one that is damaged is a problem, and not shown."""
    if not path.exists():
        return None
    try:
        return reader(path)
    except ConfigError as error:
        problems.append(str(error))
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        what = one_line(error)
        problems.append(shortened(f"{path} is damaged ({type(error).__name__}: {what})"))
    return None
