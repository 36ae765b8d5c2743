"""What was predicted on the unlabeled images, also before others were added to them.

Predictions name images by ids, which a folder counts anew when pictures are added. So they are set
aside by file name, in a file beside what the next pass keeps, which then leaves their images out.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from d2_ssod.errors import ConfigError
from d2_ssod.json_files import atomic_open, read_json_lines, write_json_line
from d2_ssod.structures import Detections, ImageId, Predictions

from .layout import PhaseFolder
from .moved_files import match_files, match_known_among, match_known_files
from .partial_predictions import from_columns, load_partial_predictions, to_columns
from .predictions import load_predictions
from .provenance import changed_picture, noted_files, noted_lengths, read_source


def set_aside_predictions(files: PhaseFolder, category_ids: Sequence[int]) -> None:
    """Set aside a phase's predictions, whole or not, for a pass over more images.

    If it is interrupted, doing it again gives the same.

    Args:
        files: of the phase; there is a note of what its predictions are of.
        category_ids: the data set's category id of each contiguous class id.
    """
    name_of = noted_files(read_source(files))
    if files.predictions.exists():
        found = load_predictions(files.predictions, list(name_of), category_ids)
    else:
        found = load_partial_predictions(files.partial_predictions)
    known = _read(files.partial_predictions)
    known |= {name_of[image_id]: of_image for image_id, of_image in found.items()}
    files.partial_predictions.mkdir(exist_ok=True)
    with atomic_open(_file(files.partial_predictions), encoding="utf-8") as file:
        for name, of_image in known.items():
            write_json_line(file, {"file": name, **to_columns(of_image)})
    files.predictions.unlink(missing_ok=True)
    for path in files.partial_predictions.glob("rank_*.jsonl"):
        path.unlink()


def load_predictions_by_file(
    files: PhaseFolder,
    images: Sequence[dict],
    category_ids: Sequence[int],
    *,
    remedy: str | None = None,
    of_others: bool = False,
) -> Predictions:
    """Read a phase's predictions, with the ids that their images have now.

    Args:
        files: of the phase; without a note of what they are of, ids are taken as they are.
        images: dicts of all unlabeled images, of which some may have no predictions.
        category_ids: the data set's category id of each contiguous class id.
        remedy: what to do about damaged ones; by default they are to be made again.
        of_others: they are of another run, which may have more images: these are passed over, and
            of files that were moved it must be sure that they are the same.

    Raises:
        ConfigError: they are damaged, or images of theirs are gone.
    """
    path = files.predictions
    kept = {} if remedy is None else {"remedy": remedy}
    if not files.predictions_source.exists():
        ids = [image["image_id"] for image in images]
        return load_predictions(path, ids, category_ids, **kept)
    note = read_source(files, **kept)
    name_of = noted_files(note)
    if of_others:
        numbers = _match_others(path, note, images)
    else:
        numbers = match_files(list(name_of.values()), images)
    if numbers is None:
        raise ConfigError(
            f"{path}: made of {len(name_of)} images, of which some are not among the {len(images)} "
            "unlabeled ones, or not any more; restore these"
        )
    if (changed := changed_picture(note, numbers, images)) is not None:
        raise ConfigError(
            f"{path}: made before pictures were replaced by others of their names, such as "
            f"{changed}; restore these"
        )
    found = load_predictions(path, list(name_of), category_ids, **kept)
    ids_of = _ids_by_file(images)
    return {
        number: of_image
        for image_id, of_image in found.items()
        if name_of[image_id] in numbers
        for number in ids_of[numbers[name_of[image_id]]]
    }


def _ids_by_file(images: Sequence[dict]) -> dict[ImageId, list[ImageId]]:
    """List with each image's id those of all images that are the same file."""
    by_file = defaultdict(list)
    for image in images:
        by_file[os.path.abspath(image["file_name"])].append(image["image_id"])
    return {image_id: ids for ids in by_file.values() for image_id in ids}


def _match_others(path: Path, note: dict[str, Any], images: Sequence[dict]) -> dict[str, ImageId]:
    """Find which images of another run are those here; it may have more.

    Raises:
        ConfigError: they are not known to be.
    """
    length_of = noted_lengths(note)
    files = list(length_of)
    if not files:
        return {}
    numbers = match_known_files(files, images, length_of)
    if numbers is None:
        numbers = match_known_among(files, images, length_of)
    if numbers is None:
        raise ConfigError(
            f"{path}: made of {len(files)} images, such as {files[0]}, that are not known to be "
            f"those here, such as {images[0]['file_name']}: they are by their paths or, moved, by "
            "the folder's name or lengths of their own; take it out, or move them back"
        )
    return numbers


def load_earlier_predictions(folder: Path, images: Sequence[dict]) -> Predictions:
    """Read what was set aside, with the ids that the images have now.

    Args:
        folder: of the partial predictions.
        images: dicts of all unlabeled images.
    """
    known = _read(folder)
    numbers = match_files(list(known), images) or {}
    return {numbers[name]: found for name, found in known.items() if name in numbers}


def _file(folder: Path) -> Path:
    return folder / "earlier.jsonl"


def _read(folder: Path) -> dict[str, Detections]:
    path = _file(folder)
    lines = read_json_lines(path) if path.exists() else ()
    return {line["file"]: from_columns(line) for line in lines}
