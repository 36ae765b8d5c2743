"""Warnings of values that can be trained with, but are probably not meant."""

from __future__ import annotations

import math
from collections.abc import Iterator

from detectron2.config import CfgNode

from d2_ssod.config import value_of
from d2_ssod.modeling import TIMM_BACKBONES, detector_of

from .checks import learns_uncertain_labels
from .schedule import has_steps, phase_config, phases_without_drop


def odd_keys(cfg: CfgNode) -> Iterator[str]:
    """Say, in a line each, which keys have no effect, or one that is hardly meant."""
    for key, (is_set, remedy) in (_unread_keys(cfg) | _unread_own_keys(cfg)).items():
        if is_set:
            yield f"{key} is {value_of(cfg, key)!r}, but has no effect: {remedy}"
    if not (cfg.DATASETS.VAL or cfg.DATASETS.TEST):
        yield (
            "DATASETS.VAL and DATASETS.TEST name no labeled images, so that nobody sees whether it "
            "helped: keep some out of training (of a COCO file: python -m d2_ssod split --val)"
        )
    yield from _rates_that_stay(cfg)
    yield from _frozen_random_weights(cfg)
    yield from _learned_edges(cfg)
    yield from _random_teacher(cfg)
    yield from _unmixed_batches(cfg)
    yield from _odd_views(cfg)


def _unread_keys(cfg: CfgNode) -> dict[str, tuple[bool, str]]:
    """Keys of Detectron2: whether each is set in vain, and what to do instead."""
    return {
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


def _rates_that_stay(cfg: CfgNode) -> Iterator[str]:
    """Say that the learning rate never drops in some phases, though ``SOLVER.STEPS`` has steps."""
    schedule, steps = cfg.SSOD.SCHEDULE, cfg.SOLVER.STEPS
    if not steps or not has_steps(cfg) or schedule.STEPS or schedule.STEP_EPOCHS:
        return
    if phases := phases_without_drop(cfg):
        where = (
            "any phase"
            if len(phases) > cfg.SSOD.NUM_PHASES
            else f"phase {' and '.join(map(str, phases))}"
        )
        why, own = f"SOLVER.STEPS, {tuple(steps)}, lie beyond its end", "SSOD.SCHEDULE.STEPS"
        if schedule.EPOCHS:
            why = f"SOLVER.STEPS, {tuple(steps)}, are not read where SSOD.SCHEDULE.EPOCHS is set"
            own = "SSOD.SCHEDULE.STEP_EPOCHS"
        yield (
            f"The learning rate does not drop in {where}, as {why}: set {own}, or, if it is to "
            "stay, SOLVER.STEPS to ()"
        )


def _unread_own_keys(cfg: CfgNode) -> dict[str, tuple[bool, str]]:
    """Keys of this project: whether each is set in vain, and what to do instead."""
    ssod, schedule, last = cfg.SSOD, cfg.SSOD.SCHEDULE, cfg.SSOD.NUM_PHASES
    no_steps = f"{cfg.SOLVER.LR_SCHEDULER_NAME} (SOLVER.LR_SCHEDULER_NAME) has none"
    of_last = phase_config(cfg, last, 1, 1)
    lasts = math.inf if schedule.EPOCHS else of_last.SOLVER.MAX_ITER
    is_repeated_in_vain = ssod.SAMPLING == "balanced" and not schedule.EPOCHS
    repeated = "with SSOD.SAMPLING balanced, every other image is a labeled one anyway"
    return {
        "SSOD.SCHEDULE.STEPS": (bool(schedule.STEPS) and not has_steps(cfg), no_steps),
        "SSOD.SCHEDULE.STEP_EPOCHS": (
            bool(schedule.STEP_EPOCHS) and not has_steps(cfg),
            no_steps,
        ),
        "SSOD.PSEUDO_LABEL.FROM": (
            bool(ssod.PSEUDO_LABEL.FROM) and last == 0,
            "phase 0 has no pseudo-labels; set SSOD.NUM_PHASES to 1",
        ),
        "SSOD.TEACHER.ENABLED": (
            ssod.TEACHER.ENABLED and last == 0,
            "phase 0 has no pseudo-labels; set SSOD.NUM_PHASES to 1",
        ),
        "SSOD.TEACHER.START": (
            ssod.TEACHER.ENABLED and last > 0 and lasts <= of_last.SSOD.TEACHER.START,
            f"the last phase ends at iteration {lasts}, so that no teacher labels: set it lower",
        ),
        "SSOD.LABELED_REPEAT": (
            ssod.LABELED_REPEAT > 1 and is_repeated_in_vain,
            repeated,
        ),
        "SSOD.SCHEDULE.LABELED_REPEAT": (
            any(times > 1 for times in schedule.LABELED_REPEAT) and is_repeated_in_vain,
            repeated,
        ),
    }


def _learned_edges(cfg: CfgNode) -> Iterator[str]:
    """Say that parts of the detector learn the edges of uncertain boxes, where they do."""
    if not learns_uncertain_labels(cfg) or not detector_of(cfg).has_roi_heads:
        return
    model = cfg.MODEL
    for key, value, what, remedy in (
        (
            "MODEL.PROPOSAL_GENERATOR.NAME",
            model.PROPOSAL_GENERATOR.NAME,
            "the edges",
            "UncertaintyRPN",
        ),
        ("MODEL.ROI_HEADS.NAME", model.ROI_HEADS.NAME, "classes and edges", "UncertaintyROIHeads"),
    ):
        if value in ("RPN", "StandardROIHeads", "Res5ROIHeads", "CascadeROIHeads"):
            yield (
                f"{key} is {value!r}, which learns {what} of uncertain labels (SSOD.LABELS tiers, "
                f"SSOD.TEACHER) as if they were certain: set it to {remedy!r} or one of its kind"
            )


def _unmixed_batches(cfg: CfgNode) -> Iterator[str]:
    """Say that batches are mixed on average only, where each should be, or must be."""
    if not cfg.DATALOADER.ASPECT_RATIO_GROUPING:
        return
    if detector_of(cfg).needs_unlabeled:
        yield (
            "DATALOADER.ASPECT_RATIO_GROUPING is True, which gives wide and tall images batches of "
            f"their own, and training {cfg.MODEL.META_ARCHITECTURE} ends at the first one without "
            "labeled or without unlabeled images: set it to False, unless all have one orientation"
        )
    elif cfg.SSOD.SAMPLING == "balanced" and cfg.SSOD.NUM_PHASES > 0:
        yield (
            "DATALOADER.ASPECT_RATIO_GROUPING is True, which gives wide and tall images batches of "
            "their own, of which half are labeled on average only (SSOD.SAMPLING balanced): set it "
            "to False, at the price of some padding, unless all have one orientation"
        )


def _random_teacher(cfg: CfgNode) -> Iterator[str]:
    """Say that a teacher labels before it has learned anything, where it does."""
    ssod = cfg.SSOD
    labels = ssod.TEACHER.ENABLED and ssod.TEACHER.START == 0 and ssod.NUM_PHASES > 0
    if labels and ssod.PHASE_INIT == "pretrained":
        yield (
            "SSOD.PHASE_INIT is 'pretrained', so that the teacher begins as MODEL.WEIGHTS, and "
            "labels from the first batch on: unless these are a detector of the same classes, set "
            "it to 'previous', or SSOD.TEACHER.START to where the labels of the file are learned"
        )


def _odd_views(cfg: CfgNode) -> Iterator[str]:
    """Say that the views of an image that labels are made of are such as training has none of."""
    if not cfg.SSOD.TTA.ENABLED:
        return
    views, flips = cfg.TEST.AUG, cfg.INPUT.RANDOM_FLIP
    if views.FLIP and flips != "horizontal":
        yield (
            "TEST.AUG.FLIP is True, so that labels come from flipped images, too (SSOD.TTA), but "
            f"INPUT.RANDOM_FLIP is {flips!r}: if objects have two sides, set TEST.AUG.FLIP to False"
        )
    short, long = cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST
    if short <= 0:  # images stay as large as they are
        return
    if not min(views.MIN_SIZES) <= short <= max(views.MIN_SIZES) or long > views.MAX_SIZE:
        yield (
            f"TEST.AUG.MIN_SIZES are {tuple(views.MIN_SIZES)} and MAX_SIZE {views.MAX_SIZE}, but "
            f"INPUT.MIN_SIZE_TEST is {short} and MAX_SIZE_TEST {long}: images are labeled in other "
            "sizes (SSOD.TTA) than they are trained in; set some around these"
        )


def _frozen_random_weights(cfg: CfgNode) -> Iterator[str]:
    """Say that a part of timm's backbone stays as random as it begins, where it does."""
    model = cfg.MODEL
    is_random = not (model.TIMM.WEIGHTS or model.WEIGHTS or cfg.SSOD.START.PHASE_0)
    is_frozen = model.BACKBONE.FREEZE_AT > 0 or model.TIMM.NORM == "FrozenBN"
    if model.BACKBONE.NAME in TIMM_BACKBONES and is_random and is_frozen:
        yield (
            f"MODEL.TIMM.WEIGHTS is empty, so that {model.TIMM.NAME} starts from random weights, "
            "but is frozen in part: give weights, or set MODEL.BACKBONE.FREEZE_AT to 0 (now "
            f"{model.BACKBONE.FREEZE_AT}) and MODEL.TIMM.NORM to BN (now {model.TIMM.NORM})"
        )
