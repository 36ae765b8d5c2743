"""Boxes as YOLO's text files: a line for each, ``class x y w h [score]``, as parts of the image."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from d2_ssod.structures import Detections, Predictions


def save_yolo(
    folder: Path, images: Sequence[dict], found: Predictions, *, with_scores: bool
) -> None:
    """Write a text file for each image, named after it.

    Args:
        folder: made if it does not exist.
        images: their dicts, with ``width`` and ``height``.
        found: the boxes of each.
        with_scores: add the score to each line, which tools that train on the files do not take.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for image, name in zip(images, unique_stems(images), strict=True):
        lines = _lines(found[image["image_id"]], image, with_scores)
        (folder / f"{name}.txt").write_text(lines, encoding="utf-8")


def save_yolo_data(folder: Path, classes: Sequence[str]) -> None:
    """Write Ultralytics' ``data.yaml`` beside ``labels/``, with the names of the classes."""
    names = "".join(f"  {n}: {json.dumps(name)}\n" for n, name in enumerate(classes))
    text = (
        f"# Put the images into images/, beside labels/.\npath: .\ntrain: images\nnames:\n{names}"
    )
    (folder / "data.yaml").write_text(text, encoding="utf-8")


def unique_stems(images: Sequence[dict]) -> list[str]:
    """Name what is written of each image, after it; with its id if others are named so."""
    stems = [Path(image["file_name"]).stem for image in images]
    times = Counter(stems)
    return [
        s if times[s] == 1 else f"{s}_{i['image_id']}" for s, i in zip(stems, images, strict=True)
    ]


def _lines(found: Detections, image: dict, with_scores: bool) -> str:
    size = np.array([image["width"], image["height"]])
    centers = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2 / size
    extents = (found.boxes[:, 2:] - found.boxes[:, :2]) / size
    rows = zip(found.classes, centers, extents, found.scores, strict=True)
    return "".join(
        f"{number} {x:.6f} {y:.6f} {w:.6f} {h:.6f}{f' {score:.5f}' if with_scores else ''}\n"
        for number, (x, y), (w, h), score in rows
    )
