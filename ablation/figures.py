"""Results of finished runs: means with their standard errors, differences, and tables of these."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from tabulate import tabulate

from d2_ssod.json_files import read_json

Results = Mapping[int, dict]  # seed -> content of its JSON file


def load(folder: Path) -> Results:
    """The finished runs of a row."""
    contents = [read_json(file) for file in sorted(folder.glob("seed_*.json"))]
    return {content["seed"]: content for content in contents}


def values(results: Results, model: str, key: str) -> list[float]:
    """A metric of a model in all runs that have the model."""
    return [r["metrics"][model][key] for r in results.values() if model in r["metrics"]]


def differences(
    own: Results, model: str, reference: Results, other: str, key: str = "AP50"
) -> list[float]:
    """A metric of ``own`` minus that of ``reference``, over the seeds in which both share phase 0.

    The same seed does not make the same phase 0 on every processor.
    """
    sharing = {
        seed: result
        for seed, result in own.items()
        if seed in reference
        and result["metrics"].get("phase_0") == reference[seed]["metrics"].get("phase_0")
    }
    return by_seed(sharing, model, reference, other, key)


def by_seed(own: Results, model: str, reference: Results, other: str, key: str) -> list[float]:
    """A metric of ``own`` minus that of ``reference``, over the seeds that both have."""
    return [
        own[seed]["metrics"][model][key] - reference[seed]["metrics"][other][key]
        for seed in sorted(own.keys() & reference.keys())
    ]


def mean_and_error(values: Sequence[float], *, digits: int = 1) -> str:
    """Mean +- standard error; the error needs two values."""
    if not values:
        return "-"
    mean = format(statistics.fmean(values), f".{digits}f")
    return mean if len(values) < 2 else f"{mean} ± {_error(values):.{digits}f}"


def paired(differences: Sequence[float]) -> str:
    """Mean difference, its standard error and the number of pairs."""
    if not differences:
        return "-"
    error = f" ± {_error(differences):.1f}" if len(differences) > 1 else ""
    return f"{statistics.fmean(differences):+.1f}{error} ({len(differences)})"


def unpaired(own: Sequence[float], reference: Sequence[float]) -> str:
    """Difference of two means, with the standard error that both give it."""
    if not own or not reference:
        return "-"
    difference = f"{statistics.fmean(own) - statistics.fmean(reference):+.1f}"
    if min(len(own), len(reference)) < 2:
        return difference
    return f"{difference} ± {math.hypot(_error(own), _error(reference)):.1f}"


def table(rows: Sequence[Sequence], headers: Sequence[str]) -> str:
    """Text for a Markdown file."""
    return tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True)


def _error(values: Sequence[float]) -> float:
    """Standard error of the mean."""
    return statistics.stdev(values) / math.sqrt(len(values))
