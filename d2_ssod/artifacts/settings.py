"""Which settings count for what: for detections, predictions, labels, a training, a judgement.

As config keys and their values, those that are noted as JSON gives them back, so that what was
compares with what is.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode

from d2_ssod.config import flat_keys, value_of
from d2_ssod.modeling import DETECTORS, detector_of
from d2_ssod.pseudo_label import LABEL_RULES

_TTA = "SSOD.TTA.ENABLED"
# What inference with any detector reads, besides the model and its own keys.
_DETECTIONS = ("INPUT.FORMAT", "TEST.DETECTIONS_PER_IMAGE")
_SIZES = ("INPUT.MIN_SIZE_TEST", "INPUT.MAX_SIZE_TEST")
_TTA_SIZES = ("TEST.AUG.MIN_SIZES", "TEST.AUG.MAX_SIZE", "TEST.AUG.FLIP")

# What pseudo-labels depend on, besides the section of the rule that makes them.
_LABELS = (
    *("SSOD.LABELS", "SSOD.CONSENSUS.EXTRA_SOURCES", "SSOD.PSEUDO_LABEL.KEEP_FRACTION", _TTA),
    "SSOD.SELECTION",
)
_HOW_LEARNED = ("SSOD.TIERS.UNCERTAIN", "SSOD.TIERS.MAX_SPREAD")  # of a section, but not of labels

# Keys, or sections, of a phase's config that do not change what it learns: devices, places, lengths
# (a phase may be trained longer), what is told and kept, and what is read in other phases or steps.
_OF_NO_EFFECT = (
    *("OUTPUT_DIR", "VERSION", "VIS_PERIOD", "CUDNN_BENCHMARK", "FLOAT32_PRECISION", "GLOBAL"),
    *("DATALOADER.NUM_WORKERS", "DATASETS", "TEST", "MODEL.DEVICE", "MODEL.WEIGHTS"),
    *("SOLVER.MAX_ITER", "SOLVER.STEPS", "SOLVER.CHECKPOINT_PERIOD", "SOLVER.AMP"),
    "MODEL.TIMM.WEIGHTS",
    *("SSOD.IMPORTS", "SSOD.REGISTER", "SSOD.START", "SSOD.NUM_PHASES", "SSOD.SCHEDULE"),
    "SSOD.EASY_FRACTIONS",
    *("SSOD.LABELS", "SSOD.CONSENSUS", "SSOD.SELECTION", "SSOD.PSEUDO_LABEL", "SSOD.TTA"),
    *("SSOD.GUARD", "SSOD.KEEP_BEST", "SSOD.DIAGNOSTICS", "SSOD.ENSEMBLE"),
    *("SSOD.INFERENCE_BATCH_SIZE", "SSOD.RESUME_ANYWAY", "SSOD.REPORT", "SSOD.CHECK_LABELED"),
)
# Whether images without objects are learned from, of the labeled ones and of those in which a
# person has found none.
EMPTY_IMAGES = "DATALOADER.FILTER_EMPTY_ANNOTATIONS"
# Those that matter only where there are pseudo-labels ...
_NOT_IN_PHASE_0 = (
    *("SSOD.PHASE_INIT", "SSOD.LABELED_REPEAT", "SSOD.TEACHER", "SSOD.AVERAGE.RAMP"),
    EMPTY_IMAGES,  # besides which labeled images there are, which is compared itself
)
# ... unless they are "all"; otherwise they may change, among other values, after phase 0.
_WHETHER_IN_PHASE_0 = ("SSOD.AUG.STRONG", "SSOD.ROI_WEIGHTING.APPLY_TO")
# Sections of Detectron2's, whose keys phase 0 learns by, whoever else reads them.
_LEARNED_BY = ("MODEL", "INPUT", "SOLVER", "DATALOADER")


def detection_settings(cfg: CfgNode) -> dict[str, Any]:
    """Collect what the detections of a model depend on: sizes of images, thresholds, limits.

    Those of the detector's family, and keys ``MODEL.*_TEST`` of no family, which a subclass of
    one's own may read.
    """
    own = detector_of(cfg).inference_keys
    others = {key for detector in DETECTORS.values() for key in detector.inference_keys} - {*own}
    named = [k for k, _ in flat_keys(cfg.MODEL, "MODEL.") if k.endswith("_TEST")]
    keys = dict.fromkeys([*_DETECTIONS, *_SIZES, *own, *(k for k in named if k not in others)])
    return _values(cfg, list(keys))


def prediction_settings(cfg: CfgNode) -> dict[str, Any]:
    """Collect what predictions on unlabeled images depend on: of one view of each, or of several.

    So does the size of batches, whose images are padded to one size.
    """
    views = _values(cfg, (_TTA, "SSOD.INFERENCE_BATCH_SIZE"))
    found = detection_settings(cfg)
    if not cfg.SSOD.TTA.ENABLED:
        return views | found
    return views | {k: v for k, v in found.items() if k not in _SIZES} | _values(cfg, _TTA_SIZES)


def judging_settings(cfg: CfgNode) -> list[tuple[str, Any]]:
    """List what those models have in common whose metrics may be compared, besides the images.

    Of all detectors, each of which may be compared with any other. By what they are trained with,
    such as ``INPUT.FORMAT``, they may differ.
    """
    return [
        (key, value)
        for key, value in flat_keys(cfg)
        if key.endswith("_TEST") or key == "TEST.DETECTIONS_PER_IMAGE"
    ]


def evaluation_settings(cfg: CfgNode) -> dict[str, Any]:
    """Collect what the results of a run's models depend on, each alone and fused."""
    tested = _values(cfg, ("DATASETS.TEST",))
    return tested | detection_settings(cfg) | _below(cfg, "SSOD.ENSEMBLE")


def label_settings(cfg: CfgNode) -> dict[str, Any]:
    """Collect what pseudo-labels depend on: their rule, its section, the selection of images."""
    section = LABEL_RULES[cfg.SSOD.LABELS].section
    of_rule = _below(cfg, section) if section else {}
    return _values(cfg, _LABELS) | {k: v for k, v in of_rule.items() if k not in _HOW_LEARNED}


def training_settings(own: CfgNode, phase: int) -> dict[str, Any]:
    """Collect what a phase learns by.

    Args:
        own: config of the phase.
        phase: 0..N.
    """
    ignored = _OF_NO_EFFECT + (_ignored_in_phase_0(own) if phase == 0 else ())
    settings = {
        key: value
        for key, value in _as_json(dict(flat_keys(own))).items()
        if not key.endswith("_TEST") and not is_below(key, ignored)
    }
    if phase == 0:
        chosen = _values(own, _WHETHER_IN_PHASE_0)
        settings.update({k: v if v == "all" else "pseudo" for k, v in chosen.items()})
    return settings


def is_below(key: str, sections: Sequence[str]) -> bool:
    """Tell whether a key is one of these, or in a section that is."""
    return any(key == section or key.startswith(section + ".") for section in sections)


def _ignored_in_phase_0(own: CfgNode) -> tuple[str, ...]:
    """List what phase 0 does not learn by, as the config is."""
    # Of rules that make labels, one's own too; they may share keys with the detector.
    sections = [rule.section for rule in LABEL_RULES.values() if rule.section]
    ignored = (*_NOT_IN_PHASE_0, *(each for each in sections if not is_below(each, _LEARNED_BY)))
    if own.SSOD.ROI_WEIGHTING.APPLY_TO != "all":
        ignored += ("SSOD.ROI_WEIGHTING",)
    if not detector_of(own).learns_unlabeled:
        ignored += ("SSOD.SAMPLING",)
    return ignored


def _values(cfg: CfgNode, keys: Sequence[str]) -> dict[str, Any]:
    return _as_json({key: value_of(cfg, key) for key in keys})


def _below(cfg: CfgNode, section: str) -> dict[str, Any]:
    return _as_json(dict(flat_keys(value_of(cfg, section), section + ".")))


def _as_json(settings: dict[str, Any]) -> dict[str, Any]:
    """Give values as they are read from JSON, which has no tuples."""
    return json.loads(json.dumps(settings))
