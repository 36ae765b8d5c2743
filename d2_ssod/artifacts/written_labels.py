"""Which labels of a phase were written, so that it is known if a person has changed them since."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

from d2_ssod.file_names import base_name
from d2_ssod.structures import Predictions

from .predictions import BOX_DECIMALS, coco_rows


def describe_written(
    labels: Predictions, dataset_dicts: Sequence[dict], thing_classes: Sequence[str]
) -> dict[str, Any]:
    """Describe for the manifest what :func:`save_pseudo_labels` writes of these labels."""
    name_of = {record["image_id"]: base_name(record["file_name"]) for record in dataset_dicts}
    rows = list(coco_rows(labels, range(len(thing_classes))))
    return {
        "images": len(labels),
        "images_empty": len(labels) - len({image_id for image_id, *_ in rows}),
        "boxes": len(rows),
        "sha256": _digest((name_of[image_id], number, bbox) for image_id, number, bbox, _ in rows),
    }


def were_changed(images: Sequence[dict], written: dict[str, Any]) -> bool:
    """Tell whether labels are others than were written; False if that is not known.

    Args:
        images: of the file now, by :func:`load_labels`.
        written: of the manifest; empty in those of earlier versions.
    """
    rows = (
        (base_name(image["file_name"]), own["category_id"], own["bbox"])
        for image in images
        for own in image["annotations"]
    )
    return "sha256" in written and written["sha256"] != _digest(rows)


def _digest(rows: Iterable[tuple[str, int, Sequence[float]]]) -> str:
    """Hash boxes in any order, by base names and to their decimals, as tools move and convert."""
    lines = sorted(
        f"{name} {number} {[round(value, BOX_DECIMALS) + 0.0 for value in bbox]}"
        for name, number, bbox in rows
    )
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()
