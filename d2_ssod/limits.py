"""Kinds of values that config keys may have, and how an error names each."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Limit:
    """Which values a key may have."""

    holds: Callable[[Any], bool]
    expected: str
    """What ``holds`` asks for, to end the sentence "it must be ..."."""


def is_number(value: Any) -> bool:
    """Tell whether a value is a finite number; True and False are none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return -math.inf < value < math.inf


def is_whole(value: Any) -> bool:
    """Tell whether a value is a whole number; True and False are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_list(value: Any) -> bool:
    """Tell whether a value is a list, which a config may give as a tuple."""
    return isinstance(value, (list, tuple))


def one_of(*choices: Any) -> Limit:
    """Ask for one of these values."""
    return Limit(lambda v: v in choices, f"one of {', '.join(map(str, choices))}")


def each(limit: Limit, *, least: int = 0) -> Limit:
    """Ask for a list of values within ``limit``, of at least so many."""
    return Limit(
        lambda v: is_list(v) and len(v) >= least and all(map(limit.holds, v)),
        f"a list{f' of at least {least}' if least else ''}, each value {limit.expected}",
    )


def exactly(count: int, limit: Limit) -> Limit:
    """Ask for a list of so many values within ``limit``."""
    return Limit(
        lambda v: each(limit).holds(v) and len(v) == count,
        f"a list of {count}, each value {limit.expected}",
    )


def either(first: Limit, second: Limit) -> Limit:
    """Ask for a value within one of two limits."""
    return Limit(
        lambda v: first.holds(v) or second.holds(v), f"{first.expected}, or {second.expected}"
    )


def _ascending(limit: Limit, expected: str) -> Limit:
    """Ask for one value within ``limit``, or a list of such values, smallest first."""
    return Limit(
        lambda v: limit.holds(v) or (each(limit).holds(v) and list(v) == sorted(v)),
        expected,
    )


NONE = Limit(lambda v: v is None, "None")
FLAG = Limit(lambda v: isinstance(v, bool), "True or False")
TEXT = Limit(lambda v: isinstance(v, str), "a text")
LIST = Limit(is_list, "a list")
NAMES = Limit(lambda v: is_list(v) and all(isinstance(i, str) for i in v), "a list of names")

NUMBER = Limit(is_number, "a number")
BELOW_1 = Limit(lambda v: is_number(v) and 0 <= v < 1, "a number from 0, below 1")
UP_TO_1 = Limit(lambda v: is_number(v) and v < 1, "a number below 1")
FRACTION = Limit(lambda v: is_number(v) and 0 <= v <= 1, "a number from 0 to 1")
SHARE = Limit(lambda v: is_number(v) and 0 < v <= 1, "a number above 0, at most 1")
NOT_NEGATIVE = Limit(lambda v: is_number(v) and v >= 0, "a number, at least 0")
POSITIVE = Limit(lambda v: is_number(v) and v > 0, "a number above 0")
FACTOR = Limit(lambda v: is_number(v) and v >= 1, "a number, at least 1")

COUNT = Limit(lambda v: is_whole(v) and v >= 0, "a whole number, at least 0")
AT_LEAST_1 = Limit(lambda v: is_whole(v) and v >= 1, "a whole number, at least 1")
SIZE = Limit(lambda v: is_whole(v) and 32 <= v <= 4096, "a whole number from 32 to 4096")
# NumPy's have 32 bits; each rank has one of its own.
SEED = Limit(lambda v: is_whole(v) and v < 2**32 - 2**16, f"a whole number below {2**32 - 2**16}")

# Sides of a canvas, in sides of its image: 16 makes some 400 MB of a photograph of a megapixel.
ENLARGEMENT = Limit(lambda v: is_number(v) and 1 <= v <= 16, "a number from 1 to 16")
RANGE = Limit(
    lambda v: is_list(v) and len(v) == 2 and all(map(is_number, v)) and 0 < v[0] <= v[1] <= 16,
    "two numbers above 0, at most 16, the smaller one first",
)
STEPS = _ascending(COUNT, "whole numbers, smallest first")
STEP_EPOCHS = _ascending(POSITIVE, "numbers above 0, smallest first")
