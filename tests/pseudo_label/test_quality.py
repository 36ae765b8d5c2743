import math

import numpy as np
import pytest
from samples import detections

from d2_ssod.pseudo_label import TrueObjects, judge_boxes, measure_labels
from d2_ssod.structures import Detections

NONE = Detections.empty()
# Two objects of class 0, one of class 1.
OBJECTS = detections((0, 0, 10, 10, 1, 0), (20, 0, 30, 10, 1, 0), (0, 20, 10, 30, 1, 1))


def measured(*boxes, objects=OBJECTS, crowds=NONE):
    found = {7: detections(*boxes) if boxes else NONE}
    return measure_labels(found, {7: TrueObjects(objects, crowds)}, 3)


def test_matches_by_hand():
    quality = measured(
        (0, 0, 10, 8, 0.9, 0),  # IoU .8 with the first
        (0, 0, 10, 10, 0.8, 0),  # the first is taken
        (20, 0, 30, 10, 0.7, 1),  # another class
        (0, 20, 10, 30, 0.6, 1),  # IoU 1
        (50, 50, 60, 60, 0.5, 2),
    )
    assert quality.boxes.tolist() == [2, 2, 1]
    assert quality.correct.tolist() == [1, 1, 0]
    assert quality.objects.tolist() == [2, 1, 0]
    assert quality.iou == pytest.approx([0.8, 1, 0])
    assert quality.describe() == "precision 0.40, recall 0.67, mean IoU 0.90, 5 boxes"


def test_a_box_takes_the_free_object_that_it_overlaps_most():
    objects = detections((0, 0, 10, 10, 1, 0), (0, 0, 10, 9, 1, 0))
    quality = measured((0, 0, 10, 10, 0.9, 0), (0, 0, 10, 10, 0.8, 0), objects=objects)
    assert quality.correct[0] == 2
    assert quality.iou[0] == pytest.approx(1.9)


def test_half_an_overlap_is_a_match():
    assert measured((0, 0, 10, 5, 0.9, 0)).correct[0] == 1
    assert measured((0, 0, 10, 4.9, 0.9, 0)).correct[0] == 0


def test_boxes_in_a_crowd_do_not_count():
    crowd = detections((50, 50, 90, 90, 1, 0))
    quality = measured((60, 60, 70, 70, 0.9, 0), (60, 60, 70, 70, 0.9, 1), crowds=crowd)
    assert quality.boxes.tolist() == [0, 1, 0]


def test_half_a_box_in_a_crowd_is_in_it():
    crowd = detections((50, 50, 90, 90, 1, 0))
    assert measured((40, 60, 60, 70, 0.9, 0), crowds=crowd).boxes[0] == 0
    assert measured((39, 60, 60, 70, 0.9, 0), crowds=crowd).boxes[0] == 1


def test_only_images_with_labels_and_a_truth_count():
    truth = {number: TrueObjects(OBJECTS, NONE) for number in (1, 2)}
    quality = measure_labels({1: NONE, 9: OBJECTS}, truth, 3)
    assert quality.objects.sum() == 3
    assert quality.boxes.sum() == 0


def test_perfect_labels_are_perfect_and_none_are_nan():
    of_json = measured(*[(*box, 0.5, number) for box, number in rows(OBJECTS)]).as_dict("abc")
    assert [of_json[key] for key in ("precision", "recall", "mean_iou")] == [1, 1, 1]
    assert of_json["classes"]["b"]["objects"] == 1
    assert math.isnan(of_json["classes"]["c"]["recall"])
    nothing = measured().as_dict("abc")
    assert math.isnan(nothing["precision"])
    assert nothing["recall"] == 0


def rows(found):
    return zip(found.boxes.tolist(), found.classes.tolist(), strict=True)


def test_counts_agree_with_a_plain_loop():
    rng = np.random.default_rng(0)
    for _ in range(20):
        corners = rng.uniform(0, 40, (2, 12, 2))
        sizes = rng.uniform(5, 30, (2, 12, 2))
        boxes = np.concatenate([corners, corners + sizes], axis=2)
        classes = rng.integers(0, 2, (2, 12))
        scores = rng.uniform(size=12)
        found, known = (
            detections(*[(*b, s, c) for b, s, c in zip(boxes[i], scores, classes[i], strict=True)])
            for i in (0, 1)
        )
        quality = measure_labels({0: found}, {0: TrueObjects(known, NONE)}, 2)
        assert quality.correct.tolist() == plain_matches(found, known)


def plain_matches(found, known):
    correct, free = [0, 0], set(range(len(known)))
    for i in sorted(range(len(found)), key=lambda i: -found.scores[i]):
        best, most = None, 0.5
        for j in sorted(free):
            overlap = plain_iou(found.boxes[i], known.boxes[j])
            if (
                found.classes[i] == known.classes[j]
                and overlap >= most
                and (best is None or overlap > most)
            ):
                best, most = j, overlap
        if best is not None:
            free.remove(best)
            correct[found.classes[i]] += 1
    return correct


def plain_iou(one, other):
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (one, other)]
    return width * height / (sum(areas) - width * height)


def test_a_right_box_in_a_crowd_counts():
    found = detections((0, 0, 10, 10, 0.9, 0), (20, 0, 30, 10, 0.8, 0))
    crowds = detections((0, 0, 40, 40, 1.0, 0))
    truth = {0: TrueObjects(detections((0, 0, 10, 10, 1.0, 0)), crowds)}
    quality = measure_labels({0: found}, truth, 1)
    assert (quality.boxes.tolist(), quality.correct.tolist()) == ([1], [1])


def test_the_better_box_takes_the_object_wherever_it_stands():
    found = detections((1, 0, 11, 10, 0.4, 0), (0, 0, 10, 10, 0.9, 0))
    truth = TrueObjects(
        detections((0, 0, 10, 10, 1.0, 0), (50, 0, 60, 10, 1.0, 0)),
        detections((0, 0, 30, 30, 1.0, 0)),
    )
    judged = judge_boxes(found, truth, 0.5)
    assert (judged.taken.tolist(), judged.iou.tolist()) == ([-1, 0], [0.0, 1.0])
    assert judged.missed.tolist() == [False, True]
    assert judged.is_right.tolist() == [False, True]
    assert judged.is_wrong.tolist() == [False, False], "the other is in a crowd"
