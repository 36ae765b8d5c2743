"""Boxes as YOLO's text files: a line for each, ``class x y w h [score]``, as parts of the image."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from d2_ssod.errors import ConfigError
from d2_ssod.file_names import relative_names
from d2_ssod.json_files import atomic_open, read_json, write_json
from d2_ssod.structures import Detections, Predictions

# YOLO takes an image without a text file for one without objects.
_PLACES = """\
# Put the images that have a text file in labels/ into images/, beside labels/, and no others: each
# under the name of its text file, folders included, as images/a/1.jpg beside labels/a/1.txt.
"""

_NUMBERS_WITH_SCORE = 6  # of a line
_PREDICTED = ".predicted.json"  # lists files in which a model has found nothing


def save_yolo(
    folder: Path, images: Sequence[dict], found: Predictions, *, with_scores: bool
) -> None:
    """Write a text file for each image that was looked at, named by `unique_stems`.

    Args:
        folder: made if it does not exist, as are the folders in it.
        images: their dicts, with ``width`` and ``height``; all that names must be told apart from.
        found: the boxes of each; images without an entry get no file.
        with_scores: add the score to each line, which tools that train on the files do not take.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lines = {
        name: _lines(found[image["image_id"]], image, with_scores)
        for image, name in zip(images, unique_stems(images), strict=True)
        if image["image_id"] in found
    }
    if with_scores:
        empty = (_predicted_empty(folder) - lines.keys()) | {n for n in lines if not lines[n]}
        write_json(folder / _PREDICTED, sorted(empty))
    for name, text in lines.items():
        path = folder / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        # A part of one, which a kill may leave, may seem a person's.
        with atomic_open(path, encoding="utf-8", durable=False) as file:
            file.write(text)


def check_has_no_yolo_data(folder: Path) -> None:
    """Check that a folder has no data set of YOLO's.

    Raises:
        ConfigError: it has one, or a part.
    """
    for path in (folder / "data.yaml", folder / "labels"):
        if path.exists():
            raise ConfigError(f"{path} exists, and may have somebody's labels; name another folder")


def save_yolo_data(
    folder: Path, images: Sequence[dict], found: Predictions, classes: Sequence[str]
) -> None:
    """Write ``labels/`` and Ultralytics' ``data.yaml``, with the names of the classes.

    Args:
        folder: made if it does not exist.
        images: as in :func:`save_yolo`.
        found: the boxes of each; they are written without scores.
        classes: their names.

    Raises:
        ConfigError: it has a data set already, also if that is of an earlier phase.
    """
    check_has_no_yolo_data(folder)
    save_yolo(folder / "labels", images, found, with_scores=False)
    names = "".join(
        f"  {n}: {json.dumps(name, ensure_ascii=False)}\n" for n, name in enumerate(classes)
    )
    text = f"{_PLACES}train: images\nval: images  # name your own\nnames:\n{names}"
    (folder / "data.yaml").write_text(text, encoding="utf-8")


def labels_of_a_person(folder: Path, names: Iterable[str]) -> Path | None:
    """Find a text file that may be a person's among those that predictions are to be written to.

    Boxes without scores are, and polygons, and empty files in which no model has found nothing.

    Args:
        folder: that of the files.
        names: theirs, without ``.txt``.
    """
    predicted_empty = _predicted_empty(folder)
    for name in names:
        path = folder / f"{name}.txt"
        if not path.is_file():
            continue
        with open(path, encoding="utf-8", errors="replace") as file:
            numbers = len(file.readline().split())
        if not (numbers == _NUMBERS_WITH_SCORE or (numbers == 0 and name in predicted_empty)):
            return path
    return None


def _predicted_empty(folder: Path) -> set[str]:
    """Read in which files a model has found nothing, by their names without ``.txt``."""
    path = folder / _PREDICTED
    names = read_json(path) if path.exists() else []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"{path}: expected a list of names; delete the file")
    return set(names)


def unique_stems(images: Sequence[dict]) -> list[str]:
    """Name what is written of each image, after it and without its extension.

    Where no two share it, that is the base name. Else all images are named relative to the deepest
    folder that has all of them, as YOLO finds ``labels/a/1.txt`` for ``images/a/1.jpg``.

    Images of one folder that differ by extension only, such as ``1.jpg`` and ``1.png``, keep it.
    YOLO has one text file for both, and would train one on the boxes of the other; so it finds
    none (``1.jpg.txt``), unless the image is renamed (``1.jpg.jpg``).

    An image that is listed twice has one name.
    """
    files = relative_names(images)
    stems = {file: _stem(os.path.basename(file)) for file in files}
    if len(set(stems.values())) < len(stems):
        stems = _apart({file: _stem(file) for file in stems})
    return [stems[file] for file in files]


def _stem(file: str) -> str:
    return os.path.splitext(file)[0]


def _apart(stems: Mapping[str, str]) -> dict[str, str]:
    """Give the files that share a stem their whole name instead, until none share one."""
    stems = dict(stems)
    while len(set(stems.values())) < len(stems):
        times = Counter(stems.values())
        stems = {file: stem if times[stem] == 1 else file for file, stem in stems.items()}
    return stems


def _lines(found: Detections, image: dict, with_scores: bool) -> str:
    # What reaches beyond the picture, as a person's box may, YOLO takes for a damaged file.
    corners = (found.boxes.reshape(-1, 2, 2) / [image["width"], image["height"]]).clip(0, 1)
    centers, extents = corners.mean(1), corners[:, 1] - corners[:, 0]
    inside = (extents > 0).all(1)
    columns = (found.classes, centers, extents, found.scores)
    rows = zip(*(column[inside] for column in columns), strict=True)
    return "".join(
        f"{number} {x:.6f} {y:.6f} {w:.6f} {h:.6f}{f' {score:.5f}' if with_scores else ''}\n"
        for number, (x, y), (w, h), score in rows
    )
