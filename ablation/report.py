"""Write ``docs/ablation.md`` from the finished runs: ``python -m ablation.report``.

``--control`` prints one line instead: what the demo's table must beat.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from . import figures, one_stage
from .figures import Results, differences, mean_and_error, paired, table, unpaired, values
from .real import report as real_report
from .rows import MAIN_ROWS, RESULTS, SEMI_SUPERVISED, SETTINGS, SUPERVISED

REPORT = Path(__file__).parent.parent / "docs" / "ablation.md"


def main() -> None:
    """Write the report, or print the control."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--control", action="store_true", help="print the demo's control")
    if parser.parse_args().control:
        print(control())
        return
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(report())
    print(f"Wrote {REPORT}")


def load(setting: str, row: str) -> Results:
    """The finished runs of a row."""
    return figures.load(RESULTS / setting / row)


def control() -> str:
    """The control that the demo's last phase and ensemble must beat, in one line."""
    found = values(load("ordinary", "fs_plus"), "phase_0", "AP50")
    if not found:
        return "Control (labeled images only, as many iterations): no result yet, `make ablation`"
    return (
        "To beat, as it trains as long on the labeled images alone: AP50 "
        f"{mean_and_error(found)} ({len(found)} seeds; docs/ablation.md)"
    )


def report() -> str:
    """The whole text of ``docs/ablation.md``."""
    return (
        "\n\n".join(
            [
                _INTRODUCTION,
                "## Labeled images only",
                _supervised_table(),
                *(part for setting in SETTINGS for part in _setting_parts(setting)),
                "## One-stage detectors",
                _one_stage_table(),
                "## All systems at equal image passes, also on photographs",
                _REAL,
                *real_report.parts(),
                "## How it was made",
                _provenance(),
            ]
        )
        + "\n"
    )


def _supervised_table() -> str:
    rows = []
    for row, title in SUPERVISED.items():
        model = "0~N" if row == "fs_x3" else "phase_0"
        results = load("ordinary", row)
        columns = ("AP50", "AP", "AP50/easy", "AP50/difficult")
        cells = [mean_and_error(values(results, model, key)) for key in columns]
        rows.append([title, len(results), *cells])
    return table(rows, ["", "seeds", "AP50", "AP", "AP50 easy", "AP50 difficult"])


def _setting_parts(setting: str) -> list[str]:
    heading = {
        "ordinary": "## Two phases, thresholds as in the method",
        "sparse": "## Two phases, sparse: only the better-scored half of the pseudo-boxes",
    }[setting]
    missing = [title for row, (title, _) in SEMI_SUPERVISED.items() if not load(setting, row)]
    parts = [heading]
    if len(missing) < len(SEMI_SUPERVISED):
        parts += [
            _accuracy_table(setting),
            "Differences of the last model's AP50: to the rows of this table seed by seed (in "
            "brackets how many), to FS+, which shares nothing with them, between the means:",
            _difference_table(setting),
            "How well weights tell missed objects from background (AUC, 0.5 is chance), and the "
            "mean weight of background RoIs in training:",
            _separation_table(setting),
        ]
    if missing:
        parts.append(f"Not run yet: {'; '.join(missing)}.")
    return parts


def _accuracy_table(setting: str) -> str:
    rows = []
    for row, results in _finished(setting).items():
        columns = [
            ("phase_1", "AP50"),
            *((_last(row), key) for key in ("AP50", "AP", "AP50/easy", "AP50/difficult")),
            ("1~N", "AP50"),
            ("0~N", "AP50"),
        ]
        cells = [mean_and_error(values(results, *column)) for column in columns]
        rows.append([SEMI_SUPERVISED[row][0], len(results), *cells])
    return table(
        rows,
        [
            *("", "seeds", "phase 1 AP50", "last AP50", "last AP", "last AP50 easy"),
            *("last AP50 difficult", "1~N AP50", "0~N AP50"),
        ],
    )


def _difference_table(setting: str) -> str:
    """Each finished row against the two controls of its setting and against FS+."""
    controls = {name: load(setting, name) for name in ("none", "constant")}
    fs_plus = values(load("ordinary", "fs_plus"), "phase_0", "AP50")
    rows = []
    for row, own in _finished(setting).items():
        to_controls = [
            "" if row == name else paired(differences(own, _last(row), control, "phase_2"))
            for name, control in controls.items()
        ]
        cells = [*to_controls, unpaired(values(own, _last(row), "AP50"), fs_plus)]
        rows.append([SEMI_SUPERVISED[row][0], *cells])
    return table(rows, ["", "to no re-weighting", "to constant", "to FS+"])


def _one_stage_table() -> str:
    """SSD's rows, each with its gain over phase 0 alone and over FS+."""
    results = {row: load("one_stage", row) for row in one_stage.ROWS}
    fs = values(results["two_phase"], "phase_0", "AP50")
    fs_plus = values(results["fs_plus"], "phase_0", "AP50")
    alone = [mean_and_error(values(results["two_phase"], "phase_0", key)) for key in ("AP50", "AP")]
    rows = [["SSD, FS: phase 0", len(fs), f"{one_stage.FIRST} x 1", *alone, "", "", ""]]
    for name, row in one_stage.ROWS.items():
        own = values(results[name], row.last, "AP50")
        if not own:
            continue
        fused = values(results[name], "0~N", "AP50")
        rows.append(
            [
                *(row.title, len(own), f"{sum(row.lengths)} x {row.views}"),
                *(mean_and_error(values(results[name], row.last, key)) for key in ("AP50", "AP")),
                *(unpaired(own, fs), "" if name == "fs_plus" else unpaired(own, fs_plus)),
                mean_and_error(fused) if fused else "",
            ]
        )
    headers = ["SSD", "seeds", "iterations x views", "last AP50", "AP", "to FS", "to FS+"]
    return _ONE_STAGE + table(rows, [*headers, "0~N AP50"])


def _finished(setting: str) -> dict[str, Results]:
    """The rows of a setting that have results."""
    found = {row: load(setting, row) for row in SEMI_SUPERVISED}
    return {row: results for row, results in found.items() if results}


def _last(row: str) -> str:
    """The model of a row's last phase."""
    return "phase_1" if row == "one_phase" else "phase_2"


def _separation_table(setting: str) -> str:
    rows = []
    for row, results in _finished(setting).items():
        found = [r["separation"] for r in results.values()]
        cells = [
            mean_and_error([s[phase]["auc"] for s in found if s.get(phase)], digits=3)
            for phase in ("phase_1", "phase_2")
        ]
        weights = [r["mean_weight"] for r in results.values() if r["mean_weight"] is not None]
        if weights:
            rows.append([SEMI_SUPERVISED[row][0], *cells, mean_and_error(weights, digits=3)])
    return table(rows, ["", "AUC phase 1", "AUC phase 2", "mean weight"])


def _provenance() -> str:
    runs = [
        content
        for setting in SETTINGS
        for row in [*SUPERVISED, *SEMI_SUPERVISED]
        for content in load(setting, row).values()
    ]
    if not runs:
        return "No run is finished yet."
    versions = sorted({f"torch {r['versions']['torch']}" for r in runs})
    commits = sorted({r["commit"] for r in runs})
    return (
        f"{len(runs)} finished runs, {sum(r['seconds'] for r in runs) / 3600:.1f} hours of one CPU "
        f"core (shared machine); {', '.join(versions)}; commits {', '.join(commits)} (dirty: with "
        "changes that were not committed yet)."
    )


_ONE_STAGE = """Made by `python -m ablation.one_stage`: the small SSD of `configs/digits_ssd.yaml`,
batches of 8 images. CSD and ISD send every image through the network two and three times; nothing
was tuned.

"""

_REAL = f"""Made by `python -m ablation.real FOLDER`: the small detector, from scratch unless a
title says otherwise, batches of 8 images, moving averages of the weights as models;
[real_images.md](real_images.md) says what to make of it. Where models of other seeds label along,
their image passes are counted, too. Differences to FS+ are seed by seed (in brackets how many): it
shares its labels with a row, which are others for each seed in some studies, and no phase 0. Those
of fused models are between means; fused models of FS and FS+ are of other seeds in turn, so that
their errors are not independent of each other. {real_report.OLDER}: some seeds of the row are of
older code, with another phase 0 than FS and FS+ of today; trained again, an FS+ moved by up to 5
AP50, so read such differences with care."""

_INTRODUCTION = f"""# What each part is worth on `digit_scenes`

The first tables are of the paper's method, without averaged weights; what `init` writes is in [all
systems at equal image passes](#all-systems-at-equal-image-passes-also-on-photographs).

Made by `make ablation`, which trains what has no result yet, `python -m ablation.run --main-seeds
0 1 2 3 4 5 6`, which adds seeds of `none`, `constant` and `paper`, and `python -m ablation.report`.
One row is one way to train; rows that are compared seed by seed share phase 0 and, in a setting,
the pseudo-labels of phase 1; the one of a single phase has its own, and fewer iterations (2700, all
others 3900). Figures are percentages on the 1000 test images: mean ± standard error
over seeds. Nothing was tuned on the test set: all constants are those of the method, and `constant`
uses the mean weight that `paper` gave with the same seed. The rows
{", ".join(f"`{r}`" for r in MAIN_ROWS)} carry the main question and have more seeds.

Read a difference as none unless it is so many standard errors: 4.3 with three seeds, 2.8 with five,
2.4 with seven (Student's t, 95 %).

The results here are of older code (each file names its commit), which drew other random numbers.
Runs of the code as it is are not paired with them: their phase 0 is another draw of the same
seed."""


if __name__ == "__main__":
    main()
