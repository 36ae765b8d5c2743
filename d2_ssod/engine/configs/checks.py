"""Checks of the config, made before anything else happens."""

from __future__ import annotations

from collections.abc import Collection

import torch
from detectron2.config import CfgNode
from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY, ROI_HEADS_REGISTRY

from d2_ssod.config import check_kinds, check_limits, value_of
from d2_ssod.data.augmentation import check_color_format
from d2_ssod.errors import ConfigError
from d2_ssod.limits import AT_LEAST_1, SHARE, Limit, exactly
from d2_ssod.modeling import ROI_WEIGHTINGS, check_timm_backbone, detector_of, known_detectors
from d2_ssod.pseudo_label import IMAGE_SCORES, LABEL_RULES, easy_fraction

from .schedule import check_schedule


def check_config(cfg: CfgNode, world_size: int) -> None:
    """Raise a one-line :class:`ConfigError` for the first value that cannot be trained with."""
    check_kinds(cfg)
    _check_not_rotated(cfg)  # its keys have other limits
    check_limits(cfg)
    check_schedule(cfg)
    _check_ensemble_weights(cfg)
    check_registered_names(cfg)
    check_label_rules(cfg)
    _check_input(cfg)
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


def check_registered_names(cfg: CfgNode) -> None:
    """Check that the building blocks of the model that a config names are registered.

    Raises:
        ConfigError: one is not.
    """
    name = cfg.MODEL.META_ARCHITECTURE
    if name not in META_ARCH_REGISTRY:
        _check_one_of("MODEL.META_ARCHITECTURE", name, known_detectors())
    registries = {
        "BACKBONE.NAME": (BACKBONE_REGISTRY, cfg.MODEL.BACKBONE.NAME),
        "ROI_HEADS.NAME": (ROI_HEADS_REGISTRY, cfg.MODEL.ROI_HEADS.NAME),
    }
    for key, (registry, name) in registries.items():
        _check_one_of(f"MODEL.{key}", name, sorted(known for known, _ in registry))
    weightings = ["none", *ROI_WEIGHTINGS]
    _check_one_of("SSOD.ROI_WEIGHTING.NAME", cfg.SSOD.ROI_WEIGHTING.NAME, weightings)


def _check_one_of(key: str, name: str, known: Collection[str]) -> None:
    if name not in known:
        raise ConfigError(
            f"{key} is {name!r}; it must be one of {', '.join(known)}; or name the module that "
            "registers your own in SSOD.IMPORTS"
        )


def check_label_rules(cfg: CfgNode) -> None:
    """Check what labels are made by: the rule, the images' order and how many are taken.

    Raises:
        ConfigError: one cannot be used.
    """
    for phase in range(1, cfg.SSOD.NUM_PHASES + 1):
        easy_fraction(phase, cfg.SSOD.NUM_PHASES, cfg.SSOD.EASY_FRACTIONS)
    for key, known in (("LABELS", LABEL_RULES), ("SELECTION", IMAGE_SCORES)):
        _check_one_of(f"SSOD.{key}", cfg.SSOD[key], known)
    _check_label_rule(cfg)


def _check_label_rule(cfg: CfgNode) -> None:
    """Make the rule that labels will be made by, which may be somebody's own, once."""
    rule = LABEL_RULES[cfg.SSOD.LABELS]
    made = rule.from_config(cfg)
    if not callable(made):
        raise ConfigError(
            f"SSOD.LABELS is {cfg.SSOD.LABELS!r}, whose from_config gives {made!r}; it must give a "
            "callable, from Sources to labels: correct LABEL_RULES"
        )
    try:
        section = value_of(cfg, rule.section or "SSOD")
    except AttributeError:
        section = None
    if not isinstance(section, CfgNode):
        raise ConfigError(
            f"SSOD.LABELS is {cfg.SSOD.LABELS!r}, whose keys are said to be in {rule.section}, "
            "which is no section of the config: add it by extend_config, or correct LABEL_RULES"
        )


_CROPS = {
    "relative": exactly(2, SHARE),
    "relative_range": exactly(2, SHARE),
    "absolute": exactly(2, AT_LEAST_1),
    "absolute_range": Limit(
        lambda v: exactly(2, AT_LEAST_1).holds(v) and v[0] <= v[1],
        "two whole numbers, the smaller one first",
    ),
}


def _check_input(cfg: CfgNode) -> None:
    """Keys of ``INPUT`` whose values depend on each other."""
    sizes, crop = cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.CROP
    if cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING == "range" and (len(sizes) != 2 or sizes[0] > sizes[1]):
        raise ConfigError(
            f"INPUT.MIN_SIZE_TRAIN is {tuple(sizes)}; with INPUT.MIN_SIZE_TRAIN_SAMPLING 'range' "
            "it must be two sizes, the smaller one first"
        )
    if crop.ENABLED and not _CROPS[crop.TYPE].holds(crop.SIZE):
        raise ConfigError(
            f"INPUT.CROP.SIZE is {list(crop.SIZE)}; with INPUT.CROP.TYPE {crop.TYPE!r} it must be "
            f"{_CROPS[crop.TYPE].expected}"
        )
    colors = [cfg.SSOD.AUG.COLOR > 0, cfg.SSOD.AUG.PHOTOMETRIC, cfg.SSOD.AUG.STRONG != "none"]
    if any(colors):
        check_color_format(cfg.INPUT.FORMAT)
    if cfg.INPUT.FORMAT in ("RGBA", "CMYK") and len(cfg.MODEL.PIXEL_MEAN) != 4:
        raise ConfigError(
            f"INPUT.FORMAT is {cfg.INPUT.FORMAT!r}, of four channels: it needs four values in "
            "MODEL.PIXEL_MEAN and _STD; or set it to 'RGB'"
        )
    if len(cfg.MODEL.PIXEL_MEAN) != len(cfg.MODEL.PIXEL_STD):
        raise ConfigError(
            f"MODEL.PIXEL_MEAN has {len(cfg.MODEL.PIXEL_MEAN)} values and MODEL.PIXEL_STD "
            f"{len(cfg.MODEL.PIXEL_STD)}; give one for each channel of INPUT.FORMAT"
        )


def _check_model(cfg: CfgNode) -> None:
    """Keys of ``MODEL`` that training on pseudo-labels leaves no choice in."""
    for key in ("MASK_ON", "KEYPOINT_ON"):
        if cfg.MODEL[key]:
            raise ConfigError(
                f"MODEL.{key} is True; pseudo-labels are boxes, on which only boxes can be "
                "trained: set it to False"
            )
    heads, box_head = cfg.MODEL.ROI_HEADS.NAME, cfg.MODEL.ROI_BOX_HEAD
    if box_head.USE_SIGMOID_CE and cfg.MODEL.META_ARCHITECTURE == "ProposalLearningRCNN":
        raise ConfigError(
            "MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE is True, but ProposalLearningRCNN compares "
            "probabilities of the softmax: set it to False"
        )
    has_heads = detector_of(cfg).has_roi_heads
    if box_head.USE_SIGMOID_CE and has_heads and heads.startswith("Uncertainty"):
        raise ConfigError(
            f"MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE is True, but MODEL.ROI_HEADS.NAME is {heads!r}, "
            "which weighs the softmax cross-entropy of RoIs: set the first to False, or the second "
            "to Detectron2's own, such as 'StandardROIHeads', and SSOD.ROI_WEIGHTING.NAME to 'none'"
        )
    if detector_of(cfg).needs_unlabeled and cfg.SSOD.NUM_PHASES > 0:
        raise ConfigError(
            f"SSOD.NUM_PHASES is {cfg.SSOD.NUM_PHASES}, but MODEL.META_ARCHITECTURE "
            f"{cfg.MODEL.META_ARCHITECTURE!r} learns from images without labels, of which only "
            "phase 0 has any: set it to 0"
        )
    if cfg.TEST.DETECTIONS_PER_IMAGE < 0 and not detector_of(cfg).has_roi_heads:
        raise ConfigError(
            f"TEST.DETECTIONS_PER_IMAGE is {cfg.TEST.DETECTIONS_PER_IMAGE}, which means all "
            "detections in two-stage detectors only, and MODEL.META_ARCHITECTURE is "
            f"{cfg.MODEL.META_ARCHITECTURE!r}: set it to a number such as 100"
        )
    if cfg.SSOD.TTA.ENABLED and not cfg.TEST.AUG.MIN_SIZES:
        raise ConfigError("TEST.AUG.MIN_SIZES is empty; SSOD.TTA needs at least one size")
    if cfg.SSOD.TTA.ENABLED and not detector_of(cfg).has_tta:
        raise ConfigError(
            f"SSOD.TTA.ENABLED is True, but MODEL.META_ARCHITECTURE is "
            f"{cfg.MODEL.META_ARCHITECTURE!r}: Detectron2 has multi-transform inference for "
            "GeneralizedRCNN only; set it to False"
        )


def _check_not_rotated(cfg: CfgNode) -> None:
    """Refuse rotated boxes."""
    model = cfg.MODEL
    for key, name, rotated, upright in (
        ("PROPOSAL_GENERATOR.NAME", model.PROPOSAL_GENERATOR.NAME, "RRPN", "RPN"),
        (
            "ANCHOR_GENERATOR.NAME",
            model.ANCHOR_GENERATOR.NAME,
            "RotatedAnchorGenerator",
            "DefaultAnchorGenerator",
        ),
        ("ROI_HEADS.NAME", model.ROI_HEADS.NAME, "RROIHeads", "UncertaintyROIHeads"),
    ):
        if name == rotated:
            raise ConfigError(
                f"MODEL.{key} is {name!r}, of rotated boxes, but labels are upright boxes here: "
                f"set it to {upright!r}, and what goes with it"
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
    if not learns_uncertain_labels(cfg):
        return
    if not detector_of(cfg).learns_certainty:
        raise ConfigError(
            f"MODEL.META_ARCHITECTURE is {cfg.MODEL.META_ARCHITECTURE!r}, which would learn "
            "uncertain labels (SSOD.LABELS tiers, SSOD.TEACHER) as if they were certain: set it to "
            "'UncertaintyRetinaNet', or another that does not (one's own says so by "
            "learns_certainty in DETECTORS)"
        )
    rpn = cfg.MODEL.RPN.BBOX_REG_LOSS_TYPE
    if cfg.MODEL.PROPOSAL_GENERATOR.NAME == "UncertaintyRPN" and rpn != "smooth_l1":
        raise ConfigError(
            f"MODEL.RPN.BBOX_REG_LOSS_TYPE is {rpn!r}; edges of uncertain labels can be left out "
            "of 'smooth_l1' only: set it to that"
        )


def learns_uncertain_labels(cfg: CfgNode) -> bool:
    """Tell whether some of the labels that are trained on are uncertain ones."""
    return cfg.SSOD.TEACHER.ENABLED or LABEL_RULES[cfg.SSOD.LABELS].has_tiers


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
    if detector_of(cfg).needs_unlabeled and cfg.SOLVER.IMS_PER_BATCH // processes < 2:
        raise ConfigError(
            f"SOLVER.IMS_PER_BATCH is {cfg.SOLVER.IMS_PER_BATCH}, but {processes} processes of "
            f"{cfg.MODEL.META_ARCHITECTURE} need a labeled and an unlabeled image each: set it to "
            f"{2 * processes} or more, and SOLVER.BASE_LR with it"
        )
    if detector_of(cfg).needs_unlabeled and cfg.SSOD.SAMPLING != "balanced":
        raise ConfigError(
            f"SSOD.SAMPLING is {cfg.SSOD.SAMPLING!r}, but every batch of "
            f"{cfg.MODEL.META_ARCHITECTURE} must have labeled and unlabeled images: set it to "
            "'balanced'"
        )
    kind, numbered, _ = cfg.MODEL.DEVICE.partition(":")
    if world_size > 1 and numbered:
        raise ConfigError(
            f"MODEL.DEVICE is {cfg.MODEL.DEVICE!r}, but each of the {world_size} processes has a "
            f"device of its own: set it to {kind!r}"
        )
    is_for_gpus = torch.distributed.is_initialized() and torch.distributed.get_backend() == "nccl"
    if is_for_gpus and kind == "cpu":
        raise ConfigError(
            "MODEL.DEVICE is 'cpu', but the processes were started for GPUs: give --num-gpus 0, too"
        )
    if cfg.DATALOADER.SAMPLER_TRAIN != "TrainingSampler":
        raise ConfigError(
            f"DATALOADER.SAMPLER_TRAIN is {cfg.DATALOADER.SAMPLER_TRAIN!r}; it must stay "
            "'TrainingSampler': how images are drawn is chosen by SSOD.SAMPLING"
        )
