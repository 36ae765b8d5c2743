"""Losses between what a one-stage detector says of two views of one image.

CSD: Jeong et al., "Consistency-based semi-supervised learning for object detection", NeurIPS 2019.
ISD: Jeong et al., "Interpolation-based semi-supervised learning for object detection", CVPR 2021.
Probabilities are Tensor[n, C + 1], background first; offsets are Tensor[n, 4], (dx, dy, dw, dh).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_EPS = 1e-7  # added to probabilities before their logarithms


@dataclass(frozen=True)
class Ramp:
    """How much consistency counts: w(t), from almost nothing to 1, and back at the end.

    w(t) = exp(-5 (1 - t / u)^2) for t < u; exp(-12.5 (1 - (T - t) / d)^2) for T - t < d; else 1.

    Attributes:
        length: iterations of the training, T.
        up: u, in parts of T.
        down: d, in parts of T.
    """

    length: int
    up: float
    down: float

    def __call__(self, iteration: int) -> float:
        """Compute w(t)."""
        rising, falling = self.up * self.length, self.down * self.length
        left = self.length - iteration
        if iteration < rising:
            return math.exp(-5.0 * (1.0 - iteration / rising) ** 2)
        if left < falling:
            return math.exp(-12.5 * (1.0 - left / falling) ** 2)
        return 1.0


def mirror(values: Tensor, grids: Sequence[tuple[int, int]], shapes: Sequence[int]) -> Tensor:
    """Reorder what is said of each prior to that of the prior on the other side, left and right.

    Args:
        values: Tensor[B, P, K], priors ordered by map, row, column, shape.
        grids: height and width of each map.
        shapes: number of priors at each place of each map.
    """
    sizes = [height * width * count for (height, width), count in zip(grids, shapes, strict=True)]
    mirrored = []
    for of_map, (height, width), count in zip(values.split(sizes, 1), grids, shapes, strict=True):
        placed = of_map.reshape(len(values), height, width, count, -1)
        mirrored.append(placed.flip(2).reshape_as(of_map))
    return torch.cat(mirrored, dim=1)


def is_foreground(probabilities: Tensor) -> Tensor:
    """Tell whether a class is likelier than the background; bool, without the last dimension."""
    return probabilities[..., 1:].amax(-1) > probabilities[..., 0]


def class_consistency(p: Tensor, q: Tensor) -> Tensor:
    """Compute (KL(p, q) + KL(q, p)) / 2, the mean of n, each first argument without gradient."""
    return (one_sided_consistency(p, q) + one_sided_consistency(q, p)) / 2


def one_sided_consistency(target: Tensor, p: Tensor) -> Tensor:
    """Compute KL(target, p) = sum target log(target / p), the mean of n; 0 if n = 0.

    The target has no gradient.
    """
    target, p = target.detach() + _EPS, p + _EPS
    return (target * (target.log() - p.log())).sum() / max(len(p), 1)


def box_consistency(deltas: Tensor, others: Tensor, *, mirrored: bool = False) -> Tensor:
    """Compute the mean of the four squared differences of offsets, and of n; 0 if n = 0.

    Args:
        deltas: of the first view.
        others: of the second view.
        mirrored: that view is a mirror image, where dx is -dx.
    """
    signs = deltas.new_tensor([-1.0 if mirrored else 1.0, 1.0, 1.0, 1.0])
    return (deltas - others * signs).square().sum() / (4 * max(len(deltas), 1))
