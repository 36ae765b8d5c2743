"""A folder of images, without annotations, as a data set."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from typing import Any

from d2_ssod.errors import ConfigError

from ..images import EXTENSIONS, ImageError, map_threaded, read_size

logger = logging.getLogger(__name__)


def load_image_folder(folder: str, key: str) -> list[dict[str, Any]]:
    """List a folder's images, those in sub-folders too, as unlabeled Detectron2 data set dicts.

    Args:
        folder: the folder. Files whose name starts with a dot, or has no image extension, are
            skipped; links to folders are followed, each folder once.
        key: config key to name in errors.

    Returns:
        one dict per image with `file_name`, `image_id` (1 to n in the order of the paths),
        `height` and `width` as Detectron2 reads the image.

    Raises:
        ConfigError: an image's header cannot be read.
    """
    images = _list_images(folder)
    sizes = map_threaded(_size_or_error, images, description="Reading image sizes")
    records = []
    for number, (file, size) in enumerate(zip(images, sizes, strict=True), start=1):
        if isinstance(size, ImageError):
            raise ConfigError(f"{key}: {file} {size}; replace it, or take it out of the folder")
        height, width = size
        records.append({"file_name": file, "image_id": number, "height": height, "width": width})
    return records


def _list_images(folder: str) -> list[str]:
    files = sorted(_walk(folder))
    images = [file for file in files if _is_image(file)]
    if len(images) < len(files):
        skipped = next(file for file in files if not _is_image(file))
        logger.info(
            "%s: %d images; skipped %d other files, such as %s",
            *(folder, len(images), len(files) - len(images), os.path.relpath(skipped, folder)),
        )
    return images


def _walk(folder: str) -> Iterator[str]:
    visited = set()
    for place, subfolders, files in os.walk(folder, followlinks=True):
        if os.path.realpath(place) in visited:
            subfolders.clear()
            continue
        visited.add(os.path.realpath(place))
        subfolders.sort()  # which of two links to one folder is followed must not vary
        yield from (os.path.join(place, file) for file in files)


def _is_image(file: str) -> bool:
    name = os.path.basename(file)
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in EXTENSIONS


def _size_or_error(file: str) -> tuple[int, int] | ImageError:
    try:
        return read_size(file)
    except ImageError as error:
        return error
