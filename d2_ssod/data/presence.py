"""Whether the pictures of a data set are where it says."""

from __future__ import annotations

import os
from collections.abc import Sequence

from .findings import Findings

_FEW = 0.1  # of the pictures, that may be in a folder that is a wrong one


def check_present(
    paths: Sequence[str], count: int, place: str, remedy: str, findings: Findings
) -> frozenset[str]:
    """Find pictures of which none, or nearly none, exists: their folder is a wrong one.

    Args:
        paths: of the pictures that may be missing.
        count: of all pictures.
        place: begins the line.
        remedy: what to do.
        findings: what is found is added to it.

    Returns:
        the paths that the line is about; those of single missing pictures are not.
    """
    missing = [path for path in paths if not os.path.exists(path)]
    there = count - len(missing)
    if len(missing) < 2 or there > _FEW * count:
        return frozenset()
    folder = os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in missing])
    what = (
        f"{len(missing)} of {count} pictures are not in"
        if there
        else f"none of {count} pictures is in"
    )
    name = os.path.relpath(missing[0], folder)
    twice = _named_twice(os.path.abspath(missing[0]))
    findings.error(
        place,
        "pictures that are elsewhere",
        f"{what} {folder}, such as {name}{f', which is {twice}' if twice else ''}",
        f"{remedy}, or the one above it, if the names have folders already" if twice else remedy,
    )
    return frozenset(missing)


def _named_twice(path: str) -> str | None:
    """Find the file that is there by a path in which some folders are not named twice."""
    parts = path.split(os.sep)
    for length in range(1, len(parts) // 2 + 1):
        for start in range(len(parts) - 2 * length):
            middle = start + length
            if parts[start:middle] == parts[middle : middle + length]:
                once = os.sep.join([*parts[:start], *parts[middle:]])
                if os.path.exists(once):
                    return once
    return None
