"""Files of labels, of ours or of a labeling tool, in COCO's instances format: reading them.

A person may have corrected them, by hand or with a tool. So they are read with care: what is
missing is filled in, what contradicts the data set stops with a message that names the place.
"""

from __future__ import annotations

import logging
import os
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from detectron2.structures import BoxMode

from d2_ssod.errors import ConfigError
from d2_ssod.json_files import no_garbage_collection, read_json
from d2_ssod.limits import is_number
from d2_ssod.structures import CERTAIN, UNCERTAIN, ImageId
from d2_ssod.values import as_flag, as_id, as_number, find_id, problem_with_ignore

from .image_names import ImageNames
from .pseudo_labels import is_corrected

logger = logging.getLogger(__name__)


def load_labels(
    path: str | os.PathLike, dataset_dicts: Sequence[dict], thing_classes: Sequence[str]
) -> list[dict]:
    """Read a COCO instances file of labels, also one that a person has corrected.

    Categories are matched by name, images by file name (by id where the file gives no name), so a
    tool may have renumbered both. A missing score means 1.

    Args:
        path: the file to read.
        dataset_dicts: the unlabeled data set. File names and sizes are taken from it.
        thing_classes: class names.

    Returns:
        A Detectron2 dict for each image, in the order of the file: a copy of the data set's, with
        ``is_pseudo`` True and ``annotations`` of ``bbox`` (XYWH_ABS), ``category_id`` (contiguous),
        ``iscrowd`` and ``score``, and where the file has them ``tier`` and ``spread``;
        ``is_corrected`` True if the image's record has ``corrected`` true.

    Raises:
        ConfigError: an image or category that the data set does not have, an image size that
            differs, a box that is not finite, is empty or lies outside its image, a score
            outside [0, 1], or a tier or spread that is none. The message names the file and the
            annotation.
    """
    content = read_json(path)
    images, categories, annotations = (
        _records(path, content, key) for key in ("images", "categories", "annotations")
    )
    class_of = _match_categories(path, categories, thing_classes)
    matched = _match_images(path, images, dataset_dicts)

    boxes: dict[Any, list[dict]] = defaultdict(list)
    with no_garbage_collection():
        for number, annotation in enumerate(_taken_out(annotations)):
            name = _name_of(path, number, annotation)
            image_id = _image_of(name, annotation, matched)
            boxes[image_id].append(_read_annotation(name, annotation, class_of, matched[image_id]))
    corrected = {as_id(image.get("id")) for image in images if is_corrected(image)}
    return [
        {
            **record,
            "annotations": boxes[image_id],
            "is_pseudo": True,
            "is_corrected": image_id in corrected,
        }
        for image_id, record in matched.items()
    ]


def load_pseudo_labels(
    path: str | os.PathLike,
    dataset_dicts: Sequence[dict],
    thing_classes: Sequence[str],
    *,
    filter_empty: bool = True,
) -> list[dict]:
    """Read the images of a file of pseudo-labels that are learned from, by :func:`load_labels`.

    Images without objects, or with crowds alone, are dropped, as a model may have missed some; the
    log says how many. So are those in which a person has found none, unless ``filter_empty`` is
    False (``DATALOADER.FILTER_EMPTY_ANNOTATIONS``) and their records say so (``is_corrected``).
    """
    images = load_labels(path, dataset_dicts, thing_classes)
    learned = [
        image
        for image in images
        if any(not own["iscrowd"] for own in image["annotations"])
        or (image["is_corrected"] and not filter_empty)
    ]
    dropped = len(images) - len(learned)
    if dropped and filter_empty:
        logger.info("%s: dropped %d of %d images, no objects", path, dropped, len(images))
    elif dropped:
        logger.warning(
            "%s: dropped %d of %d images, as they have no objects and nothing says that a person "
            "has found none: name these in a file of SSOD.PSEUDO_LABEL.CORRECTED, or give their "
            'records "corrected": true',
            *(path, dropped, len(images)),
        )
    return learned


def count_pseudo_labels(path: str | os.PathLike, *, filter_empty: bool = True) -> tuple[int, int]:
    """Count the images that :func:`load_pseudo_labels` reads, and their objects.

    Raises:
        ConfigError: it is not a COCO instances file, or an annotation is of no image in it.
    """
    content = read_json(path)
    images = {as_id(image.get("id")): image for image in _records(path, content, "images")}
    objects = Counter(
        _image_of(_name_of(path, number, annotation), annotation, images)
        for number, annotation in enumerate(_records(path, content, "annotations"))
        if not as_flag(annotation.get("iscrowd"))
    )
    corrected = [] if filter_empty else [n for n, i in images.items() if is_corrected(i)]
    return len(objects.keys() | corrected), objects.total()


def _name_of(path: str | os.PathLike, number: int, annotation: dict) -> str:
    """Say for messages where an annotation is."""
    return f"{path}: annotation {annotation.get('id', f'number {number + 1}')}"


def _image_of(name: str, annotation: dict, known: Collection[ImageId]) -> ImageId:
    """Find the id of the image that an annotation is of."""
    image_id = find_id(annotation.get("image_id"), known)
    if image_id not in known:
        given = annotation.get("image_id")
        raise ConfigError(f"{name}: image_id {given!r} is not one of the file's images")
    return image_id


def correction_files(path: str) -> list[str]:
    """List the files of a person's labels (``SSOD.PSEUDO_LABEL.CORRECTED``), later rounds last.

    Args:
        path: of a file, or of a folder of JSON files, which are read in the order of their names
            (``round_1.json``, ``round_1 (1).json``, ``round_2.json``, ``round_10.json``), whether
            in capitals or not.
    """
    if not os.path.isdir(path):
        return [path]
    stems = (os.path.splitext(name) for name in os.listdir(path) if not name.startswith("."))
    files = [(stem, end) for stem, end in stems if end.lower() == ".json"]
    return [os.path.join(path, stem + end) for stem, end in sorted(files, key=_in_natural_order)]


def _in_natural_order(file: tuple[str, str]) -> list[tuple[str, int]]:
    parts = re.findall(r"(\D*)(\d*)", file[0].casefold())
    return [(text, int(number or 0)) for text, number in parts]


def _taken_out(records: list[dict]) -> Iterator[dict]:
    """Yield records and release each: holding both forms of millions would double the memory."""
    for number, record in enumerate(records):
        records[number] = None
        yield record


# What JSON may give for the keys that tie the records together.
_KEY_TYPES = {
    "id": (int, float, str),
    "image_id": (int, float, str),
    "category_id": (int, float, str),
    "file_name": str,
    "name": (int, float, str),
}


def _records(path: str | os.PathLike, content: Any, key: str) -> list[dict]:
    """Take a list of records out of a COCO file."""
    records = content.get(key) if isinstance(content, dict) else None
    if not isinstance(records, list) or not all(isinstance(r, dict) for r in records):
        raise ConfigError(
            f"{path}: not a COCO instances file, it has no list of records {key!r}; correct it, or "
            "delete it if a run has made it and is to make it again"
        )
    for number, record in enumerate(records):
        for name, types in _KEY_TYPES.items():
            if record.get(name) is not None and not isinstance(record[name], types):
                raise ConfigError(
                    f"{path}: {key}[{number}] has {name} {record[name]!r}; expected a number or a "
                    "text as in COCO files"
                )
    return records


def _match_categories(
    path: str | os.PathLike, categories: list[dict], thing_classes: Sequence[str]
) -> dict[Any, Any]:
    """Map the file's category id to the class id, or to the name if the data set lacks it."""
    numbers = {name: number for number, name in enumerate(thing_classes)}
    # A name may be a number, as in the files of labeled images.
    different = {(as_id(category.get("id")), str(category.get("name"))) for category in categories}
    ids = Counter(category_id for category_id, _ in different)
    if twice := [category_id for category_id, count in ids.items() if count > 1]:
        raise ConfigError(f"{path}: several categories have the id {twice[0]!r}; correct them")
    return {category_id: numbers.get(name, name) for category_id, name in different}


def _match_images(
    path: str | os.PathLike, images: list[dict], dataset_dicts: Sequence[dict]
) -> dict[Any, dict]:
    """Map the file's image id to the data set's dict."""
    by_name = ImageNames(dataset_dicts, [name for i in images if (name := i.get("file_name"))])
    by_id = {record["image_id"]: record for record in dataset_dicts}
    matched: dict[Any, dict] = {}
    seen: set[ImageId] = set()
    for image in images:
        image_id, file_name = as_id(image.get("id")), image.get("file_name")
        name = f"{path}: image {image_id!r} (file_name {file_name!r})"
        record = by_name.find(file_name, image_id) if file_name else by_id.get(image_id)
        if record is None:
            raise ConfigError(f"{name}: {by_name.problem_with(file_name or '')}")
        if image_id in matched or record["image_id"] in seen:
            raise ConfigError(f"{name}: the image occurs twice; remove one of them")
        _check_size(name, image, record)
        matched[image_id] = record
        seen.add(record["image_id"])
    for line in by_name.describe():
        logger.info("%s: %s", path, line)
    return matched


def _check_size(name: str, image: dict, record: dict) -> None:
    for side in ("width", "height"):
        given = image.get(side)
        if side in record and given is not None and as_number(given) != record[side]:
            raise ConfigError(
                f"{name}: {side} is {given!r}, but the image's is {record[side]}; boxes must be in "
                "pixels of the original image"
            )


def _read_annotation(
    name: str, annotation: dict, class_of: dict[Any, Any], record: dict
) -> dict[str, Any]:
    """Read one annotation as Detectron2 takes it; ``name`` says where it is, for messages."""
    category_id = find_id(annotation.get("category_id"), class_of)
    category = class_of.get(category_id, annotation.get("category_id"))
    if category_id not in class_of or not isinstance(category, int):
        raise ConfigError(
            f"{name}: category {category!r} is not a class of the data set; correct its category_id"
        )
    bbox = annotation.get("bbox")
    numbers = list(map(as_number, bbox)) if isinstance(bbox, list) else []
    if len(numbers) != 4 or None in numbers:
        raise ConfigError(f"{name}: bbox must be four finite numbers x, y, w, h, found {bbox}")
    x, y, w, h = numbers
    if w <= 0 or h <= 0:
        raise ConfigError(f"{name}: the box {bbox} (x, y, w, h) is empty; correct or remove it")
    if x + w <= 0 or y + h <= 0 or x >= record["width"] or y >= record["height"]:
        raise ConfigError(
            f"{name}: the box {bbox} (x, y, w, h) lies outside its image of "
            f"{record['width']} x {record['height']} pixels; correct or remove it"
        )
    given = annotation.get("score")
    score = 1.0 if given is None else as_number(given)
    if score is None or not 0 <= score <= 1:
        raise ConfigError(f"{name}: score must be in [0, 1], found {given!r}")
    return {
        "bbox": [float(v) for v in numbers],
        "bbox_mode": BoxMode.XYWH_ABS,
        "category_id": category,
        "iscrowd": int(_read_crowd(name, annotation)),
        "score": float(score),
        **_read_tier(name, annotation),
    }


def _read_crowd(name: str, annotation: dict) -> bool:
    if problem := problem_with_ignore(annotation):
        raise ConfigError(f"{name} {problem}")
    is_crowd = as_flag(annotation.get("iscrowd"))
    if is_crowd is None:
        raise ConfigError(f"{name}: iscrowd must be 0 or 1, found {annotation['iscrowd']!r}")
    return is_crowd


def _read_tier(name: str, annotation: dict) -> dict[str, Any]:
    """Read the tier and the spread of a box; of one that a person has drawn there is neither."""
    tier, spread = annotation.get("tier"), annotation.get("spread")
    if tier is None:
        return {}
    if tier not in (CERTAIN, UNCERTAIN):
        raise ConfigError(
            f"{name}: tier must be {CERTAIN!r} or {UNCERTAIN!r}, found {tier!r}; without one the "
            "box is certain"
        )
    numbers = isinstance(spread, list) and len(spread) == 2 and all(map(is_number, spread))
    if spread is not None and not numbers:
        raise ConfigError(
            f"{name}: spread must be two numbers, of width and height, or null, found {spread!r}"
        )
    return {"tier": tier, "spread": spread}
