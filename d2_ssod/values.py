"""Values as annotation files give them: numbers that are texts, ids that are decimals, ..."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping
from typing import Any

from d2_ssod.limits import is_number


def as_number(value: Any) -> float | None:
    """Read a finite number, also one that is given as a text; None for anything else."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    return value if is_number(value) else None


def as_whole(value: Any) -> int | None:
    """Read a whole number, also ``12.0`` or ``"12"``; None for anything else."""
    number = as_number(value)
    return int(number) if number is not None and number == math.floor(number) else None


def as_flag(value: Any) -> bool | None:
    """Read a yes or no: 0, 1, their texts, true and false; nothing given is no. None otherwise."""
    if value is None or value == "":
        return False
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    whole = as_whole(value)
    return bool(whole) if whole in (0, 1) else None


def problem_with_ignore(annotation: Mapping[str, Any]) -> str | None:
    """Say what is wrong with a COCO annotation that some tools mark as one to be ignored."""
    if annotation.get("ignore") and as_flag(annotation["ignore"]) is not False:
        return 'has "ignore", which is not part of COCO; use "iscrowd", or remove it'
    return None


def as_id(value: Any) -> int | str | None:
    """Read an id: a whole number (``1.0`` is 1) or a text; None for anything else."""
    if isinstance(value, str):
        return value or None
    return as_whole(value)


def find_id(value: Any, known: Container[int | str]) -> int | str | None:
    """Find the id among the known ones that a reference means, also ``"7"`` for 7; or None."""
    own_id = as_id(value)
    if own_id is None or own_id in known:
        return own_id
    other = str(own_id) if isinstance(own_id, int) else as_whole(own_id)
    return other if other is not None and other in known else None
