"""Boxes of a data set that are implausible as a whole: other units, other order, other pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from detectron2.structures import BoxMode

from .findings import Findings

_TOLERANCE = 1.0  # pixels that tools' rounding may add
_SURE_FROM = 10  # boxes, all of which look alike, that are no accident


@dataclass(frozen=True)
class Boxes:
    """The boxes of all images that have a size.

    Attributes:
        records: dict of the image of each box.
        annotations: of each box.
        corners: float64 [n, 4], XYXY.
        sizes: float64 [n, 2], width and height of the image of each box.
    """

    records: list[dict[str, Any]]
    annotations: list[dict[str, Any]]
    corners: np.ndarray
    sizes: np.ndarray

    @classmethod
    def of(cls, images: Sequence[dict[str, Any]], *, crowds: bool) -> Boxes:
        """Collect the boxes; those that are none, and images without a size, are passed over.

        Args:
            images: Detectron2 dicts.
            crowds: take those of crowds, too.
        """
        pairs = [
            (record, annotation)
            for record in images
            if record.get("height") and record.get("width")
            for annotation in record.get("annotations", ())
            if is_plain(annotation) and (crowds or not annotation.get("iscrowd"))
        ]
        corners = np.array([corners_of(a) for _, a in pairs], dtype=np.float64)
        sizes = np.array([[r["width"], r["height"]] for r, _ in pairs], dtype=np.float64)
        return cls(
            [r for r, _ in pairs],
            [a for _, a in pairs],
            corners.reshape(-1, 4),
            sizes.reshape(-1, 2),
        )

    def __len__(self) -> int:
        return len(self.records)

    @property
    def outside(self) -> np.ndarray:
        """Tell which boxes reach outside their image; bool [n]."""
        below = (self.corners[:, :2] < -_TOLERANCE).any(axis=1)
        return below | (self.corners[:, 2:] > self.sizes + _TOLERANCE).any(axis=1)

    def such_as(self, which: np.ndarray, what: str) -> str:
        """Say of how many boxes something is so, and show the first.

        Args:
            which: bool [n].
            what: ends the sentence "3 of 4 boxes ...".
        """
        number = int(which.argmax())
        record, box = self.records[number], self.annotations[number]["bbox"]
        shown = ", ".join(f"{value:g}" for value in box)
        return (
            f"{which.sum()} of {len(self)} boxes {what}, such as box [{shown}] of "
            f"{record['file_name']} ({record['width']} x {record['height']} pixels)"
        )


def check_boxes(images: Sequence[dict[str, Any]], place: str, findings: Findings) -> None:
    """Find boxes that are implausible as a whole.

    Args:
        images: Detectron2 dicts; those without ``height`` and ``width`` are passed over.
        place: begins the lines.
        findings: what is found is added to it.
    """
    boxes = Boxes.of(images, crowds=True)
    if len(boxes) == 0:
        return
    if not (_find_fractions(boxes, place, findings) or _find_corners(boxes, place, findings)):
        _find_outside(boxes, place, findings)
        _find_tiny(boxes, place, findings)


def _find_fractions(boxes: Boxes, place: str, findings: Findings) -> bool:
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


def _find_corners(boxes: Boxes, place: str, findings: Findings) -> bool:
    """Find boxes that reach out of their images as sizes, but all lie within them as corners."""
    outside = boxes.outside
    if outside.mean() <= 0.1 or any(a["bbox_mode"] != BoxMode.XYWH_ABS for a in boxes.annotations):
        return False
    given = np.array([annotation["bbox"] for annotation in boxes.annotations], dtype=np.float64)
    fits = given[:, 2:] <= boxes.sizes + _TOLERANCE
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


def _find_outside(boxes: Boxes, place: str, findings: Findings) -> None:
    if boxes.outside.any():
        findings.warning(
            place,
            "boxes that reach outside their image",
            boxes.such_as(boxes.outside, "reach outside their image"),
            "they are cut at its edges in training; make sure that they are of this picture",
        )


def _find_tiny(boxes: Boxes, place: str, findings: Findings) -> None:
    tiny = (boxes.corners[:, 2:] - boxes.corners[:, :2]).min(axis=1) < 1
    if tiny.any():
        findings.warning(
            place,
            "boxes below a pixel",
            boxes.such_as(tiny, "are narrower than a pixel"),
            "boxes below a pixel are hardly objects: correct or remove them",
        )


def corners_of(annotation: dict[str, Any]) -> Sequence[float]:
    """Give the corners of an annotation's box, x0, y0, x1, y1."""
    box, mode = annotation["bbox"], annotation["bbox_mode"]
    if mode == BoxMode.XYXY_ABS:
        return box
    if mode == BoxMode.XYWH_ABS:
        x, y, width, height = box
        return x, y, x + width, y + height
    return BoxMode.convert(list(box), mode, BoxMode.XYXY_ABS)


def is_plain(annotation: dict[str, Any]) -> bool:
    """Tell whether an annotation has a box of four finite numbers."""
    box = annotation.get("bbox", ())
    return len(box) == 4 and all(math.isfinite(value) for value in box)
