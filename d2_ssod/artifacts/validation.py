"""``validation.json``: how good a phase's model is on the validation images; and the best phase."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence

from d2_ssod.json_files import atomic_open, read_json, write_json

from .layout import RunFolder


def save_validation(folder: RunFolder, phase: int, metrics: Mapping[str, float]) -> None:
    """Write the metrics of the model at the end of a phase."""
    write_json(folder.phase(phase).validation, {"phase": phase, "metrics": dict(metrics)})


def load_validation(folder: RunFolder, phase: int) -> float | None:
    """Read the AP of the model at the end of a phase; None if it was not validated, or has none."""
    path = folder.phase(phase).validation
    return read_json(path)["metrics"].get("AP") if path.exists() else None


def best_phase(folder: RunFolder, num_phases: int) -> int | None:
    """Find the phase 0..N with the best AP on the validation images, the earlier of equal ones.

    Returns:
        None unless every phase was validated.
    """
    return best_of([load_validation(folder, phase) for phase in range(num_phases + 1)])


def best_of(validated: Sequence[float | None]) -> int | None:
    """Choose the best of the phases 0..N by their AP on the validation images."""
    if not validated or None in validated:
        return None
    return max(range(len(validated)), key=lambda phase: validated[phase])


def keep_best_model(folder: RunFolder, phase: int) -> None:
    """Copy the model of a phase to ``model_best.pth``."""
    with open(folder.phase(phase).model, "rb") as source, atomic_open(folder.best, "wb") as target:
        shutil.copyfileobj(source, target)
