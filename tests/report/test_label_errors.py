"""Which labels a model contradicts."""

import csv

import pytest
from detectron2.structures import BoxMode
from samples import detections

from d2_ssod.artifacts import RunFolder
from d2_ssod.report.label_errors import suspect_labels, write_suspects

CAT, DOG = 0, 1


def image(*objects):
    """An image with these objects: x1, y1, x2, y2, class, and whether it is a crowd."""
    annotations = [
        {
            "bbox": o[:4],
            "bbox_mode": BoxMode.XYXY_ABS,
            "category_id": o[4],
            "iscrowd": int(len(o) > 5),
        }
        for o in objects
    ]
    return {"file_name": "/data/a.jpg", "annotations": annotations}


def kinds(labeled, *seen):
    return [(s.kind, s.label, s.seen) for s in suspect_labels([(labeled, detections(*seen))])]


def test_agreement_is_no_suspicion():
    assert kinds(image((0, 0, 10, 10, CAT)), (0, 0, 10, 9, 0.9, CAT)) == []


def test_a_confident_box_without_a_label_is_one():
    labeled = image((0, 0, 10, 10, CAT))
    seen = [(0, 0, 10, 10, 0.9, CAT), (30, 30, 50, 50, 0.8, DOG), (60, 60, 80, 80, 0.6, DOG)]
    assert kinds(labeled, *seen) == [("no label", None, DOG)]


def test_a_confident_box_of_another_class_is_one():
    assert kinds(image((0, 0, 10, 10, CAT)), (0, 0, 10, 10, 0.8, DOG)) == [
        ("other class", CAT, DOG)
    ]
    # ... but not where the model sees the labeled class as well.
    both = [(0, 0, 10, 10, 0.9, CAT), (0, 0, 10, 10, 0.4, DOG)]
    assert kinds(image((0, 0, 10, 10, CAT)), *both) == []


def test_a_label_where_nothing_is_seen_is_one():
    assert kinds(image((0, 0, 10, 10, CAT))) == [("nothing seen", CAT, None)]
    # A badly placed box is a reason to doubt it less.
    near = [(0, 0, 10, 4, 0.25, CAT)]
    (found,) = suspect_labels([(image((0, 0, 10, 10, CAT)), detections(*near))])
    assert (found.kind, found.confidence) == ("nothing seen", pytest.approx(0.75))
    assert kinds(image((0, 0, 10, 10, CAT)), (0, 0, 10, 4, 0.5, CAT)) == []


def test_crowds_explain_boxes_and_need_none():
    crowd = image((0, 0, 50, 50, CAT, True))
    assert kinds(crowd, (10, 10, 40, 40, 0.9, CAT)) == []
    assert kinds(crowd) == []
    assert kinds(crowd, (10, 10, 14, 14, 0.9, CAT)) == []  # one of very many
    assert kinds(crowd, (48, 48, 90, 90, 0.9, CAT)) == [("no label", None, CAT)]
    assert kinds(crowd, (0, 0, 90, 90, 0.9, CAT)) == []  # that has the crowd in it
    assert kinds(crowd, (10, 10, 14, 14, 0.9, DOG)) == [("no label", None, DOG)]
    assert kinds(crowd, (2, 2, 50, 50, 0.9, DOG)) == []  # a difficult object of VOC's
    assert kinds(crowd, (0, 0, 300, 300, 0.9, CAT)) == [("no label", None, CAT)]  # behind it


def test_the_most_confident_come_first_and_are_written(tmp_path):
    pairs = [
        (image(), detections((0, 0, 10, 10, 0.75, CAT))),
        (image(), detections((0, 0, 20, 10, 0.95, DOG))),
    ]
    suspects = suspect_labels(pairs)
    assert [round(s.confidence, 2) for s in suspects] == [0.95, 0.75]
    write_suspects(RunFolder(tmp_path), suspects, ["cat", "dog"])
    with open(tmp_path / "review" / "label_errors.csv", encoding="utf-8-sig") as file:
        first, _ = csv.DictReader(file)
    assert first == {
        "file_name": "/data/a.jpg",
        "problem": "no label",
        "label": "",
        "seen": "dog",
        "confidence": "0.950",
        "x": "0.0",
        "y": "0.0",
        "w": "20.0",
        "h": "10.0",
    }


def test_places_are_written_as_corner_and_size(tmp_path):
    suspects = suspect_labels([(image(), detections((30, 40, 50, 45, 0.95, DOG)))])
    write_suspects(RunFolder(tmp_path), suspects, ["cat", "dog"])
    with open(tmp_path / "review" / "label_errors.csv", encoding="utf-8-sig") as file:
        (row,) = csv.DictReader(file)
    assert [row[key] for key in "xywh"] == ["30.0", "40.0", "20.0", "5.0"]
