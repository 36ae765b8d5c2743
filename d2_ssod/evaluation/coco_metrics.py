"""COCO's metrics of boxes, by the COCO API, whatever ids a user's files have."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from d2_ssod.structures import Detections

Metrics = dict[str, float]

# COCO's summary numbers as Detectron2 names them: IoU thresholds (0.5 to 0.95), range of areas.
_SUMMARY = {
    "AP": (slice(None), 0),
    "AP50": (0, 0),
    "AP75": (5, 0),
    "APs": (slice(None), 1),
    "APm": (slice(None), 2),
    "APl": (slice(None), 3),
}
_DETECTIONS = 100  # of a class in an image, the best ones, that COCO judges


@dataclass(frozen=True)
class Truth:
    """The objects in one image.

    Attributes:
        boxes: float64 [n, 4], XYWH, absolute pixels.
        classes: int64 [n], contiguous class ids.
        is_crowd: bool [n]; crowds count neither as found nor as missed.
        areas: float64 [n], square pixels; sort the objects into small, medium and large.
    """

    boxes: np.ndarray
    classes: np.ndarray
    is_crowd: np.ndarray
    areas: np.ndarray


def box_metrics(
    truths: Sequence[Truth], detections: Sequence[Detections], class_names: Sequence[str]
) -> Metrics:
    """Compute AP, AP50, AP75, APs, APm, APl, and with several classes the AP of each, in percent.

    Ids are made here, from 1: the COCO API takes a match with an annotation of id 0 for none. Uses
    ``faster-coco-eval`` where it is installed (the same numbers, compiled), else ``pycocotools``.
    As in COCO, the 100 best detections of a class in an image are judged; where one has more
    objects of a class, as many as these.

    Args:
        truths: of each image.
        detections: of each image, in the same order; XYXY.
        class_names: of all classes.

    Returns:
        NaN for what has no object. Without any detection, 0 for what has.
    """
    COCO, COCOeval = _api()
    with contextlib.redirect_stdout(io.StringIO()):
        images = [{"id": number} for number, _ in enumerate(truths, start=1)]
        categories = [{"id": number} for number, _ in enumerate(class_names, start=1)]
        sides = []
        for rows in (_truth_rows(truths), _detection_rows(detections)):
            side = COCO()
            annotations = [{"id": number, **row} for number, row in enumerate(rows, start=1)]
            side.dataset = {"images": images, "categories": categories, "annotations": annotations}
            side.createIndex()
            sides.append(side)
        evaluation = COCOeval(*sides, "bbox")
        evaluation.params.maxDets = [max([_DETECTIONS, *map(_most_of_a_class, truths)])]
        evaluation.evaluate()
        evaluation.accumulate()
    # [IoU threshold, recall, class, area range]; -1 where there is no object.
    precision = np.asarray(evaluation.eval["precision"])[..., -1]
    metrics = {name: _mean(precision[iou, ..., area]) for name, (iou, area) in _SUMMARY.items()}
    if len(class_names) > 1:
        for number, name in enumerate(class_names):
            metrics[f"AP-{name}"] = _mean(precision[:, :, number, 0])
    return metrics


def _most_of_a_class(truth: Truth) -> int:
    """Count the objects in an image of the class that has most."""
    return int(np.bincount(truth.classes).max(initial=0))


def _api() -> tuple[Any, Any]:
    """Give the two classes of the COCO API."""
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

        return COCO, COCOeval
    return COCO, COCOeval_faster


def _truth_rows(truths: Sequence[Truth]) -> Iterable[dict[str, Any]]:
    for image_id, truth in enumerate(truths, start=1):
        columns = (truth.boxes, truth.classes, truth.is_crowd, truth.areas)
        rows = zip(*(column.tolist() for column in columns), strict=True)
        for box, category, is_crowd, area in rows:
            yield {
                "image_id": image_id,
                "category_id": category + 1,
                "bbox": box,
                "area": area,
                "iscrowd": int(is_crowd),
            }


def _detection_rows(detections: Sequence[Detections]) -> Iterable[dict[str, Any]]:
    for image_id, found in enumerate(detections, start=1):
        boxes = found.boxes.astype(np.float64)
        boxes[:, 2:] -= boxes[:, :2]
        columns = (boxes, found.classes, found.scores.astype(np.float64))
        rows = zip(*(column.tolist() for column in columns), strict=True)
        for box, category, score in rows:
            yield {
                "image_id": image_id,
                "category_id": category + 1,
                "bbox": box,
                "area": box[2] * box[3],
                "score": score,
                "iscrowd": 0,
            }


def _mean(precision: np.ndarray) -> float:
    """Average in percent what is known of it."""
    known = precision[precision > -1]
    return float(np.mean(known)) * 100 if known.size else float("nan")
