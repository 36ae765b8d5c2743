"""Pictures without annotations, from folders and lists, as a data set."""

from __future__ import annotations

import functools
import logging
import mimetypes
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from d2_ssod.errors import ConfigError
from d2_ssod.file_names import FileFinder

from ..findings import Findings
from ..images import EXTENSIONS, ImageError, map_threaded, read_size, size_or_error
from ..presence import check_present
from .catalog import DataSet

logger = logging.getLogger(__name__)

UNREADABLE = "bad images"  # the kind of the findings of pictures that are left out


@dataclass(frozen=True)
class ImageFolders:
    """Pictures without annotations.

    Attributes:
        places: folders, which are searched with their sub-folders; text files that list a picture
            per line, relative to themselves; pictures. In folders, what begins with a dot is
            skipped (as ``.ipynb_checkpoints``), and so are ``__MACOSX`` and ``@eaDir`` and files
            without an image extension; links to folders are followed, each folder once.
        key: config key to name in findings.
    """

    places: tuple[str, ...]
    key: str = field(compare=False)

    def read(self) -> DataSet:
        """List the pictures, with ``image_id`` 1 to n in the order of the places and paths."""
        findings = Findings()
        files = self.files(findings)
        sizes = map_threaded(
            functools.partial(size_or_error, read_size), files, description="Reading image sizes"
        )
        images: list[dict[str, Any]] = []
        for number, (file, size) in enumerate(zip(files, sizes, strict=True), start=1):
            if isinstance(size, ImageError):
                findings.error(
                    self.key,
                    UNREADABLE,
                    f"{file} {size}",
                    "replace it, or take it out of the folder",
                )
                continue
            height, width = size
            images.append({"file_name": file, "image_id": number, "height": height, "width": width})
        return DataSet(images, findings=findings)

    def files(self, findings: Findings | None = None) -> list[str]:
        """List the paths of the pictures, each once; what is odd is added to ``findings``."""
        found = Findings() if findings is None else findings
        return list(dict.fromkeys(f for place in self.places for f in self._list(place, found)))

    def _list(self, place: str, findings: Findings) -> list[str]:
        if not os.path.isfile(place):
            return self._list_folder(place, findings)
        if is_image_name(place):
            return [place]
        if _is_other_picture(place):
            self._warn_of_kind(place, findings)
            return []
        files = read_list(place)
        remedy = f"the names in {place} are relative to its own folder: correct them, or move it"
        said = check_present(files, len(files), self.key, remedy, findings)
        return [file for file in files if file not in said]

    def _list_folder(self, folder: str, findings: Findings) -> list[str]:
        files = sorted(walk_files(folder))
        images = [file for file in files if is_image_name(file)]
        skipped = [file for file in files if not is_image_name(file)]
        if skipped:
            logger.info(
                "%s: %d images; skipped %d other files, such as %s",
                *(folder, len(images), len(skipped), os.path.relpath(skipped[0], folder)),
            )
        for file in filter(_is_other_picture, skipped):
            self._warn_of_kind(file, findings)
        return images

    def _warn_of_kind(self, file: str, findings: Findings) -> None:
        findings.warning(
            self.key,
            "pictures of a kind that is not read",
            f"skipped {file}",
            f"convert it to one of {', '.join(sorted(EXTENSIONS))}",
        )


def read_list(path: str) -> list[str]:
    """Read a text file that names a picture per line, relative to its own folder."""
    folder = os.path.dirname(path)
    with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
        lines = [line.strip() for line in file if line.strip()]
    if any("\0" in line for line in lines):
        raise ConfigError(f"{path}: is no text file that lists pictures; take it out")
    finder = FileFinder(folder, lines)
    return [finder.find(line) for line in lines]


def is_image_name(file: str) -> bool:
    """Tell by its name whether a file is a picture that can be read."""
    name = os.path.basename(file)
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in EXTENSIONS


def _is_other_picture(file: str) -> bool:
    """Tell by its name whether a file is a picture of a kind that cannot be read."""
    kind = mimetypes.guess_type(file)[0] or ""
    is_hidden = os.path.basename(file).startswith(".")
    return kind.startswith("image/") and not is_hidden and not is_image_name(file)


def _is_of_the_system(folder: str) -> bool:
    """Tell whether a folder holds copies and thumbnails that no person has put there."""
    return folder.startswith(".") or folder in ("__MACOSX", "@eaDir")


def walk_files(folder: str, on_error: Callable[[OSError], None] | None = None) -> Iterator[str]:
    """Yield the paths of all files below a folder, as :class:`ImageFolders` searches it.

    Args:
        folder: where to begin.
        on_error: called for a folder that cannot be read; None: it is passed over.
    """
    visited = set()
    for place, subfolders, files in os.walk(folder, onerror=on_error, followlinks=True):
        if os.path.realpath(place) in visited:
            subfolders.clear()
            continue
        visited.add(os.path.realpath(place))
        # Sorted: which of two links to one folder is followed must not vary.
        subfolders[:] = sorted(name for name in subfolders if not _is_of_the_system(name))
        yield from (os.path.join(place, file) for file in files)
