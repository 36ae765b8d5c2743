"""Looking at image files: their sizes, and whether they can be read to the end and rightly."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from PIL import Image, UnidentifiedImageError

from d2_ssod.progress import progress_bar

EXTENSIONS = frozenset(
    {".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff"}
    | {".webp"}
)

_BAR_FROM = 1000  # files from which a progress bar is worth showing
# Pillow's modes of more than 8 bits: converted to 8, all above 255 is 255.
_DEEP = frozenset({"I", "F", "I;16", "I;16B", "I;16L", "I;16N"})
_ORIENTATION = 0x0112  # EXIF tag
_TURNED = frozenset(range(2, 9))  # its values that turn or mirror the picture
_SIDEWAYS = frozenset({5, 6, 7, 8})  # those that exchange width and height

T = TypeVar("T")
R = TypeVar("R")


class ImageError(Exception):
    """What is wrong with an image file, without its name.

    Attributes:
        kind: what all files with this problem are.
        remedy: what to do.
    """

    def __init__(
        self,
        what: str,
        kind: str = "unreadable pictures",
        remedy: str = "replace it, or take it out of the data set",
    ) -> None:
        super().__init__(what)
        self.kind, self.remedy = kind, remedy


def read_size(path: str | os.PathLike) -> tuple[int, int]:
    """Height and width of an image as Detectron2 reads it, EXIF orientation applied.

    Args:
        path: an image file; only its header is read.

    Raises:
        ImageError: the file is missing, or no image.
    """
    with _open(path) as image:
        return _oriented_size(image)


def check_picture(path: str | os.PathLike) -> tuple[int, int]:
    """`read_size` for a picture that must also be read rightly by Detectron2; it is decoded.

    Detectron2 itself would give a black picture for a damaged PNG, white for 16 bits, and turn
    TIFFs with an orientation twice.

    Raises:
        ImageError: the file is missing, no image, truncated or damaged, has more than 8 bits, or is
            a TIFF with an orientation.
    """
    with _open(path) as image:
        _check_turned_once(image)
        _decode(image)
        if image.mode in _DEEP:
            raise ImageError(
                f"has more than 8 bits per pixel (mode {image.mode}), which would be read as white",
                "pictures of 16 bits or more",
                "scale it to 8 bits",
            )
        return _oriented_size(image)


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
    return (width, height) if _orientation(image) in _SIDEWAYS else (height, width)


def _orientation(image: Image.Image) -> int | None:
    try:
        # Not image.getexif(): for a PNG without EXIF data that one decodes the whole picture.
        return Image.Image.getexif(image).get(_ORIENTATION)
    except Exception:  # damaged EXIF data; Detectron2 ignores it as well
        return None


def _check_turned_once(image: Image.Image) -> None:
    """Refuse what Pillow turns while it decodes, which forgets the tag, and Detectron2 again."""
    orientation = _orientation(image) if image.format == "TIFF" else None
    if orientation in _TURNED:
        raise ImageError(
            f"is a TIFF with an orientation ({orientation}), by which it would be turned twice",
            "TIFFs with an orientation",
            "save it as it is to be seen, without one",
        )


def size_or_error(
    look: Callable[[str], tuple[int, int]], path: str
) -> tuple[int, int] | ImageError:
    """Give height and width by `read_size` or `check_picture`, or what is wrong."""
    try:
        return look(path)
    except ImageError as error:
        # A new one: the traceback, and what it was raised from, hold the picture in memory.
        return ImageError(str(error), error.kind, error.remedy)


def _decode(image: Image.Image) -> None:
    try:
        image.load()
    except Exception as error:  # Pillow's readers raise whatever a damaged file leads them to
        raise ImageError(f"is truncated or damaged ({error})") from None
