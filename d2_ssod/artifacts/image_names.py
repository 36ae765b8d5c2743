"""Which images of a data set the names in a file mean, in which tools may have changed them."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

from d2_ssod.file_names import (
    base_name,
    literal_spellings,
    parent_of,
    parts_of,
    relative_names,
    spellings,
)

from .moved_files import match_known_files


class ImageNames:
    """The images of a data set by their names."""

    def __init__(self, dataset_dicts: Sequence[dict], names: Sequence[str]) -> None:
        """Take the images, and all the names in the file."""
        times = Counter(record["file_name"] for record in dataset_dicts)
        self._whole = {r["file_name"]: r for r in dataset_dicts if times[r["file_name"]] == 1}
        self._dataset_dicts, self._names = dataset_dicts, names
        # Spelling and file of those whose names are not whole.
        self._taken: list[tuple[str, str]] = []
        self._num_renamed = 0

    def find(self, file_name: str, image_id: Any) -> dict | None:
        """Find the one image that a name, in any of its spellings, means; or None."""
        # The program's own files have the data set's names, so the search is for others'.
        if file_name in self._whole:
            return self._whole[file_name]
        if record := self._together.get(file_name):
            self._taken.append((file_name, record["file_name"]))
            return record
        for spelling in spellings(file_name):
            if record := self._find_as(spelling, image_id):
                self._taken.append((spelling, record["file_name"]))
                self._num_renamed += spelling not in literal_spellings(file_name)
                return record
        return None

    def problem_with(self, file_name: str) -> str:
        """Say why a name means no image, and what to do."""
        of_base = (self._by_end.get((base_name(name),), ()) for name in spellings(file_name))
        several = next(filter(None, of_base), ())
        if len(several) > 1:
            return (
                f"the unlabeled data set has several images that it may be, as "
                f"{several[0]['file_name']} and {several[1]['file_name']}; name it as a whole"
            )
        return (
            "the unlabeled data set has no such image; remove it (labels of a labeled image belong "
            "into its own file) or correct its file_name; if a tool has renamed the images, change "
            "all names back"
        )

    def describe(self) -> Iterator[str]:
        """Say what was found by a part of its name alone."""
        if self._num_renamed:
            yield f"recognized {self._num_renamed} images that a tool had renamed"
        elsewhere = [
            (name, file)
            for name, file in self._taken
            if parent_of(name) not in (None, parent_of(file))
        ]
        if elsewhere:
            name, file = elsewhere[0]
            yield (
                f"{len(elsewhere)} images lie in other folders than it says, as {name}, which is "
                f"taken to be {file}"
            )

    @cached_property
    def _together(self) -> dict[str, dict]:
        """All names, where they are as the images lie below one folder; else none.

        Relative to the folder that has all images, if some name a folder, as a tool may have left
        these out; or to one that was moved.
        """
        if len(self._whole) < len(self._dataset_dicts):  # some are listed twice
            return {}
        relative = relative_names(self._dataset_dicts)
        by_relative = dict(zip(relative, self._dataset_dicts, strict=True))
        if any(map(parent_of, self._names)) and all(name in by_relative for name in self._names):
            return by_relative
        if not all(map(os.path.isabs, self._names)):
            return {}
        paths = {name: os.path.normpath(name) for name in self._names}
        files = list(dict.fromkeys(paths.values()))
        moved = match_known_files(files, self._dataset_dicts) or {}
        by_id = {record["image_id"]: record for record in self._dataset_dicts}
        return {name: by_id[moved[path]] for name, path in paths.items() if path in moved}

    @cached_property
    def _by_end(self) -> dict[tuple[str, ...], list[dict]]:
        """Images by every end of their paths: the base name, with the folder it is in, ..."""
        by_end = defaultdict(list)
        for record in self._dataset_dicts:
            parts = parts_of(record["file_name"])
            for start in range(len(parts)):
                by_end[parts[start:]].append(record)
        return dict(by_end)

    @cached_property
    def _folders(self) -> set[str | None]:
        return {parent_of(record["file_name"]) for record in self._dataset_dicts}

    def _find_as(self, file_name: str, image_id: Any) -> dict | None:
        """Find the image of that name; of several, that in the folders most of which are named.

        Folders before these may be others: data are moved, and tools put names into new folders.
        The id, which tools may have changed, only tells those apart that are one file.
        """
        parts, found = parts_of(file_name), []
        shortest = 2 if parent_of(file_name) in self._folders and len(parts) > 1 else 1
        for length in range(shortest, len(parts) + 1):
            fitting = self._by_end.get(parts[-length:], [])
            if not fitting:
                break
            found = fitting
        if len(found) > 1 and all(r["file_name"] == found[0]["file_name"] for r in found):
            found = [record for record in found if record["image_id"] == image_id] or found
        return found[0] if len(found) == 1 else None
