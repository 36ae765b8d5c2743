"""What predictions were made of, so that those of other images or settings are not taken for them.

Predictions name images by their ids. A folder of images numbers them in its order, so ids stay the
same while the images behind them change when files come or go between two starts of a run; so the
note has their names, too, and the lengths of the files, as names may stay while pictures change.
"""

from __future__ import annotations

import filecmp
import os
from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode

from d2_ssod.errors import ConfigError
from d2_ssod.file_names import common_folder, relative_names
from d2_ssod.json_files import read_record
from d2_ssod.structures import ImageId

from .differences import differences_between
from .file_lengths import lengths_of
from .layout import PhaseFolder, RunFolder
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


def match_files(files: Sequence[str], images: Sequence[dict]) -> dict[str, ImageId] | None:
    """Find the images that files of an earlier note are now.

    Args:
        files: as `noted_files` gives them. Where all were moved, they are found by their paths
            below their deepest common folder, in front of which there may be others now; where some
            are still there, what is found must be copies of these.
        images: dicts of all unlabeled images.

    Returns:
        The image's id by the file; None if not all of them are among the images, or if several
        folders have files of these names.
    """
    if not files:
        return {}
    id_of = {os.path.abspath(image["file_name"]): image["image_id"] for image in images}
    if all(file in id_of for file in files):
        return {file: id_of[file] for file in files}
    if any(file in id_of for file in files):  # nothing was moved, but some are gone
        return None
    root = common_folder(files)
    names = [os.path.relpath(file, root) for file in files]
    first = os.sep + names[0]
    folders = [path[: len(path) - len(names[0])] for path in id_of if path.endswith(first)]
    looked_at = sorted({0, len(files) // 2, len(files) - 1})
    fitting = [
        folder
        for folder in folders
        if all(folder + name in id_of for name in names)
        and all(_may_be_copy(files[number], folder + names[number]) for number in looked_at)
    ]
    if len(fitting) != 1:
        return None
    return {f: id_of[fitting[0] + name] for f, name in zip(files, names, strict=True)}


def _may_be_copy(one: str, other: str) -> bool:
    """Tell whether two files may be one picture: where both are there, they are alike."""
    if not (os.path.isfile(one) and os.path.isfile(other)):
        return True
    return filecmp.cmp(one, other, shallow=False)


def noted_files(note: dict[str, Any]) -> dict[ImageId, str]:
    """Name the file of each image that predictions are of, by their note."""
    names = (os.path.join(note["folder"], name) for name in note["files"])
    return dict(zip(note["image_ids"], names, strict=True))


def changed_picture(
    note: dict[str, Any], ids: dict[str, ImageId], images: Sequence[dict]
) -> str | None:
    """Find a picture of predictions that is another one now, by the length of its file.

    Args:
        note: of the predictions.
        ids: what images its files are now, by `match_files`.
        images: dicts of the unlabeled images.
    """
    ids_now = (image["image_id"] for image in images)
    length_of = dict(zip(ids_now, lengths_of(images), strict=True))
    for file, was in zip(noted_files(note).values(), note["bytes"], strict=True):
        length = length_of.get(ids.get(file), -1)
        if was != length and -1 not in (was, length):
            return file
    return None


def check_predictions(cfg: CfgNode, phase: int, images: Sequence[dict]) -> bool:
    """Check that a phase's existing predictions are of these images, made with these settings.

    So are those that an interruption left incomplete, which are to be completed.
    Predictions that came without a note of their source are taken as they are.

    Returns:
        Whether they are of all the images; False if others have come since.

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
    were_added = known is not None and len(known) < len(images)
    if not (same_images or were_added):
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
    """Name an image that predictions are of, and that there is no more."""
    now = {os.path.abspath(image["file_name"]) for image in images}
    gone = next((file for file in noted_files(made).values() if file not in now), None)
    return "" if gone is None else f", such as {gone}"


_MADE_AGAIN = "delete the file and the predictions beside it, to have both made again"


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
