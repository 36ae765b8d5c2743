import itertools
import random

import numpy as np
import pytest
import torch
from detectron2.utils.env import seed_all_rng

from d2_ssod.randomness import Purpose, derive_seed, seed_generators


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((0, 0, Purpose.WEIGHTS), 2968811710),
        ((7, 1, Purpose.ORDER), 582607262),
        ((7, 2, Purpose.SAMPLE, 123), 2278220736),
        ((7, 2, Purpose.STEP, 40, 3), 1373667653),
        ((2**32 + 5, 0, Purpose.WEIGHTS), 3796490668),
    ],
)
def test_seeds_golden(arguments, expected):
    """Other values would make other runs of the same seed; NumPy guarantees these for good."""
    assert derive_seed(*arguments) == expected


def test_seeds_differ_in_everything_they_are_derived_of():
    places = itertools.product(range(3), range(3), Purpose, range(5), range(4))
    seeds = [derive_seed(*place) for place in places]
    assert len(set(seeds)) == len(seeds) == 3 * 3 * 4 * 5 * 4


def test_seeds_do_not_depend_on_the_state_of_any_generator():
    found = set()
    for state in range(3):
        np.random.seed(state)
        found.add(derive_seed(1, 0, Purpose.STEP, 2, 3))
    assert len(found) == 1


def test_seeds_fit_every_generator():
    """Python's, NumPy's and PyTorch's; NumPy's takes 32 bits."""
    seeds = [derive_seed(seed, 0, Purpose.SAMPLE, 0, 0) for seed in range(2000)]
    assert all(isinstance(seed, int) and 0 <= seed < 2**32 for seed in seeds)
    assert max(seeds) > 2**32 * 0.99  # of all 32


def test_neighboring_places_have_unrelated_seeds():
    """Half of the bits differ, as for any two random numbers."""
    seeds = [derive_seed(0, 0, Purpose.SAMPLE, number, 0) for number in range(1000)]
    flips = [(a ^ b).bit_count() for a, b in itertools.pairwise(seeds)]
    assert np.mean(flips) == pytest.approx(16, abs=0.5)


def test_purposes_are_numbered_for_good():
    assert {purpose.name: int(purpose) for purpose in Purpose} == {
        "WEIGHTS": 0,
        "ORDER": 1,
        "SAMPLE": 2,
        "STEP": 3,
    }


def draw():
    return random.random(), float(np.random.rand()), float(torch.rand(()))


@pytest.mark.parametrize("seed", [0, 7, 2**32 - 1])
def test_generators_are_seeded_as_detectron2_does(seed):
    seed_all_rng(seed)
    expected = draw()
    seed_generators(seed)
    assert draw() == expected
