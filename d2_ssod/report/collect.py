"""The numbers of a run, read from its folder; what is not there yet, or damaged, is left out."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from detectron2.config import CfgNode

from d2_ssod.artifacts import (
    PhaseFolder,
    RunFolder,
    Summary,
    best_of,
    counts_of_training,
    digest_of_learned,
    has_learned_unlabeled,
    load_classes,
    load_own_summary,
    load_summaries,
    load_validated,
    load_validated_ensembles,
    numbers_in,
    read_history,
    were_changed,
    yardstick_of,
)
from d2_ssod.errors import ConfigError, one_line, shortened
from d2_ssod.json_files import read_json_lines
from d2_ssod.modeling import detector_of

from .labels import LabelTable, read_labels
from .steps import steps_of

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
class Control:
    """What is known of the run to compare with.

    Attributes:
        folder: where it lies.
        metrics: of its last model.
        has_learned_unlabeled: it has not learned from labels alone; None if that is not known.
        image_passes: images that it was trained on, each time counted; None if that is not known.
        has_other_labels: its phase 0 was trained on other labeled images, as far as that is known.
    """

    folder: Path
    metrics: Metrics
    has_learned_unlabeled: bool | None = False
    image_passes: int | None = None
    has_other_labels: bool = False


@dataclass(frozen=True)
class Run:
    """What is known of a run.

    Attributes:
        cfg: its config.
        classes: names of the classes; none before phase 0 begins.
        summary: of its models; None before they are evaluated.
        phases: 0..N.
        history: what it did, oldest first.
        control: another run, to compare with.
        problems: what could not be read, each in a sentence.
        ensembles: their metrics on the validation images, where these are known.
        has_learned_unlabeled: its phase 0 has learned from unlabeled images, too; None if that is
            not known, as of a model that is of no run.
    """

    cfg: CfgNode
    classes: list[str]
    summary: Summary | None
    phases: list[Phase]
    history: list[dict[str, Any]]
    control: Control | None
    problems: list[str] = field(default_factory=list)
    ensembles: dict[str, Metrics] = field(default_factory=dict)
    has_learned_unlabeled: bool | None = False

    @property
    def folder(self) -> RunFolder:
        """Where it lies."""
        return RunFolder(self.cfg.OUTPUT_DIR)

    @property
    def image_passes(self) -> int | None:
        """Count the images that it was trained on; None if a phase was trained elsewhere."""
        return _image_passes(self.folder, self.history)

    @property
    def validation(self) -> Summary | None:
        """What the validation images say of its models; None before phase 0 is judged by them."""
        phases = {phase.number: phase.validation for phase in self.phases if phase.validation}
        if 0 not in phases:
            return None
        return Summary(", ".join(self.cfg.DATASETS.VAL), phases, self.ensembles)

    @property
    def judged(self) -> Summary | None:
        """How good its models are: on the test images, or else on the validation images."""
        return self.summary or self.validation

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

    Raises:
        ConfigError: ``control`` is no run that was judged as this one is.
    """
    folder, last, problems = RunFolder(cfg.OUTPUT_DIR), cfg.SSOD.NUM_PHASES, []
    run = Run(
        cfg,
        _if_there(folder.classes, lambda path: load_classes(folder), problems) or [],
        _if_there(folder.summary(), lambda path: load_own_summary(cfg), problems),
        [_read_phase(cfg, number, problems) for number in range(last + 1)],
        read_history(folder),
        None,
        problems,
        _if_there(folder.validation, lambda path: load_validated_ensembles(folder, last), problems)
        or {},
        _has_learned_unlabeled(folder, problems, otherwise=_learns_unlabeled(cfg)),
    )
    if control is None:
        return run
    if run.judged is None:
        problems.append(f"{control} is not compared with: no model of {folder.root} is judged yet")
        return run
    last, metrics = (
        _validated_alike(control, folder)
        if run.summary is None
        else _tested_alike(control, run.summary, folder)
    )
    other = RunFolder(control)
    passes = _image_passes(other, read_history(other))
    digests = [
        _if_there(each.phase(0).trained_with, lambda _, of=each: _learned(of), problems)
        for each in (folder, other)
    ]
    has_others = None not in digests and digests[0] != digests[1]
    has_more = last > 0 or _has_learned_unlabeled(other, problems, otherwise=False)
    return replace(run, control=Control(control, metrics, has_more, passes, has_others))


def _pseudo_counts(cfg: CfgNode, phase: int) -> tuple[int, int]:
    counts = counts_of_training(cfg, phase, RunFolder(cfg.OUTPUT_DIR), 0)
    return counts["pseudo_images"], counts["pseudo_boxes"]


def _has_learned_unlabeled(
    folder: RunFolder, problems: list[str], *, otherwise: bool
) -> bool | None:
    """Tell it of phase 0, by what is noted of it; None if it is from where nothing was noted."""
    known = _if_there(folder.root, lambda _: has_learned_unlabeled(folder.phase(0)), problems)
    is_from_elsewhere = folder.phase(0).taken_from.exists()
    return known if known is not None or is_from_elsewhere else otherwise


def _learns_unlabeled(cfg: CfgNode) -> bool:
    """Tell whether the config's detector does."""
    try:
        return detector_of(cfg).learns_unlabeled
    except ConfigError:  # a script of one's own has registered it
        return False


def _learned(folder: RunFolder) -> str | None:
    return digest_of_learned(folder, 0, "restore it")


def _image_passes(folder: RunFolder, history: Sequence[dict[str, Any]]) -> int | None:
    passes = sum(step.image_passes for step in steps_of(history))
    return passes if passes and not folder.phase(0).taken_from.exists() else None


def _read_phase(cfg: CfgNode, number: int, problems: list[str]) -> Phase:
    folder = RunFolder(cfg.OUTPUT_DIR)
    files = folder.phase(number)
    curves = read_json_lines(files.metrics) if files.metrics.exists() else ()
    rows: list[dict[str, float]] = []
    for row in (numbers_in(row) for row in curves if isinstance(row, dict)):
        if "iteration" in row:
            while rows and rows[-1]["iteration"] > row["iteration"]:
                rows.pop()  # of a training that was killed, or done anew
            if rows and rows[-1]["iteration"] == row["iteration"]:
                row = rows.pop() | row
            rows.append(row)
    learned = _if_there(files.pseudo_labels, lambda _: _pseudo_counts(cfg, number), problems)
    return Phase(
        number,
        files,
        _if_there(files.validation, lambda path: load_validated(folder, number), problems),
        _if_there(
            files.manifest,
            lambda path: read_labels(path, number, learned, were_changed=were_changed(files)),
            problems,
        ),
        rows,
    )


def _tested_alike(folder: Path, summary: Summary, own: RunFolder) -> tuple[int, Metrics]:
    """Read what the test images say of the last model of another run, and its phase.

    Raises:
        ConfigError: it was not judged on any, or in another way than one's own.
    """
    others = load_summaries(RunFolder(folder))
    if not others:
        raise ConfigError(
            f"{RunFolder(folder).summary()}: no such file; name the folder of a run that has "
            "ended, and judged its models (with DATASETS.TEST; train_net.py --eval-only does it "
            "afterwards)"
        )
    measure, measures = _measures(own)(summary), _measures(RunFolder(folder))
    alike = [other for other in others if measures(other) == measure]
    if not alike:
        if measure == summary.dataset in {other.dataset for other in others}:
            raise ConfigError(
                f"how {own.root} was judged is not known, as {own.history} does not say it; judge "
                "it again (train_net.py --eval-only), to compare it"
            )
        found = ", ".join(sorted({other.dataset for other in others}))
        raise ConfigError(
            f"{folder} was judged on other test images ({found}) than {own.root} "
            f"({summary.dataset}), or with other settings of inference; name a run that was "
            "judged alike (train_net.py --eval-only, with the same DATASETS.TEST, judges it again)"
        )
    phases = alike[0].phases
    return max(phases), phases[max(phases)]


def _measures(folder: RunFolder) -> Callable[[Summary], str]:
    """Tell how the models of a run were judged: by its history, or else by the data set's name."""
    events = [event for event in read_history(folder) if event.get("event") == "evaluated"]
    known = {str(e.get("data")): str(e["judged_by"]) for e in events if "judged_by" in e}
    return lambda summary: known.get(summary.dataset, summary.dataset)


def _validated_alike(folder: Path, own: RunFolder) -> tuple[int, Metrics]:
    """Read what the validation images say of the last model of another run, and its phase.

    Raises:
        ConfigError: it was not judged on any, or in another way than one's own.
    """
    other = RunFolder(folder)
    last = next(n for n in itertools.count() if not other.phase(n + 1).validation.exists())
    found = load_validated(other, last)
    if found is None:
        raise ConfigError(
            f"{other.phase(0).validation}: no such file, and {own.root} was judged on validation "
            "images alone; name the folder of a run that has ended, with the same DATASETS.VAL"
        )
    if yardstick_of(other, last) != yardstick_of(own, 0):
        raise ConfigError(
            f"{folder} was judged on other validation images (DATASETS.VAL) than {own.root}, or "
            "with other settings of inference; name a run that was judged alike"
        )
    return last, found


def _if_there(path: Path, reader: Callable[[Path], _T], problems: list[str]) -> _T | None:
    """Read a file of the run; one that is damaged is a problem, and not shown."""
    if not path.exists():
        return None
    try:
        return reader(path)
    except ConfigError as error:
        problem = str(error)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        what = one_line(error)
        problem = shortened(f"{path} is damaged ({type(error).__name__}: {what})")
    if problem not in problems:
        problems.append(problem)
    return None
