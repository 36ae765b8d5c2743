"""What all models found on the unlabeled images: the input of every rule that makes labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from d2_ssod.structures import Predictions

from .threshold import Thresholds, keep_best, match_counts


@dataclass(frozen=True)
class Sources:
    """The detections of each model, all of the same images.

    The run's own models come first, the oldest before the others; then those of other files.

    Attributes:
        raw: as predicted.
        objects_per_image: float64 [C], objects of each class per labeled image.
        thresholds: the score thresholds of each model, matched to that (``match_counts``).
        thresholded: the detections above them, the best of each class (``keep_best``).
    """

    raw: tuple[Predictions, ...]
    objects_per_image: np.ndarray
    thresholds: tuple[Thresholds, ...]
    thresholded: tuple[Predictions, ...]

    @classmethod
    def of(
        cls, raw: Sequence[Predictions], objects_per_image: np.ndarray, keep_fraction: float = 1.0
    ) -> Sources:
        """Threshold raw detections.

        Args:
            raw: of each model.
            objects_per_image: float64 [C].
            keep_fraction: of each model's boxes above the thresholds (``keep_best``).
        """
        thresholds = tuple(match_counts(found, objects_per_image) for found in raw)
        thresholded = tuple(
            keep_best(chosen.apply(found), keep_fraction)
            for chosen, found in zip(thresholds, raw, strict=True)
        )
        return cls(tuple(raw), objects_per_image, thresholds, thresholded)
