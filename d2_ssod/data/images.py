"""Looking at image files without decoding them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from PIL import Image, UnidentifiedImageError

from d2_ssod.progress import progress_bar

EXTENSIONS = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)

_BAR_FROM = 1000  # files from which a progress bar is worth showing
_TAIL = 4096  # bytes at the end of a file in which its end marker is looked for
_END_MARKERS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}
_ORIENTATION = 0x0112  # EXIF tag
_SIDEWAYS = frozenset({5, 6, 7, 8})  # its values that exchange width and height

T = TypeVar("T")
R = TypeVar("R")


class ImageError(Exception):
    """What is wrong with an image file, without its name."""


def read_size(path: str | os.PathLike) -> tuple[int, int]:
    """Height and width of an image as Detectron2 reads it, EXIF orientation applied.

    Args:
        path: an image file; only its header is read.

    Raises:
        ImageError: the file is missing, or no image.
    """
    with _open(path) as image:
        return _oriented_size(image)


def check_complete(path: str | os.PathLike) -> tuple[int, int]:
    """`read_size` for an image that must also be readable to its end.

    Whole JPEG and PNG files are recognised by the marker at their end. Only without it, and for
    other formats, the image is decoded.

    Raises:
        ImageError: the file is missing, no image, truncated or damaged.
    """
    with _open(path) as image:
        size = _oriented_size(image)
        marker = _END_MARKERS.get(image.format or "")
        if marker is None or marker not in _tail(path):
            _decode(image)
    return size


def map_threaded(
    function: Callable[[T], R], items: Sequence[T], *, description: str
) -> Iterable[R]:
    """Apply an input/output bound function with many threads; results in the items' order.

    Args:
        function: applied to each item.
        items: the work.
        description: shown before the progress bar, which appears from 1000 items.
    """
    with ThreadPoolExecutor(max_workers=min(32, (os.cpu_count() or 1) + 4)) as pool:
        results: Iterable[R] = pool.map(function, items)
        if len(items) >= _BAR_FROM:
            results = progress_bar(results, description=description, total=len(items))
        yield from results


def _open(path: str | os.PathLike) -> Image.Image:
    try:
        return Image.open(path)
    except FileNotFoundError:
        raise ImageError("does not exist") from None
    except UnidentifiedImageError:
        raise ImageError("is not a readable image") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ImageError(f"is not a readable image ({error})") from None


def _oriented_size(image: Image.Image) -> tuple[int, int]:
    width, height = image.size
    try:
        # Not image.getexif(): for a PNG without EXIF data that one decodes the whole picture.
        orientation = Image.Image.getexif(image).get(_ORIENTATION)
    except Exception:  # damaged EXIF data; Detectron2 ignores it as well
        orientation = None
    return (width, height) if orientation in _SIDEWAYS else (height, width)


def _tail(path: str | os.PathLike) -> bytes:
    with open(path, "rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - _TAIL))
        return file.read()


def _decode(image: Image.Image) -> None:
    try:
        image.load()
    except (OSError, ValueError, SyntaxError) as error:
        raise ImageError(f"is truncated or damaged ({error})") from None
