"""Randomness that is derived, not stored.

Whatever is random in a run is a pure function of the run's seed and of a place in the run: the
initial weights and the order of the images of a phase, the augmentation of sample k, the sampling
of anchors and RoIs in an iteration. So an interrupted run goes on with what it would have drawn.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Purpose(IntEnum):
    """What a seed is for; seeds of different purposes are unrelated."""

    WEIGHTS = 0
    ORDER = 1
    SAMPLE = 2
    STEP = 3


def derive_seed(seed: int, phase: int, purpose: Purpose, *place: int) -> int:
    """Derive the seed of one place in a run, a number below 2^32.

    Args:
        seed: of the run.
        phase: 0..N.
        purpose: what it is for.
        place: numbers that tell the places apart, such as iteration and rank; as many for every
            place of a purpose, since a 0 at the end makes no difference.
    """
    return int(np.random.SeedSequence([seed, phase, purpose, *place]).generate_state(1)[0])
