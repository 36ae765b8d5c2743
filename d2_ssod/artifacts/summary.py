"""``summary.json``: how good the models are on a test set (written by ``d2_ssod.evaluation``)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from d2_ssod.errors import ConfigError, one_line
from d2_ssod.json_files import read_record
from d2_ssod.limits import is_number

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
