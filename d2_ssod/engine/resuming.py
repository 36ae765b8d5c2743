"""Where a run goes on: what of it lies in its output folder."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from detectron2.config import CfgNode

from d2_ssod.artifacts import PhaseFolder, RunFolder
from d2_ssod.errors import ConfigError

logger = logging.getLogger(__name__)


def first_unfinished_phase(cfg: CfgNode) -> int:
    """Find the first phase that lacks its model, or the labels of the next; N + 1 if none does.

    Raises:
        ConfigError: there is what a model has made that is gone, and a new one would be mixed with.
    """
    folder, last = RunFolder(cfg.OUTPUT_DIR), cfg.SSOD.NUM_PHASES
    files = [folder.phase(phase) for phase in range(last + 1)]
    first = next(
        (
            phase
            for phase in range(last + 1)
            if not files[phase].model.exists()
            or (phase < last and not files[phase + 1].pseudo_labels.exists())
        ),
        last + 1,
    )
    untrained = next((p for p in range(first, last + 1) if not files[p].model.exists()), last + 1)
    if left := _made_of_model_after(files[untrained:]):
        raise ConfigError(
            f"{', '.join(map(str, left))}: made with {files[untrained].model}, which does not "
            "exist: restore it; or delete all of these to train that phase and what follows again; "
            "or start anew without --resume, which sets the folder aside"
        )
    if (folder.root / "last_checkpoint").exists():
        logger.warning(
            "%s is a checkpoint of an older version, which trained all phases as one: it is not "
            "used, training goes on after the last finished phase",
            folder.root / "last_checkpoint",
        )
    return first


def _made_of_model_after(files: Sequence[PhaseFolder]) -> list[Path]:
    """List what lies in the folders of a phase and of those after it that its model has made."""
    predictions = [phase.predictions for phase in files]
    # Labels without a manifest are somebody's own.
    labels = [phase.pseudo_labels for phase in files[1:] if phase.manifest.exists()]
    models = [path for phase in files[1:] for path in sorted(phase.folder.glob("model_*.pth"))]
    return [path for path in [*predictions, *labels, *models] if path.exists()]
