import logging
import math

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from pictures import coco_contents, cut, save_picture, write_coco

from d2_ssod.data import register_from_config
from d2_ssod.data.checks import (
    check_annotations,
    check_disjoint,
    check_images,
    check_not_empty,
    check_same_classes,
)
from d2_ssod.errors import ConfigError


def record(path, width=24, height=16, **keys):
    return {"file_name": str(path), "width": width, "height": height, **keys}


def message_of(function, *arguments):
    with pytest.raises(ConfigError) as caught:
        function(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_check_not_empty_names_key_and_data_sets():
    check_not_empty([{}], "KEY", ["a"])
    message = message_of(check_not_empty, [], "DATASETS.UNLABELED", ["a", "b"])
    assert message.startswith("DATASETS.UNLABELED: a, b has no images")


# ---------------------------------------------------------------- classes


def register_classes(name, classes):
    DatasetCatalog.register(name, list)
    MetadataCatalog.get(name).thing_classes = classes


def test_same_classes_accepts_equal_lists():
    register_classes("test_val_a", ["cat", "dog"])
    register_classes("test_val_b", ("cat", "dog"))
    check_same_classes(["test_val_a"], ["test_val_b", "test_val_a"])
    check_same_classes(["test_val_a"], [])
    check_same_classes([], [])


@pytest.mark.parametrize(
    ("classes", "difference"),
    [
        (["cat", "bird"], "class 1 is 'bird' instead of 'dog'"),
        (["dog", "cat"], "class 0 is 'dog' instead of 'cat'"),
        (["cat"], "1 classes instead of 2"),
        (["cat", "dog", "bird"], "3 classes instead of 2"),
    ],
)
def test_same_classes_shows_the_first_difference(classes, difference):
    register_classes("test_val_a", ["cat", "dog"])
    register_classes("test_val_b", classes)
    message = message_of(check_same_classes, ["test_val_a"], ["test_val_b"])
    assert message.startswith("DATASETS.TEST: the classes of test_val_b are not those of")
    assert difference in message
    message = message_of(check_same_classes, ["test_val_a", "test_val_b"], [])
    assert message.startswith("DATASETS.TRAIN: ")


def test_same_classes_loads_files_that_bring_their_classes(tmp_path):
    for name, classes in (("test_val_a", ("cat", "dog")), ("test_val_b", ("cat", "cow"))):
        path = write_coco(tmp_path / name, coco_contents(classes=classes))
        entry = {"NAME": name, "IMAGES": str(path.parent), "JSON": str(path)}
        register_from_config([entry], "SSOD.REGISTER")
    assert "'cow'" in message_of(check_same_classes, ["test_val_a"], ["test_val_b"])


def test_same_classes_needs_classes(tmp_path):
    save_picture(tmp_path / "a.png")
    register_from_config([{"NAME": "test_val_a", "IMAGES": str(tmp_path)}], "SSOD.REGISTER")
    message = message_of(check_same_classes, ["test_val_a"], [])
    assert message.startswith("DATASETS.TRAIN: test_val_a has no classes")


# ---------------------------------------------------------------- images


def test_check_images_accepts_good_files(tmp_path):
    names = ("a.png", "b.jpg", "c.bmp")
    records = [record(save_picture(tmp_path / name)) for name in names]
    turned = record(save_picture(tmp_path / "d.jpg", 24, 16, orientation=6), 16, 24)
    undeclared = {"file_name": str(tmp_path / "a.png")}
    check_images([*records, turned, undeclared], "KEY")
    check_images([], "KEY")


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_check_images_finds_truncated_files(tmp_path, name):
    path = cut(save_picture(tmp_path / name, 120, 90))
    message = message_of(check_images, [record(path, 120, 90)], "DATASETS.UNLABELED")
    assert message.startswith(f"DATASETS.UNLABELED: {path} is truncated")


def test_check_images_finds_wrong_sizes(tmp_path):
    path = save_picture(tmp_path / "a.png", 24, 16)
    message = message_of(check_images, [record(path, 16, 24)], "KEY")
    assert f"KEY: {path} is 24 x 16 pixels, but 16 x 24 in the data set" in message


def test_check_images_finds_missing_files_and_counts_the_rest(tmp_path):
    good = record(save_picture(tmp_path / "a.png"))
    missing = [record(tmp_path / f"{n}.png") for n in range(3)]
    message = message_of(check_images, [good, *missing], "KEY")
    assert message.startswith(f"KEY: {tmp_path}/0.png does not exist")
    assert message.endswith("(and 2 more bad images)")


def test_check_images_finds_files_that_are_no_images(tmp_path):
    (tmp_path / "a.png").write_text("<html>404</html>")
    assert "is not a readable image" in message_of(
        check_images, [record(tmp_path / "a.png")], "KEY"
    )


# ---------------------------------------------------------------- annotations


def annotated(*boxes, category=0, mode=BoxMode.XYXY_ABS, **keys):
    found = [{"bbox": b, "bbox_mode": mode, "category_id": category, **keys} for b in boxes]
    return record("a.png", annotations=found)


def test_check_annotations_accepts_good_ones():
    records = [annotated([0, 0, 5, 5], [1.5, 2, 3, 4]), annotated(), annotated([1, 1, 2, 2])]
    check_annotations([*records, annotated([3, 3, 1, 1], mode=BoxMode.XYWH_ABS)], "KEY", 1)


@pytest.mark.parametrize(
    ("bad", "what"),
    [
        (annotated([0, 0, 1, 1], [5, 5, 5, 9]), "annotation number 1 of a.png .*no area"),
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
    with pytest.raises(ConfigError, match=f"^KEY: .*{what}") as caught:
        check_annotations([annotated([0, 0, 5, 5]), bad], "KEY", 3)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- leakage


def test_check_disjoint_is_silent_for_different_images(tmp_path, caplog):
    labeled = [record(tmp_path / "l" / "1.png", image_id=1)]
    unlabeled = [
        record(tmp_path / "u" / "1.png", image_id=2),
        record(tmp_path / "u" / "2.png", image_id=1),
    ]
    assert check_disjoint(labeled, unlabeled, "KEY") == 0
    assert caplog.text == ""


def test_check_disjoint_warns_of_shared_images(tmp_path, caplog):
    path = save_picture(tmp_path / "a.png")
    (tmp_path / "link.png").symlink_to(path)
    labeled = [record(path, image_id=1)]
    same = [
        record(tmp_path / "link.png", image_id=7),  # the same file
        record(tmp_path / "copy" / "a.png", image_id=1),  # the same name and id
        record(tmp_path / "other.png", image_id=1),
    ]
    with caplog.at_level(logging.WARNING):
        assert check_disjoint(labeled, same, "DATASETS.UNLABELED") == 2
    assert "DATASETS.UNLABELED: 2 of 3 unlabeled images are labeled images too" in caplog.text
