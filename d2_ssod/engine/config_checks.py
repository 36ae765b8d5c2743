"""Checks of the config, made before anything else happens."""

from __future__ import annotations

import logging

from detectron2.config import CfgNode
from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY, ROI_HEADS_REGISTRY

from d2_ssod.config import check_kinds, check_limits, value_of
from d2_ssod.errors import ConfigError
from d2_ssod.modeling import ROI_WEIGHTINGS, TIMM_BACKBONES, check_timm_backbone, detector_of
from d2_ssod.pseudo_label import easy_fraction

from .schedule import check_schedule

logger = logging.getLogger(__name__)


def check_config(cfg: CfgNode, world_size: int) -> None:
    """Raise a one-line :class:`ConfigError` for the first value that cannot be trained with."""
    check_kinds(cfg)
    check_limits(cfg)
    check_schedule(cfg)
    for phase in range(1, cfg.SSOD.NUM_PHASES + 1):
        easy_fraction(phase, cfg.SSOD.NUM_PHASES, cfg.SSOD.EASY_FRACTIONS)
    _check_ensemble_weights(cfg)
    _check_registered_names(cfg)
    _check_model(cfg)
    check_timm_backbone(cfg)
    _check_teacher(cfg)
    _check_training(cfg, world_size)


def _check_ensemble_weights(cfg: CfgNode) -> None:
    weights, phases = cfg.SSOD.ENSEMBLE.WEIGHTS, cfg.SSOD.NUM_PHASES
    if weights and len(weights) != phases + 1:
        raise ConfigError(
            f"SSOD.ENSEMBLE.WEIGHTS has {len(weights)} values, {tuple(weights)}; give one for each "
            f"of the phases 0..{phases}, or none for equal weights"
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
    weighting = cfg.SSOD.ROI_WEIGHTING.NAME
    if weighting not in ("none", *ROI_WEIGHTINGS):
        raise ConfigError(
            f"SSOD.ROI_WEIGHTING.NAME is {weighting!r}; it must be one of none, "
            f"{', '.join(sorted(ROI_WEIGHTINGS))}"
        )


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
    if detector_of(cfg).needs_unlabeled and cfg.SSOD.NUM_PHASES > 0:
        raise ConfigError(
            f"SSOD.NUM_PHASES is {cfg.SSOD.NUM_PHASES}, but MODEL.META_ARCHITECTURE "
            f"{cfg.MODEL.META_ARCHITECTURE!r} learns from images without labels, of which only "
            "phase 0 has any: set it to 0"
        )
    if cfg.SSOD.TTA.ENABLED and not detector_of(cfg).has_tta:
        raise ConfigError(
            f"SSOD.TTA.ENABLED is True, but MODEL.META_ARCHITECTURE is "
            f"{cfg.MODEL.META_ARCHITECTURE!r}: Detectron2 has multi-transform inference for "
            "GeneralizedRCNN only; set it to False"
        )


def _check_teacher(cfg: CfgNode) -> None:
    """Keys that the mean teacher and labels of two tiers need."""
    if cfg.SSOD.TEACHER.ENABLED and cfg.SSOD.AVERAGE.DECAY == 0:
        raise ConfigError(
            "SSOD.TEACHER.ENABLED is True, but SSOD.AVERAGE.DECAY is 0, and the teacher is the "
            "average of the weights: set it to 0.999, say"
        )
    is_teachers_from_start = cfg.SSOD.TEACHER.ENABLED and cfg.SSOD.TEACHER.START == 0
    if cfg.SSOD.PSEUDO_LABEL.FROM and is_teachers_from_start and cfg.SSOD.NUM_PHASES == 1:
        raise ConfigError(
            "SSOD.PSEUDO_LABEL.FROM names the labels of phase 1, but there the mean teacher labels "
            "every batch anew: set SSOD.TEACHER.ENABLED to False, or, for labels that are a "
            "person's and stay, SSOD.PSEUDO_LABEL.CORRECTED instead"
        )
    if not _learns_uncertain_labels(cfg):
        return
    if not detector_of(cfg).learns_certainty:
        raise ConfigError(
            f"MODEL.META_ARCHITECTURE is {cfg.MODEL.META_ARCHITECTURE!r}, which would learn "
            "uncertain labels (SSOD.LABELS tiers, SSOD.TEACHER) as if they were certain: set it to "
            "'UncertaintyRetinaNet'"
        )
    rpn = cfg.MODEL.RPN.BBOX_REG_LOSS_TYPE
    if cfg.MODEL.PROPOSAL_GENERATOR.NAME == "UncertaintyRPN" and rpn != "smooth_l1":
        raise ConfigError(
            f"MODEL.RPN.BBOX_REG_LOSS_TYPE is {rpn!r}; edges of uncertain labels can be left out "
            "of 'smooth_l1' only: set it to that"
        )


def _learns_uncertain_labels(cfg: CfgNode) -> bool:
    return cfg.SSOD.TEACHER.ENABLED or cfg.SSOD.LABELS == "tiers"


def _check_training(cfg: CfgNode, world_size: int) -> None:
    """Keys of Detectron2 that this trainer needs, or needs to be at their defaults."""
    reference = cfg.SOLVER.REFERENCE_WORLD_SIZE
    processes = reference if reference > 0 else world_size
    if cfg.SOLVER.IMS_PER_BATCH % processes != 0 or cfg.SOLVER.IMS_PER_BATCH < 1 or reference < 0:
        of = "SOLVER.REFERENCE_WORLD_SIZE" if reference else "the number of processes"
        raise ConfigError(
            f"SOLVER.IMS_PER_BATCH is {cfg.SOLVER.IMS_PER_BATCH}; it must be a positive multiple "
            f"of {of}, {processes}"
        )
    if cfg.DATALOADER.SAMPLER_TRAIN != "TrainingSampler":
        raise ConfigError(
            f"DATALOADER.SAMPLER_TRAIN is {cfg.DATALOADER.SAMPLER_TRAIN!r}; it must stay "
            "'TrainingSampler': how images are drawn is chosen by SSOD.SAMPLING"
        )


def warn_of_odd_keys(cfg: CfgNode) -> None:
    """Say which keys have no effect, or one that is hardly meant."""
    warn_without_effect(cfg)
    warn_of_frozen_random_weights(cfg)
    warn_of_learned_edges(cfg)
    warn_of_odd_views(cfg)


def warn_without_effect(cfg: CfgNode) -> None:
    """Say in one line each which keys of Detectron2 are set, but change nothing here."""
    remedies = {
        "TEST.EVAL_PERIOD": (
            cfg.TEST.EVAL_PERIOD > 0 and not cfg.DATASETS.VAL,
            "name validation images in DATASETS.VAL, on which phases are evaluated so often",
        ),
        "TEST.PRECISE_BN.ENABLED": (
            cfg.TEST.PRECISE_BN.ENABLED,
            "BatchNorm's statistics are those of training, averaged over processes",
        ),
        "TEST.AUG.ENABLED": (
            cfg.TEST.AUG.ENABLED,
            "SSOD.TTA.ENABLED is for the pseudo-labels; results are without augmentation",
        ),
        "TEST.EXPECTED_RESULTS": (bool(cfg.TEST.EXPECTED_RESULTS), "compare summary.json instead"),
        "VIS_PERIOD": (cfg.VIS_PERIOD > 0, "TensorBoard shows pseudo-labels of some images"),
    }
    for key, (is_set, remedy) in remedies.items():
        if is_set:
            logger.warning("%s is %r, but has no effect: %s", key, value_of(cfg, key), remedy)


def warn_of_learned_edges(cfg: CfgNode) -> None:
    """Say that parts of the detector learn the edges of uncertain boxes, where they do."""
    if not _learns_uncertain_labels(cfg) or cfg.MODEL.META_ARCHITECTURE != "GeneralizedRCNN":
        return
    for key, value, remedy in (
        ("MODEL.PROPOSAL_GENERATOR.NAME", cfg.MODEL.PROPOSAL_GENERATOR.NAME, "UncertaintyRPN"),
        ("MODEL.ROI_HEADS.NAME", cfg.MODEL.ROI_HEADS.NAME, "UncertaintyROIHeads"),
    ):
        if value in ("RPN", "StandardROIHeads", "Res5ROIHeads", "CascadeROIHeads"):
            logger.warning(
                "%s is %r, which learns uncertain labels (SSOD.LABELS tiers, SSOD.TEACHER), and "
                "their edges, as if they were certain: set it to %r or one of its kind",
                *(key, value, remedy),
            )


def warn_of_odd_views(cfg: CfgNode) -> None:
    """Say that the views of an image that labels are made of are such as training has none of."""
    if not cfg.SSOD.TTA.ENABLED:
        return
    views, flips = cfg.TEST.AUG, cfg.INPUT.RANDOM_FLIP
    if views.FLIP and flips != "horizontal":
        logger.warning(
            "TEST.AUG.FLIP is True, so that labels come from flipped images, too (SSOD.TTA), but "
            "INPUT.RANDOM_FLIP is %r: if objects have two sides, set TEST.AUG.FLIP to False",
            flips,
        )
    short, long = cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST
    if short <= 0:  # images stay as large as they are
        return
    if not min(views.MIN_SIZES) <= short <= max(views.MIN_SIZES) or long > views.MAX_SIZE:
        logger.warning(
            "TEST.AUG.MIN_SIZES are %s and MAX_SIZE %d, but INPUT.MIN_SIZE_TEST is %d and "
            "MAX_SIZE_TEST %d: images are labeled in other sizes (SSOD.TTA) than they are trained "
            "in; set some around these",
            *(tuple(views.MIN_SIZES), views.MAX_SIZE, short, long),
        )


def warn_of_frozen_random_weights(cfg: CfgNode) -> None:
    """Say that a part of timm's backbone stays as random as it begins, where it does."""
    model = cfg.MODEL
    is_random = not (model.TIMM.WEIGHTS or model.WEIGHTS or cfg.SSOD.START.PHASE_0)
    is_frozen = model.BACKBONE.FREEZE_AT > 0 or model.TIMM.NORM == "FrozenBN"
    if model.BACKBONE.NAME in TIMM_BACKBONES and is_random and is_frozen:
        logger.warning(
            "MODEL.TIMM.WEIGHTS is empty, so that %s starts from random weights, but is frozen in "
            "part: give weights, or set MODEL.BACKBONE.FREEZE_AT to 0 (now %d) and MODEL.TIMM.NORM "
            "to BN (now %s)",
            *(model.TIMM.NAME, model.BACKBONE.FREEZE_AT, model.TIMM.NORM),
        )
