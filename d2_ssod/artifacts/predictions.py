"""``predictions.json``: the raw detections of one model, as a COCO results list."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from d2_ssod.errors import ConfigError
from d2_ssod.json_files import no_garbage_collection, read_json, write_json
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
        image_ids: every image of the data set, in its order; the result has these keys.
        category_ids: the data set's category id of each contiguous class id.
        remedy: what to do about a file that is none.

    Raises:
        ConfigError: not a COCO results list, a score that is not in [0, 1], or an image or category
            that the data set does not have.
    """
    records = read_json(path)
    if not isinstance(records, list):
        raise ConfigError(
            f"{path}: expected a COCO results list, found a {type(records).__name__}; {remedy}"
        )
    with no_garbage_collection():
        return _by_image(path, records, image_ids, category_ids, remedy)


def _by_image(
    path: str | os.PathLike,
    records: list[dict],
    image_ids: Sequence[ImageId],
    category_ids: Sequence[int],
    remedy: str,
) -> Predictions:
    class_of = {category_id: number for number, category_id in enumerate(category_ids)}
    columns: dict[ImageId, tuple[list, list, list]] = {i: ([], [], []) for i in image_ids}
    for number, record in enumerate(records):
        try:
            boxes, scores, classes = columns[record["image_id"]]
            classes.append(class_of[record["category_id"]])
            x, y, w, h = record["bbox"]
            boxes.append((float(x), float(y), float(w), float(h)))
            scores.append(_score(record["score"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f"{path}: detection {number} is no COCO result or does not fit the data set "
                f"({error!r}); {remedy}"
            ) from None
    return {
        image_id: Detections(
            _xyxy(np.array(boxes, dtype=np.float64).reshape(-1, 4)),
            np.array(scores, dtype=np.float32),
            np.array(classes, dtype=np.int64),
        )
        for image_id, (boxes, scores, classes) in columns.items()
    }


def _score(value: float) -> float:
    score = float(value)
    if not 0 <= score <= 1:
        raise ValueError(f"score {value!r} is not in [0, 1]")
    return score


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
