"""The annotations of an image as the boxes that all rooms speak of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from d2_ssod.structures import Detections

from .box_checks import corners_of


def detections_of(annotations: Sequence[dict]) -> Detections:
    """Give the boxes of annotations, with their scores, 1 where there is none."""
    return Detections(
        np.array([corners_of(a) for a in annotations], dtype=np.float32).reshape(-1, 4),
        np.array([a.get("score", 1.0) for a in annotations], dtype=np.float32),
        np.array([a["category_id"] for a in annotations], dtype=np.int64),
    )


def objects_and_crowds(annotations: Sequence[dict]) -> tuple[Detections, Detections]:
    """Give the boxes of single objects and those of crowds (``iscrowd``), which nothing learns."""
    crowds = [annotation for annotation in annotations if annotation.get("iscrowd", 0)]
    objects = [annotation for annotation in annotations if not annotation.get("iscrowd", 0)]
    return detections_of(objects), detections_of(crowds)
