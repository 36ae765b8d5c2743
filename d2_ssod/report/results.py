"""How good the models of a run are, alone and together, and what to use, in a sentence."""

from __future__ import annotations

from dataclasses import dataclass

from d2_ssod.artifacts import better_ensemble, ensembles_of, title_of_ensemble

from .collect import Metrics, Phase, Run

# In this order, of those that there are; on Pascal VOC its own metrics, and COCO's by their names.
COLUMNS = (
    *("AP", "AP50", "AP75", "AP/coco", "AP50/coco"),
    *("AP/easy", "AP50/easy", "AP/difficult", "AP50/difficult"),
)
# Of one run; two models that differ by less may as well be equal.
NOISE = 1.2
_MAIN = "AP50"
_ALIKE = (0.8, 1.25)  # share of the image passes; what a killed process did is not counted


@dataclass(frozen=True)
class Row:
    """A model, or several together.

    Attributes:
        title: what it is.
        short: for curves and columns.
        metrics: how good it is.
        kind: "phase", "ensemble" or "control".
    """

    title: str
    short: str
    metrics: Metrics
    kind: str = "phase"

    def value(self, column: str) -> float | None:
        """Give a metric; None where there is none."""
        return self.metrics.get(column)


@dataclass(frozen=True)
class Results:
    """All models that were judged: on the test images, or else on the validation images.

    Attributes:
        rows: of the models, phase 0 first.
        classes: names of those that have an AP of their own.
        dataset: names of the data sets whose images these are.
        by_test: whether they are test images.
    """

    rows: list[Row]
    classes: list[str]
    dataset: str = ""
    by_test: bool = True

    @classmethod
    def of(cls, run: Run) -> Results:
        """Take the rows of a run's models, and of the run to compare with."""
        if run.judged is None:
            return cls([], [])
        phases = run.judged.phases
        rows = [Row(f"phase {n}", str(n), metrics) for n, metrics in phases.items()]
        last = max(phases)
        for name in ensembles_of(last):
            if name in run.judged.ensembles:
                metrics, name = run.judged.ensembles[name], title_of_ensemble(name, last)
                rows.append(Row(f"phases {name} together", name, metrics, "ensemble"))
        if run.control is not None:
            title = f"for comparison: {run.control.folder.name}"
            rows.append(Row(title, "control", run.control.metrics, "control"))
        classes = [name for name in run.classes if f"AP-{name}" in rows[0].metrics]
        return cls(rows, classes, run.judged.dataset, by_test=run.summary is not None)

    @property
    def images(self) -> str:
        """What images they were judged on."""
        return "test" if self.by_test else "validation"

    @property
    def columns(self) -> list[str]:
        """Name the metrics that there are."""
        return [name for name in COLUMNS if any(name in row.metrics for row in self.rows)]

    @property
    def of_run(self) -> list[Row]:
        """The rows of the run itself."""
        return [row for row in self.rows if row.kind != "control"]

    def gain(self, row: Row, column: str) -> float | None:
        """By how much a row is better than phase 0."""
        values = row.value(column), self.rows[0].value(column)
        return None if None in values or row is self.rows[0] else values[0] - values[1]

    def of_phase(self, number: int) -> Row | None:
        """Find the row of a phase; None if it was not judged."""
        rows = (row for row in self.of_run if row.kind == "phase" and row.short == str(number))
        return next(rows, None)

    def best(self, kinds: tuple[str, ...]) -> Row | None:
        """Find the row of these kinds with the best AP, the first of equal ones.

        As ``predict --phase best`` does; what is said of it is its AP50.
        """
        known = [r for r in self.of_run if r.kind in kinds and {"AP", _MAIN} <= r.metrics.keys()]
        return max(known, key=lambda row: row.metrics["AP"], default=None)


def verdict(run: Run, results: Results) -> list[str]:
    """Say in plain sentences whether it helped, and what to use.

    A single model is chosen by the validation images, where the phases were judged on such; by the
    test images only where there is no other way.
    """
    best, chosen = results.best(("phase", "ensemble")), run.validated_best
    by_validation = [] if chosen is None else [_by_validation(run, results, chosen)]
    if best is None or (chosen is None and not results.by_test):
        return [*by_validation, _how_far(run)]
    if chosen is None:
        single = results.best(("phase",))
        advice = [_what_to_use(run, results, best), *_alone(results, best), *_by_test(results)]
    else:
        single = results.of_phase(chosen.number)
        advice = [*by_validation, *_together(run, results, chosen, best)]
    return [
        *advice,
        *(_worse_phase(results, row) for row in results.of_run if _is_worse(results, row)),
        *_compared(results, single, best, run),
        *_unlike(run),
        *([] if results.by_test and _are_all_judged(run) else [_how_far(run)]),
    ]


def _are_all_judged(run: Run) -> bool:
    return run.summary is not None and len(run.summary.phases) >= len(run.phases)


def _how_far(run: Run) -> str:
    trained = sum(phase.is_trained for phase in run.phases)
    text = f"{trained} of {len(run.phases)} phases are trained."
    validated = [p for p in run.phases if p.validation and "AP" in p.validation]
    if validated and run.validated_best is None:  # or it is said with the phase to use
        found = ", ".join(f"phase {p.number} {p.validation['AP']:.1f}" for p in validated)
        text += f" AP on the validation images: {found}."
    if trained < len(run.phases):
        return f"{text} The run goes on with --resume."
    if run.summary is None:
        return f"{text} Nothing was judged on test images yet."
    judged = ", ".join(map(str, run.summary.phases))
    return f"{text} On test images phases {judged} alone were judged (train_net.py --eval-only)."


def _by_validation(run: Run, results: Results, chosen: Phase) -> str:
    """Name the phase that is best on the validation images, and how good it is."""
    aps = [f"phase {phase.number} {phase.validation['AP']:.1f}" for phase in run.phases]
    alone = ", trained on the labeled images alone"
    is_alone = chosen.number == 0 and run.has_learned_unlabeled is False
    text = f"Use phase {chosen.number}{alone if is_alone else ''}"
    if run.cfg.SSOD.KEEP_BEST and run.folder.best.exists():
        text += f" ({run.folder.relative(run.folder.best)})"
    text += f": chosen by AP on the validation images, {', '.join(aps)}."
    if is_alone and len(run.phases) > 1:
        text += " Unlabeled images did not help."
    row = results.of_phase(chosen.number)
    if row is None or row.value(_MAIN) is None:
        return text
    value = f"{row.value(_MAIN):.1f} {_MAIN}{_gains(results, row)}"
    return f"{text} On the {results.images} images it has {value}"


def _together(run: Run, results: Results, chosen: Phase, best: Row) -> list[str]:
    """Describe the best ensemble, if it is better than any phase alone."""
    if not run.ensembles:
        if best.kind != "ensemble":
            return []
        value = f"{best.value(_MAIN):.1f} {_MAIN}{_on(results)}{_gains(results, best)}"
        not_judged = "Ensembles were not judged on the validation images."
        return [f"The ensemble of {best.title} has {value} {not_judged}"]
    name = better_ensemble(run.ensembles, chosen.validation["AP"])
    if name is None:
        return []
    short = title_of_ensemble(name, len(run.phases) - 1)
    text = (
        f"The ensemble of phases {short} together is better still, AP "
        f"{run.ensembles[name]['AP']:.1f} on the validation images"
    )
    row = next((row for row in results.of_run if row.short == short), None)
    if row is None or row.value(_MAIN) is None:
        return [f"{text}."]
    return [f"{text}, {row.value(_MAIN):.1f} {_MAIN}{_on(results)}{_gains(results, row)}"]


def _on(results: Results) -> str:
    """Say that a figure is of the test images, where what it is beside is not."""
    return " on the test images" if results.by_test else ""


def _by_test(results: Results) -> list[str]:
    """Say that the test images have chosen, where there was something to choose."""
    if len(results.of_run) == 1:
        return []
    return [
        "Chosen by the test images, which makes its figure on them too good; validation images "
        "(DATASETS.VAL) would choose without that."
    ]


def _what_to_use(run: Run, results: Results, best: Row) -> str:
    name = best.title if best.kind == "phase" else f"the ensemble of {best.title}"
    value = f"{best.value(_MAIN):.1f} {_MAIN}"
    if results.gain(best, _MAIN) is None:
        if run.has_learned_unlabeled is not False:
            return f"Use {name}: {value}."
        rest = " Unlabeled images did not help." if len(results.of_run) > 1 else ""
        return f"Use {name}, trained on the labeled images alone: {value}.{rest}"
    return f"Use {name}: {value}{_gains(results, best)}"


def _gains(results: Results, row: Row) -> str:
    """End a sentence on a row's AP50 with its gain over phase 0, which has none itself."""
    gain, of_ap = results.gain(row, _MAIN), results.gain(row, "AP")
    if gain is None:
        return "."
    text = f", {signed(gain)} over phase 0"
    text += f" ({signed(of_ap)} AP)." if of_ap is not None else "."
    return text + (f" Within the noise of one run ({NOISE})." if abs(gain) < NOISE else "")


def _alone(results: Results, best: Row) -> list[str]:
    single = results.best(("phase",))
    if best.kind == "phase" or single is None or len(results.of_run) == 1:
        return []
    gain = results.gain(single, _MAIN)
    rest = "" if gain is None else f", {signed(gain)} over phase 0"
    return [f"Of single models, {single.title} is best: {single.value(_MAIN):.1f} {_MAIN}{rest}."]


def _is_worse(results: Results, row: Row) -> bool:
    gain = results.gain(row, _MAIN)
    return row.kind == "phase" and gain is not None and gain < -NOISE


def _worse_phase(results: Results, row: Row) -> str:
    gain = results.gain(row, _MAIN)
    text = f"{row.title.capitalize()} alone is worse than phase 0 ({signed(gain)})"
    losses = {name: results.gain(row, f"AP-{name}") for name in results.classes}
    known = {name: loss for name, loss in losses.items() if loss is not None and loss < 0}
    if known:
        worst = min(known, key=known.get)
        text += f"; see class {worst} ({signed(known[worst])} AP)"
    return text + "."


def _compared(results: Results, single: Row | None, best: Row, run: Run) -> list[str]:
    """Say what the run to compare with says of the single model, and of the best ensemble.

    Args:
        results: of both runs.
        single: the model to use.
        best: the best row.
        run: the one that is reported.
    """
    control = next((row for row in results.rows if row.kind == "control"), None)
    if control is None or single is None or None in (control.value(_MAIN), single.value(_MAIN)):
        return []
    differences = [row.value(_MAIN) - control.value(_MAIN) for row in (single, best)]
    text = f"{single.title.capitalize()} is {signed(differences[0])} {_MAIN} against "
    text += f"{control.title.removeprefix('for comparison: ')} ({control.value(_MAIN):.1f})"
    text += "" if results.by_test else " on the validation images, which have chosen it"
    if best.kind == "ensemble":
        text += f", the ensemble {signed(differences[1])}"
    if single.short == "0" and run.has_learned_unlabeled is False:
        return [f"{text}; phase 0 has learned from the labels alone, too."]
    if abs(differences[0]) < NOISE:
        return [f"{text}: no difference beyond the noise."]
    if run.control.has_learned_unlabeled is not False:
        return [f"{text}."]
    better = "the unlabeled images paid" if differences[0] > 0 else "the labels alone were better"
    return [f"{text}: {better}."]


def _unlike(run: Run) -> list[str]:
    """Say what makes the comparison with another run an unfair one."""
    if run.control is None:
        return []
    name, found = run.control.folder.name, []
    if run.control.has_learned_unlabeled:
        found.append(f"{name} has learned from unlabeled images itself.")
    if run.control.has_other_labels:
        found.append(f"{name} was trained on other labeled images, or other objects in them.")
    passes = run.image_passes, run.control.image_passes
    if None not in passes and not _ALIKE[0] <= passes[1] / passes[0] <= _ALIKE[1]:
        found.append(
            f"{name} was trained on {passes[1]} images, each time counted, this run on "
            f"{passes[0]}: a comparison that says something takes as many."
        )
    return found


def signed(value: float | None) -> str:
    """Write a gain or loss; nothing where it is not known."""
    return "" if value is None else f"{value:+.1f}".replace("-", "−")
