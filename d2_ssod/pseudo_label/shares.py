"""Parts of a number of boxes or images."""

import math
from fractions import Fraction


def floor_share(fraction: float, count: int) -> int:
    """Compute floor(fraction * count) as in decimals: 0.29 * 100 is 29, not 28.

    ``fraction`` is taken as the nearest fraction with a denominator up to a million.

    Raises:
        ValueError: ``fraction`` outside [0, 1].
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction must be in [0, 1], got {fraction}")
    return math.floor(Fraction(fraction).limit_denominator(1_000_000) * count)
