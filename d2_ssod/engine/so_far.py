"""What a prediction pass has found so far, kept on disk so that an interruption loses nothing."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import numpy as np
from detectron2.utils import comm

from d2_ssod.files import append_json_line, read_json_lines
from d2_ssod.pseudo_label import Detections, Predictions


class PredictionsSoFar:
    """Detections in a folder with one file of each rank, a line for each image."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self) -> Predictions:
        """What all ranks have kept, however many they were; exactly what was given."""
        return {
            image_id: detections
            for path in sorted(self._folder.glob("rank_*.jsonl"))
            for image_id, detections in _read(path).items()
        }

    def keep(self, predictions: Predictions) -> None:
        """Add detections of this rank."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for image_id, found in predictions.items():
            append_json_line(
                self._folder / f"rank_{comm.get_rank()}.jsonl",
                {
                    "image_id": image_id,
                    "boxes": found.boxes,
                    "scores": found.scores,
                    "classes": found.classes,
                },
            )

    def discard(self) -> None:
        """Forget all of it."""
        if self._folder.exists():
            shutil.rmtree(self._folder)


def _read(path: Path) -> Predictions:
    predictions: Predictions = {}
    for line in read_json_lines(path):
        # A line that is not whole is as good as none: its image is predicted again.
        with contextlib.suppress(KeyError, TypeError, ValueError):
            predictions[line["image_id"]] = Detections(
                np.array(line["boxes"], dtype=np.float32).reshape(-1, 4),
                np.array(line["scores"], dtype=np.float32),
                np.array(line["classes"], dtype=np.int64),
            )
    return predictions
