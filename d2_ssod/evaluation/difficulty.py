"""Which images are easy for a model, judged by its pseudo-labels (section 3.1 of the paper)."""

from collections.abc import Sequence

from d2_ssod.data.objects import objects_and_crowds
from d2_ssod.pseudo_label import TrueObjects, judge_boxes
from d2_ssod.structures import ImageId, Predictions


def easy_images(
    predictions: Predictions, dataset_dicts: Sequence[dict], *, iou_thresh: float = 0.5
) -> list[ImageId]:
    """List the images where the recall of the pseudo-labels exceeds 1 - precision.

    A pseudo-label is right if it has IoU >= ``iou_thresh`` with an object of its class that no
    better-scored one has taken. Objects marked ``iscrowd``, as VOC's difficult ones are here, count
    neither as found nor as missed, and pseudo-labels on them not at all. An image without others,
    or without pseudo-labels of others, is not easy.

    Args:
        predictions: pseudo-labels (thresholded detections).
        dataset_dicts: the same images with their ground truth.
        iou_thresh: for a pseudo-label to be right.

    Returns:
        Ids of the easy images, in the order of ``dataset_dicts``.
    """
    easy = []
    for record in dataset_dicts:
        known = TrueObjects(*objects_and_crowds(record.get("annotations", ())))
        judged = judge_boxes(predictions[record["image_id"]], known, iou_thresh)
        right, labels = judged.is_right.sum(), judged.counts.sum()
        objects = len(known.objects)
        # recall > 1 - precision, in whole numbers
        if right * (labels + objects) > labels * objects:
            easy.append(record["image_id"])
    return easy


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
