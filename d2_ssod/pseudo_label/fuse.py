"""Boxes of several models that mean the same object become one, which remembers how they differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from d2_ssod.structures import Detections

from .pairs import ImageBoxes, iou_of_pairs


class FusedBoxes(NamedTuple):
    """The objects that at least one of several models sees in many images.

    Attributes:
        boxes: their fused boxes with f as score; image by image, highest f first.
        votes: int64 [n], how many models see each.
        spread: float32 [n, 2], see ``TieredDetections``.
    """

    boxes: ImageBoxes
    votes: np.ndarray
    spread: np.ndarray

    def select(self, index: np.ndarray) -> FusedBoxes:
        """Select boxes by their numbers, or a mask."""
        return FusedBoxes(self.boxes.select(index), self.votes[index], self.spread[index])


def fuse_votes(sources: Sequence[ImageBoxes], iou_thresh: float) -> FusedBoxes:
    """Fuse the boxes of M models in many images: weighted boxes fusion that counts the models.

    Within each image and class, in the order of scores, a box joins the cluster whose fused box it
    overlaps most if by more than ``iou_thresh``, or begins its own (Solovyev et al., 2021). Of a
    cluster of boxes b_k with scores s_k from n models:

        b = sum(s_k b_k) / sum(s_k),    f = mean(s_k) n / M,
        spread = largest of the standard deviations, weighted by s_k, of its two edges / side of b

    Args:
        sources: the boxes of each model, with scores above 0.
        iou_thresh: in [0, 1].
    """
    merged = ImageBoxes.concatenate(sources)
    model = np.repeat(np.arange(len(sources)), [len(source.image) for source in sources])
    # Best first within each image, so that clusters come in the order in which they begin.
    order = np.lexsort((-merged.found.scores, merged.image))
    merged, model = merged.select(order), model[order]
    cluster = _cluster(merged, iou_thresh)
    return _fuse(merged, model, cluster, len(sources))


def _cluster(merged: ImageBoxes, iou_thresh: float) -> np.ndarray:
    """Find for each box the one that its cluster began with: int64 [n], itself for a first one.

    Of every image and class, the k-th best boxes are looked at together, k = 0, 1, ...
    """
    boxes = merged.found.boxes.astype(np.float64)
    weights = merged.found.scores.astype(np.float64)
    order = np.argsort(merged.groups, kind="stable")  # best first within a group
    _, sizes = np.unique(merged.groups, return_counts=True)
    begins = np.repeat(sizes.cumsum() - sizes, sizes)
    rank = np.arange(len(order)) - begins
    cluster = np.arange(len(order))
    sums, totals = boxes * weights[:, None], weights.copy()  # of the clusters that boxes begin
    by_rank = np.argsort(rank, kind="stable")
    bounds = np.searchsorted(rank[by_rank], np.arange(sizes.max(initial=0) + 1))
    for k in range(1, len(bounds) - 1):
        places = by_rank[bounds[k] : bounds[k + 1]]  # in ``order``
        own = order[places]
        # Beside each box all better ones of its group; those that began a cluster stand for it.
        others = order[begins[places][:, None] + np.arange(k)]
        number, firsts = np.repeat(own, k), others.ravel()
        both = np.concatenate([boxes[number], sums[firsts] / totals[firsts][:, None]])
        pairs = np.arange(len(number)), np.arange(len(number), 2 * len(number))
        overlap = np.where(cluster[firsts] == firsts, iou_of_pairs(both, *pairs), -1.0)
        overlap = overlap.reshape(-1, k)
        best = overlap.argmax(axis=1)
        joins = overlap[np.arange(len(own)), best] > iou_thresh
        own, joined = own[joins], others[joins, best[joins]]
        cluster[own] = joined
        sums[joined] += sums[own]
        totals[joined] += totals[own]
    return cluster


def _fuse(merged: ImageBoxes, model: np.ndarray, cluster: np.ndarray, models: int) -> FusedBoxes:
    """Make one box of each cluster."""
    boxes, scores = merged.found.boxes.astype(np.float64), merged.found.scores.astype(np.float64)
    first, cluster = np.unique(cluster, return_inverse=True)

    def total(values: np.ndarray) -> np.ndarray:
        return np.bincount(cluster, values, minlength=len(first))

    def mean(columns: np.ndarray) -> np.ndarray:
        return np.stack([total(c * scores) for c in columns.T], axis=1) / total(scores)[:, None]

    size = np.bincount(cluster, minlength=len(first))
    votes = np.bincount(np.unique(np.stack([cluster, model]), axis=1)[0], minlength=len(first))
    fused = mean(boxes)
    deviation = np.sqrt(mean((boxes - fused[cluster]) ** 2))
    side = np.maximum(fused[:, 2:] - fused[:, :2], np.finfo(np.float32).tiny)
    spread = np.maximum(deviation[:, :2], deviation[:, 2:]) / side
    spread[votes == 1] = np.nan
    found = Detections(
        fused.astype(np.float32),
        (total(scores) / np.maximum(size, 1) * votes / models).astype(np.float32),
        merged.found.classes[first],
    )
    image = merged.image[first]
    result = FusedBoxes(ImageBoxes(image, found), votes, spread.astype(np.float32))
    return result.select(np.lexsort((-found.scores, image)))
