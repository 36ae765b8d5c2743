"""Limits of keys of Detectron2's, which it checks late, or never.

Without them, a value that only labeling or evaluation reads would end a run after hours of phase 0,
and others, such as a score threshold above 1, would let it go on with labels that are empty.
"""

from d2_ssod.limits import (
    AT_LEAST_1,
    BELOW_1,
    COUNT,
    FRACTION,
    NONE,
    NOT_NEGATIVE,
    NUMBER,
    POSITIVE,
    SEED,
    SHARE,
    STEPS,
    UP_TO_1,
    Limit,
    each,
    either,
    exactly,
    one_of,
)

_BOX_LOSS = one_of("smooth_l1", "giou", "diou", "ciou")
_BOX_WEIGHTS = exactly(4, POSITIVE)
_SOME = each(POSITIVE, least=1)
_OF_ALL_OR_EACH_LEVEL = either(_SOME, each(_SOME, least=1))

_INPUT: dict[str, Limit] = {
    "MIN_SIZE_TRAIN": each(COUNT, least=1),  # 0: as large as they are
    "MIN_SIZE_TRAIN_SAMPLING": one_of("choice", "range"),
    "MAX_SIZE_TRAIN": AT_LEAST_1,
    "MIN_SIZE_TEST": COUNT,
    "MAX_SIZE_TEST": AT_LEAST_1,
    "RANDOM_FLIP": one_of("horizontal", "vertical", "none"),
    "CROP.TYPE": one_of("relative_range", "relative", "absolute", "absolute_range"),
    "CROP.SIZE": exactly(2, POSITIVE),
    "FORMAT": one_of("BGR", "RGB", "L", "RGBA", "CMYK", "YCbCr", "HSV", "LAB"),
}

_MODEL: dict[str, Limit] = {
    "PIXEL_MEAN": each(NUMBER, least=1),
    "PIXEL_STD": _SOME,
    "ANCHOR_GENERATOR.SIZES": _OF_ALL_OR_EACH_LEVEL,
    "ANCHOR_GENERATOR.ASPECT_RATIOS": _OF_ALL_OR_EACH_LEVEL,
    "PROPOSAL_GENERATOR.MIN_SIZE": NOT_NEGATIVE,
    "RPN.BATCH_SIZE_PER_IMAGE": AT_LEAST_1,
    "RPN.POSITIVE_FRACTION": SHARE,
    "RPN.BBOX_REG_LOSS_TYPE": _BOX_LOSS,
    "RPN.BBOX_REG_LOSS_WEIGHT": NOT_NEGATIVE,
    "RPN.BBOX_REG_WEIGHTS": _BOX_WEIGHTS,
    "RPN.SMOOTH_L1_BETA": NOT_NEGATIVE,
    "RPN.LOSS_WEIGHT": NOT_NEGATIVE,
    "RPN.PRE_NMS_TOPK_TRAIN": AT_LEAST_1,
    "RPN.PRE_NMS_TOPK_TEST": AT_LEAST_1,
    "RPN.POST_NMS_TOPK_TRAIN": AT_LEAST_1,
    "RPN.POST_NMS_TOPK_TEST": AT_LEAST_1,
    "RPN.NMS_THRESH": FRACTION,
    "ROI_HEADS.BATCH_SIZE_PER_IMAGE": AT_LEAST_1,
    "ROI_HEADS.POSITIVE_FRACTION": SHARE,
    "ROI_HEADS.SCORE_THRESH_TEST": UP_TO_1,
    "ROI_HEADS.NMS_THRESH_TEST": FRACTION,
    "ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE": _BOX_LOSS,
    "ROI_BOX_HEAD.BBOX_REG_LOSS_WEIGHT": NOT_NEGATIVE,
    "ROI_BOX_HEAD.BBOX_REG_WEIGHTS": _BOX_WEIGHTS,
    "ROI_BOX_HEAD.SMOOTH_L1_BETA": NOT_NEGATIVE,
    "ROI_BOX_HEAD.POOLER_RESOLUTION": AT_LEAST_1,
    "ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS": each(_BOX_WEIGHTS, least=1),
    "ROI_BOX_CASCADE_HEAD.IOUS": each(FRACTION, least=1),
    "RETINANET.SCORE_THRESH_TEST": UP_TO_1,
    "RETINANET.TOPK_CANDIDATES_TEST": AT_LEAST_1,
    "RETINANET.NMS_THRESH_TEST": FRACTION,
    "RETINANET.FOCAL_LOSS_GAMMA": NOT_NEGATIVE,
    "RETINANET.BBOX_REG_LOSS_TYPE": _BOX_LOSS,
    "RETINANET.BBOX_REG_WEIGHTS": _BOX_WEIGHTS,
    "RETINANET.SMOOTH_L1_LOSS_BETA": NOT_NEGATIVE,
}

_SOLVER: dict[str, Limit] = {
    "STEPS": STEPS,
    "BASE_LR": POSITIVE,
    "BASE_LR_END": NOT_NEGATIVE,
    "MOMENTUM": BELOW_1,
    "WEIGHT_DECAY": NOT_NEGATIVE,
    "WEIGHT_DECAY_NORM": NOT_NEGATIVE,
    "WEIGHT_DECAY_BIAS": either(NONE, NOT_NEGATIVE),
    "BIAS_LR_FACTOR": NOT_NEGATIVE,
    "GAMMA": POSITIVE,
    "NUM_DECAYS": AT_LEAST_1,
    "WARMUP_FACTOR": NOT_NEGATIVE,
    "WARMUP_ITERS": COUNT,
    "CHECKPOINT_PERIOD": AT_LEAST_1,
    "CLIP_GRADIENTS.CLIP_TYPE": one_of("value", "norm"),
    "CLIP_GRADIENTS.CLIP_VALUE": POSITIVE,
}

_TEST: dict[str, Limit] = {
    "DETECTIONS_PER_IMAGE": either(AT_LEAST_1, one_of(-1)),  # all, in two-stage detectors
    "AUG.MIN_SIZES": each(AT_LEAST_1),
    "AUG.MAX_SIZE": AT_LEAST_1,
}

OF_DETECTRON2: dict[str, Limit] = {
    **{f"INPUT.{name}": limit for name, limit in _INPUT.items()},
    **{f"MODEL.{name}": limit for name, limit in _MODEL.items()},
    **{f"SOLVER.{name}": limit for name, limit in _SOLVER.items()},
    **{f"TEST.{name}": limit for name, limit in _TEST.items()},
    "DATALOADER.NUM_WORKERS": COUNT,
    "SEED": SEED,
}
