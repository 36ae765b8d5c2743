"""Randomness that is derived, not stored.

Whatever is random in a run is a pure function of the run's seed and of a place in the run: the
initial weights and the order of the images of a phase, the augmentation of sample k, the sampling
of anchors and RoIs in an iteration. So an interrupted run goes on with what it would have drawn.
"""

from __future__ import annotations

import random
from enum import IntEnum

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.utils import comm


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


def with_drawn_seed(cfg: CfgNode) -> CfgNode:
    """Put a drawn seed, the same on all ranks, in place of a negative one, which asks for that."""
    if cfg.SEED >= 0:
        return cfg
    own = cfg.clone()
    own.defrost()
    own.SEED = comm.shared_random_seed() % 2**31
    own.freeze()
    return own


def seed_generators(seed: int) -> None:
    """Seed Python's, NumPy's and PyTorch's global generators.

    The numbers are those after Detectron2's ``seed_all_rng``. That one makes a stack trace in each
    call where CUDA is not in use, half a millisecond for each image; here, a device that is not in
    use is left alone.

    Args:
        seed: 0 .. 2^32 - 1.
    """
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
