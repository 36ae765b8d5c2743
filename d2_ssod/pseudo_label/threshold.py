"""Step 1: raw detections become pseudo-labels, by one score threshold per class.

The threshold of a class is the one with which an unlabeled image has, on average, as many
pseudo-labels of the class as a labeled image has objects of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from d2_ssod.errors import ConfigError
from d2_ssod.structures import Predictions, concatenate

from .pairs import ImageBoxes, rank_in_group
from .shares import floor_share

# 0.10, 0.11, ..., 1.00, each the float64 nearest to the decimal.
THRESHOLD_GRID = np.arange(10, 101) / 100


@dataclass(frozen=True)
class Thresholds:
    """One score threshold per class, and how well it does what it was chosen for.

    Attributes:
        values: float64 [C], the thresholds t_c, on ``THRESHOLD_GRID``.
        target: float64 [C], objects of the class per labeled image.
        achieved: float64 [C], detections of the class per unlabeled image with score > t_c.
    """

    values: np.ndarray
    target: np.ndarray
    achieved: np.ndarray

    def apply(self, predictions: Predictions) -> Predictions:
        """Keep the detections with score > t_c; every image stays, also one with none left."""
        thresholds = self.values.astype(np.float32)
        boxes = ImageBoxes.of(list(predictions.values()))
        above = boxes.select(boxes.found.scores > thresholds[boxes.found.classes])
        return dict(zip(predictions, above.by_image(len(predictions)), strict=True))


def objects_per_image(dataset_dicts: Sequence[dict], num_classes: int) -> np.ndarray:
    """Count the ground-truth objects of each class, on average per labeled image.

    Args:
        dataset_dicts: the labeled images as Detectron2 dicts. Annotations marked ``iscrowd``, as
            VOC's difficult ones are, are not counted.
        num_classes: C.

    Returns:
        float64 [C].

    Raises:
        ConfigError: there is no image, or an object of no class.
    """
    if not dataset_dicts:
        raise ConfigError("DATASETS.TRAIN: no labeled image to count objects in; add some")
    counts = np.zeros(num_classes, dtype=np.int64)
    for record in dataset_dicts:
        for annotation in record.get("annotations", ()):
            if annotation.get("iscrowd", 0):
                continue
            number = annotation["category_id"]
            if not 0 <= number < num_classes:
                raise ConfigError(
                    f"{record.get('file_name')}: category_id {number} is none of the {num_classes} "
                    f"classes 0..{num_classes - 1}; give their numbers, not the ids of a file"
                )
            counts[number] += 1
    return counts / len(dataset_dicts)


def match_counts(predictions: Predictions, target: np.ndarray) -> Thresholds:
    """Choose the threshold of each class by matching counts.

        t_c = argmin_t | #{detections of c with score > t} / #{images} - target_c |

    over t in ``THRESHOLD_GRID``; ties take the lowest threshold.

    Args:
        predictions: raw detections on all unlabeled images. Scores are compared as float32: a score
            of 0.3 does not exceed a threshold of 0.3.
        target: float64 [C], objects of each class per labeled image, >= 0.

    Returns:
        The thresholds with the counts aimed at and achieved.

    Raises:
        ValueError: no images, a class id outside 0..C-1, or a target that is not a vector of finite
            numbers >= 0.
    """
    target = np.asarray(target, dtype=np.float64)
    if target.ndim != 1 or not np.all(np.isfinite(target) & (target >= 0)):
        raise ValueError(f"target must be finite numbers >= 0 of shape [C], got {target}")
    if not predictions:
        raise ValueError("predictions must have at least one image, got none")
    counts = _counts_above_grid(predictions, num_classes=len(target))

    # Compared as numbers of boxes and to the seventh decimal, so that rounding errors of the two
    # means (below 1e-8 for ten million boxes) do not decide a tie.
    distance = np.round(np.abs(counts - target[:, None] * len(predictions)), decimals=7)
    best = distance.argmin(axis=1)  # the first of several minima: the lowest threshold
    achieved = np.take_along_axis(counts, best[:, None], axis=1)[:, 0] / len(predictions)
    return Thresholds(values=THRESHOLD_GRID[best], target=target, achieved=achieved)


def _counts_above_grid(predictions: Predictions, num_classes: int) -> np.ndarray:
    """Count the detections of each class with score > each threshold: int64 [C, T]."""
    found = concatenate(list(predictions.values()))
    if unusable := int((~np.isfinite(found.scores)).sum()):
        raise ValueError(f"scores must be numbers in [0, 1], but {unusable} are not finite")
    if len(found) and not 0 <= found.classes.min() <= found.classes.max() < num_classes:
        raise ValueError(
            f"class ids must be in 0..{num_classes - 1}, "
            f"got {found.classes.min()}..{found.classes.max()}"
        )
    # A score that exceeds exactly the first k thresholds falls into bin k.
    bins = np.searchsorted(THRESHOLD_GRID.astype(np.float32), found.scores, side="left")
    width = len(THRESHOLD_GRID) + 1
    histogram = np.bincount(found.classes * width + bins, minlength=num_classes * width)
    above = histogram.reshape(num_classes, width)[:, ::-1].cumsum(axis=1)[:, ::-1]
    return above[:, 1:]


def keep_best(predictions: Predictions, fraction: float) -> Predictions:
    """Keep only the best-scored ``fraction`` of each class's boxes over all images.

    A sparse setting for ablations: many objects then have no pseudo-label.

    Args:
        predictions: thresholded detections.
        fraction: of the boxes of a class, floor(fraction * number of boxes) are kept; 1 keeps all.
            Of equal scores the first in the order of the data set is kept.

    Returns:
        The kept boxes, every image still a key, boxes in their old order.

    Raises:
        ValueError: ``fraction`` outside [0, 1].
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction must be in [0, 1], got {fraction}")
    if fraction == 1 or not predictions:
        return dict(predictions)
    boxes = ImageBoxes.of(list(predictions.values()))
    found = boxes.found
    counts = np.bincount(found.classes)
    quota = np.array([floor_share(fraction, int(count)) for count in counts], dtype=np.int64)
    keep = rank_in_group(found.classes, found.scores) < quota[found.classes]
    return dict(zip(predictions, boxes.select(keep).by_image(len(predictions)), strict=True))
