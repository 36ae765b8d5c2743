"""The results of a run as one JSON object and as one table."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tabulate import tabulate

from d2_ssod.artifacts import ensembles_of, title_of_ensemble

from .coco_metrics import Metrics
from .evaluate import PhaseResults

# The columns of the table, of those metrics that there are.
_COLUMNS = (
    *("AP", "AP50", "AP/easy", "AP50/easy", "AP/difficult", "AP50/difficult"),
    *("AP/coco", "AP50/coco"),  # of Pascal VOC, whose own are the others
)
_COUNTS = {
    "labeled_images": "labeled",
    "pseudo_images": "pseudo-labeled",
    "pseudo_boxes": "boxes",
}


def summarize(
    dataset: str, phase_infos: Sequence[Mapping[str, int]], results: PhaseResults
) -> dict[str, Any]:
    """Build the content of ``summary.json``.

    Args:
        dataset: name of the test set.
        phase_infos: for each phase ``labeled_images``, ``pseudo_images`` and ``pseudo_boxes``: what
            its model was trained on.
        results: of the evaluation.

    Returns:
        ``{"dataset", "phases": [{"phase", "labeled_images", "pseudo_images", "pseudo_boxes",
        "metrics"}], "ensembles": {"1~N": metrics, "0~N": metrics}}``.

    Raises:
        ValueError: another number of infos than phases.
    """
    if len(phase_infos) != len(results.phases):
        raise ValueError(
            f"phase_infos must describe each of the {len(results.phases)} phases, "
            f"got {len(phase_infos)}"
        )
    return {
        "dataset": dataset,
        "phases": [
            {"phase": number, **{key: int(info[key]) for key in _COUNTS}, "metrics": dict(metrics)}
            for number, (info, metrics) in enumerate(zip(phase_infos, results.phases, strict=True))
        ],
        "ensembles": {name: dict(metrics) for name, metrics in results.ensembles.items()},
    }


def format_table(summary: Mapping[str, Any]) -> str:
    """Format the summary as a table for the terminal: a row for each phase and ensemble of several.

    Args:
        summary: as ``summarize`` gives it, or as read from ``summary.json``.
    """
    last = len(summary["phases"]) - 1
    metrics = {f"phase {phase['phase']}": phase["metrics"] for phase in summary["phases"]}
    counts = dict(zip(metrics, summary["phases"], strict=True))
    for name in ensembles_of(last):
        if name in summary["ensembles"]:
            metrics[f"ensemble {title_of_ensemble(name, last)}"] = summary["ensembles"][name]
    return format_metrics(str(summary["dataset"]), metrics, counts)


def format_metrics(
    title: str,
    metrics: Mapping[str, Metrics],
    counts: Mapping[str, Mapping[str, int]] | None = None,
) -> str:
    """Format metrics as a table for the terminal.

    Args:
        title: of the first column.
        metrics: of each row, by its name.
        counts: images and boxes of some rows; None: without these columns.
    """
    columns = [name for name in _COLUMNS if any(name in row for row in metrics.values())]
    shown = {} if counts is None else _COUNTS
    rows = [
        [
            name,
            *(_number(of_row.get(column)) for column in columns),
            *((counts or {}).get(name, {}).get(key) for key in shown),
        ]
        for name, of_row in metrics.items()
    ]
    return tabulate(
        rows,
        headers=[title, *columns, *shown.values()],
        tablefmt="simple",
        stralign="right",
        colalign=("left",),
        disable_numparse=True,
        missingval="",
    )


def _number(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.1f}"
