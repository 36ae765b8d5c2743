"""What each part of a combination is worth, by all combinations of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import combinations


def main_effects(found: Mapping[frozenset[str], float]) -> dict[str, tuple[float, float]]:
    """Estimate what each factor adds, on average over the others, and how certain that is.

    The effect of a set S of n factors is the mean over all combinations of 2 y prod_f s_f, f in S,
    with s_f = 1 where the combination has f, else -1. Those of two factors and more are taken for
    noise: the error of all is the root of the mean of their squares (with three factors of four).

    Args:
        found: y of every combination of the factors, by those that it has.

    Returns:
        By factor its effect and the error.

    Raises:
        ValueError: a combination is missing.
    """
    factors = sorted(frozenset().union(*found))
    if len(found) != 2 ** len(factors):
        raise ValueError(f"{len(found)} combinations of {len(factors)} factors, not all of them")

    def effect(chosen: tuple[str, ...]) -> float:
        signs = {on: math.prod(1 if f in on else -1 for f in chosen) for on in found}
        return 2 * sum(sign * found[on] for on, sign in signs.items()) / len(found)

    together = [s for size in range(2, len(factors) + 1) for s in combinations(factors, size)]
    error = math.sqrt(sum(effect(chosen) ** 2 for chosen in together) / max(len(together), 1))
    return {factor: (effect((factor,)), error) for factor in factors}
