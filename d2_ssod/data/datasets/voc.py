"""PASCAL VOC as the method uses it: `difficult` objects left out, or no annotations at all."""

from __future__ import annotations

import functools
import logging
import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from typing import Any

from detectron2.structures import BoxMode

from d2_ssod.errors import ConfigError

from ..images import ImageError, map_threaded, read_size

logger = logging.getLogger(__name__)

_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def load_voc_labeled(folder: str, split: str, class_names: Sequence[str]) -> list[dict[str, Any]]:
    """Load a VOC split without its `difficult` objects.

    Unlike Detectron2's own loader, which keeps them. Boxes are converted as there: 1-based
    inclusive pixels to continuous XYXY coordinates, (x0 - 1, y0 - 1, x1, y1).

    Args:
        folder: with `Annotations`, `ImageSets`, `JPEGImages`.
        split: `train`, `val`, `trainval` or `test`.
        class_names: their order gives the category ids.

    Returns:
        one Detectron2 data set dict per image.

    Raises:
        ConfigError: a file is missing or malformed.
    """
    ids = _image_ids(folder, split)
    load = functools.partial(_load_image, folder, {n: i for i, n in enumerate(class_names)})
    loaded = list(map_threaded(load, ids, description="Reading VOC annotations"))
    difficult = sum(count for _, count in loaded)
    logger.info(
        "%s %s: %d images; left out %d difficult objects", folder, split, len(ids), difficult
    )
    return [record for record, _ in loaded]


def load_voc_unlabeled(folder: str, split: str) -> list[dict[str, Any]]:
    """List the images of a VOC split; their annotations are not read and need not be there.

    Args:
        folder: with `ImageSets`, `JPEGImages`.
        split: `train`, `val`, `trainval` or `test`.

    Returns:
        one Detectron2 data set dict without `annotations` per image.

    Raises:
        ConfigError: a file is missing or not readable.
    """
    load = functools.partial(_unlabeled_image, folder)
    ids = _image_ids(folder, split)
    return list(map_threaded(load, ids, description="Reading VOC image sizes"))


def _image_ids(folder: str, split: str) -> list[str]:
    path = os.path.join(folder, "ImageSets", "Main", f"{split}.txt")
    try:
        with open(path) as file:
            # The per-class lists have a second column; the first one is the image everywhere.
            return [line.split()[0] for line in file if line.strip()]
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}); put PASCAL VOC there, or set the "
            "environment variable DETECTRON2_DATASETS to the folder that it is in"
        ) from None


def _image_file(folder: str, image_id: str) -> str:
    return os.path.join(folder, "JPEGImages", f"{image_id}.jpg")


def _unlabeled_image(folder: str, image_id: str) -> dict[str, Any]:
    path = _image_file(folder, image_id)
    try:
        height, width = read_size(path)
    except ImageError as error:
        raise ConfigError(f"{path}: {error}; it is listed in {folder}/ImageSets") from None
    return {"file_name": path, "image_id": image_id, "height": height, "width": width}


def _load_image(
    folder: str, category_ids: dict[str, int], image_id: str
) -> tuple[dict[str, Any], int]:
    """One image's data set dict, and how many difficult objects were left out."""
    path = os.path.join(folder, "Annotations", f"{image_id}.xml")
    try:
        root = ElementTree.parse(path).getroot()
        record = {
            "file_name": _image_file(folder, image_id),
            "image_id": image_id,
            "height": int(root.findtext("size/height", "")),
            "width": int(root.findtext("size/width", "")),
        }
        objects = root.findall("object")
        kept = [o for o in objects if int(o.findtext("difficult", "0")) == 0]
        record["annotations"] = [_annotation(o, category_ids) for o in kept]
    except (OSError, ElementTree.ParseError, ValueError, KeyError) as error:
        raise ConfigError(f"{path}: is not a VOC annotation file ({error!r})") from None
    return record, len(objects) - len(kept)


def _annotation(item: ElementTree.Element, category_ids: dict[str, int]) -> dict[str, Any]:
    x0, y0, x1, y1 = (float(item.findtext(f"bndbox/{corner}", "")) for corner in _CORNERS)
    return {
        "category_id": category_ids[item.findtext("name", "").strip()],
        "bbox": [x0 - 1.0, y0 - 1.0, x1, y1],
        "bbox_mode": BoxMode.XYXY_ABS,
    }
