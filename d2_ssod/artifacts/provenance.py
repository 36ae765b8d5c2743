"""What predictions were made of, so that those of other images or settings are not taken for them.

Predictions name images by their ids. A folder of images numbers them in its order, so ids stay the
same while the images behind them change when files come or go between two starts of a run; so the
note has their names, too, and the lengths of the files, as names may stay while pictures change.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode

from d2_ssod.errors import ConfigError
from d2_ssod.file_names import common_folder, parts_of, relative_names
from d2_ssod.json_files import read_record
from d2_ssod.structures import ImageId

from .differences import differences_between
from .file_lengths import lengths_of
from .layout import PhaseFolder, RunFolder
from .moved_files import match_files
from .settings import prediction_settings


def prediction_source(cfg: CfgNode, images: Sequence[dict]) -> dict[str, Any]:
    """Describe the images and the settings that predictions depend on, for a JSON file.

    Args:
        cfg: the run's config.
        images: dicts of all unlabeled images. Where their common folder lies does not count.
    """
    return {
        "images": len(images),  # for people, and programs, that ask no more
        "settings": prediction_settings(cfg),
        "image_ids": [image["image_id"] for image in images],
        "folder": common_folder([os.path.abspath(image["file_name"]) for image in images]),
        "files": relative_names(images),
        "bytes": list(lengths_of(images)),
    }


def noted_files(note: dict[str, Any]) -> dict[ImageId, str]:
    """Name the file of each image that predictions are of, by their note."""
    names = (os.path.join(note["folder"], name) for name in note["files"])
    return dict(zip(note["image_ids"], names, strict=True))


def noted_lengths(note: dict[str, Any]) -> dict[str, int]:
    """Give the lengths that the files of predictions had, by their note; -1 where not known."""
    return dict(zip(noted_files(note).values(), note["bytes"], strict=True))


def changed_picture(
    note: dict[str, Any], ids: dict[str, ImageId], images: Sequence[dict]
) -> str | None:
    """Find a picture that is another one than predictions are of, by the length of its file.

    Args:
        note: of the predictions.
        ids: what images its files are now, by `match_files`.
        images: dicts of the unlabeled images.
    """
    ids_now = (image["image_id"] for image in images)
    now = dict(zip(ids_now, zip(images, lengths_of(images), strict=True), strict=True))
    for file, was in noted_lengths(note).items():
        image, length = now.get(ids.get(file), ({}, -1))
        if was != length and -1 not in (was, length):
            return image["file_name"]
    return None


def check_predictions(cfg: CfgNode, phase: int, images: Sequence[dict]) -> bool:
    """Check that a phase's existing predictions are of these images, made with these settings.

    So are those that an interruption left incomplete, which are to be completed.
    Predictions that came without a note of their source are taken as they are.

    Returns:
        Whether they are of all the images, by their ids of now; False if others have come since, or
        ids have changed.

    Raises:
        ConfigError: naming what differs.
    """
    files = RunFolder(cfg.OUTPUT_DIR).phase(phase)
    existing = [path for path in (files.predictions, files.partial_predictions) if path.exists()]
    if not (existing and files.predictions_source.exists()):
        return True
    made, now = read_source(files), prediction_source(cfg, images)
    same_images = all(made[key] == now[key] for key in ("image_ids", "files"))
    known = match_files(list(noted_files(made).values()), images)
    if not same_images and known is None:
        difference = (
            f"of {len(made['files'])} images that are not the {len(images)} that "
            f"DATASETS.UNLABELED has now{_such_as(made, images)}"
        )
    elif (changed := changed_picture(made, known or {}, images)) is not None:
        difference = f"before pictures were replaced by others of their names, such as {changed}"
    elif differences := differences_between(made["settings"], now["settings"]):
        difference = f"with other settings: {differences[0]}"
    else:
        return same_images
    raise ConfigError(
        f"{existing[0]} was made {difference}; undo that change, or delete it to have it made again"
    )


def _such_as(made: dict[str, Any], images: Sequence[dict]) -> str:
    """Name an image that predictions are of, and that there is no more, if that can be told."""
    paths = {os.path.abspath(image["file_name"]) for image in images}
    files = list(noted_files(made).values())
    gone = [file for file in files if file not in paths]
    if len(gone) == len(files):  # they were moved, most of them
        parts = map(parts_of, paths)
        ends = {own[start:] for own in parts for start in range(len(own))}
        noted = zip(files, map(parts_of, made["files"]), strict=True)
        gone = [file for file, name in noted if name not in ends]
    return f", such as {gone[0]}" if gone and len(gone) < len(files) else ""


_MADE_AGAIN = (
    "it is damaged, or of an earlier version: delete the file and the predictions beside it, of "
    "all phases, to have both made again"
)


def read_source(files: PhaseFolder, remedy: str = _MADE_AGAIN) -> dict[str, Any]:
    """Read the note of a phase's predictions.

    Raises:
        ConfigError: it is damaged.
    """
    path = files.predictions_source
    lists = {"image_ids": list, "files": list, "bytes": list}
    note = read_record(path, {"settings": dict, "folder": str, **lists}, remedy=remedy)
    kinds = {"image_ids": (int, str), "files": str, "bytes": int}
    are_whole = all(isinstance(item, kind) for key, kind in kinds.items() for item in note[key])
    lengths = {len(note[key]) for key in lists}
    if not are_whole or lengths != {len(set(note["image_ids"]))}:  # or an id is there twice
        raise ConfigError(
            f"{path}: {', '.join(lists)} must have an entry for each image, of an id of its own; "
            f"{remedy}"
        )
    return note
