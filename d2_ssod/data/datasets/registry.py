"""Registering a user's own data sets from the config."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from d2_ssod.errors import ConfigError, correct_or_remove, nearest

from .catalog import Files, register_files
from .coco import CocoFile
from .folder import ImageFolders
from .voc import VocFolder
from .yolo import YoloSplit

# What a key of an entry, or by "" the entry, is called where the user has written it.
Naming = Callable[[str], str]
_EXAMPLE = "{NAME: my_images, IMAGES: /data/images, JSON: /data/instances.json}"


def register_from_config(entries: Sequence[Mapping[str, Any]], key: str) -> list[str]:
    """Register the data sets that a config lists.

    Args:
        entries: one mapping per data set, with its ``NAME`` and one of

            * ``JSON``, a COCO instances file, and ``IMAGES``, the folder of its pictures;
            * ``VOC``, a folder of VOC's XML files; ``SPLIT`` (of ``ImageSets/Main``) or ``LIST`` (a
              text file) says which, neither: all; ``IMAGES`` where the pictures are elsewhere;
              ``CLASSES``, by default those in the files, sorted;
            * ``YOLO``, Ultralytics' data.yaml, and ``SPLIT`` (train);
            * ``IMAGES`` alone: unlabeled pictures in a folder and its sub-folders, or listed by a
              text file, or a list of such.

            ``UNLABELED: True`` leaves the annotations of the first three out.
        key: the list's config key, for errors.

    Returns:
        the names, in order. Registering the same again changes nothing.

    Raises:
        ConfigError: an entry is malformed, a path is missing, or a name is taken.
    """
    if isinstance(entries, (str, Mapping)) or not isinstance(entries, Sequence):
        raise ConfigError(f"{key}: expected a list of entries such as {_EXAMPLE}, got {entries!r}")
    return [register_entry(e, _within(f"{key}[{number}]")) for number, e in enumerate(entries)]


def register_available(entries: Sequence[Mapping[str, Any]], key: str) -> list[str]:
    """Register the data sets of :func:`register_from_config` whose files are there.

    Returns:
        what is wrong with the others.
    """
    problems = []
    for number, entry in enumerate(entries):
        try:
            register_entry(entry, _within(f"{key}[{number}]"))
        except ConfigError as error:
            problems.append(str(error))
    return problems


def _within(place: str) -> Naming:
    return lambda name: f"{place}.{name}" if name else place


def register_entry(entry: Mapping[str, Any], naming: Naming) -> str:
    """Register one data set.

    Args:
        entry: as in :func:`register_from_config`.
        naming: says what its keys, and by "" itself, are called where it comes from, for errors.

    Returns:
        its name.

    Raises:
        ConfigError: it is malformed, a path is missing, or its name is taken.
    """
    key = naming("")
    if not isinstance(entry, Mapping):
        raise ConfigError(f"{key}: expected an entry such as {_EXAMPLE}, got {entry!r}")
    stray = next((str(k) for k in entry if k not in _ALL_KEYS), None)
    if stray is not None:
        raise ConfigError(
            f"{key}: unknown key {stray!r}: {correct_or_remove(nearest(stray, _ALL_KEYS))}; the "
            f"keys are {', '.join(_ALL_KEYS)}"
        )
    name = entry.get("NAME")
    if not isinstance(name, str) or not name:
        raise ConfigError(f"{key}: NAME is missing; expected something like {_EXAMPLE}")
    given = {k: v for k, v in entry.items() if k != "NAME" and v not in (None, "", [], ())}
    kind = next((k for k in _FORMATS if k in given), None)
    if kind is None:
        raise ConfigError(
            f"{key}: IMAGES is missing, as are VOC and YOLO; expected something like {_EXAMPLE}"
        )
    read, keys = _FORMATS[kind]
    unfit = next((k for k in given if k not in keys), None)
    if unfit is not None:
        raise ConfigError(
            f"{key}: {unfit} does not go with {kind}; the keys beside {kind} are NAME, "
            f"{', '.join(k for k in keys if k != kind)}"
        )
    files, metadata = read(given, naming)
    try:
        register_files(name, files, **metadata)
    except ConfigError as error:
        raise ConfigError(f"{naming('NAME')}: {error}") from None
    return name


def _coco(given: Mapping[str, Any], naming: Naming) -> tuple[Files, dict]:
    if "IMAGES" not in given:
        raise ConfigError(f"{naming('')}: IMAGES is missing; expected something like {_EXAMPLE}")
    json_file, images = _file(given, "JSON", naming), _folder(given, "IMAGES", naming)
    files = CocoFile(json_file, images, annotations=not _flag(given, "UNLABELED", naming))
    return files, {"json_file": json_file, "image_root": images, "evaluator_type": "coco"}


def _voc(given: Mapping[str, Any], naming: Naming) -> tuple[Files, dict]:
    if "SPLIT" in given and "LIST" in given:
        raise ConfigError(f"{naming('')}: has both SPLIT and LIST; remove one of them")
    classes = given.get("CLASSES")
    if classes is not None and (isinstance(classes, str) or not isinstance(classes, Sequence)):
        raise ConfigError(f"{naming('CLASSES')} is {classes!r}; expected a list of names")
    files = VocFolder(
        _folder(given, "VOC", naming),
        split=str(given.get("SPLIT", "")),
        list_file=_file(given, "LIST", naming) if "LIST" in given else "",
        image_root=_folder(given, "IMAGES", naming) if "IMAGES" in given else "",
        class_names=None if classes is None else tuple(map(str, classes)),
        annotations=not _flag(given, "UNLABELED", naming),
    )
    return files, {"evaluator_type": "coco"}


def _yolo(given: Mapping[str, Any], naming: Naming) -> tuple[Files, dict]:
    files = YoloSplit(
        _file(given, "YOLO", naming),
        str(given.get("SPLIT", "train")),
        annotations=not _flag(given, "UNLABELED", naming),
    )
    return files, {"evaluator_type": "coco"}


def _images(given: Mapping[str, Any], naming: Naming) -> tuple[Files, dict]:
    places = given["IMAGES"]
    places = [places] if isinstance(places, str) else places
    if not isinstance(places, Sequence) or not all(isinstance(p, str) for p in places):
        raise ConfigError(f"{naming('IMAGES')} is {places!r}; expected a folder, or a list of such")
    expanded = tuple(map(os.path.expanduser, places))
    for place in expanded:
        if not os.path.exists(place):
            raise ConfigError(
                f"{naming('IMAGES')}: {place} is not a folder, a picture or a text file that "
                f"lists some{_looked_for(place)}; correct the path"
            )
    return ImageFolders(expanded, naming("IMAGES")), {}


# What reads an entry, and its keys besides NAME, by the key that tells its format: the first.
_FORMATS = {
    "JSON": (_coco, ("JSON", "IMAGES", "UNLABELED")),
    "VOC": (_voc, ("VOC", "SPLIT", "LIST", "IMAGES", "CLASSES", "UNLABELED")),
    "YOLO": (_yolo, ("YOLO", "SPLIT", "UNLABELED")),
    "IMAGES": (_images, ("IMAGES", "JSON")),
}
_ALL_KEYS = tuple(dict.fromkeys(["NAME", *(key for _, keys in _FORMATS.values() for key in keys)]))


def _folder(given: Mapping[str, Any], name: str, naming: Naming) -> str:
    value = given[name]
    if not isinstance(value, str) or not os.path.isdir(os.path.expanduser(value)):
        raise ConfigError(
            f"{naming(name)}: {value} is not a folder{_looked_for(value)}; correct the path"
        )
    return os.path.expanduser(value)


def _file(given: Mapping[str, Any], name: str, naming: Naming) -> str:
    value = given[name]
    if not isinstance(value, str) or not os.path.isfile(os.path.expanduser(value)):
        raise ConfigError(
            f"{naming(name)}: {value} is not a file{_looked_for(value)}; correct the path"
        )
    return os.path.expanduser(value)


def _looked_for(path: Any) -> str:
    """Say where a relative path was looked for, as part of a sentence; of others nothing."""
    if not isinstance(path, str) or os.path.isabs(os.path.expanduser(path)):
        return ""
    return f" (looked for in {os.getcwd()}; relative paths count from where the command is run)"


def _flag(given: Mapping[str, Any], name: str, naming: Naming) -> bool:
    value = given.get(name, False)
    if not isinstance(value, bool):
        raise ConfigError(f"{naming(name)} is {value!r}; expected True or False")
    return value
