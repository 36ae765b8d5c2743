"""The objects of images: their annotations as the boxes that all rooms speak of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from detectron2.config import CfgNode

from d2_ssod.structures import Detections

from .annotation_boxes import corners_of


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


def has_objects(image: dict[str, Any]) -> bool:
    """Tell whether an image has an object; crowds are neither trained on nor counted."""
    return any(not annotation.get("iscrowd") for annotation in image.get("annotations", ()))


def num_objects(image: dict[str, Any]) -> int:
    """Count the objects of an image, crowds apart."""
    return sum(not annotation.get("iscrowd") for annotation in image.get("annotations", ()))


def trained_on(cfg: CfgNode, labeled: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """List the labeled images that are trained on, as ``FILTER_EMPTY_ANNOTATIONS`` says."""
    if cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS:
        return list(filter(has_objects, labeled))
    return list(labeled)
