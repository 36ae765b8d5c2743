"""Checks of data sets before training: everything that is wrong or odd, with its place and remedy.

All functions look only, and add what they find to ``findings``. ``place`` is what their lines begin
with: the config key and the name of the data set.
"""

from __future__ import annotations

import math
import numbers
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from detectron2.data.transforms import ResizeShortestEdge

from d2_ssod.class_lists import GIVE_THE_SAME, describe_difference

from .annotation_boxes import corners_of, is_plain
from .findings import Findings
from .images import ImageError, read_size, size_or_error
from .objects import has_objects
from .picture_files import PictureFiles
from .presence import check_present

_CORRECT_PATHS = (
    "correct IMAGES (SSOD.REGISTER) or the file names in the data set, or put the pictures there"
)


def check_not_empty(images: Sequence[dict[str, Any]], place: str, findings: Findings) -> None:
    """Find a data set without images."""
    if not images and not findings.has_errors:
        findings.error(
            place, "no images", "has no images that can be used", "name a data set that has"
        )


def check_same_classes(classes: Mapping[str, list[str] | None], findings: Findings) -> None:
    """Find data sets whose classes are not those of the first one, in the same order, each once.

    Args:
        classes: of each data set by its place; None: it names none.
        findings: what is found is added to it.
    """
    first_place, expected = next(iter(classes.items()), ("", []))
    for place, found in classes.items():
        if found is None:
            findings.error(
                place, "no classes", "has no classes", "name a data set with annotations"
            )
        elif expected is not None and found != expected:
            findings.error(
                place,
                "other classes",
                f"the classes are not those of {first_place}: "
                f"{describe_difference(found, expected)}",
                GIVE_THE_SAME,
            )
    for name, count in Counter(expected or []).items():
        if count > 1:
            findings.error(
                first_place,
                "classes that share a name",
                f"has more than one class named {name!r}",
                "pseudo-labels are kept by the class's name: give each its own",
            )


def check_images(
    images: Sequence[dict[str, Any]], files: PictureFiles, place: str, findings: Findings
) -> None:
    """Find image files that are not there, are damaged, or not of the size the data set says.

    Args:
        images: Detectron2 dicts with ``file_name`` and, optionally, ``height`` and ``width``. Every
            file is decoded, unless it was found good before and has not changed since.
        files: looks at them.
        place: begins the lines.
        findings: what is found is added to it.
    """
    paths = [record["file_name"] for record in images]
    found = files.sizes(paths, f"Checking images of {place}")
    bad = [path for path, size in zip(paths, found, strict=True) if isinstance(size, ImageError)]
    said = check_present(bad, len(paths), place, _CORRECT_PATHS, findings)
    for record, size in zip(images, found, strict=True):
        path = record["file_name"]
        if path in said:
            continue
        if isinstance(size, ImageError):
            findings.error(place, size.kind, f"{path} {size}", size.remedy)
            continue
        height, width = size
        declared = (record.get("width", width), record.get("height", height))
        if declared != (width, height):
            turned = declared == (height, width)
            findings.error(
                place,
                "images of another size",
                f"{path} is {width} x {height} pixels, but {declared[0]} x {declared[1]} in the "
                "data set",
                "if its EXIF orientation turns it, save it without, or draw the boxes on the "
                "turned picture; if not, exchange width and height there"
                if turned
                else "correct its width and height there",
            )


def check_resizable(
    images: Sequence[dict[str, Any]],
    sizes: Sequence[tuple[str, int, int]],
    place: str,
    findings: Findings,
) -> None:
    """Find pictures so long that resizing leaves nothing of their short side.

    Args:
        images: Detectron2 dicts; those without ``height`` and ``width`` are passed over.
        sizes: (config key, length of the short edge, most of the long edge) of each resizing.
        place: begins the lines.
        findings: what is found is added to it.
    """
    for record in images:
        height, width = record.get("height"), record.get("width")
        for key, short, most in sizes:
            if not height or not width or not short:
                continue
            shape = ResizeShortestEdge.get_output_shape(height, width, short, most)
            if min(shape) < 1:
                findings.error(
                    place,
                    "pictures too long to be resized",
                    f"{record['file_name']} is {width} x {height} pixels, resized by {key} "
                    f"({short}, at most {most}) {shape[1]} x {shape[0]}",
                    "cut it, or take it out of the data set",
                )
                break


def check_sizes(images: Sequence[dict[str, Any]], place: str, findings: Findings) -> None:
    """Find images whose height or width is not given, as files of pseudo-labels need them."""
    for record in images:
        if "height" in record and "width" in record:
            continue
        path = record["file_name"]
        size = size_or_error(read_size, path)
        if isinstance(size, ImageError):  # where the picture would have told it
            findings.error(place, size.kind, f"{path} {size}", size.remedy)
            continue
        findings.error(
            place,
            "images without a size",
            f"the data set gives no height and width of {path}",
            "add both to its dict",
        )


def check_difficulties(images: Sequence[dict[str, Any]], place: str, findings: Findings) -> None:
    """Find a `difficulty`, by which results are split, that is no number."""
    for record in images:
        value = record.get("difficulty", 0.0)
        if not isinstance(value, numbers.Real) or not math.isfinite(value):
            findings.error(
                place,
                "difficulties that are no numbers",
                f"{record['file_name']} has the difficulty {value!r}",
                "expected a number from 0 to 1, or none",
            )


def check_annotations(
    images: Sequence[dict[str, Any]], num_classes: int, place: str, findings: Findings
) -> None:
    """Find labeled images without annotations, unknown classes and boxes without area.

    Args:
        images: Detectron2 dicts.
        num_classes: contiguous class ids are 0 to this, exclusively.
        place: begins the lines.
        findings: what is found is added to it.
    """
    for record in images:
        if "annotations" not in record:
            findings.error(
                place,
                "unlabeled images among labeled ones",
                f"{record['file_name']} is unlabeled",
                "labeled data sets need annotations",
            )
        for number, annotation in enumerate(record.get("annotations", ())):
            problem = _annotation_problem(annotation, num_classes)
            if problem is not None:
                findings.error(
                    place,
                    "annotations that cannot be used",
                    f"annotation {annotation.get('id', f'number {number}')} of "
                    f"{record['file_name']} {problem}",
                    "correct it or take it out of the data set",
                )


def check_has_objects(images: Sequence[dict[str, Any]], place: str, findings: Findings) -> None:
    """Find a data set without objects."""
    if images and not any(map(has_objects, images)):
        findings.error(
            place,
            "no objects",
            "no image has an object",
            "name data sets with annotations other than crowds",
        )


def check_trained_on(
    images: Sequence[dict[str, Any]], trained: int, place: str, findings: Findings
) -> None:
    """Say that labeled images without objects are not trained on, where they are not.

    Args:
        images: labeled ones.
        trained: how many of them are trained on.
        place: begins the line.
        findings: what is found is added to it.
    """
    if trained < len(images):
        findings.warning(
            place,
            "labeled images without objects",
            f"{len(images) - trained} of {len(images)} labeled images have no objects and are "
            "not trained on",
            "DATALOADER.FILTER_EMPTY_ANNOTATIONS False trains on them, too",
        )


def check_disjoint(
    first: Sequence[dict[str, Any]],
    second: Sequence[dict[str, Any]],
    files: PictureFiles,
    words: tuple[str, str, str],
    place: str,
    findings: Findings,
) -> None:
    """Warn of images that two data sets share.

    Two images are the same if their path is, or the content of their files.

    Args:
        first: Detectron2 dicts.
        second: Detectron2 dicts, the ones that are counted.
        files: looks at them.
        words: what the second ones are, what they are too, and what follows, for the line.
        place: begins the line; the key of the second ones.
        findings: what is found is added to it.
    """
    paths, others = ([record["file_name"] for record in images] for images in (second, first))
    shared = shared_pictures(others, paths, files)
    what, too, consequence = words
    for number in sorted(shared):
        findings.warning(
            place,
            f"{what} images that are {too} too",
            f"{paths[number]} is among the {too} images",
            f"{len(shared)} of {len(paths)} {what} images are {too} images too: {consequence}; "
            "take them out of one of the two",
        )


def check_repeated(
    images: Sequence[dict[str, Any]], files: PictureFiles, place: str, findings: Findings
) -> None:
    """Warn of pictures that data sets of one key have more than once."""
    paths = [record["file_name"] for record in images]
    times = Counter(state.path for state in files.states(paths))
    for path, count in times.items():
        if count > 1:
            findings.warning(
                place,
                "pictures named more than once",
                f"{path} is named {count} times",
                "keep one entry, with all its annotations",
            )


def shared_pictures(first: Sequence[str], second: Sequence[str], files: PictureFiles) -> set[int]:
    """Find the second ones that are a file of the first, or have its content; their indices."""
    of_first, of_second = files.states(first), files.states(second)
    known = {state.path for state in of_first}
    shared = {number for number, state in enumerate(of_second) if state.path in known}
    lengths = {state.length for state in of_first if state.length > 0}
    alike = [n for n, s in enumerate(of_second) if s.length in lengths and n not in shared]
    lengths = {of_second[number].length for number in alike}
    others = [path for path, state in zip(first, of_first, strict=True) if state.length in lengths]
    for digests in (files.heads, files.digests):  # uncompressed pictures all have one length
        of_alike, of_others = digests([second[number] for number in alike]), digests(others)
        common = set(of_alike) & set(of_others)
        alike = [n for n, own in zip(alike, of_alike, strict=True) if own in common]
        others = [path for path, own in zip(others, of_others, strict=True) if own in common]
    return shared | set(alike)


def _annotation_problem(annotation: dict[str, Any], num_classes: int) -> str | None:
    category = annotation["category_id"]
    if not 0 <= category < num_classes:
        return f"has the class id {category}, of {num_classes} classes"
    box = annotation["bbox"]
    if not is_plain(annotation):
        return f"has the box {list(box)}; expected four finite numbers"
    x0, y0, x1, y1 = corners_of(annotation)
    if x1 <= x0 or y1 <= y0:
        return f"has the box {list(box)}, which has no area"
    return None
