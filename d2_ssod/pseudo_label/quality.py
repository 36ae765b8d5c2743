"""How right pseudo-labels are, where the truth is known: for diagnostics, never for training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

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
        return (
            f"precision {of_all['precision']:.2f}, recall {of_all['recall']:.2f}, "
            f"mean IoU {of_all['mean_iou']:.2f}, {of_all['boxes']} boxes"
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
        judged = judge_boxes(of_image, known, iou_thresh)
        np.add.at(boxes, of_image.classes[judged.counts], 1)
        np.add.at(correct, of_image.classes[judged.is_right], 1)
        np.add.at(iou, of_image.classes, judged.iou)
    return LabelQuality(boxes, correct, objects, iou)


class JudgedBoxes(NamedTuple):
    """What the objects of an image say of n boxes.

    Attributes:
        taken: int64 [n], the object that each box takes, -1 for none.
        counts: bool [n], which of them count, as those in crowds do not unless they are right.
        iou: float64 [n], the IoU with the object that a box takes, 0 for none.
        missed: bool [g], which objects no box takes.
    """

    taken: np.ndarray
    counts: np.ndarray
    iou: np.ndarray
    missed: np.ndarray

    @property
    def is_right(self) -> np.ndarray:
        """Which boxes take an object; bool [n]."""
        return self.taken >= 0

    @property
    def is_wrong(self) -> np.ndarray:
        """Which boxes count, but take none; bool [n]."""
        return self.counts & ~self.is_right


def judge_boxes(found: Detections, known: TrueObjects, iou_thresh: float) -> JudgedBoxes:
    """Compare the boxes of an image with its objects, as :func:`measure_labels` does.

    Args:
        found: the boxes.
        known: the objects, and crowds.
        iou_thresh: of a match.
    """
    taken, iou = _match_greedily(found, known.objects, iou_thresh)
    counts = (taken >= 0) | ~_are_in_crowds(found, known.crowds, iou_thresh)
    missed = ~np.isin(np.arange(len(known.objects)), taken)
    return JudgedBoxes(taken, counts, iou, missed)


def _match_greedily(
    found: Detections, objects: Detections, iou_thresh: float
) -> tuple[np.ndarray, np.ndarray]:
    """Let boxes, best score first, each take the free object of their class they overlap most.

    Args:
        found: the boxes of an image.
        objects: in it.
        iou_thresh: least IoU of a box and the object that it takes.

    Returns:
        int64 [n], the object that each box takes, -1 for none; and float64 [n], the IoU with it, 0
        for none.
    """
    taken, iou = np.full(len(found), -1), np.zeros(len(found))
    if len(objects) == 0:
        return taken, iou
    boxes = (torch.from_numpy(boxes).double() for boxes in (found.boxes, objects.boxes))
    overlaps = pairwise_iou(*boxes).numpy()
    overlaps = np.where(found.classes[:, None] == objects.classes, overlaps, 0.0)
    for number in np.argsort(-found.scores, kind="stable"):
        best = overlaps[number].argmax()
        if overlaps[number, best] >= iou_thresh:
            taken[number], iou[number] = best, overlaps[number, best]
            overlaps[:, best] = 0.0
    return taken, iou


def _are_in_crowds(found: Detections, crowds: Detections, share: float) -> np.ndarray:
    """Tell which boxes lie in a crowd of their class by at least this share; bool [n]."""
    inside = pairwise_iof(torch.from_numpy(found.boxes), torch.from_numpy(crowds.boxes)).numpy()
    inside = np.where(found.classes[:, None] == crowds.classes, inside, 0)
    return inside.max(axis=1, initial=0) >= share


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
