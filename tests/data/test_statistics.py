import numpy as np
import pytest
from detectron2.structures import BoxMode

from d2_ssod.data import statistics
from d2_ssod.data.findings import Findings
from d2_ssod.data.statistics import BoxShapes


def image(*boxes, width=200, height=100, classes=None, **keys):
    """XYWH boxes in a picture."""
    return {
        "file_name": "a.png",
        "width": width,
        "height": height,
        "annotations": [
            {"bbox": list(box), "bbox_mode": BoxMode.XYWH_ABS, "category_id": number, **keys}
            for box, number in zip(boxes, classes or [0] * len(boxes), strict=True)
        ],
    }


def lines_of(check, *arguments):
    findings = Findings()
    check(*arguments, findings)
    assert not findings.has_errors
    return [str(finding) for finding in findings]


def test_shapes_are_those_of_the_resized_picture():
    shapes = BoxShapes.of([image((0, 0, 40, 10), (0, 0, 5, 20))], 50, 1000)
    assert shapes.width == pytest.approx([20, 2.5])
    assert shapes.height == pytest.approx([5, 10])
    assert shapes.side == pytest.approx([10, 5])
    assert shapes.ratio == pytest.approx([0.25, 4])
    # The long edge is limited.
    assert BoxShapes.of([image((0, 0, 40, 10))], 50, 50).width == pytest.approx([10])
    assert BoxShapes.of([image((0, 0, 40, 10))], 0, 50).width == pytest.approx([40])
    long = image((0, 0, 40, 1), width=700, height=1)  # of whose short edge nothing is left
    assert BoxShapes.of([long], 50, 70).height == pytest.approx([0.1])


def test_crowds_and_pictures_without_a_size_do_not_count():
    images = [image((0, 0, 9, 9), iscrowd=1), {"file_name": "b.png", "annotations": [{}]}]
    assert len(BoxShapes.of(images, 0, 0).side) == 0


def test_best_iou_with_an_anchor():
    shapes = BoxShapes(np.array([10.0, 20, 10]), np.array([10.0, 5, 20]))
    assert shapes.best_iou([10], [1.0]) == pytest.approx([1, 50 / 150, 100 / 200])
    assert shapes.best_iou([10], [1.0, 0.25])[1] == pytest.approx(1)
    # Size 10 and ratio 4: 5 wide, 20 high.
    assert shapes.best_iou([10], [4.0])[2] == pytest.approx(100 / 200)


def test_anchors_are_the_centers_of_what_there_is():
    sides = np.repeat([10.0, 40.0, 160.0], 20)
    ratios = np.tile([0.5, 2.0], 30)
    shapes = BoxShapes(sides / np.sqrt(ratios), sides * np.sqrt(ratios))
    assert statistics.fit_anchors(shapes, 3, 2) == ([10, 40, 160], [0.5, 2])
    assert statistics.fit_anchors(shapes, 5, 4) == ([10, 40, 160], [0.5, 2])


def test_anchors_of_many_objects_are_those_of_a_part_of_them(monkeypatch):
    monkeypatch.setattr(statistics, "_MOST_CLUSTERED", 20)
    side = np.repeat([10.0, 40.0, 160.0], 1000)
    assert statistics.fit_anchors(statistics.BoxShapes(side, side), 3, 1)[0] == [10, 40, 160]


def test_a_click_by_mistake_has_no_anchor():
    width = np.array([10.0, 40.0, 160.0] * 20 + [0.8, 1.5])
    height = np.array([10.0, 40.0, 160.0] * 20 + [0.8, 300.0])
    found = statistics.fit_anchors(statistics.BoxShapes(width, height), 3, 3)
    assert found == ([10, 40, 160], [1])


def test_anchors_have_a_size_however_small_the_objects():
    tiny = BoxShapes(np.array([0.2, 0.6, 3.0]), np.array([0.2, 0.6, 3.0]))
    assert statistics.fit_anchors(tiny, 3, 1)[0] == [1, 3]


def test_objects_that_vanish_are_counted():
    images = [image((0, 0, 5, 5), (0, 0, 60, 60))]  # 100 x 100
    assert lines_of(statistics.check_visible, images, (100, 1000), "KEY") == []
    (line,) = lines_of(statistics.check_visible, images, (50, 1000), "KEY")
    assert line.startswith("KEY: 50% of the objects have a side below 4 pixels once the picture is")


def test_more_objects_than_are_looked_for_are_said():
    images = [image(*[(0, 0, 9, 9)] * n) for n in (3, 5, 8)]
    assert lines_of(statistics.check_number_of_objects, images, 8, "KEY") == []
    assert lines_of(statistics.check_number_of_objects, images, -1, "KEY") == []  # all
    (line,) = lines_of(statistics.check_number_of_objects, images, 4, "KEY")
    assert line.startswith("KEY: 2 images have more than 4, up to 8; raise TEST.DETECTIONS_PER")


def test_many_crowds_are_said():
    objects = image(*[(0, 0, 9, 9)] * 19)
    assert lines_of(statistics.check_crowds, [objects, image((0, 0, 9, 9), iscrowd=1)], "KEY") == []
    crowds = image((0, 0, 9, 9), (9, 9, 9, 9), iscrowd=1)
    (line,) = lines_of(statistics.check_crowds, [objects, crowds], "KEY")
    assert line.startswith("KEY: 2 of 21 annotations are crowds (iscrowd 1")


def test_classes_with_few_objects_are_named():
    boxes = [(0, 0, 9, 9)]
    images = [image(*boxes * 40, classes=[0] * 30 + [1] * 3 + [3] * 7)]
    lines = lines_of(statistics.check_balance, images, ["cat", "dog", "cow", "owl"], "KEY")
    assert len(lines) == 1
    assert lines[0].startswith("KEY: of 'dog' there are 3 objects, of the most frequent class 30")
    assert "(and 2 more: classes with few objects)" in lines[0]
    many = [image(*boxes * 30, classes=[0] * 15 + [1] * 15)]
    assert lines_of(statistics.check_balance, many, ["cat", "dog"], "KEY") == []


def test_objects_that_anchors_miss_are_counted():
    usual = ([32, 64, 128, 256, 512], [0.5, 1.0, 2.0], (100, 1000), "KEY")
    fine = [image((0, 0, 40, 40), (0, 0, 20, 40))]
    assert lines_of(statistics.check_anchors, fine, *usual) == []
    assert lines_of(statistics.check_anchors, [image()], *usual) == []
    odd = [image((0, 0, 5, 5), (0, 0, 190, 12), (0, 0, 50, 50))]
    tiny, long = lines_of(statistics.check_anchors, odd, *usual)
    assert tiny.startswith("KEY: 33% of the objects have a side below 13 pixels")
    assert long.startswith("KEY: 33% of the objects are more than three times as long")


def test_crowds_are_no_objects_that_are_looked_for():
    images = [image(*[(0, 0, 9, 9)] * 5, iscrowd=1)]
    assert lines_of(statistics.check_number_of_objects, images, 4, "KEY") == []


def test_classes_of_far_fewer_objects_than_another_are_named():
    boxes = [(0, 0, 9, 9)]
    images = [image(*boxes * 1522, classes=[0] * 1500 + [1] * 12 + [2] * 10)]
    few, other = ["cat", "dog"], ["cat", "cow"]
    (line,) = lines_of(statistics.check_balance, images, [*few, "cow"], "KEY")
    assert line.startswith("KEY: of 'dog' there are 12 objects, of the most frequent class 1500")
    fewer = [image(*boxes * 40, classes=[0] * 30 + [1] * 10)]
    assert lines_of(statistics.check_balance, fewer, other, "KEY") == []  # 10 are enough


def test_crowds_are_no_objects_of_a_class():
    images = [image((0, 0, 9, 9)), image((0, 0, 9, 9), (9, 9, 9, 9), iscrowd=1)]
    assert statistics.objects_per_class(images, ["cat", "dog"]) == {"cat": 1, "dog": 0}


def test_objects_up_to_three_times_as_long_as_an_anchor_are_usual():
    images = [image((0, 0, 20, 95), (0, 0, 95, 20))]
    usual = ([32, 64], [0.5, 1.0, 2.0], (100, 1000), "KEY")
    assert lines_of(statistics.check_anchors, images, *usual) == []
    for long in ((0, 0, 15, 95), (0, 0, 95, 15)):
        (line,) = lines_of(statistics.check_anchors, [image(long)], *usual)
        assert line.startswith("KEY: 100% of the objects are more than three times as long")


def test_one_object_has_anchors_as_well():
    one = BoxShapes(np.array([20.0]), np.array([10.0]))
    assert statistics.fit_anchors(one, 5, 3) == ([14], [0.5])
