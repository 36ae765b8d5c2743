"""Registering a user's own data sets from the config."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from d2_ssod.errors import ConfigError

from .coco import load_coco
from .folder import load_image_folder

_REQUIRED = ("NAME", "IMAGES")
_OPTIONAL = ("JSON",)
_EXAMPLE = "{NAME: my_images, IMAGES: /data/images, JSON: /data/instances.json}"

_registered: dict[str, tuple[str, str | None]] = {}  # name: (images, json), of this module alone


def register_from_config(entries: Sequence[Mapping[str, Any]], key: str) -> list[str]:
    """Register the data sets that a config lists.

    Args:
        entries: one mapping per data set: `NAME`; `IMAGES`, its folder; and `JSON`, a COCO
            instances file, or none of it for a folder of unlabeled images (sub-folders too).
        key: the list's config key, for errors.

    Returns:
        the names, in order. Registering the same again changes nothing.

    Raises:
        ConfigError: an entry is malformed, a path is missing, or a name is taken.
    """
    if isinstance(entries, (str, Mapping)) or not isinstance(entries, Sequence):
        raise ConfigError(f"{key}: expected a list of entries such as {_EXAMPLE}, got {entries!r}")
    return [_register(entry, f"{key}[{number}]") for number, entry in enumerate(entries)]


def _register(entry: Mapping[str, Any], key: str) -> str:
    name, images, json_file = _checked(entry, key)
    if name in DatasetCatalog:
        if _registered.get(name) == (images, json_file):
            return name
        raise ConfigError(
            f"{key}.NAME: {name!r} is already the name of another data set; choose another one"
        )
    if json_file is None:
        DatasetCatalog.register(name, functools.partial(load_image_folder, images, f"{key}.IMAGES"))
        MetadataCatalog.get(name).set(image_root=images)
    else:
        DatasetCatalog.register(name, functools.partial(load_coco, json_file, images, name))
        MetadataCatalog.get(name).set(json_file=json_file, image_root=images, evaluator_type="coco")
    _registered[name] = (images, json_file)
    return name


def _checked(entry: Mapping[str, Any], key: str) -> tuple[str, str, str | None]:
    """Give an entry's name, image folder and annotation file."""
    if not isinstance(entry, Mapping):
        raise ConfigError(f"{key}: expected an entry such as {_EXAMPLE}, got {entry!r}")
    unknown = sorted(str(k) for k in entry if k not in _REQUIRED + _OPTIONAL)
    if unknown:
        raise ConfigError(
            f"{key}: unknown key {unknown[0]!r}; the keys are NAME, IMAGES and, optionally, JSON"
        )
    for required in _REQUIRED:
        if not isinstance(entry.get(required), str) or not entry[required]:
            raise ConfigError(f"{key}: {required} is missing; expected something like {_EXAMPLE}")
    images = os.path.expanduser(entry["IMAGES"])
    if not os.path.isdir(images):
        raise ConfigError(f"{key}.IMAGES: {images} is not a folder; correct the path")
    if not entry.get("JSON"):
        return entry["NAME"], images, None
    if not isinstance(entry["JSON"], str) or not os.path.isfile(os.path.expanduser(entry["JSON"])):
        raise ConfigError(f"{key}.JSON: {entry['JSON']} is not a file; correct the path")
    return entry["NAME"], images, os.path.expanduser(entry["JSON"])
