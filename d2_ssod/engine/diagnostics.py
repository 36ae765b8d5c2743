"""What is said about pseudo-labels before they are trained on: guards, and known truth."""

from __future__ import annotations

import logging
import os
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog

from d2_ssod.data.box_checks import corners_of
from d2_ssod.data.datasets import read_data_set
from d2_ssod.data.findings import raise_first
from d2_ssod.errors import ConfigError
from d2_ssod.pseudo_label import Guard, PseudoLabels, TrueObjects, measure_labels
from d2_ssod.structures import Detections, ImageId, Predictions

from .run_data import RunData

logger = logging.getLogger(__name__)


def check_labels(cfg: CfgNode, phase: int, labels: PseudoLabels, data: RunData) -> None:
    """Say, or stop at, what looks harmful about a phase's pseudo-labels (``SSOD.GUARD``).

    Raises:
        ConfigError: a guard that is set to "stop".
    """
    keys = cfg.SSOD.GUARD
    guard = Guard(keys.CLASS_SHARE, keys.RATE_FACTOR, keys.CONSENSUS_KEPT)
    objects = data.objects_per_image
    images = len(labels.selection.kept)
    found = {
        "VANISHED_CLASS": guard.vanished_classes(
            labels.boxes_per_class, objects, data.thing_classes
        ),
        "BOX_RATE": guard.box_rate(labels.num_boxes, images, float(objects.sum())),
        "CONSENSUS": guard.little_consensus(
            labels.boxes_after_consensus, labels.boxes_after_threshold
        ),
    }
    for name, problem in found.items():
        if problem is not None:
            act_on(cfg, name, f"Phase {phase}: {problem}")


def act_on(cfg: CfgNode, name: str, problem: str) -> None:
    """Do with what a guard has found what ``SSOD.GUARD.<name>`` asks for.

    Raises:
        ConfigError: it is "stop".
    """
    action, line = cfg.SSOD.GUARD[name], f"{problem} (SSOD.GUARD.{name})"
    if action == "stop":
        raise ConfigError(f"{line}; to go on all the same set SSOD.GUARD.{name} to warn")
    if action == "warn":
        logger.warning("%s", line)


class LabelTruth:
    """Measures the labels after each step by ``SSOD.DIAGNOSTICS.UNLABELED_TRUTH``."""

    def __init__(self, cfg: CfgNode, phase: int, data: RunData) -> None:
        self._phase, self._classes = phase, data.thing_classes
        self.found: dict[str, Any] = {}
        """Quality by step, for the manifest; empty if no truth is known."""
        known = cfg.SSOD.DIAGNOSTICS.UNLABELED_TRUTH
        self._truth = load_truth(cfg, data) if known else {}

    def observe(self, step: str, labels: Predictions) -> None:
        """Measure the labels after a step, and say how right they are."""
        if not self._truth:
            return
        quality = measure_labels(labels, self._truth, len(self._classes))
        self.found[step] = quality.as_dict(self._classes)
        logger.info("Phase %d, true labels: %s: %s", self._phase, step, quality.describe())


def load_truth(cfg: CfgNode, data: RunData) -> dict[ImageId, TrueObjects]:
    """Load the objects of the unlabeled images from ``SSOD.DIAGNOSTICS.UNLABELED_TRUTH``.

    Raises:
        ConfigError: there is none of this name, it has other classes, or none of the images.
    """
    key, name = "SSOD.DIAGNOSTICS.UNLABELED_TRUTH", cfg.SSOD.DIAGNOSTICS.UNLABELED_TRUTH
    if name not in DatasetCatalog:
        raise ConfigError(f"{key}: no data set is registered as {name!r}; register it")
    found = read_data_set(name)
    raise_first(found.findings)
    if found.thing_classes != data.thing_classes:
        raise ConfigError(f"{key}: {name} has other classes than DATASETS.TRAIN; use the same")
    ids = {_identity(image): image["image_id"] for image in data.unlabeled}
    truth = {
        ids[_identity(image)]: _true_objects(image)
        for image in found.images
        if _identity(image) in ids
    }
    if not truth:
        raise ConfigError(f"{key}: {name} has none of the unlabeled images; name one that has")
    return truth


def _identity(image: dict) -> str:
    return os.path.realpath(image["file_name"])


def _true_objects(image: dict) -> TrueObjects:
    annotations = image.get("annotations", ())
    return TrueObjects(
        _detections([a for a in annotations if not a.get("iscrowd", 0)]),
        _detections([a for a in annotations if a.get("iscrowd", 0)]),
    )


def _detections(annotations: list[dict]) -> Detections:
    boxes = [corners_of(annotation) for annotation in annotations]
    return Detections(
        np.array(boxes, dtype=np.float32).reshape(-1, 4),
        np.ones(len(annotations), dtype=np.float32),
        np.array([a["category_id"] for a in annotations], dtype=np.int64),
    )
