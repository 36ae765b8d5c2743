"""How two lists of classes differ, and what to do about it."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

GIVE_THE_SAME = (
    'give all data sets the same classes in the same order: "categories" of a COCO file, by their '
    "ids, those without objects too; CLASSES of VOC in SSOD.REGISTER; names of a data.yaml"
)
_SHOWN = 10


def describe_difference(found: Sequence[str], expected: Sequence[str]) -> str:
    """Name the classes that are missing and additional, or say that the order alone is another.

    Args:
        found: the classes of a data set.
        expected: those that it should have; not equal.
    """
    missing = list((Counter(expected) - Counter(found)).elements())
    additional = list((Counter(found) - Counter(expected)).elements())
    named = {"missing": missing, "additional": additional}
    if Counter(map(_composed, missing)) == Counter(map(_composed, additional)) != Counter():
        return f"the same names in another Unicode form, such as {_listed(missing[:1])}"
    if missing or additional:
        return ", ".join(f"{what} {_listed(names)}" for what, names in named.items() if names)
    moved = [pair for pair in zip(found, expected, strict=True) if pair[0] != pair[1]]
    own, right = zip(*moved, strict=True)
    return f"the same names in another order, {_listed(own)} instead of {_listed(right)}"


def _composed(name: str) -> str:
    """Write accents as parts of their letters, as they may be letters of their own."""
    return unicodedata.normalize("NFC", name)


def _listed(names: Iterable[str]) -> str:
    quoted = [repr(name) for name in names]
    more = [f"{len(quoted) - _SHOWN} more"] if len(quoted) > _SHOWN else []
    return ", ".join([*quoted[:_SHOWN], *more])
