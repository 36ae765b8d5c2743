"""The boxes of annotations: their corners, and all of a data set's at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from detectron2.structures import BoxMode

TOLERANCE = 1.0  # pixels that tools' rounding may add


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


@dataclass(frozen=True)
class AnnotationBoxes:
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
    def of(cls, images: Sequence[dict[str, Any]], *, crowds: bool) -> AnnotationBoxes:
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
        below = (self.corners[:, :2] < -TOLERANCE).any(axis=1)
        return below | (self.corners[:, 2:] > self.sizes + TOLERANCE).any(axis=1)

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
