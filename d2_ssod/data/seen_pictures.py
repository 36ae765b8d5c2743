"""Which pictures were looked at and found good, so that a second start need not decode them."""

from __future__ import annotations

import logging
import os
import sqlite3
from pathlib import Path
from typing import NamedTuple

logger = logging.getLogger(__name__)

_TABLE = "good_2"  # to be renamed whenever the check becomes stricter
_KEEP_EVERY = 1000


def cache_folder() -> Path:
    """Name the folder in the user's cache (``$XDG_CACHE_HOME``, default ``~/.cache``)."""
    root = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(root) / "d2_ssod"


def cache_file() -> Path:
    """Name the file of pictures that were seen."""
    return cache_folder() / "pictures.sqlite"


class FileState(NamedTuple):
    """Which file a path leads to, and how it is now.

    Attributes:
        path: without links.
        length: in bytes; -1 if there is no file.
        changed: time of the last change, in ns.
    """

    path: str
    length: int
    changed: int

    @classmethod
    def of(cls, path: str) -> FileState:
        """Look for the file."""
        try:
            found = os.stat(path)
        except OSError:
            return cls(os.path.realpath(path), -1, -1)
        except ValueError:  # a name with a zero in it
            return cls(path, -1, -1)
        return cls(os.path.realpath(path), found.st_size, found.st_mtime_ns)

    @property
    def is_there(self) -> bool:
        """Tell whether there is such a file."""
        return self.length >= 0


class SeenPictures:
    """Sizes of good pictures by path, length and time of change; nothing where that fails."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = cache_file() if path is None else path
        self._database: sqlite3.Connection | None = None
        self._new: list[tuple[str, int, int, int, int]] = []

    def __enter__(self) -> SeenPictures:
        """Open the file, or go on without: it only saves time."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(self._path, timeout=5)
            self._database.execute(
                f"CREATE TABLE IF NOT EXISTS {_TABLE} (path TEXT PRIMARY KEY, length INTEGER, "
                "changed INTEGER, height INTEGER, width INTEGER)"
            )
        except (OSError, sqlite3.Error) as error:
            self._give_up(error)
        return self

    def __exit__(self, *_: object) -> None:
        """Keep what was added."""
        self._keep()
        if self._database is not None:
            self._database.close()
            self._database = None

    def get(self, state: FileState) -> tuple[int, int] | None:
        """Give height and width of a picture found good before, if it has not changed."""
        if not self._can_keep(state):
            return None
        try:
            return self._database.execute(
                f"SELECT height, width FROM {_TABLE} WHERE path=? AND length=? AND changed=?", state
            ).fetchone()
        except sqlite3.Error as error:
            return self._give_up(error)

    def add(self, state: FileState, size: tuple[int, int]) -> None:
        """Remember a picture that was found good; its state from before it was looked at."""
        if not self._can_keep(state):
            return
        self._new.append((*state, *size))
        if len(self._new) >= _KEEP_EVERY:
            self._keep()

    def _keep(self) -> None:
        """Write what is new at once: meanwhile no other process can."""
        if self._database is None:
            return
        try:
            with self._database:
                self._database.executemany(
                    f"INSERT OR REPLACE INTO {_TABLE} VALUES (?, ?, ?, ?, ?)", self._new
                )
        except sqlite3.Error as error:
            self._give_up(error)
        self._new.clear()

    def _can_keep(self, state: FileState) -> bool:
        if self._database is None or not state.is_there:
            return False
        try:
            state.path.encode()
        except ValueError:  # Names that are not UTF-8 are looked at each time.
            return False
        return True

    def _give_up(self, error: Exception) -> None:
        logger.debug("%s: %s; every picture is looked at anew", self._path, error)
        if self._database is not None:
            self._database.close()
            self._database = None
