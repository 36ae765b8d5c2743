"""Step 5: the files between the phases, in COCO's formats, so that people and tools can read them.

``predictions.json`` is a COCO results list: the raw detections of one model. ``pseudo_labels.json``
is a COCO instances file with scores: what a phase trains on; ``corrected.py`` reads it.
``manifest.json`` says how the pseudo labels came about.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from d2_ssod.errors import ConfigError
from d2_ssod.files import read_json, write_json

from .detections import Detections, ImageId, Predictions, concatenate

if TYPE_CHECKING:
    from .build import PseudoLabels

__all__ = [
    "load_predictions",
    "save_predictions",
    "save_pseudo_labels",
    "write_manifest",
]

MANIFEST_VERSION = 1


# Raw detections


def save_predictions(
    path: str | os.PathLike, predictions: Predictions, category_ids: Sequence[int]
) -> Path:
    """Writes detections as a COCO results list; ``load_predictions`` gives back the same numbers.

    Args:
        path: the file to write.
        predictions: the detections; an image without any leaves no trace in the file.
        category_ids: the data set's category id of each contiguous class id.
    """
    return write_json(
        path,
        (
            {"image_id": image_id, "category_id": category_id, "bbox": bbox, "score": score}
            for image_id, category_id, bbox, score in _coco_rows(predictions, category_ids)
        ),
    )


def load_predictions(
    path: str | os.PathLike, image_ids: Sequence[ImageId], category_ids: Sequence[int]
) -> Predictions:
    """Reads a COCO results list.

    Args:
        path: the file to read.
        image_ids: every image of the data set, in its order; the result has these keys.
        category_ids: the data set's category id of each contiguous class id.

    Raises:
        ConfigError: not a COCO results list, or an image or category that the data set does not
            have.
    """
    records = read_json(path)
    if not isinstance(records, list):
        raise ConfigError(
            f"{path}: expected a COCO results list, found a {type(records).__name__}; delete the "
            "file to have it made again"
        )
    class_of = {category_id: number for number, category_id in enumerate(category_ids)}
    columns: dict[ImageId, tuple[list, list, list]] = {i: ([], [], []) for i in image_ids}
    for number, record in enumerate(records):
        try:
            boxes, scores, classes = columns[record["image_id"]]
            classes.append(class_of[record["category_id"]])
            boxes.append(record["bbox"])
            scores.append(record["score"])
        except (KeyError, TypeError) as error:
            raise ConfigError(
                f"{path}: detection {number} does not fit the data set ({error!r} is missing or "
                "unknown); delete the file to have it made again"
            ) from None
    return {
        image_id: Detections(
            _xyxy(np.array(boxes, dtype=np.float64).reshape(-1, 4)),
            np.array(scores, dtype=np.float32),
            np.array(classes, dtype=np.int64),
        )
        for image_id, (boxes, scores, classes) in columns.items()
    }


# Pseudo labels


def save_pseudo_labels(
    path: str | os.PathLike,
    selected: Predictions,
    dataset_dicts: Sequence[dict],
    thing_classes: Sequence[str],
    category_ids: Sequence[int],
    *,
    image_root: str | os.PathLike | None = None,
) -> Path:
    """Writes the images and boxes that a phase trains on as a COCO instances file.

    Args:
        path: the file to write.
        selected: the pseudo labels of the selected images; images and boxes keep their order.
        dataset_dicts: the unlabeled data set (``image_id``, ``file_name``, ``width``, ``height``).
        thing_classes: class names.
        category_ids: the data set's category id of each contiguous class id.
        image_root: file names are written relative to this folder where they lie in it.
    """
    records = {record["image_id"]: record for record in dataset_dicts}
    return write_json(
        path,
        {
            "images": (
                {
                    "id": image_id,
                    "file_name": _relative(records[image_id]["file_name"], image_root),
                    "width": records[image_id]["width"],
                    "height": records[image_id]["height"],
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
                    "area": round(bbox[2] * bbox[3], 3),
                    "iscrowd": 0,
                    "score": score,
                }
                for number, (image_id, category_id, bbox, score) in enumerate(
                    _coco_rows(selected, category_ids), start=1
                )
            ),
        },
    )


def _relative(file_name: str, image_root: str | os.PathLike | None) -> str:
    if image_root is None:
        return file_name
    path, root = Path(file_name).absolute(), Path(image_root).absolute()
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else file_name


# The report


def write_manifest(
    path: str | os.PathLike,
    labels: PseudoLabels,
    *,
    models: Sequence[str],
    thing_classes: Sequence[str],
    settings: dict[str, Any] | None = None,
) -> Path:
    """Writes how the pseudo labels of a phase came about.

    Args:
        path: the file to write.
        labels: the pseudo labels with the numbers of every step.
        models: the source models (checkpoint paths), oldest first.
        thing_classes: class names.
        settings: further values to keep, such as the consensus' thresholds.
    """
    kept_boxes = labels.boxes_per_class
    return write_json(
        path,
        {
            "format_version": MANIFEST_VERSION,
            "sources": {
                model: {
                    name: {
                        "threshold": thresholds.values[number],
                        "target_per_image": thresholds.target[number],
                        "achieved_per_image": thresholds.achieved[number],
                    }
                    for number, name in enumerate(thing_classes)
                }
                for model, thresholds in zip(models, labels.thresholds, strict=True)
            },
            "selection": {
                "fraction": labels.fraction,
                "images": labels.num_unlabeled,
                "images_kept": len(labels.selection.kept),
                "images_left_out": len(labels.selection.left_out),
                "images_empty": len(labels.selection.empty),
                "score_of_last_kept": labels.score_of_last_kept,
            },
            "boxes": {
                "after_threshold": dict(zip(models, labels.boxes_after_threshold, strict=True)),
                "after_consensus": labels.boxes_after_consensus,
                "kept": labels.num_boxes,
                "kept_per_class": dict(zip(thing_classes, kept_boxes.tolist(), strict=True)),
            },
            "settings": settings or {},
        },
    )


# Exact and short numbers


def _coco_rows(
    predictions: Predictions, category_ids: Sequence[int]
) -> Iterator[tuple[ImageId, int, list[float], float]]:
    """(image id, category id, XYWH box, score) of every detection, in order."""
    found = concatenate(list(predictions.values()))
    bboxes, scores = _xywh(found.boxes), _short(found.scores, found.scores)
    start = 0
    for image_id, detections in predictions.items():
        end = start + len(detections)
        yield from (
            (image_id, category_ids[number], bbox, score)
            for number, bbox, score in zip(
                detections.classes.tolist(),
                bboxes[start:end].tolist(),
                scores[start:end].tolist(),
                strict=True,
            )
        )
        start = end


def _xywh(boxes: np.ndarray) -> np.ndarray:
    """float64 [n, 4] XYWH with few decimals, of which ``_xyxy`` makes exactly ``boxes``."""
    corner = boxes[:, :2].astype(np.float64)
    size = boxes[:, 2:].astype(np.float64) - corner
    return np.hstack(
        [_short(corner, boxes[:, :2]), _short(size, boxes[:, 2:], base=corner)], dtype=np.float64
    )


def _xyxy(bboxes: np.ndarray) -> np.ndarray:
    """float32 [n, 4] XYXY of float64 [n, 4] XYWH."""
    corner = bboxes[:, :2].astype(np.float32)
    return np.hstack([corner, (corner.astype(np.float64) + bboxes[:, 2:]).astype(np.float32)])


def _short(values: np.ndarray, target: np.ndarray, base: np.ndarray | float = 0.0) -> np.ndarray:
    """``values`` rounded to as few decimals as leave float32(base + value) == ``target``."""
    short = values.astype(np.float64)
    for decimals in range(10, 0, -1):
        rounded = np.round(short, decimals)
        exact = (base + rounded).astype(np.float32) == target
        short = np.where(exact, rounded, short)
    return short
