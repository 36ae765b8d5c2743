"""What others' functions in ``DatasetCatalog`` give, as the dicts that everything expects."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from detectron2.structures import BoxMode
from torch import Tensor

from d2_ssod.limits import is_number
from d2_ssod.values import as_flag, as_id, as_number, as_whole

from ..findings import Findings
from ..images import ImageError, map_threaded, read_size, size_or_error

_MODES = {int(mode): mode for mode in (BoxMode.XYXY_ABS, BoxMode.XYWH_ABS)}
_DOCS = "see Detectron2's documentation of its standard dataset dicts"


def read_records(name: str, records: Any, findings: Findings) -> list[dict[str, Any]]:
    """Take over a registered function's records, without changing them.

    Numbers of NumPy and paths of pathlib become plain ones; ``image_id``, where no record has one,
    is the number from 1 on; ``height`` and ``width`` that are not given are those of the picture.

    Args:
        name: of the data set.
        records: what the function has given.
        findings: what is wrong is added to it.
    """
    if not isinstance(records, Iterable) or isinstance(records, (str, Mapping)):
        findings.error(
            name,
            "data sets that cannot be read",
            f"the registered function gives {type(records).__name__}",
            f"it must give a list of dicts: {_DOCS}",
        )
        return []
    listed = list(records)
    has_ids = any(isinstance(record, Mapping) and "image_id" in record for record in listed)
    taken = [
        _record({**record, "image_id": number} if not has_ids else dict(record))
        if isinstance(record, Mapping)
        else f"is a {type(record).__name__}, not a dict"
        for number, record in enumerate(listed, start=1)
    ]
    images = []
    for number, image in enumerate(taken):
        if isinstance(image, str):
            findings.error(
                name,
                "records that cannot be used",
                f"record {number} {image}",
                f"correct it: {_DOCS}",
            )
        else:
            images.append(image)
    _complete_sizes(images)
    return images


def _record(record: dict[str, Any]) -> dict[str, Any] | str:
    """Take over a record, or say what is wrong with it."""
    try:
        record["file_name"] = os.fspath(record.get("file_name"))
    except TypeError:
        return f"has the file_name {record.get('file_name')!r}; expected a path"
    given = _plain(record.get("image_id"))
    record["image_id"] = None if isinstance(given, bool) else as_id(given)
    if record["image_id"] is None:
        return (
            f"({record['file_name']}) has the image_id {given!r}; expected a whole number or text"
        )
    for side in ("height", "width"):
        if side in record:
            record[side] = as_whole(_plain(record[side]))
            if record[side] is None or record[side] < 1:
                return f"({record['file_name']}) has no {side} that is a number of pixels"
    if "annotations" in record:
        given = record["annotations"]
        if not isinstance(given, (list, tuple)):
            return f"({record['file_name']}) has {type(given).__name__} as annotations, not a list"
        annotations = [_annotation(annotation) for annotation in given]
        for number, annotation in enumerate(annotations):
            if isinstance(annotation, str):
                return f"({record['file_name']}): annotation {number} {annotation}"
        record["annotations"] = annotations
    return record


def _annotation(annotation: Any) -> dict[str, Any] | str:
    """Take over an annotation, or say what is wrong with it."""
    if not isinstance(annotation, Mapping):
        return f"is a {type(annotation).__name__}, not a dict"
    bbox, mode = _plain(annotation.get("bbox")), _plain(annotation.get("bbox_mode"))
    is_box = isinstance(bbox, (list, tuple))
    numbers = [as_number(_plain(number)) for number in bbox] if is_box else []
    if len(numbers) != 4 or None in numbers:
        return f"has the bbox {bbox!r}; expected four finite numbers"
    if not isinstance(mode, int) or int(mode) not in _MODES:
        return f"has the bbox_mode {mode!r}; expected BoxMode.XYXY_ABS or XYWH_ABS"
    category_id = as_whole(given := _plain(annotation.get("category_id")))
    if category_id is None:
        return f"has the category_id {given!r}; expected a whole number from 0 on"
    crowd = _plain(annotation.get("iscrowd", 0))
    is_crowd = bool(crowd) if is_number(crowd) else as_flag(crowd)  # any number but 0 is yes
    if is_crowd is None:
        return f"has the iscrowd {crowd!r}; expected 0 or 1"
    known = {"bbox": numbers, "bbox_mode": _MODES[int(mode)], "category_id": category_id}
    taken = {**annotation, **known, "iscrowd": int(is_crowd)}
    area = as_number(_plain(taken.pop("area", None)))
    return taken if area is None else {**taken, "area": area}


def _plain(value: Any) -> Any:
    """Give a number, array or tensor of NumPy or PyTorch as Python has it."""
    return value.tolist() if isinstance(value, (np.generic, np.ndarray, Tensor)) else value


def _complete_sizes(images: list[dict[str, Any]]) -> None:
    """Read the sizes that are not given; what cannot be read is said where pictures are checked."""
    without = [image for image in images if "height" not in image or "width" not in image]
    if not without:
        return
    paths = [image["file_name"] for image in without]
    sizes = map_threaded(_size, paths, description="Reading image sizes")
    for image, size in zip(without, sizes, strict=True):
        if not isinstance(size, ImageError):
            image["height"], image["width"] = size


def _size(path: str) -> tuple[int, int] | ImageError:
    """Read the size of a picture, once as long as it does not change: sets are read repeatedly."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return size_or_error(read_size, path)
    return _size_at(path, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=1 << 20)
def _size_at(path: str, changed: int, length: int) -> tuple[int, int] | ImageError:
    return size_or_error(read_size, path)
