"""Tables 3 and 4: what the parts of the method are worth, beside the paper's numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tabulate import tabulate

from ablation.training import metrics_of, train
from d2_ssod.errors import ConfigError

from .plots import bars

_NO_WEIGHTS = {"SSOD.ROI_WEIGHTING.NAME": "none"}
_ONE_PHASE = {"SSOD.NUM_PHASES": 1, "SSOD.SCHEDULE.MAX_ITER": (1500, 1200)}
_ALONE = {"SSOD.NUM_PHASES": 0, "SSOD.SCHEDULE.MAX_ITER": (1500,)}


@dataclass(frozen=True)
class System:
    """A way to train, on VOC and on the embedded data.

    Attributes:
        voc: its config.
        digits: the config on the embedded data.
        keys: config keys of that.
    """

    voc: str
    digits: str = "digits_two_phase"
    keys: Mapping[str, object] = field(default_factory=dict)


SYSTEMS = {
    "fs": System("voc_supervised", keys=_ALONE),
    "one": System("voc_one_phase", keys={**_NO_WEIGHTS, **_ONE_PHASE}),
    "baseline": System("voc_two_phase_baseline", keys=_NO_WEIGHTS),
    "soft": System("voc_soft_sampling", keys={"SSOD.ROI_WEIGHTING.NAME": "soft_sampling"}),
    "ours": System("voc_two_phase"),
    "ssd_fs": System("voc_ssd300", "digits_ssd", _ALONE),
    "ssd_one": System("voc_ssd300_one_phase", "digits_ssd", _ONE_PHASE),
    "ssd_ours": System("voc_ssd300_two_phase", "digits_ssd"),
}

# Title, system, model, and the paper's AP50 on VOC.
TABLE_3 = (
    ("Faster R-CNN: FS", "fs", "phase_0", 74.8),
    ("one phase", "one", "phase_1", 75.6),
    ("two phases", "baseline", "phase_2", 76.1),
    ("two phases, re-weighting", "ours", "phase_2", 77.4),
    ("two phases, re-weighting, ensemble", "ours", "0~N", 78.6),
    ("SSD: FS", "ssd_fs", "phase_0", 70.2),
    ("SSD, one phase", "ssd_one", "phase_1", 71.8),
    ("SSD, two phases", "ssd_ours", "phase_2", 72.3),
    ("SSD, two phases, ensemble", "ssd_ours", "0~N", 74.5),
)
_TABLE_4 = {
    "phase 0": ("phase_0", (74.8, 74.8, 74.8)),
    "phase 1": ("phase_1", (75.9, 76.2, 76.6)),
    "phase 2": ("phase_2", (76.1, 76.6, 77.4)),
    "0~2": ("0~N", (77.8, 78.1, 78.6)),
}
TABLE_4 = tuple(
    (f"{title}, {name}", system, model, value)
    for title, (model, values) in _TABLE_4.items()
    for (name, system), value in zip(
        (("baseline", "baseline"), ("Soft Sampling", "soft"), ("re-weighting", "ours")),
        values,
        strict=True,
    )
)
TABLES = {"3": TABLE_3, "4": TABLE_4}


def compute(
    table: str, output: Path, *, data: str = "voc", missing: bool = False, num_gpus: int = 0
) -> dict:
    """Collect a table's rows from the folders of their runs.

    Args:
        table: "3" or "4".
        output: the runs' folders lie in it, by the names of VOC's configs.
        data: "voc" or "digits".
        missing: train those on the embedded data that have no results.
        num_gpus: to train them with.
    """
    rows = []
    for title, system, model, paper in TABLES[table]:
        folder = output / SYSTEMS[system].voc
        if missing and data == "digits" and not (folder / "summary.json").exists():
            _train(SYSTEMS[system], folder, num_gpus)
        metrics = {}
        if (folder / "summary.json").exists():
            metrics = metrics_of(folder, ("AP50", "AP"))[model]
        rows.append({"row": title, "config": SYSTEMS[system].voc, "paper": paper, **metrics})
    return {"table": table, "data": data, "rows": rows}


def draw(result: dict, path: Path) -> None:
    """Draw AP50 of the rows that have been run; beside them, on VOC, the paper's."""
    run = [row for row in result["rows"] if "AP50" in row]
    if not run:
        return
    series = {"ours": [row["AP50"] for row in run]}
    if result["data"] == "voc":
        series["paper"] = [row["paper"] for row in run]
    groups = [row["row"].replace(", ", ",\n") for row in run]
    bars(path, groups, series, labels=("", "AP50"))


def text(result: dict) -> str:
    """Format the table."""
    rows = [
        [row["row"], row["config"], row["paper"], *(row.get(k, "not run") for k in ("AP50", "AP"))]
        for row in result["rows"]
    ]
    ours = f"ours on {result['data']}, AP50"
    return tabulate(rows, headers=["", "config", "paper, AP50", ours, "AP"], tablefmt="github")


def _train(system: System, folder: Path, num_gpus: int) -> None:
    if not train(f"{system.digits}.yaml", dict(system.keys), folder, num_gpus=num_gpus):
        raise ConfigError(f"{folder}: the training has failed; see run.log there")
