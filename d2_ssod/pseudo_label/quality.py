"""How right pseudo-labels are, where the truth is known: for diagnostics, never for training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from d2_ssod.ops import pairwise_iof, pairwise_iou
from d2_ssod.structures import Detections, ImageId, Predictions


@dataclass(frozen=True)
class TrueObjects:
    """The objects in one image.

    Attributes:
        objects: boxes and classes; the scores do not matter.
        crowds: regions of many objects; boxes that lie in one count neither as right nor as wrong.
    """

    objects: Detections
    crowds: Detections


@dataclass(frozen=True)
class LabelQuality:
    """Counts of each class, over some images.

    Attributes:
        boxes: int64 [C], pseudo-boxes.
        correct: int64 [C], those that match an object.
        objects: int64 [C], objects in these images.
        iou: float64 [C], sum of the IoU of the matches.
    """

    boxes: np.ndarray
    correct: np.ndarray
    objects: np.ndarray
    iou: np.ndarray

    def describe(self) -> str:
        """Say precision, recall and mean IoU over all classes in one line."""
        of_all = _ratios(self.boxes.sum(), self.correct.sum(), self.objects.sum(), self.iou.sum())
        return "precision {precision}, recall {recall}, mean IoU {mean_iou}, {boxes} boxes".format(
            **{k: f"{v:.2f}" if isinstance(v, float) else v for k, v in of_all.items()}
        )

    def as_dict(self, thing_classes: Sequence[str]) -> dict[str, Any]:
        """Give precision, recall, mean IoU and counts, over all classes and of each, for JSON."""
        columns = (self.boxes, self.correct, self.objects, self.iou)
        rows = zip(*columns, strict=True)
        of_class = {name: _ratios(*row) for name, row in zip(thing_classes, rows, strict=True)}
        return {**_ratios(*(column.sum() for column in columns)), "classes": of_class}


def measure_labels(
    found: Predictions,
    truth: Mapping[ImageId, TrueObjects],
    num_classes: int,
    iou_thresh: float = 0.5,
) -> LabelQuality:
    """Compare boxes with the objects of their images.

    In every image and class, the boxes take in the order of their scores the free object that they
    overlap most, if the IoU is at least ``iou_thresh``. Precision = correct / boxes, recall =
    correct / objects; objects of other images than those in ``found`` do not count.

    Args:
        found: the boxes; images without a known truth are passed over.
        truth: the objects of each image.
        num_classes: C.
        iou_thresh: of a match.
    """
    boxes, correct, objects = np.zeros((3, num_classes), dtype=np.int64)
    iou = np.zeros(num_classes)
    for image_id, of_image in found.items():
        if image_id not in truth:
            continue
        known = truth[image_id]
        np.add.at(objects, known.objects.classes, 1)
        matched, is_ignored = _match(of_image, known, iou_thresh)
        np.add.at(boxes, of_image.classes[~is_ignored], 1)
        np.add.at(correct, of_image.classes[matched > 0], 1)
        np.add.at(iou, of_image.classes, matched)
    return LabelQuality(boxes, correct, objects, iou)


def _match(
    found: Detections, known: TrueObjects, iou_thresh: float
) -> tuple[np.ndarray, np.ndarray]:
    """Match the boxes of an image: IoU of each with its object or 0; whether it is in a crowd."""
    matched = np.zeros(len(found))
    overlaps = _overlaps(pairwise_iou, found, known.objects)
    free = np.ones(len(known.objects), dtype=bool)
    for number in np.argsort(-found.scores, kind="stable"):
        candidates = np.where(free, overlaps[number], 0)
        if candidates.size and candidates.max() >= iou_thresh:
            free[candidates.argmax()] = False
            matched[number] = candidates.max()
    inside = _overlaps(pairwise_iof, found, known.crowds).max(axis=1, initial=0) >= iou_thresh
    return matched, inside & (matched == 0)


def _overlaps(function: Any, found: Detections, known: Detections) -> np.ndarray:
    """[n, m] overlaps of the boxes of one class; 0 for those of different ones."""
    overlaps = function(torch.from_numpy(found.boxes), torch.from_numpy(known.boxes)).numpy()
    return np.where(found.classes[:, None] == known.classes, overlaps, 0)


def _ratios(boxes: int, correct: int, objects: int, iou: float) -> dict[str, Any]:
    def share(part: float, whole: int) -> float:
        return float(part / whole) if whole else float("nan")

    return {
        "precision": share(correct, boxes),
        "recall": share(correct, objects),
        "mean_iou": share(iou, correct),
        "boxes": int(boxes),
        "correct": int(correct),
        "objects": int(objects),
    }
