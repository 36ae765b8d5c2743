"""``predictions.json``: the raw detections of one model, as a COCO results list."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from d2_ssod.errors import ConfigError
from d2_ssod.json_files import no_garbage_collection, read_json_list, write_json
from d2_ssod.structures import Detections, ImageId, Predictions, concatenate

# What is written: hundredths of a pixel, as in COCO's own files, and scores to five decimals. What
# is read back and written again stays the same (images below 32 768 pixels).
BOX_DECIMALS = 2
SCORE_DECIMALS = 5
_AT_A_TIME = 1000  # images whose boxes are numbers of Python's at the same time


def save_predictions(
    path: str | os.PathLike, predictions: Predictions, category_ids: Sequence[int]
) -> Path:
    """Write detections as a COCO results list, rounded to ``BOX_DECIMALS`` and ``SCORE_DECIMALS``.

    Args:
        path: the file to write.
        predictions: the detections; an image without any leaves no trace in the file, nor does a
            box without area.
        category_ids: the data set's category id of each contiguous class id.
    """
    return write_json(
        path,
        (
            {"image_id": image_id, "category_id": category_id, "bbox": bbox, "score": score}
            for image_id, category_id, bbox, score in coco_rows(predictions, category_ids)
        ),
    )


def load_predictions(
    path: str | os.PathLike,
    image_ids: Sequence[ImageId],
    category_ids: Sequence[int],
    *,
    remedy: str = "delete the file to have it made again",
) -> Predictions:
    """Read a COCO results list.

    Args:
        path: the file to read.
        image_ids: every image of the data set, in its order; the result has these keys. Boxes
            without area, which are not written either, are left out.
        category_ids: the data set's category id of each contiguous class id.
        remedy: what to do about a file that is none.

    Raises:
        ConfigError: not a COCO results list, a score that is not in [0, 1], or an image or category
            that the data set does not have.
    """
    number_of = {image_id: number for number, image_id in enumerate(image_ids)}
    class_of = {category_id: number for number, category_id in enumerate(category_ids)}
    parts, done = [_columns_of([])], 0
    with no_garbage_collection():
        for records in read_json_list(path, "a COCO results list", remedy):
            rows = []
            for number, record in enumerate(records, start=done):
                try:
                    rows.append(_row(record, number_of, class_of))
                except (KeyError, TypeError, ValueError) as error:
                    raise ConfigError(
                        f"{path}: detection {number} is no COCO result or does not fit the data "
                        f"set ({error!r}); {remedy}"
                    ) from None
            of_images, found = _columns_of(rows)
            is_box = has_area(found)  # others would not be written of them
            parts.append((of_images[is_box], found.select(is_box)))
            done += len(records)
    images, found = zip(*parts, strict=True)
    return _by_image(np.concatenate(images), concatenate(found), image_ids)


_Row = tuple[int, int, float, float, float, float, float]  # image, class, x, y, w, h, score


def _row(record: dict, number_of: dict[ImageId, int], class_of: dict[int, int]) -> _Row:
    """Read a COCO result as numbers."""
    x, y, w, h = map(float, record["bbox"])
    if not (math.isfinite(x + y + w + h) and w >= 0 and h >= 0):
        raise ValueError(f"bbox {record['bbox']!r} is no box: four numbers, none of its sides < 0")
    score = float(record["score"])
    if not 0 <= score <= 1:
        raise ValueError(f"score {record['score']!r} is not in [0, 1]")
    image, number = number_of[record["image_id"]], class_of[record["category_id"]]
    return image, number, x, y, w, h, score


def _columns_of(rows: Sequence[_Row]) -> tuple[np.ndarray, Detections]:
    """Give the number of the image of each row, and the boxes of all."""
    table = np.array(rows, dtype=np.float64).reshape(-1, 7)
    return table[:, 0].astype(np.int64), Detections(
        _xyxy(table[:, 2:6]), table[:, 6].astype(np.float32), table[:, 1].astype(np.int64)
    )


def _by_image(images: np.ndarray, found: Detections, image_ids: Sequence[ImageId]) -> Predictions:
    """Sort boxes by their images, in their order within each; every image is a key."""
    sorted_found = found.select(np.argsort(images, kind="stable"))
    ends = np.bincount(images, minlength=len(image_ids)).cumsum().tolist()
    parts = itertools.starmap(slice, itertools.pairwise([0, *ends]))
    return {i: sorted_found.select(part) for i, part in zip(image_ids, parts, strict=True)}


def coco_rows(
    predictions: Predictions, category_ids: Sequence[int]
) -> Iterator[tuple[ImageId, int, list[float], float]]:
    """Give (image id, category id, XYWH box, score) of every detection with an area, in order."""
    images = list(predictions.items())
    for start in range(0, len(images), _AT_A_TIME):
        yield from _rows_of(images[start : start + _AT_A_TIME], category_ids)


def _rows_of(
    images: Sequence[tuple[ImageId, Detections]], category_ids: Sequence[int]
) -> Iterator[tuple[ImageId, int, list[float], float]]:
    found = concatenate([of_image for _, of_image in images])
    bboxes = np.round(_xywh(found.boxes), BOX_DECIMALS)
    scores = np.round(found.scores.astype(np.float64), SCORE_DECIMALS)
    image_ids = (i for i, of_image in images for _ in range(len(of_image)))
    rows = zip(image_ids, found.classes.tolist(), bboxes.tolist(), scores.tolist(), strict=True)
    for image_id, number, bbox, score in itertools.compress(rows, has_area(found).tolist()):
        yield image_id, category_ids[number], bbox, score


def has_area(found: Detections) -> np.ndarray:
    """Tell which boxes have an area as they are written, bool [n]."""
    return (np.round(_xywh(found.boxes), BOX_DECIMALS)[:, 2:] > 0).all(axis=1)


def _xywh(boxes: np.ndarray) -> np.ndarray:
    """Convert float32 [n, 4] XYXY to float64 [n, 4] XYWH."""
    corners = boxes.astype(np.float64)
    return np.hstack([corners[:, :2], corners[:, 2:] - corners[:, :2]])


def _xyxy(bboxes: np.ndarray) -> np.ndarray:
    """Convert float64 [n, 4] XYWH to float32 [n, 4] XYXY."""
    return np.hstack([bboxes[:, :2], bboxes[:, :2] + bboxes[:, 2:]]).astype(np.float32)
