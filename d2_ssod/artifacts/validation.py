"""``validation.json``: how good a phase's model, and ensembles are on the validation images.

And what is best by that.
"""

from __future__ import annotations

import filecmp
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from d2_ssod.errors import ConfigError
from d2_ssod.json_files import atomic_copy, read_record, write_json
from d2_ssod.limits import is_number

from .checkpoint_files import check_readable
from .layout import RunFolder
from .summary import numbers_in


def ensembles_of(num_phases: int) -> dict[str, range]:
    """List the phases of each ensemble: ``1~N`` and ``0~N``, those of a single phase left out."""
    found = {"1~N": range(1, num_phases + 1), "0~N": range(num_phases + 1)}
    # Without len(), which has limits: the number may be read from a damaged file.
    return {name: each for name, each in found.items() if each.stop - each.start > 1}


def title_of_ensemble(name: str, num_phases: int) -> str:
    """Name the phases of an ensemble of :func:`ensembles_of`, as in ``0~2``."""
    return name.replace("N", str(num_phases))


def save_validation(
    folder: RunFolder, phase: int, metrics: Mapping[str, float], judged_by: str = ""
) -> None:
    """Write the metrics of the model at the end of a phase, and what tells how it was judged."""
    content = {"phase": phase, "metrics": dict(metrics), "judged_by": judged_by}
    write_json(folder.phase(phase).validation, content)


def load_validation(folder: RunFolder, phase: int) -> float | None:
    """Read the AP of the model at the end of a phase; None if it was not validated, or has none."""
    return (load_validated(folder, phase) or {}).get("AP")


def load_validated(folder: RunFolder, phase: int) -> dict[str, float] | None:
    """Read the metrics of the model at the end of a phase; None if it was not validated."""
    path = folder.phase(phase).validation
    if not path.exists():
        return None
    return _metrics(path, read_record(path, {"metrics": dict})["metrics"])


def yardstick_of(folder: RunFolder, phase: int) -> str | None:
    """Read what tells how the model at the end of a phase was judged."""
    return _judged_by(folder.phase(phase).validation)


def _judged_by(path: Path) -> str | None:
    return read_record(path, {}, {"judged_by": str}).get("judged_by")


def _metrics(path: Path, metrics: Any) -> dict[str, float]:
    """Keep the metrics that are numbers, of what was read; of which the AP must be one, if any."""
    ap = metrics.get("AP") if isinstance(metrics, dict) else metrics
    if not isinstance(metrics, dict) or not (ap is None or is_number(ap)):
        raise ConfigError(f"{path}: {ap!r} is no AP; delete the file, to have it made again")
    return numbers_in(metrics)


def save_ensemble_validation(
    folder: RunFolder,
    num_phases: int,
    ensembles: Mapping[str, Mapping[str, float]],
    judged_by: str = "",
) -> None:
    """Write the metrics of the ensembles ``1~N`` and ``0~N``, as :func:`save_validation`."""
    found = {name: dict(metrics) for name, metrics in ensembles.items()}
    content = {"num_phases": num_phases, "ensembles": found, "judged_by": judged_by}
    write_json(folder.validation, content)


def load_validated_ensembles(
    folder: RunFolder, num_phases: int
) -> dict[str, dict[str, float]] | None:
    """Read the metrics of the ensembles; None if those of so many phases were not validated."""
    if not folder.validation.exists():
        return None
    content = read_record(folder.validation, {"num_phases": int, "ensembles": dict})
    if content["num_phases"] != num_phases:
        return None
    return {name: _metrics(folder.validation, own) for name, own in content["ensembles"].items()}


def discard_validations(
    folder: RunFolder, num_phases: int, *, phases_by: str, ensembles_by: str
) -> list[Path]:
    """Delete what was judged in another way, with which nothing new may be compared.

    Returns:
        the deleted files.
    """
    ways = {folder.phase(phase).validation: phases_by for phase in range(num_phases + 1)}
    ways[folder.validation] = ensembles_by
    other = [path for path, way in ways.items() if path.exists() and _judged_by(path) != way]
    for path in other:
        path.unlink()
    return other


def best_phases(folder: RunFolder, num_phases: int) -> list[int] | None:
    """Find the phases whose model, or models together, have the best AP on the validation images.

    Returns:
        Several if it is an ensemble; None unless every phase was validated.
    """
    best = best_phase(folder, num_phases)
    if best is None:
        return None
    ensembles = load_validated_ensembles(folder, num_phases) or {}
    together = better_ensemble(ensembles, load_validation(folder, best))
    return [best] if together is None else list(ensembles_of(num_phases)[together])


def better_ensemble(ensembles: Mapping[str, Mapping[str, float]], of_phase: float) -> str | None:
    """Choose by its metrics the ensemble with the best AP, if that is better than a phase's."""
    aps = {name: metrics["AP"] for name, metrics in ensembles.items() if "AP" in metrics}
    name = max(aps, key=aps.get, default=None)
    return name if name is not None and aps[name] > of_phase else None


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
    """Copy the model of a phase to ``model_best.pth``.

    Raises:
        DamagedCheckpoint: it cannot be read; what there was, perhaps a copy of it, stays.
    """
    model = folder.phase(phase).model
    if folder.best.exists() and filecmp.cmp(model, folder.best, shallow=False):
        return
    check_readable(model)
    atomic_copy(model, folder.best)
