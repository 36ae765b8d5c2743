"""``pseudo_labels.json``: what a phase trains on, as a COCO instances file with scores."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from d2_ssod.json_files import write_json
from d2_ssod.structures import (
    CERTAIN,
    UNCERTAIN,
    ImageId,
    Predictions,
    TieredDetections,
)
from d2_ssod.values import as_flag

from .predictions import coco_rows, has_area

SPREAD_DECIMALS = 4


def save_pseudo_labels(
    path: str | os.PathLike,
    selected: Predictions,
    dataset_dicts: Sequence[dict],
    thing_classes: Sequence[str],
    category_ids: Sequence[int],
    corrected: Collection[ImageId] = (),
) -> Path:
    """Write the images and boxes that a phase trains on as a COCO instances file.

    Args:
        path: the file to write.
        selected: the pseudo-labels of the selected images; images and boxes keep their order.
        dataset_dicts: the unlabeled data set (``image_id``, ``file_name``, ``width``, ``height``).
        thing_classes: class names.
        category_ids: the data set's category id of each contiguous class id.
        corrected: ids of the images whose labels are a person's; their records say so.
    """
    records = {record["image_id"]: record for record in dataset_dicts}
    # As ``coco_rows`` leaves out the boxes without area.
    written = {image_id: found.select(has_area(found)) for image_id, found in selected.items()}
    rows = zip(coco_rows(written, category_ids), _tier_columns(written), strict=True)
    return write_json(
        path,
        {
            "images": (
                {
                    "id": image_id,
                    "file_name": records[image_id]["file_name"],
                    "width": records[image_id]["width"],
                    "height": records[image_id]["height"],
                    **({"corrected": True} if image_id in corrected else {}),
                }
                for image_id in selected
            ),
            "categories": [
                {"id": category_id, "name": name}
                for category_id, name in zip(category_ids, thing_classes, strict=True)
            ],
            "annotations": (
                {
                    "id": number,
                    "image_id": image_id,
                    "category_id": category_id,
                    "bbox": bbox,
                    "area": round(bbox[2] * bbox[3], 2),
                    "iscrowd": 0,
                    "score": score,
                    **tier,
                }
                for number, ((image_id, category_id, bbox, score), tier) in enumerate(rows, start=1)
            ),
        },
    )


_OF_FILE = {"images", "categories", "annotations"}
_OF_IMAGE = {"id", "file_name", "width", "height"}


def is_of_models(content: Any) -> bool:
    """Tell whether a COCO file may be one that :func:`save_pseudo_labels` wrote of predictions.

    A person's objects have no scores, and images that a person has looked at say so. Where there
    are no objects, the file must have the keys of such a one alone.
    """
    if not (isinstance(content, dict) and content.keys() >= _OF_FILE):
        return False
    images, rows = content["images"], content["annotations"]
    if not all(isinstance(r, list) and all(isinstance(x, dict) for x in r) for r in (images, rows)):
        return False
    if not rows:
        return content.keys() == _OF_FILE and all(i.keys() == _OF_IMAGE for i in images)
    return all("score" in row for row in rows) and not any(map(is_corrected, images))


def is_corrected(image: dict) -> bool:
    """Tell by an image's record in a file of labels whether these are a person's."""
    return bool(as_flag(image.get("corrected")))


def _tier_columns(selected: Predictions) -> Iterator[dict[str, Any]]:
    """Give what is written of each box that is of a tier; of others, nothing."""
    for found in selected.values():
        if not isinstance(found, TieredDetections):
            yield from ({} for _ in range(len(found)))
            continue
        columns = (found.certain.tolist(), found.votes.tolist(), found.spread.tolist())
        for certain, votes, spread in zip(*columns, strict=True):
            known = not any(map(math.isnan, spread))
            yield {
                "tier": CERTAIN if certain else UNCERTAIN,
                "votes": votes,
                "spread": [round(value, SPREAD_DECIMALS) for value in spread] if known else None,
            }
