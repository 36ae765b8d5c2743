"""Weighted boxes fusion: the detections of several models in one image become one set of boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from detectron2.config import CfgNode
from ensemble_boxes import weighted_boxes_fusion

from d2_ssod.structures import Detections


@dataclass(frozen=True)
class Fusion:
    """How the boxes of several models become one set (weighted boxes fusion).

    Attributes:
        weights: of each model, > 0; None: equal.
        iou_thresh: IoU above which boxes are of one cluster.
        skip_box_thresh: boxes with a lower score are left out.
        max_detections: at most so many boxes, the best-scored ones, are kept; None: all.
    """

    weights: tuple[float, ...] | None = None
    iou_thresh: float = 0.6
    skip_box_thresh: float = 1e-4
    max_detections: int | None = 100

    def __post_init__(self) -> None:
        if self.weights is not None and not all(weight > 0 for weight in self.weights):
            raise ValueError(f"weights must be > 0 (leave a model out instead), got {self.weights}")
        if self.max_detections is not None and self.max_detections < 0:
            raise ValueError(f"max_detections must be >= 0, or None, got {self.max_detections}")

    @classmethod
    def from_config(cls, cfg: CfgNode) -> Fusion:
        """Read ``SSOD.ENSEMBLE`` and ``TEST.DETECTIONS_PER_IMAGE``."""
        keys, limit = cfg.SSOD.ENSEMBLE, cfg.TEST.DETECTIONS_PER_IMAGE
        return cls(
            weights=tuple(keys.WEIGHTS) or None,
            iou_thresh=keys.IOU_THRESH,
            skip_box_thresh=keys.SKIP_BOX_THRESH,
            max_detections=limit if limit >= 0 else None,
        )

    def weights_of(self, models: int) -> tuple[float, ...]:
        """Give the weight of each of so many models.

        Raises:
            ValueError: there is another number of weights.
        """
        weights = (1.0,) * models if self.weights is None else self.weights
        if len(weights) != models:
            raise ValueError(
                f"weights must be one number for each of the {models} models, got {weights}"
            )
        return weights

    def among(self, models: Sequence[int], of: int) -> Fusion:
        """Give the same fusion for a choice of ``of`` models, by their numbers."""
        weights = self.weights_of(of)
        return replace(self, weights=tuple(weights[number] for number in models))

    def of_equals(self) -> Fusion:
        """Give the same fusion without weights, which are those of one run's phases."""
        return replace(self, weights=None)

    def fuse(self, detections: Sequence[Detections], image_size: tuple[int, int]) -> Detections:
        """Fuse the boxes of several models in one image.

        Boxes of one class with IoU > ``iou_thresh`` form a cluster. It becomes the mean of its
        boxes, weighted by score times model weight, with the score

            mean over its boxes of (score * weight) * min(models, boxes in it) / sum of weights

        so that an object which only one of three models sees loses two thirds of its score. Several
        boxes of a cluster from one model of large weight would give more than 1, which is cut to 1.

        Args:
            detections: the boxes of each model.
            image_size: (height, width) in pixels; boxes are clipped to the image, empty ones
                dropped.

        Returns:
            The fused boxes, best score first.

        Raises:
            ValueError: another number of weights than models.
        """
        weights = self.weights_of(len(detections))
        height, width = image_size
        scale = np.array([width, height, width, height], dtype=np.float64)
        usable = [_normalize(found, scale, self.skip_box_thresh) for found in detections]
        boxes, scores, classes = weighted_boxes_fusion(
            [boxes for boxes, _, _ in usable],
            [scores for _, scores, _ in usable],
            [classes for _, _, classes in usable],
            weights=list(weights),
            iou_thr=self.iou_thresh,
            skip_box_thr=self.skip_box_thresh,
            conf_type="avg",
        )
        order = np.argsort(-scores, kind="stable")[: self.max_detections]
        return Detections(
            # The library's are float32: 1 of them may be more than the width.
            (boxes[order] * scale).clip(0, scale).astype(np.float32),
            scores[order].clip(max=1.0).astype(np.float32),
            classes[order].astype(np.int64),
        )


def _normalize(
    found: Detections, scale: np.ndarray, skip_box_thresh: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Give boxes in [0, 1], scores and classes; without boxes that the fusion would warn about."""
    boxes = np.clip(found.boxes / scale, 0.0, 1.0)
    usable = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) > 0
    usable &= (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    usable &= (found.scores >= skip_box_thresh) & (found.scores > 0)
    return boxes[usable], found.scores[usable].astype(np.float64), found.classes[usable]
