"""Which phase an iteration belongs to, and what a phase's config and files are: pure functions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.config import CfgNode

from d2_ssod.errors import ConfigError


@dataclass(frozen=True)
class PhaseFiles:
    """Where the files of one phase lie."""

    folder: Path

    @property
    def model(self) -> Path:
        """Weights at the end of the phase."""
        return self.folder / "model_final.pth"

    @property
    def predictions(self) -> Path:
        """Raw detections of that model on the unlabeled images."""
        return self.folder / "predictions.json"

    @property
    def predictions_source(self) -> Path:
        """Which images and settings the predictions were made with."""
        return self.folder / "predictions_source.json"

    @property
    def predictions_so_far(self) -> Path:
        """Folder of what is predicted while the predictions are not complete."""
        return self.folder / "predictions_so_far"

    @property
    def pseudo_labels(self) -> Path:
        """Labels of the unlabeled images that the phase trains on."""
        return self.folder / "pseudo_labels.json"

    @property
    def manifest(self) -> Path:
        """How these labels came about."""
        return self.folder / "manifest.json"


def phase_files(output_dir: str | Path, phase: int) -> PhaseFiles:
    """The files of a phase in an output folder."""
    return PhaseFiles(Path(output_dir) / f"phase_{phase}")


def phase_config(cfg: CfgNode, phase: int) -> CfgNode:
    """The config with the phase's own values of ``SSOD.SCHEDULE`` put where Detectron2 reads them.

    ``SOLVER.MAX_ITER`` and ``SOLVER.STEPS`` of the result count from the start of the phase.
    """
    own = cfg.clone()
    own.defrost()
    own.SOLVER.MAX_ITER = value_of_phase(cfg, "MAX_ITER", phase)
    own.SOLVER.STEPS = tuple(value_of_phase(cfg, "STEPS", phase))
    own.SOLVER.BASE_LR = float(value_of_phase(cfg, "BASE_LR", phase))
    own.SSOD.LABELED_REPEAT = value_of_phase(cfg, "LABELED_REPEAT", phase)
    own.freeze()
    return own


def phase_starts(cfg: CfgNode) -> list[int]:
    """First iteration of each phase, and last the total number of iterations."""
    starts = [0]
    for phase in range(cfg.SSOD.NUM_PHASES + 1):
        starts.append(starts[-1] + value_of_phase(cfg, "MAX_ITER", phase))
    return starts


def phase_at(starts: list[int], iteration: int) -> int:
    """The phase that ``iteration`` belongs to; the last one from the end of training on."""
    passed = sum(start <= iteration for start in starts[:-1])
    return passed - 1


def phase_seed(seed: int, phase: int, *more: int) -> int:
    """A seed of a phase, such as that of its initial weights and image order.

    Args:
        seed: of the run. Phases and runs get seeds that are unrelated.
        phase: 0..N.
        more: numbers above 0 that tell further seeds of the phase apart.
    """
    return int(np.random.SeedSequence([seed, phase, *more]).generate_state(1)[0])


def value_of_phase(cfg: CfgNode, key: str, phase: int) -> Any:
    """The value of a key of ``SSOD.SCHEDULE`` in a phase, or that which holds for all phases.

    Raises:
        ConfigError: the schedule has another number of values than there are phases.
    """
    values = cfg.SSOD.SCHEDULE[key]
    if not values:
        return cfg.SSOD.LABELED_REPEAT if key == "LABELED_REPEAT" else cfg.SOLVER[key]
    if len(values) != cfg.SSOD.NUM_PHASES + 1:
        raise ConfigError(
            f"SSOD.SCHEDULE.{key} has {len(values)} values, {tuple(values)}, but SSOD.NUM_PHASES = "
            f"{cfg.SSOD.NUM_PHASES} needs {cfg.SSOD.NUM_PHASES + 1}, one for each of the phases "
            f"0..{cfg.SSOD.NUM_PHASES}; or leave it empty"
        )
    value = values[phase]
    # One step may stand without a list around it.
    return (value,) if key == "STEPS" and not isinstance(value, (list, tuple)) else value
