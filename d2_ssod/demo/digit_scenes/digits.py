"""The handwritten digits the scenes are made of, and how they become ink masks.

Source: "Optical Recognition of Handwritten Digits", E. Alpaydin and C. Kaynak, UCI Machine Learning
Repository (CC BY 4.0), doi:10.24432/C50P49; its 1797 test scans of 8 x 8 pixels with 17 gray
levels come with scikit-learn (``sklearn.datasets.load_digits``), so nothing is downloaded.

Everything here is integer arithmetic on top of quantized constants, so that every machine gets
the same pixels.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np

CREDIT = (
    "Handwritten digits: Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, "
    "UCI Machine Learning Repository, doi:10.24432/C50P49, CC BY 4.0; by way of scikit-learn"
)
CLASSES = (0, 1, 2, 3, 4)  # annotated; the other digits are distractors
DISTRACTORS = (5, 6, 7, 8, 9)

_SCAN = 8  # pixels along a scan
_LEVELS = 16  # brightest value of a scan
_PAD = 2  # empty pixels around a scan, so that interpolation fades to nothing
_FRACTION = 8  # bits of a sub-pixel position
_ONE = 1 << _FRACTION
_INK_LEVEL = 128  # alpha from which a pixel counts as ink


@dataclass(frozen=True)
class DigitPool:
    """The scans one split may use: ``{digit: indices into the 1797 scans}``."""

    scans: dict[int, np.ndarray]

    def draw(self, rng: np.random.RandomState, digits: tuple[int, ...]) -> tuple[int, int]:
        """Draw a digit of ``digits`` and one of its scans; returns ``(digit, scan index)``."""
        digit = digits[rng.randint(len(digits))]
        scans = self.scans[digit]
        return digit, int(scans[rng.randint(len(scans))])


@functools.lru_cache(maxsize=1)
def _padded_scans() -> tuple[np.ndarray, np.ndarray]:
    """Load all scans, int64 ``[1797, 12, 12]`` with an empty border, and digits ``[1797]``."""
    from sklearn.datasets import load_digits  # slow to import, only needed to generate

    data = load_digits()
    scans = np.rint(data.images).astype(np.int64)
    border = ((0, 0), (_PAD, _PAD), (_PAD, _PAD))
    return np.pad(scans, border), data.target.astype(np.int64)


def split_scans(seed: int, shares: dict[str, int]) -> dict[str, DigitPool]:
    """Deal the scans of every digit out to the splits; no scan goes to two splits.

    Args:
        seed: the data set's seed.
        shares: percentage of the scans of each split; together at most 100.

    Returns:
        one pool per split, each with all ten digits.
    """
    _, targets = _padded_scans()
    rng = np.random.RandomState(np.random.MT19937(np.random.SeedSequence([seed])))
    dealt: dict[str, dict[int, np.ndarray]] = {split: {} for split in shares}
    for digit in CLASSES + DISTRACTORS:
        order = rng.permutation(np.flatnonzero(targets == digit))
        begin = percent = 0
        for split, share in shares.items():
            percent += share
            end = len(order) * percent // 100
            dealt[split][digit] = order[begin:end]
            begin = end
    return {split: DigitPool(scans) for split, scans in dealt.items()}


def render_digit(scan: int, size: int, degrees: int, boldness: int) -> np.ndarray:
    """Draw one scan as an alpha mask, enlarged, rotated and cut to its non-empty part.

    Args:
        scan: index into the 1797 scans.
        size: pixels that the scan's 8 rows are enlarged to.
        degrees: rotation, counter-clockwise.
        boldness: 0 (thin strokes) to 100 (thick ones).

    Returns:
        uint8 ``[h, w]``, 255 in the middle of a stroke, 0 outside.
    """
    gray = _sample_rotated(_padded_scans()[0][scan], size, degrees)
    full = _LEVELS * _ONE * _ONE
    low = full * (56 - boldness * 24 // 100) // 100
    soft_edge = full * 22 // 100
    alpha = np.clip((gray - low) * 255 // soft_edge, 0, 255).astype(np.uint8)
    rows = np.flatnonzero(alpha.any(axis=1))
    cols = np.flatnonzero(alpha.any(axis=0))
    return alpha[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]


def ink_of(alpha: np.ndarray) -> np.ndarray:
    """Find the pixels of an alpha mask that count as ink: bool, the mask's shape."""
    return alpha >= _INK_LEVEL


def _sample_rotated(scan: np.ndarray, size: int, degrees: int) -> np.ndarray:
    """Sample a padded scan bilinearly on a rotated grid: int64 ``[n, n]``, scale 16 * 2^16."""
    side = size * 3 // 2 + 2
    # Positions are in half pixels, so that the grid's center is an integer.
    steps = 2 * np.arange(side, dtype=np.int64) - (side - 1)
    turn = math.radians(degrees)
    per_step = _SCAN / (2 * size) * 65536
    cos, sin = round(math.cos(turn) * per_step), round(math.sin(turn) * per_step)
    x, y = steps[None, :], steps[:, None]
    center = (scan.shape[0] - 1) * 32768
    column = (center + cos * x - sin * y) >> (16 - _FRACTION)
    row = (center + sin * x + cos * y) >> (16 - _FRACTION)
    last = (scan.shape[0] - 1) * _ONE - 1
    column, row = np.clip(column, 0, last), np.clip(row, 0, last)
    c0, r0 = column >> _FRACTION, row >> _FRACTION
    fc, fr = column & (_ONE - 1), row & (_ONE - 1)
    top = scan[r0, c0] * (_ONE - fc) + scan[r0, c0 + 1] * fc
    bottom = scan[r0 + 1, c0] * (_ONE - fc) + scan[r0 + 1, c0 + 1] * fc
    return top * (_ONE - fr) + bottom * fr
