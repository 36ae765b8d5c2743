"""Which pictures were looked at and found good, so that a second start need not decode them."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from pathlib import Path

logger = logging.getLogger(__name__)

_TABLE = "good_2"  # another number once the check finds more
_COMMIT_EVERY = 1000


def cache_file() -> Path:
    """Name the file in the user's cache folder (``$XDG_CACHE_HOME``, default ``~/.cache``)."""
    root = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(root) / "d2_ssod" / "pictures.sqlite"


class SeenPictures:
    """Sizes of good pictures by path, length and time of change; nothing where that fails."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = cache_file() if path is None else path
        self._database: sqlite3.Connection | None = None
        self._added = 0

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
        if self._database is not None:
            with contextlib.suppress(sqlite3.Error):
                self._database.commit()
            self._database.close()
            self._database = None

    def get(self, path: str) -> tuple[int, int] | None:
        """Give height and width of a picture found good before, if it has not changed."""
        key = self._key(path)
        if key is None:
            return None
        try:
            return self._database.execute(
                f"SELECT height, width FROM {_TABLE} WHERE path=? AND length=? AND changed=?", key
            ).fetchone()
        except sqlite3.Error as error:
            return self._give_up(error)

    def add(self, path: str, size: tuple[int, int]) -> None:
        """Remember a picture that was found good."""
        key = self._key(path)
        if key is None:
            return
        try:
            self._database.execute(
                f"INSERT OR REPLACE INTO {_TABLE} VALUES (?, ?, ?, ?, ?)", (*key, *size)
            )
            self._added += 1
            if self._added % _COMMIT_EVERY == 0:
                self._database.commit()
        except sqlite3.Error as error:
            self._give_up(error)

    def _key(self, path: str) -> tuple[str, int, int] | None:
        if self._database is None:
            return None
        try:
            found, name = os.stat(path), os.path.realpath(path)
            name.encode()  # names that are not UTF-8 are looked at each time
        except (OSError, ValueError):
            return None
        return name, found.st_size, found.st_mtime_ns

    def _give_up(self, error: Exception) -> None:
        logger.debug("%s: %s; every picture is looked at anew", self._path, error)
        if self._database is not None:
            self._database.close()
            self._database = None
