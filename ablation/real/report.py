"""Tables of the ways to train on real pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean

from ablation.figures import (
    Results,
    by_seed,
    differences,
    load,
    mean_and_error,
    paired,
    unpaired,
    values,
)
from ablation.figures import table as format_table
from d2_ssod.json_files import read_json

from .factorial import main_effects
from .rows import CHOICES, FACTORS, ROWS, SPLITS, RealRun, cell

Study = tuple[str, tuple[int, int], tuple[float, float]]  # data, iterations and learning rates
# What there are results of.
STUDIES: dict[str, Study] = {
    "Digits": ("digits", (1500, 2400), (0.003, 0.003)),
    "Steel (NEU)": ("neu", (3000, 5000), (0.003, 0.002)),
    "Steel (NEU), shorter": ("neu", (1500, 2400), (0.003, 0.003)),
    "Steel (NEU), 30 labeled images": ("neu_30", (1500, 2400), (0.003, 0.003)),
    "Steel (NEU), backbone trained on ImageNet": ("neu_lite", (1200, 2000), (0.001, 0.0005)),
    "Steel (NEU), backbone trained on ImageNet, other labeled images for each seed": (
        "neu_lite_redrawn",
        (1200, 2000),
        (0.001, 0.0005),
    ),
    "Steel (NEU), backbone trained on ImageNet, other labeled images, longer phase 0": (
        "neu_lite_redrawn",
        (2400, 800),
        (0.001, 0.0005),
    ),
    "Steel (NEU), backbone trained on ImageNet, 40 labeled images, others for each seed": (
        "neu_lite_40",
        (1200, 2000),
        (0.001, 0.0005),
    ),
    "Steel (NEU), backbone trained on ImageNet, the same 40 and 60 that are drawn": (
        "neu_lite_40_60_drawn",
        (1200, 2000),
        (0.001, 0.0005),
    ),
    "Steel (NEU), backbone trained on ImageNet, the same 40 and the first 60 of the queue": (
        "neu_lite_40_60_queue",
        (1200, 2000),
        (0.001, 0.0005),
    ),
    "Steel (NEU), backbone trained on ImageNet, 270 labeled images, others for each seed": (
        "neu_lite_270",
        (1200, 2000),
        (0.001, 0.0005),
    ),
    "Steel (NEU), backbone trained on ImageNet, 270 labeled images, longer phase 0": (
        "neu_lite_270",
        (2400, 800),
        (0.001, 0.0005),
    ),
    "Steel (NEU), backbone trained on ImageNet, 400 labeled images, others for each seed": (
        "neu_lite_400",
        (1200, 2000),
        (0.001, 0.0005),
    ),
    "Steel (NEU), backbone trained on ImageNet, 400 labeled images, longer phase 0": (
        "neu_lite_400",
        (2400, 800),
        (0.001, 0.0005),
    ),
    "Blood cells (BCCD) at 256 pixels": ("bccd_256", (1500, 2400), (0.003, 0.003)),
    "Blood cells (BCCD), backbone trained on ImageNet": (
        "bccd_lite",
        (600, 1000),
        (0.001, 0.0005),
    ),
    "Blood cells (BCCD), backbone trained on ImageNet, other labeled images for each seed": (
        "bccd_lite_redrawn",
        (600, 1000),
        (0.001, 0.0005),
    ),
}
_KEYS = ("AP50", "AP")
OLDER = "†"


def parts() -> Iterator[str]:
    """Headings and tables of all studies and splits that have results."""
    for title, study in STUDIES.items():
        for split in SPLITS:
            found = {row: _results(row, study, split) for row in ROWS}
            rows = {row: results for row, results in found.items() if results}
            if rows.keys() - {"fs_plus"}:
                yield f"### {title}, {split}"
                yield _accuracy_table(rows)
                yield from _difference_parts(rows)
                yield from _factorial_parts(rows)
                yield _provenance(rows)


def _results(row: str, study: Study, split: str) -> Results:
    """Load those of a row; FS+, which has one phase, is that of a study with the same length."""
    data, lengths, rates = study
    alike = [
        (lengths, rates),
        *(
            (other_lengths, other_rates)
            for other, other_lengths, other_rates in STUDIES.values()
            if (other, sum(other_lengths), other_rates[0]) == (data, sum(lengths), rates[0])
        ),
    ]
    for of_study in alike if row == "fs_plus" else alike[:1]:
        folder = RealRun(Path(data), row, *of_study, 0, split).result.parent
        if results := load(folder):
            return results
    return {}


def table(runs: Sequence[RealRun]) -> str:
    """Means over the seeds that are finished, with standard errors where there are two."""
    rows: dict[str, dict[int, dict]] = {}
    for run in runs:
        if run.result.exists():
            rows.setdefault(run.row, {})[run.seed] = read_json(run.result)
    return _accuracy_table(rows)


def _accuracy_table(rows: Mapping[str, Results]) -> str:
    return format_table(
        [_line(row, rows) for row in rows],
        [
            *("", "seeds", "image passes", "phase 0 AP50 / AP", "last AP50 / AP", "to FS+"),
            *("all fused AP50 / AP", "to FS+ x as many", "labels: precision / recall"),
        ],
    )


def _line(row: str, rows: Mapping[str, Results]) -> list[object]:
    results = rows[row]
    phases, is_fused = ROWS[row].phases, bool(ROWS[row].fuses)
    alone = [] if is_fused else _values(results, f"phase_{phases}")
    fused = _values(results, "0~N")
    models = ROWS[row].models if is_fused else phases + 1
    fs_plus_fused = _values(rows.get(f"fs_plus_x{models}", {}), "0~N")
    return [
        *(ROWS[row].title + _mark(row, rows), len(results), _passes(results)),
        _both(_values(results, "phase_0")) if phases else "",
        _both(alone),
        _to_fs_plus(row, rows) if alone and row != "fs_plus" else "",
        _both(fused),
        "" if row.startswith("fs_plus") else _both_differences(fused, fs_plus_fused),
        _label_quality(results),
    ]


def _to_fs_plus(row: str, rows: Mapping[str, Results]) -> str:
    """Seed by seed: in some studies each has labeled images of its own, which both share."""
    own, fs_plus = rows[row], rows.get("fs_plus", {})
    return _both_paired(own, f"phase_{ROWS[row].phases}", fs_plus, "phase_0", by_seed)


def _mark(row: str, rows: Mapping[str, Results]) -> str:
    """Mark a row that began from another phase 0 than the one of its seed in this table."""
    phase_0 = rows.get("fs", {})
    if ROWS[row].fuses or ROWS[row].phases == 0:
        return ""
    is_other = any(
        seed in phase_0 and result["metrics"]["phase_0"] != phase_0[seed]["metrics"]["phase_0"]
        for seed, result in rows[row].items()
    )
    return f" {OLDER}" if is_other else ""


def _difference_parts(rows: Mapping[str, Results]) -> Iterator[str]:
    """What else than strong augmentation is worth, seed by seed, as phase 0 is shared."""
    controls = [row for row in ("none", "none_held", "constant_held") if row in rows]
    lines = [
        [ROWS[row].title, *("" if row == c else _paired(rows, row, c) for c in controls)]
        for row in rows
        if ROWS[row].overrides.get("SSOD.AUG.STRONG") == "pseudo"
    ]
    if controls and len(lines) > 1:
        yield "Differences of the last AP50 / AP seed by seed (in brackets how many):"
        yield format_table(lines, ["", *(f"to: {ROWS[c].title}" for c in controls)])


def _factorial_parts(rows: Mapping[str, Results]) -> Iterator[str]:
    """What each part of two-tier labels is worth, by the seeds that have all combinations."""
    cells = [rows.get(cell(on), {}) for on in CHOICES]
    seeds = sorted(set.intersection(*(set(of_cell) for of_cell in cells)))
    if not seeds:
        return
    effects = [
        main_effects(
            {
                on: mean([of_cell[seed]["metrics"]["phase_2"][key] for seed in seeds])
                for on, of_cell in zip(CHOICES, cells, strict=True)
            }
        )
        for key in _KEYS
    ]
    yield (
        f"What the parts of two-tier labels add to the last AP50 / AP, each on average over all "
        f"combinations of the others ({_of_seeds(seeds)}; ± by the interactions):"
    )
    yield format_table(
        [
            [f, " / ".join("{:+.1f} ± {:.1f}".format(*of_key[f]) for of_key in effects)]
            for f in FACTORS
        ],
        ["", "effect"],
    )


def _of_seeds(seeds: Sequence[int]) -> str:
    if len(seeds) == 1:
        return f"seed {seeds[0]} alone"
    return f"seeds {', '.join(map(str, seeds))}"


def _provenance(rows: Mapping[str, Results]) -> str:
    found = [result for results in rows.values() for result in results.values()]
    commits = sorted({result["commit"] for result in found})
    versions = sorted({result["versions"]["torch"] for result in found})
    return f"Made with torch {', '.join(versions)}, by the code of {', '.join(commits)}."


def _values(results: Results, model: str) -> list[list[float]]:
    """Of each key of a model the values of all seeds that have it."""
    found = [values(results, model, key) for key in _KEYS]
    return found if found[0] else []


def _both(values: list[list[float]]) -> str:
    return " / ".join(map(mean_and_error, values))


def _both_differences(own: list[list[float]], reference: list[list[float]]) -> str:
    return " / ".join(map(unpaired, own, reference))


def _paired(rows: Mapping[str, Results], row: str, control: str) -> str:
    own, other = (f"phase_{ROWS[name].phases}" for name in (row, control))
    return _both_paired(rows[row], own, rows[control], other, differences)


def _both_paired(
    own: Results, model: str, reference: Results, other: str, differences: Callable
) -> str:
    """Of each key the mean of the differences between two models."""
    found = [paired(differences(own, model, reference, other, key)) for key in _KEYS]
    return " / ".join(found) if reference else ""


def _passes(results: Results) -> str:
    (passes,) = {result["image_passes"] for result in results.values()}
    return f"{passes:,}".replace(",", " ")


def _label_quality(results: Results) -> str:
    """Of the last phase's labels."""
    found = [r["label_quality"] for r in results.values() if r.get("label_quality")]
    last = [quality[max(quality)] for quality in found]
    return " / ".join(
        mean_and_error([quality[key] for quality in last], digits=2)
        for key in ("precision", "recall")
        if last
    )
