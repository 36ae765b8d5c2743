"""The lengths of pictures' files, by which others of the same names are told from them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

_known: dict[str, int] = {}  # by absolute path


def lengths_of(images: Sequence[dict]) -> tuple[int, ...]:
    """Look how long the files of images are, in bytes; -1 of those that are not there.

    Each is looked at once in a run.
    """
    paths = [os.path.abspath(image["file_name"]) for image in images]
    new = list({path: None for path in paths if path not in _known})
    with ThreadPoolExecutor(32) as pool:  # of network drives each look takes its time
        _known.update(zip(new, pool.map(_length, new), strict=True))
    return tuple(_known[path] for path in paths)


def digest_of_lengths(images: Sequence[dict]) -> str | None:
    """Hash the lengths of the files of images; None if some are not there."""
    lengths = lengths_of(images)
    return None if -1 in lengths else hashlib.sha256(repr(lengths).encode()).hexdigest()


def forget_lengths() -> None:
    """Look at the files anew, as pictures may have been replaced since the last run here."""
    _known.clear()


def _length(path: str) -> int:
    try:
        return os.path.getsize(path)
    except (OSError, ValueError):
        return -1
