"""Picture files that many checks ask about, each looked at once."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from typing import TypeVar

from .images import ImageError, check_picture, map_threaded, size_or_error
from .seen_pictures import FileState, SeenPictures

_Result = TypeVar("_Result")


class PictureFiles:
    """Looks at files with many threads; what it has seen of one it does not look for again."""

    def __init__(self, on_step: Callable[[], object] = lambda: None) -> None:
        """Have seen nothing yet.

        Args:
            on_step: called after each file that was looked at, to tell that the work goes on.
        """
        self._on_step = on_step
        self._states: dict[str, FileState] = {}
        self._heads: dict[str, str] = {}
        self._digests: dict[str, str] = {}

    def states(self, paths: Sequence[str]) -> list[FileState]:
        """Tell which file each path leads to."""
        return self._once(self._states, FileState.of, paths, "Looking for pictures")

    def heads(self, paths: Sequence[str]) -> list[str]:
        """Give the SHA-1 of each file's first 64 KB; its path if it cannot be read."""
        head = functools.partial(_digest, length=1 << 16)
        return self._once(self._heads, head, paths, "Comparing pictures")

    def digests(self, paths: Sequence[str]) -> list[str]:
        """Give the SHA-1 of each file's content; its path if it cannot be read."""
        return self._once(self._digests, _digest, paths, "Comparing pictures")

    def sizes(self, paths: Sequence[str], description: str) -> list[tuple[int, int] | ImageError]:
        """`check_picture` for each; those that any process found good are not decoded again.

        Args:
            paths: the files.
            description: shown before the progress bar.

        Returns:
            of each file height and width, or what is wrong with it.
        """
        states = self.states(paths)
        with SeenPictures() as seen:
            results = [seen.get(state) for state in states]
            new = [number for number, result in enumerate(results) if result is None]
            look = functools.partial(size_or_error, check_picture)
            checked = map_threaded(look, [paths[n] for n in new], description=description)
            for number, result in zip(new, checked, strict=True):
                results[number] = result
                if not isinstance(result, ImageError):
                    seen.add(states[number], result)
                self._on_step()
        return results

    def _once(
        self,
        known: dict[str, _Result],
        look: Callable[[str], _Result],
        paths: Sequence[str],
        description: str,
    ) -> list[_Result]:
        new = list(dict.fromkeys(path for path in paths if path not in known))
        for path, result in zip(new, map_threaded(look, new, description=description), strict=True):
            known[path] = result
            self._on_step()
        return [known[path] for path in paths]


def _digest(path: str, length: int = -1) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.sha1(file.read(length)).hexdigest()
    except (OSError, ValueError):  # said where the pictures are looked at
        return path
