"""Which data sets the options name, as ``SSOD.REGISTER`` describes them."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from d2_ssod.data.datasets import Naming, YoloSplit
from d2_ssod.errors import ConfigError, shortened

_KINDS = ("JSON", "VOC", "YOLO")
_SPLITS = ("train", "trainval")  # of the labeled pictures, the first that there is
# Of each data set, for its file and for its pictures.
OPTIONS = {
    "TRAIN": ("labeled", "images"),
    "UNLABELED": ("unlabeled", "unlabeled"),
    "VAL": ("val", "val_images"),
    "TEST": ("test", "test_images"),
}


def entries_of(arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Describe the data sets as ``SSOD.REGISTER`` does, by their key."""
    name = arguments.name
    places = [os.path.abspath(place) for place in arguments.unlabeled]
    entries = {
        "TRAIN": _annotated(f"{name}_labeled", arguments.labeled, arguments.images, _SPLITS),
        "UNLABELED": _unlabeled(f"{name}_unlabeled", places, arguments.images),
    }
    for key, splits in (("val", ["val"]), ("test", ["test", "val"])):
        given, images = getattr(arguments, key), getattr(arguments, f"{key}_images")
        if given:
            images = images or arguments.images
            entries[key.upper()] = _annotated(f"{name}_{key}", given, images, splits)
        elif images:
            raise ConfigError(f"--{key}-images {images} is given without --{key}; name both")
    _check_images_taken(arguments, entries)
    _check_kept_apart(arguments, entries)
    return entries


def _check_kept_apart(arguments: argparse.Namespace, entries: dict[str, dict[str, Any]]) -> None:
    """Stop where models would be judged by what they were trained on."""
    trained_on = entries["TRAIN"]
    for key in ("VAL", "TEST"):
        own = entries.get(key, {})
        is_same = any(kind in own and own[kind] == trained_on.get(kind) for kind in _KINDS)
        if is_same and own.get("SPLIT") in (None, trained_on.get("SPLIT")):
            raise ConfigError(
                f"--{key.lower()} {getattr(arguments, key.lower())} has the images that --labeled "
                "has; name some that are kept out of training (in another file or folder, or of a "
                f"VOC folder in ImageSets/Main/{key.lower()}.txt)"
            )


def _check_images_taken(arguments: argparse.Namespace, entries: dict[str, dict[str, Any]]) -> None:
    """Stop at a folder of pictures that no file takes, as it says itself where they are."""
    for key in ("TRAIN", "VAL", "TEST"):
        file, folder = (getattr(arguments, argument) for argument in OPTIONS[key])
        # Files without a folder of their own take that of the labeled pictures.
        takers = entries.values() if key == "TRAIN" else [entries.get(key, {})]
        taken = [entry.get("IMAGES") for entry in takers if "JSON" in entry or "VOC" in entry]
        if folder and os.path.abspath(folder) not in taken:
            option = option_of(OPTIONS[key][1])
            raise ConfigError(
                f"{option} {folder} is given, but {file} itself says where its pictures are; "
                f"leave {option} out, or correct that file"
            )


def naming_of(key: str, arguments: argparse.Namespace) -> Naming:
    """Name the option that each key of a data set's entry is from."""
    given, images = OPTIONS[key]
    images = images if getattr(arguments, images) else "images"
    options = {"NAME": "--name", "IMAGES": option_of(images)}
    return lambda name: options.get(name, option_of(given))


def option_of(argument: str) -> str:
    """Write the name of an argument as the command line has it."""
    return f"--{argument.replace('_', '-')}"


def _annotated(name: str, path: str, images: str | None, splits: Sequence[str]) -> dict[str, Any]:
    """Describe a data set with annotations, by what kind of file it is.

    Args:
        name: of the data set.
        path: of the file, or of a VOC folder.
        images: folder of the pictures.
        splits: the first of these that there is is taken, where the file has several.
    """
    entry: dict[str, Any] = {"NAME": name}
    place = _file_of(os.path.abspath(path))
    if os.path.isdir(place):
        entry |= {"VOC": place, **_split_of_voc(place, path, splits)}
    elif _is_list_of_voc(place):
        entry |= {"VOC": str(Path(place).parents[2]), "SPLIT": Path(place).stem}
    elif place.lower().endswith((".yaml", ".yml")):
        of_file = YoloSplit(place).splits() if os.path.isfile(place) else []
        there = [split for split in splits if split in of_file]
        return {**entry, "YOLO": place, "SPLIT": there[0] if there else splits[-1]}
    else:
        entry["JSON"] = place
        images = images or os.path.dirname(place)
    return {**entry, **({"IMAGES": os.path.abspath(images)} if images else {})}


def _file_of(place: str) -> str:
    """Give the file of a folder that YOLO's tools and Roboflow write; or the folder as it is."""
    if os.path.isdir(place) and not os.path.isdir(_lists_of(place)):
        for name in ("data.yaml", "_annotations.coco.json"):
            if os.path.isfile(os.path.join(place, name)):
                return os.path.join(place, name)
    return place


def _lists_of(folder: str) -> str:
    return os.path.join(folder, "ImageSets", "Main")


def _is_list_of_voc(place: str) -> bool:
    folder = os.path.dirname(place)
    return place.endswith(".txt") and folder == _lists_of(os.path.dirname(os.path.dirname(folder)))


def _split_of_voc(folder: str, given: str, splits: Sequence[str]) -> dict[str, str]:
    """Choose the list of a VOC folder; none where there is none, or CVAT's, which has all.

    Raises:
        ConfigError: there are only lists of other names, which may be of test images.
    """
    lists = _lists_of(folder)
    files = sorted(os.listdir(lists)) if os.path.isdir(lists) else []
    names = [f[: -len(".txt")] for f in files if f.endswith(".txt") and not f.startswith(".")]
    for split in splits:
        if split in names:
            return {"SPLIT": split}
    if names in ([], ["default"]):
        return {}
    raise ConfigError(
        f"{given}: has lists of images ({shortened(', '.join(names))}), but no "
        f"{' or '.join(f'{split}.txt' for split in splits)}, and without a list all of its images "
        f"would be taken; name the list itself, one of those in {lists}"
    )


def _unlabeled(name: str, places: list[str], images: str | None) -> dict[str, Any]:
    """Describe folders and lists of pictures, or one COCO file whose annotations do not count."""
    files = [place for place in places if place.lower().endswith(".json")]
    if files and len(places) > 1:
        raise ConfigError(
            f"--unlabeled {files[0]}: a COCO file of unlabeled images is named alone; register the "
            "others beside it (SSOD.REGISTER), and name all in DATASETS.UNLABELED"
        )
    if files:
        return {**_annotated(name, places[0], images, []), "UNLABELED": True}
    return {"NAME": name, "IMAGES": places[0] if len(places) == 1 else places}
