"""Boxes of several models that mean the same object become one, which remembers how they differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from d2_ssod.ops import pairwise_iou
from d2_ssod.structures import Detections, concatenate


class FusedBoxes(NamedTuple):
    """The objects that at least one of several models sees in one image.

    Attributes:
        found: their fused boxes, with f as score.
        votes: int64 [n], how many models see each.
        spread: float32 [n, 2], see ``TieredDetections``.
    """

    found: Detections
    votes: np.ndarray
    spread: np.ndarray


def fuse_votes(detections: Sequence[Detections], iou_thresh: float) -> FusedBoxes:
    """Fuse the boxes of M models in one image: weighted boxes fusion that counts the models.

    Within each class, in the order of scores, a box joins the cluster whose fused box it overlaps
    most if by more than ``iou_thresh``, or begins its own (Solovyev et al., 2021). Of a cluster of
    boxes b_k with scores s_k from n models:

        b = sum(s_k b_k) / sum(s_k),    f = mean(s_k) n / M,
        spread = largest of the standard deviations, weighted by s_k, of its two edges / side of b

    Args:
        detections: the boxes of each model.
        iou_thresh: in [0, 1].

    Returns:
        The fused boxes, highest f first.
    """
    merged = concatenate(detections)
    model = np.repeat(np.arange(len(detections)), [len(d) for d in detections])
    order = np.argsort(-merged.scores, kind="stable")
    clusters = _cluster(merged, order, iou_thresh)
    fused = [_fuse(merged, model, np.array(members), len(detections)) for members in clusters]
    if not fused:
        return FusedBoxes(Detections.empty(), np.zeros(0, np.int64), np.zeros((0, 2), np.float32))
    boxes, scores, classes, votes, spread = map(np.array, zip(*fused, strict=True))
    best_first = np.argsort(-scores, kind="stable")
    found = Detections(
        boxes.astype(np.float32), scores.astype(np.float32), classes.astype(np.int64)
    )
    return FusedBoxes(
        found.select(best_first),
        votes.astype(np.int64)[best_first],
        spread.astype(np.float32)[best_first],
    )


def _cluster(merged: Detections, order: np.ndarray, iou_thresh: float) -> list[list[int]]:
    """Put the numbers of boxes that mean one object into a list each."""
    clusters: list[list[int]] = []
    means = np.zeros((len(merged), 4))  # of each cluster
    of_class = np.full(len(merged), -1)
    for number in order.tolist():
        box, count = merged.boxes[number].astype(np.float64), len(clusters)
        overlap = _iou(means[:count], box) * (of_class[:count] == merged.classes[number])
        best = int(overlap.argmax()) if count else 0
        if count and overlap[best] > iou_thresh:
            clusters[best].append(number)
            means[best] = _mean(merged.boxes[clusters[best]], merged.scores[clusters[best]])
        else:
            clusters.append([number])
            means[count], of_class[count] = box, merged.classes[number]
    return clusters


def _fuse(merged: Detections, model: np.ndarray, members: np.ndarray, models: int) -> tuple:
    """Give box, f, class, votes and spread of a cluster."""
    boxes, scores = merged.boxes[members].astype(np.float64), merged.scores[members]
    box = _mean(boxes, scores)
    votes = len(np.unique(model[members]))
    spread = np.full(2, np.nan)
    if len(members) > 1:
        deviations = np.sqrt(_mean((boxes - box) ** 2, scores))
        sides = np.maximum(box[2:] - box[:2], np.finfo(np.float32).tiny)
        spread = np.maximum(deviations[:2], deviations[2:]) / sides
    return (
        box,
        float(scores.mean(dtype=np.float64)) * votes / models,
        (merged.classes[members[0]]),
        votes,
        spread,
    )


def _mean(values: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Give the mean of rows, weighted by scores (equally, if all are 0)."""
    weights = scores.astype(np.float64) if scores.any() else np.ones(len(scores))
    return np.average(values, axis=0, weights=weights)


def _iou(boxes: np.ndarray, box: np.ndarray) -> np.ndarray:
    return pairwise_iou(torch.from_numpy(boxes), torch.from_numpy(box)[None])[:, 0].numpy()
