"""Step 2: keep what the models of all phases so far agree on.

A box that only one model sees disappears; of the boxes of two models that mean the same object, the
one with the higher score stays, unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from detectron2.config import CfgNode

from d2_ssod.structures import Predictions

from .pairs import ImageBoxes, in_parts, iou_of_pairs, pairs_within, suppress_non_maxima
from .sources import Sources


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

    def __call__(self, sources: Sources) -> Predictions:
        """Keep what the models agree on, of their boxes above the thresholds."""
        return self.of_predictions(sources.thresholded)

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
        agreed: Predictions = {}
        for images in in_parts(sources):
            boxes = [ImageBoxes.of([source[i] for i in images]) for source in sources]
            agreed |= zip(images, self._agree(boxes).by_image(len(images)), strict=True)
        return agreed

    def _agree(self, sources: Sequence[ImageBoxes]) -> ImageBoxes:
        """Keep the boxes that several models agree on, in many images at once."""
        if 0 < self.min_votes < len(sources):
            return self._vote(sources, self.min_votes)
        return reduce(lambda a, b: self._vote([a, b], 2), sources)

    def _vote(self, sources: Sequence[ImageBoxes], min_votes: int) -> ImageBoxes:
        """Keep the objects that at least ``min_votes`` of the models see, in many images at once.

        Boxes of two different models pair if they are of one class and have IoU > ``iou_thresh``. A
        box has one vote for its own model and one for every other in which it has a partner. Kept
        are boxes with enough votes that have the higher score in at least one of their pairs (if
        the scores are equal: that are of the earlier model); then follows NMS at ``nms_thresh``
        within the class. Two votes of two models are the intersection: of every pair the box with
        the higher score. One vote is the NMS of all boxes together.

        Args:
            sources: the boxes of each model.
            min_votes: between 1 and the number of models.

        Returns:
            The kept boxes, unchanged, in each image best score first.
        """
        merged = ImageBoxes.concatenate(sources)
        boxes, scores = merged.found.boxes.astype(np.float64), merged.found.scores
        groups = merged.groups
        one, other = pairs_within(groups)
        iou = iou_of_pairs(boxes, one, other)
        kept = np.ones(len(scores), dtype=bool)
        if min_votes > 1:
            model = np.repeat(np.arange(len(sources)), [len(s.image) for s in sources])
            paired = (iou > self.iou_thresh) & (model[one] != model[other])
            kept = _elect(scores, model, (one[paired], other[paired]), min_votes)
        left = kept[one] & kept[other]
        one, other, iou = one[left], other[left], iou[left]
        same = (boxes[one] == boxes[other]).all(axis=1) & (scores[one] == scores[other])
        kept[other[same]] = False  # two models with the very same box
        left = kept[one] & kept[other] & (iou > self.nms_thresh)
        kept &= suppress_non_maxima(groups, scores, (one[left], other[left]))
        order = np.lexsort((-scores, merged.image))
        return merged.select(order[kept[order]])


def _elect(
    scores: np.ndarray, model: np.ndarray, pairs: tuple[np.ndarray, np.ndarray], min_votes: int
) -> np.ndarray:
    """Tell which boxes have enough votes and the higher score in one of their pairs, bool [n].

    Args:
        scores: float32 [n].
        model: int64 [n], the model that each box is of.
        pairs: int64 [p] twice, the boxes of different models that mean the same object.
        min_votes: of a box, with that of its own model.
    """
    one, other = pairs
    sees = np.zeros((len(scores), model.max(initial=0) + 1), dtype=bool)
    sees[one, model[other]] = True
    sees[other, model[one]] = True
    first_wins = (scores[one] > scores[other]) | (
        (scores[one] == scores[other]) & (model[one] < model[other])
    )
    wins = np.zeros(len(scores), dtype=bool)
    wins[np.where(first_wins, one, other)] = True
    return wins & (1 + sees.sum(axis=1) >= min_votes)
