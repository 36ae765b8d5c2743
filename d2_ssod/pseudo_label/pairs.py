"""Overlaps of many boxes at once, of which only those of one group are compared."""

from __future__ import annotations

import itertools

import numpy as np


def pairs_within(groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """List all pairs of items of one group.

    Args:
        groups: int64 [n], the group of each item.

    Returns:
        int64 [p] twice: the numbers of the two, the smaller one first.
    """
    order = np.argsort(groups, kind="stable")
    _, sizes = np.unique(groups, return_counts=True)
    ends = np.repeat(sizes.cumsum(), sizes)
    place = np.arange(len(groups))
    partners = ends - place - 1  # those of its group that come after it
    first = np.repeat(place, partners)
    begin = np.repeat(partners.cumsum() - partners, partners)
    second = first + 1 + np.arange(len(first)) - begin
    return order[first], order[second]


def iou_of_pairs(boxes: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Compute the intersection over union of each pair; 0 for boxes without area.

    Args:
        boxes: float64 [n, 4], XYXY.
        first: int64 [p].
        second: int64 [p].

    Returns:
        float64 [p].
    """
    corners = boxes.T.copy()  # of one coordinate after the other, which is faster
    x1, y1, x2, y2 = (column[first] for column in corners)
    u1, v1, u2, v2 = (column[second] for column in corners)
    width = np.minimum(x2, u2) - np.maximum(x1, u1)
    height = np.minimum(y2, v2) - np.maximum(y1, v1)
    both = np.maximum(width, 0) * np.maximum(height, 0)
    areas = np.maximum(corners[2] - corners[0], 0) * np.maximum(corners[3] - corners[1], 0)
    union = areas[first] + areas[second] - both
    return both / np.where(union > 0, union, 1.0)


def suppress_non_maxima(
    groups: np.ndarray, scores: np.ndarray, overlapping: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """Keep of each group the best box, then the best that does not overlap a kept one, and so on.

    Args:
        groups: int64 [n], the group of each box.
        scores: float [n]; of equal ones the first box goes first.
        overlapping: int64 [p] twice, the pairs of boxes of one group that overlap too much.

    Returns:
        bool [n], whether a box is kept.
    """
    order = np.lexsort((-scores, groups))
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    rank = place - (sizes.cumsum() - sizes)[group]  # within its group, the best first

    one, other = overlapping
    better = np.where(rank[one] < rank[other], one, other)
    worse = np.where(rank[one] < rank[other], other, one)
    by_rank = np.argsort(rank[better], kind="stable")
    better, worse = better[by_rank], worse[by_rank]
    kept = np.ones(len(groups), dtype=bool)
    # Whether a box of a rank is kept is settled once all of lower ranks are.
    bounds = np.searchsorted(rank[better], np.arange(sizes.max(initial=0) + 1))
    for begin, end in itertools.pairwise(bounds):
        kept[worse[begin:end][kept[better[begin:end]]]] = False
    return kept
