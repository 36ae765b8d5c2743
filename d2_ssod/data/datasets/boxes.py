"""Boxes as annotation files give them: their records, and which cannot be trained on."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from detectron2.structures import BoxMode

from d2_ssod.values import as_number

from ..findings import Findings

_OF_BOX = "correct the box; it is left out"


def read_four(value: Any) -> list[float] | None:
    """Read four finite numbers; None for anything else."""
    if not isinstance(value, (list, tuple)) or len(value) != 4:
        return None
    numbers = [as_number(item) for item in value]
    return None if None in numbers else numbers


def is_usable(
    xyxy: Sequence[float], record: dict, place: str, who: str, findings: Findings
) -> bool:
    """Tell whether a box covers a part of its image; warn of one that does not.

    Args:
        xyxy: corners in pixels.
        record: dict of the image; without ``width`` and ``height`` only the area is looked at.
        place: file, for the warning.
        who: the annotation, for the warning.
        findings: gets the warning.
    """
    x0, y0, x1, y1 = xyxy
    shown = "[" + ", ".join(f"{value:g}" for value in xyxy) + "]"
    if x1 <= x0 or y1 <= y0:
        findings.warning(
            place, "boxes without area", f"{who} has the box {shown} without area", _OF_BOX
        )
        return False
    width, height = record.get("width"), record.get("height")
    if x1 <= 0 or y1 <= 0 or (width and x0 >= width) or (height and y0 >= height):
        findings.warning(
            place,
            "boxes outside their image",
            f"{who} has the box {shown} (x0, y0, x1, y1), outside its image of {width} x {height} "
            "pixels",
            _OF_BOX,
        )
        return False
    return True


def warn_of_copies(images: Iterable[dict[str, Any]], place: str, findings: Findings) -> None:
    """Warn of boxes of one class that an image has more than once.

    Args:
        images: Detectron2 dicts.
        place: file, for the warning.
        findings: gets the warnings.
    """
    for record in images:
        found = Counter((a["category_id"], *a["bbox"]) for a in record.get("annotations", ()))
        for (_, *box), times in found.items():
            if times > 1:
                findings.warning(
                    place,
                    "boxes that occur more than once",
                    f"image {os.path.basename(record['file_name'])} has the box "
                    f"[{', '.join(f'{value:g}' for value in box)}] {times} times",
                    "remove the copies: each counts as an object of its own",
                )


def corner_annotation(
    category: int | str, xyxy: Sequence[float], *, is_crowd: bool = False
) -> dict[str, Any]:
    """Make the annotation of a box that is given by its corners, in pixels."""
    x0, y0, x1, y1 = xyxy
    return {
        "category_id": category,
        "bbox": xyxy,
        "bbox_mode": BoxMode.XYXY_ABS,
        "iscrowd": int(is_crowd),
        "area": (x1 - x0) * (y1 - y0),
    }
