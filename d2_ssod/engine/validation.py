"""What the validation images say of each phase's model, and which one is handed over."""

from __future__ import annotations

import logging

import numpy as np
from detectron2.config import CfgNode
from detectron2.utils import comm

from d2_ssod.artifacts import (
    RunFolder,
    best_phase,
    had_teacher,
    keep_best_model,
    load_phase_model,
    load_validation,
    save_validation,
)
from d2_ssod.evaluation import validate

from .diagnostics import act_on

logger = logging.getLogger(__name__)


def validate_phase(cfg: CfgNode, phase: int) -> None:
    """Evaluate the model of a finished phase on ``DATASETS.VAL``, once; on every rank.

    Raises:
        ConfigError: it is worse than its predecessor, and ``SSOD.GUARD.VALIDATION`` is "stop".
    """
    folder = RunFolder(cfg.OUTPUT_DIR)
    if not cfg.DATASETS.VAL:
        return
    if not folder.phase(phase).validation.exists():
        model = load_phase_model(cfg, phase)
        found = [validate(cfg, name, model) for name in cfg.DATASETS.VAL]
        if comm.is_main_process():
            # Of several data sets, the mean counts.
            metrics = {key: float(np.mean([m[key] for m in found])) for key in found[0]}
            save_validation(folder, phase, metrics)
            logger.info("Phase %d on the validation images: AP %.1f", phase, metrics["AP"])
        comm.synchronize()
    _guard(cfg, folder, phase)


def _guard(cfg: CfgNode, folder: RunFolder, phase: int) -> None:
    """Say, or stop, if the model is worse than that of the phase before."""
    if phase == 0:
        return
    before, now = load_validation(folder, phase - 1), load_validation(folder, phase)
    if before is None or now is None or now >= before - cfg.SSOD.GUARD.VALIDATION_DROP:
        return
    act_on(
        cfg,
        "VALIDATION",
        f"Phase {phase}: AP {now:.1f} on the validation images, {before:.1f} before it: its "
        f"pseudo-labels do harm or the phase is too short; {_advice(cfg, folder, phase)}",
    )


def _advice(cfg: CfgNode, folder: RunFolder, phase: int) -> str:
    """Name what may make a phase better that has not been done yet."""
    steps = ["lengthen it (SSOD.SCHEDULE)"]
    if cfg.SSOD.PHASE_INIT != "previous":
        steps.append("set SSOD.PHASE_INIT to previous")
    if had_teacher(folder, phase):
        steps.append("train phase 0 longer, or do without SSOD.TEACHER")
    else:
        steps.append("take SSOD.SELECTION class_balanced or SSOD.CONSENSUS.MIN_VOTES 1")
    return ", ".join(steps)


def keep_best(cfg: CfgNode) -> None:
    """Hand over the model that is best on the validation images (``SSOD.KEEP_BEST``)."""
    folder = RunFolder(cfg.OUTPUT_DIR)
    best = best_phase(folder, cfg.SSOD.NUM_PHASES)
    if not cfg.SSOD.KEEP_BEST or best is None:
        return
    if comm.is_main_process():
        keep_best_model(folder, best)
        logger.info("Best on the validation images is phase %d: %s", best, folder.best)
    comm.synchronize()
