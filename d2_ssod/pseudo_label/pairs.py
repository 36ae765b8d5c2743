"""The boxes of many images at once, of which only those of one image and class are compared."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from d2_ssod.structures import Detections, ImageId, Predictions, concatenate

_PAIRS_AT_ONCE = 2_000_000  # so many are compared at once, of as many images as they take


class ImageBoxes(NamedTuple):
    """The boxes of many images, one after another.

    Attributes:
        image: int64 [n], the number of each box's image.
        found: the boxes.
    """

    image: np.ndarray
    found: Detections

    @classmethod
    def of(cls, detections: Sequence[Detections]) -> ImageBoxes:
        """Put the boxes of images together, which are numbered 0, 1, ..."""
        lengths = [len(d) for d in detections]
        return cls(np.repeat(np.arange(len(lengths)), lengths), concatenate(detections))

    @classmethod
    def concatenate(cls, parts: Sequence[ImageBoxes]) -> ImageBoxes:
        """Put the boxes of several models in the same images together."""
        image = np.concatenate([part.image for part in parts])
        return cls(image, concatenate([part.found for part in parts]))

    @property
    def groups(self) -> np.ndarray:
        """int64 [n], a number for each image and class, in the order of images."""
        classes = self.found.classes
        return self.image * (classes.max(initial=0) + 1) + classes

    def select(self, index: np.ndarray) -> ImageBoxes:
        """Select boxes by their numbers."""
        return ImageBoxes(self.image[index], self.found.select(index))

    def by_image(self, images: int) -> Iterator[Detections]:
        """Give the boxes of each image; they must be in the order of images."""
        ends = np.bincount(self.image, minlength=images).cumsum().tolist()
        for begin, end in zip([0, *ends], ends, strict=False):
            yield self.found.select(slice(begin, end))


def in_parts(sources: Sequence[Predictions]) -> Iterator[list[ImageId]]:
    """Give the images in parts that are small enough to compare all their boxes at once."""
    part: list[ImageId] = []
    pairs = 0
    for image_id in sources[0]:
        part.append(image_id)
        pairs += sum(len(source[image_id]) for source in sources) ** 2
        if pairs > _PAIRS_AT_ONCE:
            yield part
            part, pairs = [], 0
    if part:
        yield part


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


def rank_in_group(groups: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Count for each item those of its group that score more, or as much and come before it.

    Args:
        groups: int64 [n], the group of each item.
        scores: float [n].

    Returns:
        int64 [n].
    """
    order = np.lexsort((-scores, groups))  # by group, then best first; stable
    _, sizes = np.unique(groups, return_counts=True)
    ranks = np.empty(len(order), dtype=np.int64)
    ranks[order] = np.arange(len(order)) - np.repeat(sizes.cumsum() - sizes, sizes)
    return ranks


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
    rank = rank_in_group(groups, scores)
    one, other = overlapping
    better = np.where(rank[one] < rank[other], one, other)
    worse = np.where(rank[one] < rank[other], other, one)
    by_rank = np.argsort(rank[better], kind="stable")
    better, worse = better[by_rank], worse[by_rank]
    kept = np.ones(len(groups), dtype=bool)
    # Whether a box of a rank is kept is settled once all of lower ranks are.
    bounds = np.searchsorted(rank[better], np.arange(rank.max(initial=0) + 2))
    for begin, end in itertools.pairwise(bounds):
        kept[worse[begin:end][kept[better[begin:end]]]] = False
    return kept
