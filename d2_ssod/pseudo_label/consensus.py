"""Step 3: keep what the models of all phases so far agree on.

A box that only one model sees disappears; of the boxes of two models that mean the same object, the
one with the higher score stays, unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
import torch
from detectron2.config import CfgNode
from torchvision.ops import batched_nms

from d2_ssod.ops import pairwise_iou
from d2_ssod.structures import Detections, Predictions, concatenate


@dataclass(frozen=True)
class Consensus:
    """What it means that models agree.

    Attributes:
        iou_thresh: boxes of two models with IoU > this and of one class mean the same object.
        nms_thresh: IoU above which, within a class, only the best-scored box stays.
        min_votes: how many models must see an object. 0, or as many as there are models or more:
            all of them, by intersecting from the left, (((0 and 1) and 2) ...).
    """

    iou_thresh: float = 0.5
    nms_thresh: float = 0.3
    min_votes: int = 0

    def __post_init__(self) -> None:
        if self.min_votes < 0:
            raise ValueError(f"min_votes must be >= 0 (0: all models), got {self.min_votes}")

    @classmethod
    def from_config(cls, cfg: CfgNode) -> Consensus:
        """Read ``SSOD.CONSENSUS``."""
        keys = cfg.SSOD.CONSENSUS
        return cls(keys.IOU_THRESH, keys.NMS_THRESH, keys.MIN_VOTES)

    def of_predictions(self, sources: Sequence[Predictions]) -> Predictions:
        """Keep the boxes that several models agree on, image by image.

        Args:
            sources: the pseudo-labels of each model on the same images, oldest model first.

        Returns:
            For every image the agreed boxes, best score first. One source alone is returned
            unchanged.

        Raises:
            ValueError: no sources, or sources that cover different images.
        """
        if not sources:
            raise ValueError("sources must name at least one model's predictions, got none")
        first = sources[0]
        for number, source in enumerate(sources[1:], start=1):
            if source.keys() != first.keys():
                raise ValueError(
                    f"sources must cover the same images; source 0 has {len(first)}, source "
                    f"{number} has {len(source)}, of which {len(source.keys() & first.keys())} are "
                    "common"
                )
        if len(sources) == 1:
            return first
        return {i: self.of_image([source[i] for source in sources]) for i in first}

    def of_image(self, detections: Sequence[Detections]) -> Detections:
        """Keep the boxes that several models agree on in one image."""
        if 0 < self.min_votes < len(detections):
            return self.vote(detections, self.min_votes)
        return reduce(self.intersect, detections)

    def intersect(self, a: Detections, b: Detections) -> Detections:
        """Keep the objects that both of two models see.

        For every pair (box of A, box of B) of one class with IoU > ``iou_thresh`` the box and score
        of the higher-scoring one is kept unchanged (A's if the scores are equal); then follows NMS
        at ``nms_thresh`` within the class.

        Returns:
            The kept boxes, best score first.
        """
        return self.vote([a, b], 2)

    def vote(self, detections: Sequence[Detections], min_votes: int) -> Detections:
        """Keep the objects that at least ``min_votes`` of the models see.

        Boxes of two different models pair if they are of one class and have IoU > ``iou_thresh``. A
        box has one vote for its own model and one for every other in which it has a partner. Kept
        are boxes with enough votes that have the higher score in at least one of their pairs (if
        the scores are equal: that are of the earlier model); then follows NMS at ``nms_thresh``
        within the class. Two models and two votes give ``intersect``; one vote gives the NMS of all
        boxes together.

        Args:
            detections: the boxes of each model in one image.
            min_votes: between 1 and the number of models.

        Returns:
            The kept boxes, unchanged, best score first.

        Raises:
            ValueError: ``min_votes`` outside 1..n.
        """
        if not 1 <= min_votes <= len(detections):
            raise ValueError(f"min_votes must be in 1..{len(detections)}, got {min_votes}")
        merged = concatenate(detections)
        model = np.repeat(np.arange(len(detections)), [len(d) for d in detections])
        if len(np.unique(model)) < min_votes:
            return Detections.empty()
        if min_votes > 1:
            pairs = (
                (_iou(merged) > self.iou_thresh)
                & (merged.classes[:, None] == merged.classes)
                & (model[:, None] != model)
            )
            sees = np.zeros((len(merged), len(detections)), dtype=bool)  # box i has a partner in m
            np.logical_or.at(sees, (slice(None), model), pairs)
            votes = 1 + sees.sum(axis=1)
            beats = (merged.scores[:, None] > merged.scores) | (
                (merged.scores[:, None] == merged.scores) & (model[:, None] < model)
            )
            merged = merged.select((votes >= min_votes) & (pairs & beats).any(axis=1))
        return _nms(_unique(merged), self.nms_thresh)


def _iou(detections: Detections) -> np.ndarray:
    boxes = torch.from_numpy(detections.boxes).double()  # thresholds are compared without rounding
    return pairwise_iou(boxes, boxes).numpy()


def _unique(detections: Detections) -> Detections:
    """Drop exact repetitions (two models with the very same box), keeping the first of each."""
    rows = np.column_stack([detections.classes, detections.scores, detections.boxes])
    _, first = np.unique(rows, axis=0, return_index=True)
    return detections.select(np.sort(first))


def _nms(detections: Detections, threshold: float) -> Detections:
    """Suppress non-maxima within each class; of equal scores the first box goes first."""
    kept = batched_nms(
        torch.from_numpy(detections.boxes).double(),
        torch.from_numpy(detections.scores).double(),
        torch.from_numpy(detections.classes),
        threshold,
    )
    return detections.select(kept.numpy())
