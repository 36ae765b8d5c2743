"""In place of steps 1 and 2: fused boxes of all models, in two tiers of certainty.

A box that only one of three models sees is neither surely an object nor surely background. So it
stays, and is learned with the certainty that it has.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from detectron2.config import CfgNode

from d2_ssod.structures import (
    Detections,
    ImageId,
    Predictions,
    TieredDetections,
    concatenate,
)

from .fuse import FusedBoxes, fuse_votes
from .pairs import ImageBoxes, in_parts, rank_in_group
from .sources import Sources

_MOST_RIGHT = 0.9  # of a class's boxes, at most so many are taken for right on average
_BISECTIONS = 50


@dataclass(frozen=True)
class Tiers:
    """How the boxes of all models become labels of two tiers.

    Attributes:
        iou_thresh: IoU above which boxes of one class mean the same object.
        min_score: detections that score no more are left out, before and after fusing.
        certain: rho: certain labels of a class, in parts of its expected number of objects.
        all_boxes: all labels of a class, in parts of that number.
    """

    iou_thresh: float = 0.55
    min_score: float = 0.05
    certain: float = 0.5
    all_boxes: float = 1.0

    @classmethod
    def from_config(cls, cfg: CfgNode) -> Tiers:
        """Read ``SSOD.TIERS``."""
        keys = cfg.SSOD.TIERS
        return cls(keys.IOU_THRESH, keys.MIN_SCORE, keys.CERTAIN, keys.ALL)

    def __call__(self, sources: Sources) -> Predictions:
        """Make labels of all boxes, whatever the thresholds."""
        return self.of_predictions(sources.raw, sources.objects_per_image)

    def of_predictions(self, sources: Sequence[Predictions], target: np.ndarray) -> Predictions:
        """Fuse the boxes of all models, estimate how certain they are, and put them into tiers.

        The score of a label becomes q, the estimated probability that it is right (``calibrate``).
        Of N images and r_c objects per labeled image, the best certain r_c N boxes of class c are
        certain (rounded up), those up to all_boxes r_c N uncertain, the others are background.

        Args:
            sources: raw detections of each model on the same images.
            target: float64 [C], r_c.

        Returns:
            For every image its ``TieredDetections``, best score first.
        """
        labels: Predictions = {}
        if not sources[0]:
            return labels
        expected = target * len(sources[0])
        images, parts = zip(*self._fuse(sources), strict=True)
        found = concatenate([part.boxes.found for part in parts])
        quality = calibrate(found, expected)
        rank = rank_in_group(found.classes, found.scores)
        certain = rank < (self.certain * expected)[found.classes]
        kept = rank < (self.all_boxes * expected)[found.classes]
        ends = np.cumsum([len(part.votes) for part in parts])[:-1]
        columns = (np.split(column, ends) for column in (quality, certain, kept))
        for ids, part, *of_part in zip(images, parts, *columns, strict=True):
            labels |= zip(ids, _tiered(part, *of_part).by_image(len(ids)), strict=True)
        return labels

    def _fuse(self, sources: Sequence[Predictions]) -> Iterator[tuple[list[ImageId], FusedBoxes]]:
        """Fuse the boxes of all models, in parts of the images."""
        for ids in in_parts(sources):
            boxes = [ImageBoxes.of([source[i] for i in ids]) for source in sources]
            usable = [each.select(each.found.scores > self.min_score) for each in boxes]
            fused = fuse_votes(usable, self.iou_thresh)
            yield ids, fused.select(fused.boxes.found.scores > self.min_score)


def calibrate(found: Detections, expected: np.ndarray) -> np.ndarray:
    """Estimate the probability that each box is an object of its class, by matching counts.

        q_i = sigmoid(logit(f_i) + beta_c),    beta_c such that sum_i q_i = E_c

    A class that has fewer boxes than it should have objects is not all right: E_c is at most 0.9
    times its number of boxes.

    Args:
        found: the fused boxes of all images, with f as score.
        expected: float64 [C], E_c, objects of each class in all images.

    Returns:
        float64 [n].
    """
    scores = found.scores.astype(np.float64).clip(1e-6, 1 - 1e-6)
    logits = np.log(scores / (1 - scores))
    quality = np.zeros(len(found))
    for number in np.unique(found.classes):
        of_class = logits[found.classes == number]
        goal = min(expected[number], _MOST_RIGHT * len(of_class))
        low, high = -30.0, 30.0
        for _ in range(_BISECTIONS):
            beta = (low + high) / 2
            if _sigmoid(of_class + beta).sum() < goal:
                low = beta
            else:
                high = beta
        quality[found.classes == number] = _sigmoid(of_class + high)
    return quality


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def _tiered(
    fused: FusedBoxes, quality: np.ndarray, certain: np.ndarray, kept: np.ndarray
) -> ImageBoxes:
    """Give the labels of many images, best score first."""
    found = fused.boxes.found
    scores = quality.astype(np.float32)
    labels = TieredDetections(
        found.boxes, scores, found.classes, fused.votes, fused.spread, certain
    )
    order = np.lexsort((-scores, fused.boxes.image))
    return ImageBoxes(fused.boxes.image, labels).select(order[kept[order]])
