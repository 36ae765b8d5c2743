"""Whether the pictures of a data set are where it says."""

from __future__ import annotations

import os
from collections.abc import Sequence

from .findings import Findings

_FEW = 0.1  # of the pictures, that may be in a folder that is a wrong one


def check_present(
    paths: Sequence[str], place: str, remedy: str, findings: Findings
) -> frozenset[str]:
    """Find pictures of which none, or nearly none, exists: their folder is a wrong one.

    Args:
        paths: of the pictures.
        place: begins the line.
        remedy: what to do.
        findings: what is found is added to it.

    Returns:
        the paths that the line is about; those of single missing pictures are not.
    """
    missing = [path for path in paths if not os.path.exists(path)]
    there = len(paths) - len(missing)
    if len(missing) < 2 or there > _FEW * len(paths):
        return frozenset()
    folder = os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in missing])
    what = (
        f"{len(missing)} of {len(paths)} pictures are not in"
        if there
        else f"none of {len(paths)} pictures is in"
    )
    findings.error(
        place,
        "pictures that are elsewhere",
        f"{what} {folder}, such as {os.path.relpath(missing[0], folder)}",
        remedy,
    )
    return frozenset(missing)
