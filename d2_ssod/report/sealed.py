"""Files to work with: what a person has changed in one since it was written is not overwritten."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from pathlib import Path

from d2_ssod.artifacts import digest_of_file
from d2_ssod.json_files import atomic_open

logger = logging.getLogger(__name__)


def write_sealed(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file, and its digest beside it; if a person has changed it, it stays.

    One without a digest, of which that is not known, is set aside: a kill came between the two, or
    the digest was deleted.

    Args:
        path: of the file.
        write: makes it, where it is told to.
    """
    seal = _seal(path)
    if seal.exists() and path.exists() and not _is_as_written(path):
        logger.warning("%s stays as it is, as it was changed; move it to have a new one", path)
        return
    if is_unsealed(path):
        path.replace(_free_name(path))
    seal.unlink(missing_ok=True)  # of the file before; a kill may come between the two
    write(path)
    with atomic_open(seal, encoding="utf-8") as file:
        file.write(f"{digest_of_file(path)}  {path.name}\n")  # as of sha256sum


def is_unsealed(path: Path) -> bool:
    """Tell whether there is a file of which nothing says how it was written."""
    return path.exists() and not _seal(path).exists()


def _free_name(path: Path) -> Path:
    """Name a file that is set aside, beside those that were before."""
    names = (f"{path.name}.old{number or ''}" for number in itertools.count())
    return next(free for name in names if not (free := path.with_name(name)).exists())


def _is_as_written(path: Path) -> bool:
    return digest_of_file(path) in _seal(path).read_text(errors="replace")


def _seal(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")
