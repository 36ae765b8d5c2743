"""Loading COCO instances files: Detectron2's loader, with what is wrong in a file said clearly."""

from __future__ import annotations

import json
import logging
import os
from typing import Any

from detectron2.data.datasets.coco import load_coco_json
from detectron2.utils.file_io import PathManager

from d2_ssod.config import is_number
from d2_ssod.errors import ConfigError

logger = logging.getLogger(__name__)

_STANDARD_IMAGE_KEYS = {
    "id",
    "file_name",
    "height",
    "width",
    "license",
    "flickr_url",
    "coco_url",
    "date_captured",
}

# Of Detectron2's dicts; an additional key of the file must not stand in for one.
_RESERVED_KEYS = {"image_id", "annotations", "is_pseudo"}


def load_coco(
    json_file: str, image_root: str, name: str, *, annotations: bool = True
) -> list[dict[str, Any]]:
    """Load a COCO instances file into Detectron2's data set dicts.

    Beyond `detectron2.data.datasets.load_coco_json`, the file's mistakes are named, images keep
    their additional keys (such as `difficulty`), and boxes without area are left out (COCO itself
    has one). A file without categories is an unlabeled one.

    Args:
        json_file: the annotations.
        image_root: folder that the file names in it are relative to.
        name: data set whose metadata gets `thing_classes` and the category ids.
        annotations: False leaves the annotations out, for use as unlabeled images.

    Returns:
        one dict per image, by image id; no `annotations` key if there are none in the whole file.

    Raises:
        ConfigError: the file cannot be read, or contradicts itself.
    """
    contents = _read(json_file)
    check_contents(contents, json_file)
    extra = {
        image["id"]: {k: v for k, v in image.items() if k not in _STANDARD_IMAGE_KEYS}
        for image in contents["images"]
    }
    annotated = annotations and bool(contents.get("annotations"))
    has_categories = bool(contents.get("categories"))
    del contents  # the loader below reads the file again, and it may be big
    if not extra:
        return []
    records = load_coco_json(json_file, image_root, name if has_categories else None)
    for record in records:
        for key, value in extra[record["image_id"]].items():
            if key not in _RESERVED_KEYS:
                record.setdefault(key, value)
        if not annotated:
            record.pop("annotations", None)
    if annotated:
        _drop_empty_boxes(records, json_file)
    return records


def check_contents(contents: Any, json_file: str) -> None:
    """Check that a parsed file is COCO instances and agrees with itself.

    Raises:
        ConfigError: naming the file and the image or annotation.
    """
    if not isinstance(contents, dict) or not isinstance(contents.get("images"), list):
        raise ConfigError(
            f'{json_file}: is not a COCO instances file (no list "images"); expected '
            '{"images": [...], "annotations": [...], "categories": [...]}'
        )
    files = {}
    for image in contents["images"]:
        missing = {"id", "file_name", "height", "width"} - image.keys()
        if missing:
            raise ConfigError(f"{json_file}: image {image} has no {', '.join(sorted(missing))}")
        if image["id"] in files:
            raise ConfigError(f"{json_file}: two images have the id {image['id']}; ids are unique")
        files[image["id"]] = image["file_name"]
    categories = {category["id"] for category in contents.get("categories") or []}
    seen: set = set()
    # COCO's own 2014 minival files repeat annotation ids; Detectron2 makes the same exception.
    may_repeat = "minival" in json_file
    for annotation in contents.get("annotations") or []:
        problem = _annotation_problem(annotation, files, categories)
        if problem is None and not may_repeat and annotation["id"] in seen:
            problem = "has an id that another annotation has too"
        if problem is not None:
            image = files.get(annotation.get("image_id"), annotation.get("image_id"))
            raise ConfigError(
                f"{json_file}: annotation {annotation.get('id')} of image {image} {problem}"
            )
        seen.add(annotation["id"])


def _annotation_problem(annotation: dict, files: dict, categories: set) -> str | None:
    """Say what is wrong with an annotation, or None."""
    missing = {"id", "image_id", "category_id", "bbox"} - annotation.keys()
    if missing:
        return f"has no {', '.join(sorted(missing))}"
    if annotation["image_id"] not in files:
        return 'is of an image that is not in "images"'
    if annotation["category_id"] not in categories:
        return f'has category_id {annotation["category_id"]}, which is not in "categories"'
    if annotation.get("ignore", 0) != 0:
        return 'has "ignore", which Detectron2 does not support; use "iscrowd", or remove it'
    box = annotation["bbox"]
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
        return f"has the bbox {box}; expected four numbers [x, y, width, height]"
    if box[2] < 0 or box[3] < 0:
        return f"has the bbox {box} of negative size; expected [x, y, width, height]"
    return None


def _read(json_file: str) -> Any:
    try:
        with PathManager.open(json_file) as file:
            return json.load(file)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{json_file}: cannot be read as JSON ({error})") from error


def _drop_empty_boxes(records: list[dict], json_file: str) -> None:
    dropped = 0
    for record in records:
        kept = [a for a in record["annotations"] if a["bbox"][2] > 0 and a["bbox"][3] > 0]
        dropped += len(record["annotations"]) - len(kept)
        record["annotations"] = kept
    if dropped:
        logger.warning("%s: left out %d boxes without area", os.path.basename(json_file), dropped)
