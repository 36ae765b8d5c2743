"""Checks of the data sets before training: what is wrong is said in one line, with its place.

All functions look only; they raise :class:`ConfigError`, or return.
"""

from __future__ import annotations

import logging
import math
import numbers
import os
from collections.abc import Sequence
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

from d2_ssod.errors import ConfigError

from .images import ImageError, check_complete, map_threaded

logger = logging.getLogger(__name__)


def check_not_empty(dicts: Sequence[dict[str, Any]], key: str, names: Sequence[str]) -> None:
    """Check that the data sets have images.

    Args:
        dicts: the images of all of them together.
        key: config key that names the data sets.
        names: their names.

    Raises:
        ConfigError: there is no image.
    """
    if not dicts:
        raise ConfigError(
            f"{key}: {_listing(names)} has no images that can be used; name data sets that have"
        )


def check_same_classes(
    labeled_names: Sequence[str],
    test_names: Sequence[str],
    labeled_key: str = "DATASETS.TRAIN",
    test_key: str = "DATASETS.TEST",
) -> None:
    """Check that all labeled and test sets have the same classes in the same order, each once.

    Args:
        labeled_names: registered data sets; the first one's classes are those to have.
        test_names: registered data sets.
        labeled_key: config key of the first ones.
        test_key: config key of the others.

    Raises:
        ConfigError: naming the two data sets and the first class that differs, or the class that
            two categories share.
    """
    named = [(labeled_key, n) for n in labeled_names] + [(test_key, n) for n in test_names]
    if not named:
        return
    first_key, first = named[0]
    expected = _classes_of(first, first_key)
    twice = next((name for name in expected if expected.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(
            f"{first_key}: {first} has more than one class named {twice!r}; pseudo-labels are kept "
            "by the class's name: give each its own"
        )
    for key, name in named[1:]:
        found = _classes_of(name, key)
        if found != expected:
            raise ConfigError(
                f"{key}: the classes of {name} are not those of {first} ({first_key}): "
                f"{_first_difference(found, expected)}; use data sets with equal class lists"
            )


def check_images(dicts: Sequence[dict[str, Any]], key: str) -> None:
    """Check that every image file is there, whole, and of the size the data set says.

    Headers and file ends are read by many threads; only what looks truncated is decoded.

    Args:
        dicts: Detectron2 data set dicts with `file_name` and, optionally, `height` and `width`.
        key: config key that names the data sets.

    Raises:
        ConfigError: naming the first bad file and how many more there are.
    """
    found = map_threaded(_image_problem, dicts, description=f"Checking images of {key}")
    problems = [problem for problem in found if problem is not None]
    if problems:
        more = f" (and {len(problems) - 1} more bad images)" if len(problems) > 1 else ""
        raise ConfigError(f"{key}: {problems[0]}{more}")


def check_sizes(dicts: Sequence[dict[str, Any]], key: str) -> None:
    """Check that the data set says how large each image is, as files of pseudo-labels do.

    Args:
        dicts: Detectron2 data set dicts.
        key: config key that names the data sets.

    Raises:
        ConfigError: naming the first image whose `height` or `width` is missing.
    """
    for record in dicts:
        if "height" not in record or "width" not in record:
            raise ConfigError(
                f"{key}: the data set gives no height and width of {record['file_name']}; add both "
                "to its dict"
            )


def check_difficulties(dicts: Sequence[dict[str, Any]], key: str) -> None:
    """Check that the `difficulty` of images that have one, by which results are split, is a number.

    Args:
        dicts: Detectron2 data set dicts.
        key: config key that names the data sets.

    Raises:
        ConfigError: naming the first image where it is not.
    """
    for record in dicts:
        value = record.get("difficulty", 0.0)
        if not isinstance(value, numbers.Real) or not math.isfinite(value):
            raise ConfigError(
                f"{key}: {record['file_name']} has the difficulty {value!r}; expected a number "
                "from 0 to 1, or none"
            )


def check_annotations(dicts: Sequence[dict[str, Any]], key: str, num_classes: int) -> None:
    """Check boxes and classes of labeled images, as loaded.

    Args:
        dicts: Detectron2 data set dicts.
        key: config key that names the data sets.
        num_classes: contiguous class ids are 0 to this, exclusively.

    Raises:
        ConfigError: an image has no `annotations`, a box is not finite or has no area, or a class
            is unknown; naming the image and the annotation.
    """
    for record in dicts:
        if "annotations" not in record:
            raise ConfigError(
                f"{key}: {record['file_name']} is unlabeled; labeled data sets need annotations"
            )
        for number, annotation in enumerate(record["annotations"]):
            problem = _annotation_problem(annotation, num_classes)
            if problem is not None:
                identity = annotation.get("id", f"number {number}")
                raise ConfigError(
                    f"{key}: annotation {identity} of {record['file_name']} {problem}; correct it "
                    "or take it out of the data set"
                )


def check_disjoint(
    labeled: Sequence[dict[str, Any]], unlabeled: Sequence[dict[str, Any]], key: str
) -> int:
    """Warn if images are both labeled and unlabeled: their pseudo-labels would be too good.

    Two images are the same if their path is, or their name and id in the data set are.

    Args:
        labeled: Detectron2 data set dicts.
        unlabeled: Detectron2 data set dicts.
        key: config key that names the unlabeled data sets.

    Returns:
        the number of unlabeled images that are labeled too.
    """
    known = {identity for record in labeled for identity in _identities(record)}
    shared = [r["file_name"] for r in unlabeled if not known.isdisjoint(_identities(r))]
    if shared:
        logger.warning(
            "%s: %d of %d unlabeled images are labeled images too, such as %s; their pseudo-labels "
            "will look better than they are",
            *(key, len(shared), len(unlabeled), shared[0]),
        )
    return len(shared)


def _identities(record: dict[str, Any]) -> tuple[Any, Any]:
    path = record["file_name"]
    return os.path.realpath(path), (os.path.basename(path), record.get("image_id"))


def _classes_of(name: str, key: str) -> list[str]:
    metadata = MetadataCatalog.get(name)
    if metadata.get("thing_classes") is None and name in DatasetCatalog:
        DatasetCatalog.get(name)  # COCO files bring their classes when they are loaded
    classes = metadata.get("thing_classes")
    if classes is None:
        raise ConfigError(f"{key}: {name} has no classes; name a data set with annotations")
    return list(classes)


def _first_difference(found: list[str], expected: list[str]) -> str:
    for index, (one, other) in enumerate(zip(found, expected, strict=False)):
        if one != other:
            return f"class {index} is {one!r} instead of {other!r}"
    return f"{len(found)} classes instead of {len(expected)}"


def _image_problem(record: dict[str, Any]) -> str | None:
    path = record["file_name"]
    try:
        height, width = check_complete(path)
    except ImageError as error:
        return f"{path} {error}; replace it, or take it out of the data set"
    declared = (record.get("width", width), record.get("height", height))
    if declared != (width, height):
        return (
            f"{path} is {width} x {height} pixels, but {declared[0]} x {declared[1]} in the data "
            "set; correct its width and height there"
        )
    return None


def _annotation_problem(annotation: dict[str, Any], num_classes: int) -> str | None:
    category = annotation["category_id"]
    if not 0 <= category < num_classes:
        return f"has the class id {category}, of {num_classes} classes"
    box = annotation["bbox"]
    if len(box) != 4 or not all(math.isfinite(value) for value in box):
        return f"has the box {list(box)}; expected four finite numbers"
    x0, y0, x1, y1 = BoxMode.convert(list(box), annotation["bbox_mode"], BoxMode.XYXY_ABS)
    if x1 <= x0 or y1 <= y0:
        return f"has the box {list(box)}, which has no area"
    return None


def _listing(names: Sequence[str]) -> str:
    return ", ".join(names) if names else "the empty list"
