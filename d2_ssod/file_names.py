"""Other spellings of a file's name, as tools write them into their exports."""

from __future__ import annotations

import functools
import itertools
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import PurePosixPath
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

# Label Studio puts eight digits of its own before the name of an uploaded file; dates are others'.
_DATE = r"(19|20)\d\d(0[1-9]|1[0-2])([0-2]\d|3[01])"
_UPLOAD_PREFIX = re.compile(rf"^(?!{_DATE}-)[0-9a-f]{{8}}-(?=.)")
_ABSOLUTE = re.compile(r"[/\\]|[A-Za-z]:[/\\]")
# Roboflow's names of what it exports.
_EXPORTED = re.compile(
    r"^(.+)_(jpe?g|png|bmp|tiff?|webp)\.rf\.[0-9A-Za-z]{8,}\.\w+$", re.IGNORECASE
)


def relative_names(images: Sequence[dict]) -> list[str]:
    """Name the files of images relative to the deepest folder that has all of them."""
    paths = [os.path.abspath(image["file_name"]) for image in images]
    root = common_folder(paths)
    return [os.path.relpath(path, root) for path in paths]


def common_folder(paths: Sequence[str]) -> str:
    """Name the deepest folder that has all of these files, given by absolute paths."""
    return os.path.commonpath([os.path.dirname(path) for path in paths]) if paths else ""


def printable(file_name: str) -> str:
    """Give a name as it can be shown: bytes that are no text become a replacement character."""
    return file_name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def parts_of(file_name: str) -> tuple[str, ...]:
    """Split a path at ``/`` and ``\\``, whichever system wrote it."""
    return PurePosixPath(file_name.replace("\\", "/")).parts


def base_name(file_name: str) -> str:
    """Give the last part of a path; of one without parts, such as ``.``, all of it."""
    parts = parts_of(file_name)
    return parts[-1] if parts else file_name


def parent_of(file_name: str) -> str | None:
    """Give the name of the folder that a path has its file in; None if it names none."""
    return parts_of(file_name)[-2] if len(parts_of(file_name)) > 1 else None


def spellings(file_name: str) -> Iterator[str]:
    """Yield the paths that a name may stand for, the most literal first, each with ``/``.

    Known habits: those of :func:`literal_spellings`; a prefix of eight hexadecimal digits before
    the base name (``90fbb0c7-a.png``), as of Label Studio; its extension within and a digest behind
    it (``a_png.rf.4f2d0b7c9e1a.jpg``), as of Roboflow.

    Args:
        file_name: as an annotation file gives it.
    """
    literal = list(literal_spellings(file_name))
    yield from dict.fromkeys([*literal, *itertools.chain(*map(_without_additions, literal))])


def literal_spellings(file_name: str) -> Iterator[str]:
    """Yield the paths that a name may stand for if no tool has added to it, each with ``/``.

    Known habits: backslashes; URLs with the file in their path or in a parameter ``d``
    (``http://host:8080/data/local-files/?d=images/a.png``), percent-encoded; accents that are
    letters of their own, as macOS writes them, or are not.
    """
    plain = file_name.replace("\\", "/")
    candidates = [plain]
    url = _url(plain) if "://" in plain or "?d=" in plain else None
    if url is not None:
        candidates += [unquote(url.path).lstrip("/"), *parse_qs(url.query).get("d", [])]
    elif "%" in plain:
        candidates.append(unquote(plain))
    for form in ("NFC", "NFD"):
        candidates += [unicodedata.normalize(form, candidate) for candidate in candidates]
    yield from dict.fromkeys(filter(None, candidates))


def _without_additions(path: str) -> Iterator[str]:
    *folders, base = path.split("/")
    of_roboflow = _EXPORTED.sub(r"\1.\2", base)
    for without in (of_roboflow, _UPLOAD_PREFIX.sub("", of_roboflow)):
        yield "/".join([*folders, without])


def _url(text: str) -> SplitResult | None:
    try:
        return urlsplit(text)
    except ValueError:  # brackets that hold no IPv6 address
        return None


def _real_path(path: str) -> str:
    try:
        return os.path.realpath(path)
    except ValueError:  # which no system can have
        return path


def _are_own(found: int, of_others: int) -> bool:
    """Tell whether what is found is what was moved, where some of it is named otherwise, too.

    A picture may be named twice; many that are, are those of another folder.
    """
    return of_others == 0 or (2 * of_others < found and of_others <= max(1, found // 10))


class FileFinder:
    """Finds the files below a folder that the names in one file mean.

    Absolute paths, as of another machine, are looked for by their ends. What is in front of these
    is the same for all of them, so that ``cam2/0.png`` never is ``cam1/0.png``; and next to none of
    what is found so is another of the names already, as pictures of a missing disk would be.
    """

    def __init__(self, folder: str, names: Sequence[str]) -> None:
        """Take the folder that names are relative to, and all the names."""
        self._folder, self._names = folder, names
        # On a network drive each look takes its time; most folders in question are not there.
        self._is_folder = functools.cache(os.path.isdir)
        self._real_folder = functools.cache(_real_path)
        self._seen: dict[str, bool] = {}

    def find(self, file_name: str) -> str:
        """Give the path of the file that a name means; the name as it is if none is."""
        literal = os.path.join(self._folder, file_name)
        is_absolute = _ABSOLUTE.match(file_name)
        found = self._find_as_written(file_name)
        return found or (is_absolute and self._find_end(file_name)) or literal

    def _find_as_written(self, file_name: str) -> str | None:
        """Find a name that was not moved, in any of its spellings."""
        names = list(dict.fromkeys([file_name, *spellings(file_name)]))
        paths = [os.path.join(self._folder, name) for name in names]
        # Most names have no other spelling: nothing is looked for on the disk then.
        if len(paths) == 1 and not _ABSOLUTE.match(file_name):
            return paths[0]
        return next(filter(self._is_there, paths), None)

    def _find_end(self, file_name: str) -> str | None:
        parts, front = parts_of(file_name), self._in_front
        if front is None or parts[: len(front)] != front:
            return None
        path = os.path.join(self._folder, *parts[len(front) :])
        return path if self._is_there(path) else None

    @cached_property
    def _in_front(self) -> tuple[str, ...] | None:
        """What is in front of the ends that are there, of most absolute paths; the shortest such.

        What ends with the folder's own name comes first, if it is so of half as many. None if none
        is there, or if these may as well be the pictures of one folder as of another.
        """
        absolute = [name for name in self._names if _ABSOLUTE.match(name)]
        # What is where its name says was not moved. All others are looked for: of some alone, one
        # folder's pictures may be more than another's by chance.
        moved = [parts_of(name) for name in absolute if not self._is_there(name)]
        found = {
            (parts[:start], path)
            for parts in moved
            for start in range(1, len(parts))
            if self._is_there(path := os.path.join(self._folder, *parts[start:]))
        }
        written = filter(None, map(self._find_as_written, self._names if found else ()))
        named = set(map(self._real, written))
        ends = Counter(front for front, _ in found)
        others = Counter(front for front, path in found if self._real(path) in named)
        counts = {front: n for front, n in ends.items() if _are_own(n, others[front])}
        own, most = os.path.basename(os.path.abspath(self._folder)), max(counts.values(), default=0)
        ranks = {f: (f[-1] == own, n, -len(f)) for f, n in counts.items() if 2 * n >= most}
        highest = max(ranks.values(), default=None)
        best = [front for front, rank in ranks.items() if rank == highest]
        return best[0] if len(best) == 1 else None

    def _is_there(self, path: str) -> bool:
        if path not in self._seen:
            folder = os.path.dirname(path) or os.curdir
            self._seen[path] = self._is_folder(folder) and os.path.exists(path)
        return self._seen[path]

    def _real(self, path: str) -> str:
        """Name a file by where its folder really lies."""
        folder, base = os.path.split(path)
        return os.path.join(self._real_folder(folder), base)
