"""Boxes of a data set that are implausible as a whole: other units, other order, other pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from detectron2.structures import BoxMode

from .annotation_boxes import TOLERANCE, AnnotationBoxes
from .findings import Findings

_SURE_FROM = 10  # boxes, all of which look alike, that are no accident


def check_boxes(images: Sequence[dict[str, Any]], place: str, findings: Findings) -> None:
    """Find boxes that are implausible as a whole.

    Args:
        images: Detectron2 dicts; those without ``height`` and ``width`` are passed over.
        place: begins the lines.
        findings: what is found is added to it.
    """
    boxes = AnnotationBoxes.of(images, crowds=True)
    if len(boxes) == 0:
        return
    if not (_find_fractions(boxes, place, findings) or _find_corners(boxes, place, findings)):
        _find_outside(boxes, place, findings)
        _find_tiny(boxes, place, findings)


def _find_fractions(boxes: AnnotationBoxes, place: str, findings: Findings) -> bool:
    if boxes.corners.max() > 1.5 or boxes.sizes.min() <= 2:
        return False
    report = findings.error if len(boxes) >= _SURE_FROM else findings.warning
    report(
        place,
        "boxes in units of the image",
        boxes.such_as(np.ones(len(boxes), dtype=bool), "are smaller than a pixel or two"),
        "they seem to be fractions of the image: multiply them by its width and height",
    )
    return True


def _find_corners(boxes: AnnotationBoxes, place: str, findings: Findings) -> bool:
    """Find boxes that reach out of their images as sizes, but all lie within them as corners."""
    outside = boxes.outside
    if outside.mean() <= 0.1 or any(a["bbox_mode"] != BoxMode.XYWH_ABS for a in boxes.annotations):
        return False
    given = np.array([annotation["bbox"] for annotation in boxes.annotations], dtype=np.float64)
    fits = given[:, 2:] <= boxes.sizes + TOLERANCE
    if not ((given[:, 2:] > given[:, :2]) & fits).all():
        return False
    report = findings.error if len(boxes) >= _SURE_FROM else findings.warning
    report(
        place,
        "boxes as corners",
        boxes.such_as(outside, "reach outside their image"),
        "they seem to be [x0, y0, x1, y1], which all fit; expected [x, y, width, height]",
    )
    return True


def _find_outside(boxes: AnnotationBoxes, place: str, findings: Findings) -> None:
    if boxes.outside.any():
        findings.warning(
            place,
            "boxes that reach outside their image",
            boxes.such_as(boxes.outside, "reach outside their image"),
            "they are cut at its edges in training; make sure that they are of this picture",
        )


def _find_tiny(boxes: AnnotationBoxes, place: str, findings: Findings) -> None:
    tiny = (boxes.corners[:, 2:] - boxes.corners[:, :2]).min(axis=1) < 1
    if tiny.any():
        findings.warning(
            place,
            "boxes below a pixel",
            boxes.such_as(tiny, "are narrower than a pixel"),
            "boxes below a pixel are hardly objects: correct or remove them",
        )
