import math
import re
from pathlib import Path

import pytest
from detectron2.structures import BoxMode
from pictures import cut, save_picture

from d2_ssod.class_lists import describe_difference
from d2_ssod.data import checks
from d2_ssod.data.box_checks import check_boxes
from d2_ssod.data.findings import Findings
from d2_ssod.data.picture_files import PictureFiles

FILES = PictureFiles()  # of paths that no other test has


def record(path, width=24, height=16, **keys):
    return {"file_name": str(path), "width": width, "height": height, **keys}


def found_by(check, *arguments):
    """The lines of what a check finds, each with its level."""
    findings = Findings()
    check(*arguments, findings)
    assert not any("\n" in str(finding) for finding in findings)
    return [(finding.level, str(finding)) for finding in findings]


def error_by(check, *arguments):
    ((level, line),) = found_by(check, *arguments)
    assert level == "error"
    return line


def warning_by(check, *arguments):
    ((level, line),) = found_by(check, *arguments)
    assert level == "warning"
    return line


def test_check_not_empty_names_the_place():
    assert found_by(checks.check_not_empty, [{}], "KEY") == []
    assert error_by(checks.check_not_empty, [], "KEY").startswith("KEY: has no images")


# ---------------------------------------------------------------- classes


def test_same_classes_accepts_equal_lists():
    assert found_by(checks.check_same_classes, {"A": ["cat", "dog"], "B": ["cat", "dog"]}) == []
    assert found_by(checks.check_same_classes, {"A": ["cat", "dog"]}) == []
    assert found_by(checks.check_same_classes, {}) == []


@pytest.mark.parametrize(
    ("classes", "difference"),
    [
        (["cat", "bird"], "missing 'dog', additional 'bird'"),
        (["cat"], "missing 'dog'"),
        (["cat", "dog", "bird"], "additional 'bird'"),
        (["cat", "dog", "cat"], "additional 'cat'"),
        (["dog", "cat"], "the same names in another order, 'dog', 'cat' instead of 'cat', 'dog'"),
        (["ca\u0301t", "dog"], "missing 'cat', additional 'ca\u0301t'"),
        ([], "missing 'cat', 'dog'"),
        ([*"abcdefghijkl", "cat", "dog"], f"additional {str([*'abcdefghij'])[1:-1]}, 2 more"),
    ],
)
def test_same_classes_names_the_difference(classes, difference):
    line = error_by(checks.check_same_classes, {"A": ["cat", "dog"], "B": classes})
    assert line.startswith(f"B: the classes are not those of A: {difference}; give all data sets")
    assert '"categories" of a COCO file' in line


def test_same_classes_needs_classes_of_each_name_once():
    assert error_by(checks.check_same_classes, {"A": None}).startswith("A: has no classes")
    assert "'cat'" in error_by(checks.check_same_classes, {"A": ["cat", "cat"]})


# ---------------------------------------------------------------- images


def test_check_images_accepts_good_files(tmp_path):
    names = ("a.png", "b.jpg", "c.bmp")
    records = [record(save_picture(tmp_path / name)) for name in names]
    turned = record(save_picture(tmp_path / "d.jpg", 24, 16, orientation=6), 16, 24)
    undeclared = {"file_name": str(tmp_path / "a.png")}
    assert found_by(checks.check_images, [*records, turned, undeclared], FILES, "KEY") == []
    assert found_by(checks.check_images, [], FILES, "KEY") == []


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_check_images_finds_truncated_files(tmp_path, name):
    path = cut(save_picture(tmp_path / name, 120, 90))
    line = error_by(checks.check_images, [record(path, 120, 90)], FILES, "DATASETS.UNLABELED")
    assert line.startswith(f"DATASETS.UNLABELED: {path} is truncated")


def test_check_images_finds_wrong_sizes(tmp_path):
    path = save_picture(tmp_path / "a.png", 24, 16)
    line = error_by(checks.check_images, [record(path, 17, 24)], FILES, "KEY")
    assert f"KEY: {path} is 24 x 16 pixels, but 17 x 24 in the data set" in line


def test_check_images_explains_turned_pictures(tmp_path):
    path = save_picture(tmp_path / "a.jpg", 24, 16, orientation=6)
    assert "EXIF orientation" in error_by(checks.check_images, [record(path, 24, 16)], FILES, "KEY")


def test_check_images_finds_missing_files_and_counts_the_rest(tmp_path):
    good = record(save_picture(tmp_path / "a.png"))
    missing = [record(tmp_path / f"{n}.png") for n in range(3)]
    line = error_by(checks.check_images, [good, *missing], FILES, "KEY")
    assert line.startswith(
        f"KEY: {tmp_path}/0.png does not exist (and 2 more: unreadable pictures)"
    )


@pytest.mark.parametrize(
    ("there", "said"),
    [
        (0, "none of 20 pictures is in {folder}, such as 00.png;"),
        (2, "18 of 20 pictures are not in {folder}, such as 02.png;"),
    ],
)
def test_check_images_says_that_all_are_elsewhere(tmp_path, there, said):
    records = [record(tmp_path / "a" / f"{n:02}.png") for n in range(20)]
    for each in records[:there]:
        save_picture(Path(each["file_name"]))
    line = error_by(checks.check_images, records, FILES, "KEY")
    assert line.startswith(f"KEY: {said.format(folder=tmp_path / 'a')} correct IMAGES")


def test_check_images_looks_at_the_few_that_are_there(tmp_path):
    records = [record(tmp_path / "sub" / f"{n:02}.png") for n in range(20)]
    cut(save_picture(Path(records[3]["file_name"]), 120, 90))
    (_, elsewhere), (_, damaged) = found_by(checks.check_images, records, FILES, "KEY")
    assert elsewhere.startswith("KEY: 19 of 20 pictures are not in")
    assert "03.png is truncated" in damaged


@pytest.mark.parametrize(("count", "there"), [(1, 0), (20, 3), (20, 19)])
def test_check_images_names_single_missing_files(tmp_path, count, there):
    records = [record(tmp_path / f"{n:02}.png") for n in range(count)]
    for each in records[:there]:
        save_picture(Path(each["file_name"]))
    line = error_by(checks.check_images, records, FILES, "KEY")
    assert line.startswith(f"KEY: {tmp_path}/{there:02}.png does not exist")


def test_check_images_finds_files_that_are_no_images(tmp_path):
    (tmp_path / "a.png").write_text("<html>404</html>")
    line = error_by(checks.check_images, [record(tmp_path / "a.png")], FILES, "KEY")
    assert "is not a readable image" in line


SIZES = [("INPUT.MIN_SIZE_TEST", 800, 1333)]


def test_pictures_must_keep_a_short_side():
    good = [record("a.png", 1333, 2), record("b.png", 3, 1000), {"file_name": "c.png"}]
    assert found_by(checks.check_resizable, good, SIZES, "KEY") == []
    line = error_by(checks.check_resizable, [record("d.png", 6000, 2)], SIZES, "KEY")
    assert "d.png is 6000 x 2 pixels, resized by INPUT.MIN_SIZE_TEST (800, at most 1333)" in line
    unresized = [("INPUT.MIN_SIZE_TEST", 0, 1333)]
    assert found_by(checks.check_resizable, [record("d.png", 6000, 2)], unresized, "KEY") == []


def test_sizes_and_difficulties_are_wanted(tmp_path):
    bad = {"file_name": str(save_picture(tmp_path / "a.png")), "width": 3, "difficulty": "hard"}
    assert "gives no height and width of" in error_by(checks.check_sizes, [bad], "KEY")
    missing = {"file_name": str(tmp_path / "b.png")}  # which would have told it
    line = error_by(checks.check_sizes, [missing], "KEY")
    assert line.startswith(f"KEY: {tmp_path}/b.png ")
    assert "height" not in line
    assert "a.png has the difficulty 'hard'" in error_by(checks.check_difficulties, [bad], "KEY")


# ---------------------------------------------------------------- annotations


def annotated(*boxes, category=0, mode=BoxMode.XYXY_ABS, **keys):
    found = [{"bbox": b, "bbox_mode": mode, "category_id": category, **keys} for b in boxes]
    return record("a.png", annotations=found)


def test_check_annotations_accepts_good_ones():
    records = [annotated([0, 0, 5, 5], [1.5, 2, 3, 4]), annotated(), annotated([1, 1, 2, 2])]
    records.append(annotated([3, 3, 1, 1], mode=BoxMode.XYWH_ABS))
    assert found_by(checks.check_annotations, records, 1, "KEY") == []


@pytest.mark.parametrize(
    ("bad", "what"),
    [
        (annotated([0, 0, 1, 1], [5, 5, 5, 9]), "annotation number 1 of a.png has .*no area"),
        (annotated([5, 5, 4, 9], id=77), "annotation 77 of a.png .*no area"),
        (annotated([5, 5, 4, 0], mode=BoxMode.XYWH_ABS), "no area"),
        (annotated([0, 0, math.nan, 1]), "four finite numbers"),
        (annotated([0, 0, math.inf, 1]), "four finite numbers"),
        (annotated([0, 0, 1]), "four finite numbers"),
        (annotated([0, 0, 1, 1], category=3), "class id 3, of 3 classes"),
        (annotated([0, 0, 1, 1], category=-1), "class id -1"),
        (record("a.png"), "a.png is unlabeled"),
    ],
)
def test_check_annotations_names_the_bad_one(bad, what):
    records = [annotated([0, 0, 5, 5]), bad]
    assert re.match(f"KEY: .*{what}", error_by(checks.check_annotations, records, 3, "KEY"))


def test_a_data_set_needs_objects_besides_crowds():
    assert found_by(checks.check_has_objects, [annotated([0, 0, 5, 5])], "KEY") == []
    for images in ([annotated()], [annotated([0, 0, 5, 5], iscrowd=1)]):
        assert "no image has an object" in error_by(checks.check_has_objects, images, "KEY")


# ---------------------------------------------------------------- plausible boxes

XYWH = BoxMode.XYWH_ABS


def test_usual_boxes_are_plausible():
    boxes = [[0, 0, 24, 16], [23, 15, 1.5, 1.5], [3, 4, 5, 6]] * 5
    assert found_by(check_boxes, [annotated(*boxes, mode=XYWH)], "KEY") == []
    assert found_by(check_boxes, [annotated()], "KEY") == []
    assert found_by(check_boxes, [{"file_name": "a.png", "annotations": [{}]}], "KEY") == []


@pytest.mark.parametrize(("count", "level"), [(3, "warning"), (12, "error")])
def test_corners_in_place_of_sizes_are_recognized(count, level):
    boxes = [[2, 2, 12, 9], [10, 8, 20, 14], [15, 1, 24, 16]] * (count // 3)
    ((found, line),) = found_by(check_boxes, [annotated(*boxes, mode=XYWH)], "KEY")
    assert found == level
    assert line.startswith(f"KEY: {2 * count // 3} of {count} boxes reach outside their image")
    assert "they seem to be [x0, y0, x1, y1]" in line


def test_corners_are_recognized_where_most_boxes_would_fit_as_sizes():
    boxes = [[1, 1, 5, 4], [2, 2, 12, 9], [3, 1, 9, 8], [1, 2, 11, 9], [15, 1, 24, 16]] * 3
    ((found, line),) = found_by(check_boxes, [annotated(*boxes, mode=XYWH)], "KEY")
    assert found == "error"
    assert line.startswith("KEY: 3 of 15 boxes reach outside their image")
    assert "they seem to be [x0, y0, x1, y1]" in line


@pytest.mark.parametrize(("count", "level"), [(3, "warning"), (12, "error")])
def test_fractions_of_the_image_are_recognized(count, level):
    boxes = [[0.1, 0.2, 0.3, 0.4]] * count
    ((found, line),) = found_by(check_boxes, [annotated(*boxes, mode=XYWH)], "KEY")
    assert found == level
    assert "fractions of the image" in line


def test_boxes_that_reach_out_are_counted():
    boxes = [[3, 4, 5, 6]] * 20 + [[20, 4, 9, 6], [-3, 4, 5, 6]]
    line = warning_by(check_boxes, [annotated(*boxes, mode=XYWH)], "KEY")
    assert line.startswith(
        "KEY: 2 of 22 boxes reach outside their image, such as box [20, 4, 9, 6]"
    )


def test_names_with_braces_are_shown():
    image = {**annotated([3, 4, 0.5, 6], mode=XYWH), "file_name": "{0}{x}.png"}
    assert "{0}{x}.png" in warning_by(check_boxes, [image], "KEY")


def test_boxes_below_a_pixel_are_counted():
    boxes = [[3, 4, 5, 6], [3, 4, 0.5, 6]]
    assert "1 of 2 boxes are narrower" in warning_by(
        check_boxes, [annotated(*boxes, mode=XYWH)], "KEY"
    )


# ---------------------------------------------------------------- leakage

WORDS = ("unlabeled", "labeled", "which is bad")


def test_check_disjoint_is_silent_for_different_images(tmp_path):
    labeled = [
        record(tmp_path / "l" / "1.png", image_id=1),
        record(save_picture(tmp_path / "x.bmp")),
    ]
    unlabeled = [
        record(tmp_path / "u" / "1.png", image_id=1),  # data sets count from 1, each its own
        record(save_picture(tmp_path / "y.bmp")),  # as long as x.bmp
    ]
    assert found_by(checks.check_disjoint, labeled, unlabeled, FILES, WORDS, "KEY") == []


def test_check_disjoint_warns_of_shared_images(tmp_path):
    path = save_picture(tmp_path / "a.png")
    (tmp_path / "link.png").symlink_to(path)
    (tmp_path / "renamed.png").write_bytes(path.read_bytes())
    labeled = [record(path, image_id=1)]
    same = [
        record(tmp_path / "link.png", image_id=7),  # the same file
        record(tmp_path / "other.png", image_id=1),
        record(tmp_path / "renamed.png", image_id=9),  # the same content
    ]
    line = warning_by(checks.check_disjoint, labeled, same, FILES, WORDS, "KEY")
    assert line.startswith(f"KEY: {tmp_path}/link.png is among the labeled images (and 1 more: ")
    assert "; 2 of 3 unlabeled images are labeled images too: " in line


def test_pictures_are_read_whole_only_where_they_begin_alike(tmp_path, monkeypatch):
    """Uncompressed ones of one camera all have one length."""
    begin = bytes(1 << 16)
    contents = {"a": begin + b"1", "b": begin + b"2", "c": b"3" + begin, "d": begin + b"1"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    files, whole = PictureFiles(), []
    digests = files.digests
    monkeypatch.setattr(files, "digests", lambda paths: whole.extend(paths) or digests(paths))
    first, second = ([{"file_name": str(tmp_path / n)} for n in names] for names in ("a", "bcd"))
    line = warning_by(checks.check_disjoint, first, second, files, WORDS, "KEY")
    assert line.startswith(f"KEY: {tmp_path}/d is among the labeled images; 1 of 3 unlabeled ")
    assert sorted(Path(path).name for path in whole) == ["a", "b", "d"]


def test_repeated_pictures_are_warned_of(tmp_path):
    images = [record(tmp_path / name) for name in ("a.png", "b.png", "./a.png")]
    assert "a.png is named 2 times" in warning_by(checks.check_repeated, images, FILES, "KEY")


def test_names_that_look_the_same_are_said_to():
    found = describe_difference(["e\u0301", "dog"], ["\u00e9", "dog"])
    assert found == "the same names in another Unicode form, such as '\u00e9'"


@pytest.mark.parametrize("key", ["width", "height"])
def test_both_sides_of_a_picture_are_wanted(tmp_path, key):
    """Files of pseudo-labels, which are written after phase 0, need both."""
    bad = {"file_name": str(save_picture(tmp_path / "a.png")), key: 3}
    assert "gives no height and width of" in error_by(checks.check_sizes, [bad], "KEY")


def test_a_difficulty_is_finite():
    for value in (math.nan, math.inf):
        bad = record("a.png", difficulty=value)
        assert f"difficulty {value}" in error_by(checks.check_difficulties, [bad], "KEY")


def test_labeled_images_that_are_all_trained_on_are_no_warning():
    images = [annotated([0, 0, 5, 5]), annotated()]
    assert found_by(checks.check_trained_on, images, 2, "KEY") == []
    assert "1 of 2 labeled" in warning_by(checks.check_trained_on, images, 1, "KEY")


def test_empty_files_are_not_the_same_picture(tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).touch()
    first, second = [record(tmp_path / "a.png")], [record(tmp_path / "b.png")]
    assert found_by(checks.check_disjoint, first, second, FILES, WORDS, "KEY") == []


def test_fractions_are_recognized_also_where_some_reach_out_of_the_image():
    boxes = [[0.1, 0.2, 0.3, 0.4]] * 11 + [[0.7, 0.2, 0.6, 0.4]]
    assert "fractions of the image" in error_by(check_boxes, [annotated(*boxes, mode=XYWH)], "KEY")


@pytest.mark.parametrize(
    ("boxes", "mode", "count"),
    [
        ([[1, 1, 5, 6]] * 19 + [[3, 2, 23, 5]], XYWH, 1),  # too few of them
        ([[20, 4, 9, 6]] * 20, XYWH, 20),  # as corners they would have no width
        ([[3, 4, 30, 20]] * 20, XYWH, 20),  # nor would corners fit
        ([[-3, 4, 5, 6]] * 20, BoxMode.XYXY_ABS, 20),  # they are corners
    ],
)
def test_boxes_that_reach_out_may_be_no_corners(boxes, mode, count):
    line = warning_by(check_boxes, [annotated(*boxes, mode=mode)], "KEY")
    assert line.startswith(f"KEY: {count} of 20 boxes reach outside their image")
    assert "they are cut at its edges in training" in line
