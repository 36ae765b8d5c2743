"""Upper bounds: pseudo-labels that are put right in one respect, by the truth of their images.

They say what better labels could be worth. Nothing else in training sees this truth.
"""

from __future__ import annotations

import copy
import itertools
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from detectron2.structures import BoxMode

from d2_ssod.data.objects import detections_of
from d2_ssod.json_files import read_json
from d2_ssod.pseudo_label import TrueObjects, judge_boxes
from d2_ssod.structures import Detections

SAME_OBJECT = 0.5  # IoU from which a box is right

# Boxes of one image, each with the true box that it takes, or None; then true boxes none took.
Matched = list[tuple[dict, dict | None]]
Missed = list[dict]


def without_wrong(matched: Matched, missed: Missed) -> list[dict]:
    """Boxes of the pseudo-labels that are on an object of their class."""
    return [box for box, true in matched if true is not None]


def with_true_edges(matched: Matched, missed: Missed) -> list[dict]:
    """The pseudo-labels; those on an object have its edges."""
    return [{**box, "bbox": (true or box)["bbox"]} for box, true in matched]


def with_missed(matched: Matched, missed: Missed) -> list[dict]:
    """The pseudo-labels and the objects that they lack."""
    return [box for box, _ in matched] + missed


def all_true(matched: Matched, missed: Missed) -> list[dict]:
    """The truth."""
    return [true for _, true in matched if true is not None] + missed


ORACLES: dict[str, Callable[[Matched, Missed], list[dict]]] = {
    "wrong_deleted": without_wrong,
    "edges_true": with_true_edges,
    "missed_added": with_missed,
    "true": all_true,
}


def put_right(pseudo_labels: Path, truth: Path, oracle: str) -> dict:
    """Pseudo-labels as an oracle of ``ORACLES`` would have them.

    Args:
        pseudo_labels: a phase's ``pseudo_labels.json``.
        truth: a COCO file with the same file names and class names, perhaps of more images.
        oracle: its name.

    Returns:
        the content of a COCO file of the same images.
    """
    labels, known = read_json(pseudo_labels), read_json(truth)
    own, true = _by_image(labels), _by_image(known)
    class_ids = {category["name"]: category["id"] for category in labels["categories"]}
    names = {category["id"]: category["name"] for category in known["categories"]}
    annotations = []
    for image in labels["images"]:
        name = Path(image["file_name"]).name
        objects = copy.deepcopy(true[name])
        for each in objects:
            each["category_id"] = class_ids[names[each["category_id"]]]
        kept = ORACLES[oracle](*_match(own[name], objects))
        annotations += [{**box, "image_id": image["id"]} for box in kept]
    numbered = [{**box, "id": number} for number, box in enumerate(annotations, 1)]
    return {**labels, "annotations": numbered}


def _by_image(content: dict) -> dict[str, list[dict]]:
    """Annotations by their image's file name, without its folder."""
    names = {image["id"]: Path(image["file_name"]).name for image in content["images"]}
    found = defaultdict(list)
    for annotation in content["annotations"]:
        found[names[annotation["image_id"]]].append(annotation)
    return found


def _match(boxes: list[dict], objects: list[dict]) -> tuple[Matched, Missed]:
    true = TrueObjects(_detections(objects), Detections.empty())
    judged = judge_boxes(_detections(boxes), true, SAME_OBJECT)
    matched = [
        (box, objects[number] if number >= 0 else None)
        for box, number in zip(boxes, judged.taken, strict=True)
    ]
    return matched, list(itertools.compress(objects, judged.missed))


def _detections(annotations: list[dict]) -> Detections:
    """The boxes of a COCO file's annotations; classes are category ids."""
    return detections_of([{**a, "bbox_mode": BoxMode.XYWH_ABS} for a in annotations])
