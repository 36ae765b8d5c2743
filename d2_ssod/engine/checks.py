"""Checks of the config, made before anything else happens."""

from __future__ import annotations

import math
from typing import Any

from detectron2.config import CfgNode
from detectron2.modeling import (
    BACKBONE_REGISTRY,
    META_ARCH_REGISTRY,
    ROI_HEADS_REGISTRY,
    GeneralizedRCNN,
)

from d2_ssod import config
from d2_ssod.errors import ConfigError
from d2_ssod.modeling import ROI_WEIGHTINGS
from d2_ssod.pseudo_label import easy_fraction

from .phases import value_of_phase


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
        _check_schedule(cfg, phase)
    for phase in range(1, ssod.NUM_PHASES + 1):
        easy_fraction(phase, ssod.NUM_PHASES, ssod.EASY_FRACTIONS)
    _check_ensemble_weights(cfg)
    _check_registered_names(cfg)
    _check_model(cfg)
    _check_training(cfg, world_size)


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
    unit, factor = (0.0, 1.0), (0.0, math.inf)
    limits = {
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
    if len(scale) != 2 or not 0 < scale[0] <= scale[1]:
        raise ConfigError(
            f"SSOD.AUG.SCALE is {tuple(scale)}; it must be two positive factors, smaller one first"
        )


def _check_schedule(cfg: CfgNode, phase: int) -> None:
    """What a phase reads from ``SSOD.SCHEDULE``, whose values the config itself does not check."""
    for key in cfg.SSOD.SCHEDULE:
        _check_scheduled(key, value_of_phase(cfg, key, phase), phase)


def _check_scheduled(key: str, value: Any, phase: int) -> None:
    other = "SSOD.LABELED_REPEAT" if key == "LABELED_REPEAT" else f"SOLVER.{key}"
    right, expected = {
        "MAX_ITER": (_is_count(value) and value >= 1, "a whole number, at least 1"),
        "STEPS": (
            isinstance(value, (list, tuple))
            and all(map(_is_count, value))
            and list(value) == sorted(value),
            "whole numbers, smallest first",
        ),
        "BASE_LR": (_is_number(value) and value > 0, "a number above 0"),
        "LABELED_REPEAT": (_is_count(value) and value >= 1, "a whole number, at least 1"),
    }[key]
    if not right:
        raise ConfigError(
            f"{other} (or SSOD.SCHEDULE.{key}) is {value!r} in phase {phase}; it must be {expected}"
        )


def _check_ensemble_weights(cfg: CfgNode) -> None:
    weights, phases = cfg.SSOD.ENSEMBLE.WEIGHTS, cfg.SSOD.NUM_PHASES
    if weights and len(weights) != phases + 1:
        raise ConfigError(
            f"SSOD.ENSEMBLE.WEIGHTS has {len(weights)} values, {tuple(weights)}; give one for each "
            f"of the phases 0..{phases}, or none for equal weights"
        )
    if not all(_is_number(weight) and weight > 0 for weight in weights):
        raise ConfigError(
            f"SSOD.ENSEMBLE.WEIGHTS is {tuple(weights)}; its values must be numbers above 0"
        )


def _check_registered_names(cfg: CfgNode) -> None:
    """Names of building blocks that Detectron2 looks up."""
    registries = {
        "META_ARCHITECTURE": (META_ARCH_REGISTRY, cfg.MODEL.META_ARCHITECTURE),
        "BACKBONE.NAME": (BACKBONE_REGISTRY, cfg.MODEL.BACKBONE.NAME),
        "ROI_HEADS.NAME": (ROI_HEADS_REGISTRY, cfg.MODEL.ROI_HEADS.NAME),
    }
    for key, (registry, name) in registries.items():
        if name not in registry:
            known = ", ".join(sorted(known for known, _ in registry))
            raise ConfigError(f"MODEL.{key} is {name!r}; it must be one of {known}")


def _check_model(cfg: CfgNode) -> None:
    """Keys of ``MODEL`` that training on pseudo-labels leaves no choice in."""
    for key in ("MASK_ON", "KEYPOINT_ON"):
        if cfg.MODEL[key]:
            raise ConfigError(
                f"MODEL.{key} is True; pseudo-labels are boxes, on which only boxes can be "
                "trained: set it to False"
            )
    if cfg.MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE:
        raise ConfigError(
            "MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE is True; RoI re-weighting is defined for the "
            "softmax cross-entropy: set it to False"
        )
    architecture = META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)
    if cfg.SSOD.TTA.ENABLED and not issubclass(architecture, GeneralizedRCNN):
        raise ConfigError(
            f"SSOD.TTA.ENABLED is True, but MODEL.META_ARCHITECTURE is {architecture.__name__!r}: "
            "Detectron2 has multi-transform inference for GeneralizedRCNN only; set it to False"
        )


def _check_training(cfg: CfgNode, world_size: int) -> None:
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


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _get(cfg: CfgNode, key: str):
    value = cfg.SSOD
    for part in key.split("."):
        value = value[part]
    return value
