"""What a prediction pass has found until now, on disk so that an interruption loses nothing.

A folder has one file of each rank, with a line for each image.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.utils import comm

from d2_ssod.json_files import read_json_lines, write_json_line
from d2_ssod.structures import Detections, Predictions


@contextlib.contextmanager
def keep_partial_predictions(folder: Path) -> Iterator[Callable[[Predictions], None]]:
    """Give a function that adds detections of this rank to the folder, at once."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / f"rank_{comm.get_rank()}.jsonl", "a", encoding="utf-8") as file:

        def keep(predictions: Predictions) -> None:
            for image_id, found in predictions.items():
                write_json_line(file, {"image_id": image_id, **to_columns(found)})
            file.flush()

        yield keep


def load_partial_predictions(folder: Path) -> Predictions:
    """Read what all ranks have kept, however many they were; exactly what was given."""
    return {
        image_id: detections
        for path in sorted(folder.glob("rank_*.jsonl"))
        for image_id, detections in _read(path).items()
    }


def discard_partial_predictions(folder: Path) -> None:
    """Delete the folder if there is one; no rank may be keeping anything in it."""
    if folder.exists():
        shutil.rmtree(folder)


def _read(path: Path) -> Predictions:
    predictions: Predictions = {}
    for line in read_json_lines(path):
        # A line that is not whole is as good as none: its image is predicted again.
        with contextlib.suppress(KeyError, TypeError, ValueError):
            predictions[line["image_id"]] = from_columns(line)
    return predictions


def to_columns(found: Detections) -> dict[str, np.ndarray]:
    """Give what a line keeps of the boxes of an image."""
    return {"boxes": found.boxes, "scores": found.scores, "classes": found.classes}


def from_columns(line: dict[str, Any]) -> Detections:
    """Read the boxes of an image from a line."""
    return Detections(
        np.array(line["boxes"], dtype=np.float32).reshape(-1, 4),
        np.array(line["scores"], dtype=np.float32),
        np.array(line["classes"], dtype=np.int64),
    )
