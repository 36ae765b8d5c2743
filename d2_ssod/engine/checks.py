"""Checks of the config, made before anything else happens."""

from __future__ import annotations

import math

from detectron2.config import CfgNode

from d2_ssod import config
from d2_ssod.errors import ConfigError
from d2_ssod.modeling import ROI_WEIGHTINGS
from d2_ssod.pseudo_label import easy_fraction

from .phases import phase_config


def check_config(cfg: CfgNode, world_size: int) -> None:
    """Raise a one-line :class:`ConfigError` for the first value that cannot be trained with."""
    ssod = cfg.SSOD
    if ssod.NUM_PHASES < 1:
        raise ConfigError(
            f"SSOD.NUM_PHASES is {ssod.NUM_PHASES}; it must be at least 1 (1: the one-phase "
            "baseline, 2: the paper's setting)"
        )
    _check_choices(cfg)
    _check_numbers(cfg)
    for phase in range(ssod.NUM_PHASES + 1):
        own = phase_config(cfg, phase)
        if own.SOLVER.MAX_ITER < 1:
            raise ConfigError(
                f"SOLVER.MAX_ITER (or SSOD.SCHEDULE.MAX_ITER) is {own.SOLVER.MAX_ITER} in phase "
                f"{phase}; it must be at least 1"
            )
    for phase in range(1, ssod.NUM_PHASES + 1):
        easy_fraction(phase, ssod.NUM_PHASES, ssod.EASY_FRACTIONS)
    weights = ssod.ENSEMBLE.WEIGHTS
    if weights and len(weights) != ssod.NUM_PHASES + 1:
        raise ConfigError(
            f"SSOD.ENSEMBLE.WEIGHTS has {len(weights)} values, {tuple(weights)}; give one for each "
            f"of the phases 0..{ssod.NUM_PHASES}, or none for equal weights"
        )
    _check_detectron2_keys(cfg, world_size)


def _check_choices(cfg: CfgNode) -> None:
    choices = {
        "PHASE_INIT": config.PHASE_INITS,
        "SAMPLING": config.SAMPLINGS,
        "OPTIMIZER": config.OPTIMIZERS,
        "ROI_WEIGHTING.NAME": ("none", *sorted(ROI_WEIGHTINGS)),
        "ROI_WEIGHTING.VARIANT": config.VARIANTS,
        "ROI_WEIGHTING.APPLY_TO": config.APPLY_TO,
    }
    for key, allowed in choices.items():
        value = _get(cfg, key)
        if value not in allowed:
            raise ConfigError(f"SSOD.{key} is {value!r}; it must be one of {', '.join(allowed)}")


def _check_numbers(cfg: CfgNode) -> None:
    unit, positive, factor = (0.0, 1.0), (1e-12, math.inf), (0.0, math.inf)
    limits = {
        "LABELED_REPEAT": (1, math.inf),
        "INFERENCE_BATCH_SIZE": (1, math.inf),
        "PSEUDO_LABEL.KEEP_FRACTION": unit,
        "CONSENSUS.IOU_THRESH": unit,
        "CONSENSUS.NMS_THRESH": unit,
        "CONSENSUS.MIN_VOTES": factor,
        "ROI_WEIGHTING.A": unit,
        "ROI_WEIGHTING.B": factor,
        "ROI_WEIGHTING.C_IOU": factor,
        "ROI_WEIGHTING.C_SIM": factor,
        "ROI_WEIGHTING.C_SOFT_SAMPLING": factor,
        "ROI_WEIGHTING.CONSTANT": factor,
        "SIMILARITY.EMBED_DIM": factor,
        "SIMILARITY.IOF_THRESH": unit,
        "SIMILARITY.LOSS_WEIGHT": factor,
        "ENSEMBLE.IOU_THRESH": unit,
        "ENSEMBLE.SKIP_BOX_THRESH": unit,
        "AUG.COLOR": unit,
        "AUG.SHIFT": unit,
    }
    for key, (low, high) in limits.items():
        value = _get(cfg, key)
        if not low <= value <= high:
            raise ConfigError(f"SSOD.{key} is {value}; it must lie in [{low:g}, {high:g}]")
    scale = cfg.SSOD.AUG.SCALE
    if len(scale) != 2 or not positive[0] <= scale[0] <= scale[1]:
        raise ConfigError(
            f"SSOD.AUG.SCALE is {tuple(scale)}; it must be two positive factors, smaller one first"
        )


def _check_detectron2_keys(cfg: CfgNode, world_size: int) -> None:
    """Keys of Detectron2 that this trainer needs, or needs to be at their defaults."""
    if cfg.SOLVER.IMS_PER_BATCH % world_size != 0 or cfg.SOLVER.IMS_PER_BATCH < 1:
        raise ConfigError(
            f"SOLVER.IMS_PER_BATCH is {cfg.SOLVER.IMS_PER_BATCH}; it must be a positive multiple "
            f"of the number of processes, {world_size}"
        )
    if cfg.SOLVER.REFERENCE_WORLD_SIZE != 0:
        raise ConfigError(
            f"SOLVER.REFERENCE_WORLD_SIZE is {cfg.SOLVER.REFERENCE_WORLD_SIZE}; schedules are not "
            "rescaled: set it to 0 and give the schedule for the batch size you train with"
        )
    if cfg.DATALOADER.SAMPLER_TRAIN != "TrainingSampler":
        raise ConfigError(
            f"DATALOADER.SAMPLER_TRAIN is {cfg.DATALOADER.SAMPLER_TRAIN!r}; it must stay "
            "'TrainingSampler': how images are drawn is chosen by SSOD.SAMPLING"
        )
    if cfg.SOLVER.AMP.ENABLED and cfg.MODEL.DEVICE == "cpu":
        raise ConfigError(
            "SOLVER.AMP.ENABLED is True, but training is on the CPU, where Detectron2 has no mixed "
            "precision: set it to False, or train on a GPU"
        )
    if cfg.MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE:
        raise ConfigError(
            "MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE is True; RoI re-weighting is defined for the "
            "softmax cross-entropy: set it to False"
        )


def _get(cfg: CfgNode, key: str):
    value = cfg.SSOD
    for part in key.split("."):
        value = value[part]
    return value
