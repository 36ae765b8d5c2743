"""Every config key that this project adds to Detectron2's: default, unit, effect and limits."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator, Mapping
from operator import getitem
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode, get_cfg

from d2_ssod import limits
from d2_ssod.detectron2_limits import OF_DETECTRON2
from d2_ssod.errors import ConfigError, nearest
from d2_ssod.limits import Limit, each, is_list, one_of

_GUARD = one_of("off", "warn", "stop")

# Key below SSOD: (default, limit).
_KEYS: dict[str, tuple[Any, Limit]] = {
    # Python modules that are imported before the config is read: they register detectors,
    # backbones, heads, weightings, data sets of your own, and keys, by extend_config.
    "IMPORTS": ([], limits.NAMES),
    # --- Data -------------------------------------------------------------------------------------
    # Your own data: a list of entries with a NAME, which goes into DATASETS.*, and one of
    #   IMAGES: folder                            unlabeled pictures, found recursively; or a text
    #                                             file that lists some, a picture, a list of such
    #   JSON: coco_instances.json, IMAGES: folder
    #   VOC: folder of XML files; SPLIT or LIST, IMAGES, CLASSES where they are not the usual
    #   YOLO: data.yaml, SPLIT: train
    # UNLABELED: True leaves the annotations of the last three out.
    "REGISTER": ([], limits.LIST),
    # Color jitter: brightness, contrast and saturation are each scaled by 1 +- COLOR. 0: off.
    "AUG.COLOR": (0.0, limits.FRACTION),
    # Zoom: a window of SCALE[0]..SCALE[1] times the image's size is cut out (> 1: black border).
    "AUG.SCALE": ((1.0, 1.0), limits.RANGE),
    # The window's center moves by up to SHIFT times the image's size, in each direction.
    "AUG.SHIFT": (0.0, limits.FRACTION),
    # SSD's own: changes of color ("photometric distortion"); for every other image, a canvas with
    # sides up to EXPAND times as long (1: off); a cut-out that overlaps with some object by an IoU
    # that is drawn, of objects whose center is in it; or none.
    "AUG.PHOTOMETRIC": (False, limits.FLAG),
    "AUG.EXPAND": (1.0, limits.ENLARGEMENT),
    "AUG.IOU_CROP": (False, limits.FLAG),
    # Strong changes of color, and erased parts, of "none", of "pseudo"-labeled, of "all" images.
    "AUG.STRONG": ("none", one_of("none", "pseudo", "all")),
    # A model trained elsewhere, of the config's detector, to be that of phase 0, which is then not
    # trained. Empty: phase 0 is trained, from MODEL.WEIGHTS.
    "START.PHASE_0": ("", limits.TEXT),
    # --- Phases (Algorithm 1) ---------------------------------------------------------------------
    # N: semi-supervised phases after the supervised phase 0. 1 is the one-phase baseline, 0 the
    # supervised detector alone.
    "NUM_PHASES": (2, limits.COUNT),
    # What each phase starts from: MODEL.WEIGHTS ("pretrained"), the model of phase 0
    # ("supervised") or of the phase before ("previous").
    "PHASE_INIT": ("pretrained", one_of("pretrained", "supervised", "previous")),
    # Fraction of the non-empty unlabeled images used in phases 1..N. (): i/N.
    "EASY_FRACTIONS": ((), each(limits.FRACTION)),
    # "union": images are drawn uniformly from labeled + pseudo-labeled ones.
    # "balanced": every other image of a batch is labeled, every other pseudo-labeled; on average
    # only where batches are sorted by shape (DATALOADER.ASPECT_RATIO_GROUPING).
    "SAMPLING": ("union", one_of("union", "balanced")),
    # How often the labeled images stand in the union (phases 1..N).
    "LABELED_REPEAT": (1, limits.AT_LEAST_1),
    # "SGD" (as in Detectron2) or "AdamW"; both read SOLVER.BASE_LR and SOLVER.WEIGHT_DECAY*.
    "OPTIMIZER": ("SGD", one_of("SGD", "AdamW")),
    # Moving average of the weights, with which each phase ends. 0: off; 0.999: over about the last
    # 1000 iterations, with a ramp over the last ninth of them if these are less than 9000. It, and
    # TEACHER.START, are scaled with the schedule by SOLVER.REFERENCE_WORLD_SIZE. It is to
    # forget the first weights; a phase that starts from another (PHASE_INIT) may do without.
    "AVERAGE.DECAY": (0.0, limits.BELOW_1),
    "AVERAGE.RAMP": (True, limits.FLAG),
    # What differs between phases: one value for each of the phases 0..N. (): the same in every
    # phase, that is SOLVER.MAX_ITER, SOLVER.STEPS, SOLVER.BASE_LR, SSOD.LABELED_REPEAT.
    "SCHEDULE.MAX_ITER": ((), each(limits.AT_LEAST_1)),  # iterations
    "SCHEDULE.STEPS": ((), each(limits.STEPS)),  # iterations, counted from the phase's start
    # The same in epochs, in place of MAX_ITER and STEPS. An epoch is as many images as the phase
    # trains on, labeled (times LABELED_REPEAT) and pseudo-labeled, so iterations are known when the
    # phase begins. Fractions of an epoch are allowed.
    "SCHEDULE.EPOCHS": ((), each(limits.POSITIVE)),
    "SCHEDULE.STEP_EPOCHS": ((), each(limits.STEP_EPOCHS)),
    "SCHEDULE.BASE_LR": ((), each(limits.POSITIVE)),
    # The first, for phase 0, has no effect.
    "SCHEDULE.LABELED_REPEAT": ((), each(limits.AT_LEAST_1)),
    # --- Pseudo-labels ----------------------------------------------------------------------------
    # Raw detections come from the model at MODEL.ROI_HEADS.SCORE_THRESH_TEST, .NMS_THRESH_TEST and
    # TEST.DETECTIONS_PER_IMAGE; thresholds are matched to the labeled images' objects per image.
    # A COCO instances file of the unlabeled images, with or without scores, that phase 1 is trained
    # on as it is. Empty: labels are made of phase 0's predictions.
    "PSEUDO_LABEL.FROM": ("", limits.TEXT),
    # A COCO instances file of unlabeled images that a person has labeled or corrected; or a folder
    # of such, one for each round, of which the last by name counts for an image. Phases whose
    # labels are not made yet take those of these images from it, and train on them whether they are
    # easy or not (those without an object if DATALOADER.FILTER_EMPTY_ANNOTATIONS is False, as of
    # labeled images); a mean teacher leaves them as they are. "": none.
    "PSEUDO_LABEL.CORRECTED": ("", limits.TEXT),
    # End once the labels of a phase are made, for a person to look at; --resume goes on with them.
    "PSEUDO_LABEL.PAUSE": (False, limits.FLAG),
    # Keep only this fraction of each class's pseudo-boxes, the best-scored ones. 1: all.
    "PSEUDO_LABEL.KEEP_FRACTION": (1.0, limits.FRACTION),
    # Intersection of the models: boxes of two models agree if they overlap by more than IOU_THRESH;
    # NMS_THRESH then removes duplicates.
    "CONSENSUS.IOU_THRESH": (0.5, limits.FRACTION),
    "CONSENSUS.NMS_THRESH": (0.3, limits.FRACTION),
    # How many models must see a box. 0: all of them (the models are folded from the left).
    "CONSENSUS.MIN_VOTES": (0, limits.COUNT),
    # COCO results files of other models, on all unlabeled images by their ids (those in
    # predictions.json), which join the models of all phases as if they were some.
    "CONSENSUS.EXTRA_SOURCES": ([], limits.NAMES),
    # Pseudo-labels are what the models agree on ("consensus", as published), or all that one of
    # them sees, fused, in two tiers: certain and uncertain ("tiers"); or by a rule of your own.
    "LABELS": ("consensus", limits.TEXT),
    # Boxes of a class with IoU > IOU_THRESH are fused; detections that score no more than MIN_SCORE
    # are left out.
    "TIERS.IOU_THRESH": (0.55, limits.FRACTION),
    "TIERS.MIN_SCORE": (0.05, limits.FRACTION),
    # Of each class, the best-scored boxes are certain: CERTAIN times as many per image as a labeled
    # image has objects. Uncertain are the next, up to ALL times as many; the rest is background.
    "TIERS.CERTAIN": (0.5, limits.FRACTION),
    "TIERS.ALL": (1.0, limits.POSITIVE),
    # How labels of tier "uncertain" are learned: with their score q as certainty, q their class and
    # 1 - q background ("soft"), or as if they were certain ("hard").
    "TIERS.UNCERTAIN": ("soft", one_of("soft", "hard")),
    # Left and right edges, top and bottom ones, of a certain label are learned if several models
    # see it and differ in them by less than this part of its width, its height; so of the labels of
    # one model alone none are. 0: no box of a pseudo-label is; 1: those of all certain ones are.
    "TIERS.MAX_SPREAD": (0.05, limits.NOT_NEGATIVE),
    # In the last phase, labels that the moving average of the weights (SSOD.AVERAGE.DECAY), a mean
    # teacher, makes anew for each batch, in two tiers, instead of those of the file.
    "TEACHER.ENABLED": (False, limits.FLAG),
    # The iteration from which on it does.
    "TEACHER.START": (0, limits.COUNT),
    # Learn the boxes of its certain labels, too, not only their classes.
    "TEACHER.BOX_LOSS": (False, limits.FLAG),
    # Data Distillation's multi-transform inference for the pseudo-labels: the scales and the flip
    # of TEST.AUG.MIN_SIZES, .MAX_SIZE and .FLIP, merged.
    "TTA.ENABLED": (False, limits.FLAG),
    # What makes an image easy: the "mean_score" of its boxes (Eq. 1); "class_balanced", their mean
    # rank within their own class, with which no class is left for later; "expected_quality", the
    # mean score in which certain boxes count more; or a score of your own.
    "SELECTION": ("mean_score", limits.TEXT),
    # Signs that pseudo-labels do harm: each is "off", said ("warn") or ends the run ("stop").
    # A class whose share of the pseudo-boxes is below CLASS_SHARE times that of the labels.
    "GUARD.VANISHED_CLASS": ("warn", _GUARD),
    "GUARD.CLASS_SHARE": (0.2, limits.FRACTION),
    # RATE_FACTOR times more, or fewer, boxes per selected image than objects per labeled one that
    # has any.
    "GUARD.BOX_RATE": ("warn", _GUARD),
    "GUARD.RATE_FACTOR": (3.0, limits.FACTOR),
    # Models that agree on less than CONSENSUS_KEPT of the boxes of the one that has fewest.
    "GUARD.CONSENSUS": ("warn", _GUARD),
    "GUARD.CONSENSUS_KEPT": (0.25, limits.FRACTION),
    # A phase whose AP on DATASETS.VAL is more than VALIDATION_DROP below that of the phase before.
    "GUARD.VALIDATION": ("warn", _GUARD),
    "GUARD.VALIDATION_DROP": (0.5, limits.NOT_NEGATIVE),
    # Copy the model of the phase that is best on DATASETS.VAL, phase 0 too, to model_best.pth. An
    # ensemble that is better is said, and what `predict --phase best` takes.
    "KEEP_BEST": (True, limits.FLAG),
    # Write report.html at the end of a run.
    "REPORT": (True, limits.FLAG),
    # Have the last phase's model look at the labeled images, too: where it contradicts the labels,
    # the report lists them for a person to check.
    "CHECK_LABELED": (True, limits.FLAG),
    # A registered data set with the objects of the unlabeled images, where they are known: by it
    # precision and recall of the pseudo-labels are measured. Never trained on.
    "DIAGNOSTICS.UNLABELED_TRUTH": ("", limits.TEXT),
    # With --resume, go on with phases that were trained with other settings or labels.
    "RESUME_ANYWAY": (False, limits.FLAG),
    # --- RoI re-weighting (Eq. 2-5) ---------------------------------------------------------------
    # "uncertainty" | "soft_sampling" | "constant" | "none"
    "ROI_WEIGHTING.NAME": ("uncertainty", limits.TEXT),
    # Eq. 2-5 as in the "paper", or as in the authors' "released" code: there IoU is that with the
    # pseudo-labels, and RoIs on objects, and the loss of their boxes, are weighted as well.
    "ROI_WEIGHTING.VARIANT": ("paper", one_of("paper", "released")),
    # Which images' RoIs are re-weighted: "pseudo"-labeled ones or "all", which includes phase 0.
    "ROI_WEIGHTING.APPLY_TO": ("pseudo", one_of("pseudo", "all")),
    # g(x) = a + (1 - a) exp(-b exp(-c x)): floor of the factor of IoU (the other has none),
    # displacement of both, and their growth rates; Soft Sampling reads A and B, too.
    "ROI_WEIGHTING.A": (0.25, limits.FRACTION),
    "ROI_WEIGHTING.B": (50.0, limits.NOT_NEGATIVE),
    "ROI_WEIGHTING.C_IOU": (15.0, limits.NOT_NEGATIVE),
    "ROI_WEIGHTING.C_SIM": (10.0, limits.NOT_NEGATIVE),
    # c of "soft_sampling", which is the first factor alone.
    "ROI_WEIGHTING.C_SOFT_SAMPLING": (20.0, limits.NOT_NEGATIVE),
    # The weight that "constant" gives to every background RoI.
    "ROI_WEIGHTING.CONSTANT": (0.5, limits.NOT_NEGATIVE),
    # --- Embedding and similarity loss (Eq. 6-7) --------------------------------------------------
    # Output size of the embedding's linear layer. 0: that of the box head.
    "SIMILARITY.EMBED_DIM": (0, limits.COUNT),
    # Two RoIs are alike if one lies inside the other by more than this IoF.
    "SIMILARITY.IOF_THRESH": (0.7, limits.FRACTION),
    "SIMILARITY.LOSS_WEIGHT": (1.0, limits.NOT_NEGATIVE),
    # Also count two foreground RoIs of one class as alike (not in the paper).
    "SIMILARITY.SAME_CLASS": (False, limits.FLAG),
    # --- Ensemble (weighted boxes fusion) ---------------------------------------------------------
    "ENSEMBLE.IOU_THRESH": (0.6, limits.FRACTION),
    "ENSEMBLE.SKIP_BOX_THRESH": (1e-4, limits.BELOW_1),
    # Weights of the models of phases 0..N. (): equal. Those that were released, which were tuned,
    # are in voc_released.yaml and coco_35_released.yaml.
    "ENSEMBLE.WEIGHTS": ((), each(limits.POSITIVE)),
    # --- Inference --------------------------------------------------------------------------------
    # Images per process and step when predicting and evaluating. More than 1 is faster on small
    # images; images of different sizes are padded to a common one.
    "INFERENCE_BATCH_SIZE": (1, limits.AT_LEAST_1),
}

# Key below MODEL.SSD, of the meta-architectures SSD, CSD and ISD: (default, limit).
_SSD_KEYS: dict[str, tuple[Any, Limit]] = {
    "NUM_CLASSES": (80, limits.AT_LEAST_1),
    # Images are made SIZE x SIZE pixels by the model; the STEPS below are of 300, () fit any.
    "SIZE": (300, limits.SIZE),
    # Priors of each feature map: their size in parts of SIZE, and one more for the larger square of
    # the last map; their ratios of sides, each both ways, besides the two squares; the stride of
    # their grid, in pixels ((): that of the map).
    "SCALES": ([0.1, 0.2, 0.37, 0.54, 0.71, 0.88, 1.05], each(limits.POSITIVE)),
    "ASPECT_RATIOS": ([[2], [2, 3], [2, 3], [2, 3], [2], [2]], each(each(limits.POSITIVE))),
    "STEPS": ([8, 16, 32, 64, 100, 300], each(limits.POSITIVE)),
    # Priors with at least this IoU with an object are positive, and so is each object's best one.
    "IOU_THRESH": (0.5, limits.FRACTION),
    # Share of priors on objects among those that the classification learns from.
    "POSITIVE_FRACTION": (0.25, limits.SHARE),
    # Detections: at most TOPK_CANDIDATES_TEST of each class that score more, before NMS; then the
    # best TEST.DETECTIONS_PER_IMAGE.
    "SCORE_THRESH_TEST": (0.01, limits.BELOW_1),
    "TOPK_CANDIDATES_TEST": (400, limits.AT_LEAST_1),
    "NMS_THRESH_TEST": (0.45, limits.FRACTION),
    # CSD and ISD: the weight w of the consistency losses. It rises as exp(-5 (1 - t/r)^2), where
    # r is RAMP_UP times the number of iterations, and falls at the end as exp(-12.5 (1 - s/r)^2),
    # where s iterations are left and r is RAMP_DOWN times their number.
    "CONSISTENCY.WEIGHT": (1.0, limits.NOT_NEGATIVE),
    "CONSISTENCY.RAMP_UP": (32 / 120, limits.FRACTION),
    "CONSISTENCY.RAMP_DOWN": (20 / 120, limits.FRACTION),
    # ISD: mixing shares are drawn from Beta(MIX, MIX); the weight of priors on objects of both
    # images (type I), beside 1 of those on objects of one (type II).
    "CONSISTENCY.MIX": (100.0, limits.POSITIVE),
    "CONSISTENCY.BOTH_WEIGHT": (0.1, limits.NOT_NEGATIVE),
}

# Key below MODEL.PROPOSAL_LEARNING, of the meta-architecture ProposalLearningRCNN: (default,
# limit). All are ours.
_PROPOSAL_KEYS: dict[str, tuple[Any, Limit]] = {
    # Of each unlabeled image, the best so many proposals; noisy copies of each; the share of
    # channels of their features that is left out of a copy.
    "PROPOSALS": (64, limits.AT_LEAST_1),
    "COPIES": (4, limits.AT_LEAST_1),
    "DROP": (1 / 64, limits.BELOW_1),
    # Of the comparison of copies with each other.
    "TEMPERATURE": (0.1, limits.POSITIVE),
    # How much the losses count: of a proposal's place, of the comparison, of classes, of boxes.
    "LOCATION_WEIGHT": (0.25, limits.NOT_NEGATIVE),
    "CONTRAST_WEIGHT": (1.0, limits.NOT_NEGATIVE),
    "CLASS_WEIGHT": (1.0, limits.NOT_NEGATIVE),
    "BOX_WEIGHT": (0.5, limits.NOT_NEGATIVE),
}

# Key below MODEL.TIMM, of backbones of timm's (MODEL.BACKBONE.NAME: build_timm_fpn_backbone):
# (default, limit). MODEL.FPN.OUT_CHANNELS, .NORM and .FUSE_TYPE are read, too.
# MODEL.BACKBONE.FREEZE_AT k freezes all that the maps of strides up to 2^k are computed with; 0:
# nothing. MODEL.PIXEL_MEAN and .PIXEL_STD, where both are Detectron2's defaults, are replaced with
# those of timm's weights.
_TIMM_KEYS: dict[str, tuple[Any, Limit]] = {
    # One of timm.list_models(), or of timm.list_pretrained(), which tells the weights, too.
    "NAME": ("resnet50", limits.TEXT),
    # Which of its maps are taken, finest first. (): those of strides 4, 8, 16 and 32, as far as it
    # has them, the last one of each. A single map, as of a plain ViT, becomes a simple pyramid.
    "OUT_INDICES": ((), each(limits.COUNT)),
    # What it starts from: a file with a state_dict of timm's; "pretrained": weights that timm
    # downloads; empty: random ones. MODEL.WEIGHTS is loaded after it.
    "WEIGHTS": ("", limits.TEXT),
    # Its batch normalization: with the statistics that come with its weights ("FrozenBN"), with
    # those of the batch ("BN") or of the batches of all GPUs ("SyncBN").
    "NORM": ("FrozenBN", one_of("FrozenBN", "BN", "SyncBN")),
}
_SECTIONS = {
    "SSOD": _KEYS,
    "MODEL.SSD": _SSD_KEYS,
    "MODEL.PROPOSAL_LEARNING": _PROPOSAL_KEYS,
    "MODEL.TIMM": _TIMM_KEYS,
}

_LIMITS = {
    **{f"{at}.{name}": own[1] for at, keys in _SECTIONS.items() for name, own in keys.items()},
    **OF_DETECTRON2,
}


_extensions: list[Callable[[CfgNode], None]] = []


def extend_config(add_keys: Callable[[CfgNode], None]) -> Callable[[CfgNode], None]:
    """Have keys of your own in every config; a decorator.

    To be called by a module that ``SSOD.IMPORTS`` names, so that each process of a run does it, and
    commands on its folder (``report``, ``predict``, ...) do.

    Args:
        add_keys: adds them in place, as :func:`add_ssod_config` does: those that are there already
            it leaves as they are (``setdefault``).
    """
    if add_keys not in _extensions:
        _extensions.append(add_keys)
    return add_keys


def shipped_configs() -> Path:
    """Find the folder of ready configs: beside the code in a wheel, above it in the repository."""
    package = Path(__file__).parent
    inside, above = package / "configs", package.parent / "configs"
    return inside if inside.is_dir() else above


def add_ssod_config(cfg: CfgNode) -> None:
    """Add this project's keys, in place, to a Detectron2 config.

    They are ``SSOD``, ``DATASETS.UNLABELED``, ``DATASETS.VAL``, and below ``MODEL``: ``SSD``,
    ``PROPOSAL_LEARNING``, ``TIMM``; and those of :func:`extend_config`. Keys that are there
    already, another project's of these names or set before, stay as they are.
    """
    # Images without annotations, as registered names (see SSOD.REGISTER for your own).
    cfg.DATASETS.setdefault("UNLABELED", ())
    # Labeled images to watch training by, never trained on. Optional. The model of each phase is
    # evaluated on them at its end (SSOD.GUARD.VALIDATION, SSOD.KEEP_BEST), and within phases every
    # TEST.EVAL_PERIOD iterations (metrics.json, TensorBoard).
    cfg.DATASETS.setdefault("VAL", ())
    for section, keys in _SECTIONS.items():
        for name, (default, _) in keys.items():
            *nodes, key = f"{section}.{name}".split(".")
            node = cfg
            for section_below in nodes:
                node = node.setdefault(section_below, CfgNode())
            # A list that the defaults of two configs shared could be changed through one of them.
            node.setdefault(key, copy.deepcopy(default))
    for add_keys in _extensions:
        add_keys(cfg)


def check_limits(cfg: CfgNode) -> None:
    """Check that the keys of this project, and those of Detectron2's that have limits, keep them.

    Raises:
        ConfigError: naming the first key that does not.
    """
    for name, limit in _LIMITS.items():
        value = value_of(cfg, name)
        if not limit.holds(value):
            raise ConfigError(f"{name} is {value!r}; it must be {limit.expected}")


def check_kinds(cfg: CfgNode) -> None:
    """Check that keys of Detectron2's have a value where yacs would let them have none.

    Raises:
        ConfigError: naming the first key that is None, or the first of ``DATASETS`` that is not a
            list of names.
    """
    defaults = dict(flat_keys(get_cfg()))
    for key, value in flat_keys(cfg):
        default = defaults.get(key)
        if value is None and default is not None:
            raise ConfigError(f"{key} is None; it must be a {type(default).__name__}")
    for key in ("TRAIN", "UNLABELED", "VAL", "TEST"):
        names = cfg.DATASETS[key]
        if not is_list(names) or not all(isinstance(name, str) for name in names):
            raise ConfigError(f"DATASETS.{key} is {names!r}; it must be a list of names")


def flat_keys(node: CfgNode, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the keys, with their sections, and their values."""
    for key, value in node.items():
        if isinstance(value, CfgNode):
            yield from flat_keys(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def nearest_key(cfg: CfgNode, name: str) -> str | None:
    """Find the key that an unknown one such as ``SSOD.NUM_PHASE`` was probably meant to be.

    Each part is taken for the most similar one that is there; failing that, the last part for the
    same one of another section, if there is only one.
    """
    parts = name.split(".")
    elsewhere = [key for key, _ in flat_keys(cfg) if key.split(".")[-1] == parts[-1]]
    return _nearest_path(cfg, parts) or (elsewhere[0] if len(elsewhere) == 1 else None)


def _nearest_path(node: Any, parts: list[str]) -> str | None:
    if not isinstance(node, CfgNode):
        return None
    part, *below = parts
    found = part if part in node else nearest(part, node)
    if found is None or not below:
        return found
    rest = _nearest_path(node[found], below)
    return None if rest is None else f"{found}.{rest}"


def with_values(cfg: CfgNode, values: Mapping[str, Any]) -> CfgNode:
    """Give a frozen copy with other values of some keys such as ``MODEL.WEIGHTS``.

    Raises:
        KeyError: there is no such key.
    """
    own = cfg.clone()
    own.defrost()
    for name, value in values.items():
        *sections, key = name.split(".")
        section = functools.reduce(getitem, sections, own)
        if key not in section:
            raise KeyError(name)
        section[key] = value
    own.freeze()
    return own


def value_of(cfg: CfgNode, name: str) -> Any:
    """Look up the value of a key such as ``MODEL.ROI_HEADS.NUM_CLASSES``."""
    return functools.reduce(getattr, name.split("."), cfg)
