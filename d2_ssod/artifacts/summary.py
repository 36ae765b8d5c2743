"""``summary.json``: how good the models are on a test set (written by ``d2_ssod.evaluation``)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode

from d2_ssod.errors import ConfigError, one_line
from d2_ssod.json_files import read_record
from d2_ssod.limits import is_number

from .layout import RunFolder

_REMEDY = "have it made again (train_net.py --eval-only)"


@dataclass(frozen=True)
class Summary:
    """How good the models are on the test images, in percent.

    Attributes:
        dataset: name of the test set.
        phases: metrics of each phase alone, by its number; at least one.
        ensembles: of several phases together, by their name.
    """

    dataset: str
    phases: dict[int, dict[str, float]]
    ensembles: dict[str, dict[str, float]]


def summary_path(folder: RunFolder, dataset: str) -> Path:
    """Name the file of results on a test set: ``summary.json`` may be of another, and stays."""
    path = folder.summary()
    if not path.exists() or read_record(path, {}, {"dataset": str}).get("dataset") == dataset:
        return path
    return folder.summary(dataset)


def load_own_summary(cfg: CfgNode) -> Summary | None:
    """Read the results of a run on its first test set; None if it was not judged by any.

    Raises:
        ConfigError: it was, by others alone, as its config has changed since; or a file is damaged.
    """
    folder, tests = RunFolder(cfg.OUTPUT_DIR), cfg.DATASETS.TEST
    path = summary_path(folder, tests[0]) if tests else folder.summary()
    if path.exists():
        return load_summary(path)
    if not folder.summary().exists():
        return None
    raise ConfigError(
        f"{folder.summary()} is of {load_summary(folder.summary()).dataset}, not of {tests[0]} "
        "(DATASETS.TEST), by which no model was judged; train_net.py --eval-only does it"
    )


def summaries_of_phase(folder: RunFolder, phase: int) -> list[Path]:
    """List the results that have a phase's; damaged files are not looked into."""
    found = []
    for path in sorted(folder.root.glob("summary*.json")):
        try:
            phases = load_summary(path).phases
        except ConfigError:
            continue
        found += [path] if phase in phases else []
    return found


def load_summaries(folder: RunFolder) -> list[Summary]:
    """Read the results on all test sets that a run was ever judged by.

    Raises:
        ConfigError: as :func:`load_summary`.
    """
    return [load_summary(path) for path in sorted(folder.root.glob("summary*.json"))]


def load_summary(path: str | os.PathLike) -> Summary:
    """Read the metrics that are finite numbers.

    Raises:
        ConfigError: the file does not exist, or is damaged.
    """
    found = read_record(path, {"dataset": str, "phases": list, "ensembles": dict})
    try:
        phases = {int(phase["phase"]): numbers_in(phase["metrics"]) for phase in found["phases"]}
        ensembles = {name: numbers_in(metrics) for name, metrics in found["ensembles"].items()}
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        what = f"{type(error).__name__}: {one_line(error)}"
        raise ConfigError(f"{path} is damaged ({what}); {_REMEDY}") from error
    if not phases:
        raise ConfigError(f"{path} is damaged (it has no phase); {_REMEDY}")
    return Summary(found["dataset"], phases, ensembles)


def numbers_in(values: Mapping[str, Any]) -> dict[str, float]:
    """Keep the values that are finite numbers."""
    return {key: float(value) for key, value in values.items() if is_number(value)}
