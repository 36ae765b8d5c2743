"""Which images are easy for a model, judged by its pseudo-labels (section 3.1 of the paper)."""

from collections.abc import Sequence

import numpy as np
from detectron2.structures import BoxMode

from d2_ssod.pseudo_label import match_greedily
from d2_ssod.structures import ImageId, Predictions


def easy_images(
    predictions: Predictions, dataset_dicts: Sequence[dict], *, iou_thresh: float = 0.5
) -> list[ImageId]:
    """List the images where the recall of the pseudo-labels exceeds 1 - precision.

    A pseudo-label is right if it has IoU >= ``iou_thresh`` with an object of its class that no
    better-scored one has taken. Objects marked ``iscrowd`` or ``difficult`` do not count. An image
    without objects or without pseudo-labels is not easy.

    Args:
        predictions: pseudo-labels (thresholded detections).
        dataset_dicts: the same images with their ground truth.
        iou_thresh: for a pseudo-label to be right.

    Returns:
        Ids of the easy images, in the order of ``dataset_dicts``.
    """
    easy = []
    for record in dataset_dicts:
        found = predictions[record["image_id"]]
        boxes, classes = _ground_truth(record)
        if len(found) and len(boxes):
            taken, _ = match_greedily(found, boxes, classes, iou_thresh)
            right = int((taken >= 0).sum())
            # recall > 1 - precision, in whole numbers
            if right * (len(found) + len(boxes)) > len(found) * len(boxes):
                easy.append(record["image_id"])
    return easy


def _ground_truth(record: dict) -> tuple[np.ndarray, np.ndarray]:
    """Read float64 [g, 4] XYXY boxes and int64 [g] classes."""
    counted = [
        annotation
        for annotation in record.get("annotations", ())
        if not annotation.get("iscrowd", 0)
    ]
    boxes = [BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) for a in counted]
    return (
        np.array(boxes, dtype=np.float64).reshape(-1, 4),
        np.array([a["category_id"] for a in counted], dtype=np.int64),
    )


def difficulty_subsets(dataset_dicts: Sequence[dict]) -> dict[str, list[ImageId]]:
    """List easy (``difficulty`` < 0.5) and difficult images; empty for data without difficulties.

    Args:
        dataset_dicts: the test images; a subset without an image is left out.
    """
    subsets: dict[str, list[ImageId]] = {"easy": [], "difficult": []}
    for record in dataset_dicts:
        if "difficulty" in record:
            subsets["easy" if record["difficulty"] < 0.5 else "difficult"].append(
                record["image_id"]
            )
    return {name: image_ids for name, image_ids in subsets.items() if image_ids}
