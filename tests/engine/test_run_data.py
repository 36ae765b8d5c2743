import copy
import itertools
import logging
import re
from pathlib import Path

import catalogs
import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.structures import BoxMode
from pictures import coco_contents, save_picture, write_coco
from PIL import Image

from d2_ssod.config import add_ssod_config
from d2_ssod.engine import load_run_data, run_data
from d2_ssod.engine.data_checks import check_data_sets, check_judging_sets, check_run_data
from d2_ssod.errors import ConfigError
from d2_ssod.evaluation import ground_truth

LABELED, UNLABELED, TEST = "run_data_labeled", "run_data_unlabeled", "run_data_test"
CLASSES = ["cat", "dog"]


@pytest.fixture
def register():
    """Register data sets for one test."""
    names = []

    def add(name, images, classes=CLASSES, **metadata):
        DatasetCatalog.register(name, lambda: copy.deepcopy(images))
        if classes is not None:
            metadata["thing_classes"] = list(classes)
            metadata.setdefault("evaluator_type", "coco")
        MetadataCatalog.get(name).set(**metadata)
        names.append(name)

    yield add
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.pop(name)


@pytest.fixture
def images(tmp_path):
    """Make data set dicts of new image files, each of a color of its own."""
    colors = itertools.count()

    def make(prefix, count, first_id=0, annotated=True, **keys):
        records = []
        for number in range(count):
            path = tmp_path / f"{prefix}{number}.png"
            Image.new("RGB", (24, 16), next(colors)).save(path)
            record = {"file_name": str(path), "image_id": first_id + number}
            record.update(height=16, width=24)
            if annotated:
                box = {"bbox": [1, 2, 10, 8], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 1}
                record["annotations"] = [{**box, "iscrowd": 0, **keys}]
            records.append(record)
        return records

    return make


@pytest.fixture
def cfg():
    cfg = get_cfg()
    add_ssod_config(cfg)
    cfg.DATASETS.TRAIN = (LABELED,)
    cfg.DATASETS.UNLABELED = (UNLABELED,)
    cfg.DATASETS.TEST = (TEST,)
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 2
    return cfg


@pytest.fixture
def registered(register, images):
    register(LABELED, images("l", 3), thing_dataset_id_to_contiguous_id={7: 1, 9: 0})
    register(UNLABELED, images("u", 4, annotated=False), classes=None)
    register(TEST, images("t", 2))


def error_of(cfg):
    with pytest.raises(ConfigError) as info:
        load_run_data(cfg)
    assert "\n" not in str(info.value)
    return str(info.value)


def test_run_data_is_what_the_data_sets_hold(cfg, registered):
    data = load_run_data(cfg)
    assert [len(data.labeled), len(data.unlabeled)] == [3, 4]
    assert data.thing_classes == CLASSES
    # In the order of the classes.
    assert data.category_ids == [9, 7]


def test_category_ids_without_a_mapping_are_the_classes_numbers(cfg, register, images):
    register(LABELED, images("l", 3))
    register(UNLABELED, images("u", 4, annotated=False), classes=None)
    register(TEST, images("t", 2))
    assert load_run_data(cfg).category_ids == [0, 1]


def test_several_data_sets_are_joined(cfg, registered, register, images):
    register("run_data_more", images("m", 2))
    register("run_data_more_unlabeled", images("n", 5, first_id=100, annotated=False))
    cfg.DATASETS.TRAIN = (LABELED, "run_data_more")
    cfg.DATASETS.UNLABELED = (UNLABELED, "run_data_more_unlabeled")
    data = load_run_data(cfg)
    assert [len(data.labeled), len(data.unlabeled)] == [5, 9]


def test_images_without_objects_are_left_out_as_by_detectron2(cfg, registered, register, images):
    some = images("e", 3)
    some[1]["annotations"] = []
    register("run_data_some", some)
    cfg.DATASETS.TRAIN = ("run_data_some",)
    filtered = load_run_data(cfg)
    assert len(filtered.labeled) == 2
    cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = False
    assert len(load_run_data(cfg).labeled) == 3
    # The counts that pseudo-labels are matched to are per labeled image, whatever trains.
    assert filtered.objects_per_image == pytest.approx([0, 2 / 3])
    # A teacher labels images in which something was found.
    for data in (filtered, load_run_data(cfg)):
        assert data.objects_per_image_with_objects == pytest.approx([0, 1])


def test_objects_of_unlabeled_images_are_not_known(cfg, registered, register, images):
    register("run_data_annotated", images("a", 2))
    cfg.DATASETS.UNLABELED = ("run_data_annotated",)
    assert all("annotations" not in image for image in load_run_data(cfg).unlabeled)
    assert all("annotations" in image for image in DatasetCatalog.get("run_data_annotated"))


@pytest.mark.parametrize("key", ["TRAIN", "UNLABELED", "TEST"])
def test_unknown_data_set_is_named(cfg, registered, key):
    cfg.DATASETS[key] = ("no_such_set",)
    with pytest.raises(ConfigError, match=rf"DATASETS\.{key}: .*'no_such_set'"):
        check_data_sets(cfg)


@pytest.mark.parametrize("key", ["TRAIN", "UNLABELED"])
def test_missing_data_sets_are_named(cfg, registered, key):
    cfg.DATASETS[key] = ()
    with pytest.raises(ConfigError, match=rf"DATASETS\.{key} is empty"):
        check_data_sets(cfg)


def test_what_is_not_used_need_not_be_named(cfg, registered):
    cfg.DATASETS.TEST = ()
    check_data_sets(cfg)
    load_run_data(cfg)
    cfg.SSOD.NUM_PHASES = 0
    cfg.DATASETS.UNLABELED = ()
    check_data_sets(cfg)
    assert load_run_data(cfg).unlabeled == []


def test_test_set_without_an_evaluator_is_named(cfg, registered, register, images):
    register("run_data_lvis", images("v", 1), evaluator_type="lvis")
    cfg.DATASETS.TEST = (TEST, "run_data_lvis")
    with pytest.raises(ConfigError, match=r"DATASETS\.TEST: .*'run_data_lvis'.*'lvis'"):
        check_data_sets(cfg)


def test_known_data_sets_pass(cfg, registered):
    check_data_sets(cfg)


@pytest.mark.parametrize("key", ["TRAIN", "UNLABELED", "TEST"])
def test_empty_data_set_is_named(cfg, registered, register, key):
    register("run_data_empty", [])
    cfg.DATASETS[key] = ("run_data_empty",)
    message = error_of(cfg)
    assert f"DATASETS.{key}" in message
    assert "run_data_empty" in message


@pytest.mark.parametrize("key", ["TRAIN", "TEST"])
@pytest.mark.parametrize("crowd", [False, True])
def test_set_without_objects_is_named(cfg, registered, register, images, key, crowd):
    without = images("w", 2, iscrowd=1)
    if not crowd:
        for image in without:
            image["annotations"] = []
    register("run_data_without", without)
    cfg.DATASETS[key] = ("run_data_without",)
    message = error_of(cfg)
    assert f"DATASETS.{key}" in message
    assert "run_data_without" in message


def test_difficulty_may_be_of_numpy(cfg, registered, register, images):
    records = images("d", 2)
    records[0]["difficulty"], records[1]["difficulty"] = np.float32(0.5), 1
    register("run_data_difficult", records)
    cfg.DATASETS.TEST = ("run_data_difficult",)
    load_run_data(cfg)


@pytest.mark.parametrize("value", ["hard", None, float("nan")])
def test_difficulty_that_is_no_number_is_named(cfg, registered, register, images, value):
    records = images("d", 2)
    records[0]["difficulty"], records[1]["difficulty"] = 0.5, value
    register("run_data_difficult", records)
    cfg.DATASETS.TEST = ("run_data_difficult",)
    message = error_of(cfg)
    assert "DATASETS.TEST" in message
    assert "d1.png" in message
    assert repr(value) in message


def test_labeled_set_without_annotations_is_named(cfg, registered):
    cfg.DATASETS.TRAIN = (UNLABELED,)
    assert "DATASETS.TRAIN" in error_of(cfg)


@pytest.mark.parametrize("key", ["TRAIN", "TEST"])
@pytest.mark.parametrize("classes", [["cat", "bird"], ["dog", "cat"], ["cat", "dog", "bird"]])
def test_other_classes_are_named(cfg, registered, register, images, key, classes):
    register("run_data_other", images("o", 2), classes)
    cfg.DATASETS[key] = (*cfg.DATASETS[key], "run_data_other")
    message = error_of(cfg)
    assert f"DATASETS.{key}" in message
    assert "run_data_other" in message


def test_wrong_number_of_classes_is_named(cfg, registered):
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 80
    message = error_of(cfg)
    assert "MODEL.ROI_HEADS.NUM_CLASSES is 80" in message
    assert "2 classes" in message


def test_wrong_annotation_is_named(cfg, registered, register, images):
    register("run_data_wrong", images("x", 2, category_id=5))
    cfg.DATASETS.TRAIN = ("run_data_wrong",)
    message = error_of(cfg)
    assert "DATASETS.TRAIN" in message
    assert "x0.png" in message


@pytest.mark.parametrize("key", ["TRAIN", "UNLABELED", "TEST"])
def test_unreadable_image_is_named(cfg, registered, register, images, key):
    records = images("b", 2, annotated=key != "UNLABELED")
    with open(records[1]["file_name"], "wb") as file:
        file.write(b"no image")
    register("run_data_bad", records)
    cfg.DATASETS[key] = ("run_data_bad",)
    message = error_of(cfg)
    assert f"DATASETS.{key}" in message
    assert "b1.png" in message


def test_unlabeled_sets_that_count_for_themselves_are_numbered_anew(
    cfg, registered, register, images
):
    register("run_data_same_ids", images("s", 2, annotated=False))
    cfg.DATASETS.UNLABELED = (UNLABELED, "run_data_same_ids")
    unlabeled = load_run_data(cfg).unlabeled
    assert [image["image_id"] for image in unlabeled] == [1, 2, 3, 4, 5, 6]
    assert DatasetCatalog.get(UNLABELED)[0]["image_id"] == 0


def test_ids_that_one_set_repeats_are_named(cfg, registered, register, images):
    records = images("s", 3, annotated=False)
    records[2]["image_id"] = 0
    register("run_data_same_ids", records)
    cfg.DATASETS.UNLABELED = ("run_data_same_ids",)
    message = error_of(cfg)
    assert "DATASETS.UNLABELED" in message
    assert "image_id 0 occurs 2 times" in message


def test_pictures_too_long_for_the_config_are_named(cfg, registered, register, tmp_path):
    path = tmp_path / "strip.png"
    Image.fromarray(np.zeros((2, 600, 3), dtype=np.uint8)).save(path)
    strip = {"file_name": str(path), "image_id": 1, "height": 2, "width": 600}
    register("run_data_strip", [strip], classes=None)
    cfg.DATASETS.UNLABELED = ("run_data_strip",)
    load_run_data(cfg)
    cfg.INPUT.MAX_SIZE_TEST = 100
    assert "strip.png is 600 x 2 pixels" in error_of(cfg)


def test_everything_is_found_at_once(cfg, registered, register, images):
    records = images("x", 3, annotated=False)
    for record in records[:2]:
        with open(record["file_name"], "wb") as file:
            file.write(b"no image")
    register("run_data_bad", records, classes=None)
    cfg.DATASETS.UNLABELED = ("run_data_bad",)
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 80
    lines = [str(finding) for finding in check_run_data(cfg) if finding.level == "error"]
    assert len(lines) == 2
    assert "MODEL.ROI_HEADS.NUM_CLASSES is 80" in lines[0]
    assert "x0.png is not a readable image (and 1 more" in lines[1]


@pytest.mark.parametrize("side", ["height", "width"])
def test_images_without_a_size_have_that_of_the_picture(cfg, registered, register, images, side):
    for key, prefix in (("TRAIN", "x"), ("UNLABELED", "z")):
        records = images(prefix, 2, annotated=key == "TRAIN")
        del records[1][side]
        register(f"run_data_sizeless_{key}", records)
        cfg.DATASETS[key] = (f"run_data_sizeless_{key}",)
    data = load_run_data(cfg)
    for image in (*data.labeled, *data.unlabeled):
        assert (image["height"], image["width"]) == (16, 24)


@pytest.mark.parametrize(
    "boxes",
    # The third as in Detectron2's tutorial.
    [np.array, torch.tensor, lambda box: [np.int64(side) for side in box], tuple],
)
def test_values_of_other_kinds_are_taken_as_what_they_are(cfg, registered, register, images, boxes):
    plain = images("n", 3)
    register("run_data_plain", plain)
    others = copy.deepcopy(plain)
    for image in others:
        image["file_name"] = Path(image["file_name"])
        image["image_id"], image["height"] = np.int64(image["image_id"]), np.float32(16)
        (annotation,) = image["annotations"]
        annotation["bbox"], annotation["bbox_mode"] = boxes(annotation["bbox"]), 1
        annotation["category_id"] = np.float32(annotation["category_id"])
        annotation["iscrowd"] = np.bool_(False)
    register("run_data_others", others)
    for key in ("TRAIN", "TEST"):
        cfg.DATASETS[key] = ("run_data_plain",)
    expected = load_run_data(cfg)
    for key in ("TRAIN", "TEST"):
        cfg.DATASETS[key] = ("run_data_others",)
    assert load_run_data(cfg).labeled == expected.labeled


def drop(key):
    return lambda record: record.pop(key)


def put(key, value):
    return lambda record: record.update({key: value})


def annotated(change):
    return lambda record: change(record["annotations"][0])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (drop("file_name"), "has the file_name None; expected a path"),
        (drop("image_id"), "has the image_id None"),
        (put("image_id", 1.5), "has the image_id 1.5"),
        (put("image_id", float("nan")), "has the image_id nan"),
        (put("image_id", (1, 2)), r"has the image_id \(1, 2\)"),
        (put("image_id", 2), "image_id 2 occurs 2 times"),
        (put("height", "tall"), "has no height that is a number of pixels"),
        (put("annotations", [3]), "annotation 0 is a int, not a dict"),
        (put("annotations", 3), "has int as annotations, not a list"),
        (annotated(put("iscrowd", "maybe")), "has the iscrowd 'maybe'; expected 0 or 1"),
        (annotated(drop("bbox")), "annotation 0 has the bbox None; expected four finite numbers"),
        (annotated(drop("bbox_mode")), "annotation 0 has the bbox_mode None; expected BoxMode"),
        (annotated(put("category_id", "cat")), "has the category_id 'cat'; expected a whole"),
        (annotated(drop("category_id")), "has the category_id None"),
    ],
)
@pytest.mark.parametrize("key", ["TRAIN", "TEST"])
def test_records_that_cannot_be_used_are_named_before_training(
    cfg, registered, register, images, key, change, words
):
    records = images("b", 3)
    change(records[1])
    register("run_data_bad", records)
    cfg.DATASETS[key] = ("run_data_bad",)
    if key == "TRAIN" and "occurs" in words:
        load_run_data(cfg)  # nothing is kept by the ids of labeled images
        return
    assert re.search(words, error_of(cfg))


@pytest.mark.parametrize(
    ("records", "kind"),
    [(None, "gives NoneType"), ({}, "gives dict"), ([None], "is a NoneType, not a dict")],
)
def test_functions_that_give_no_records_are_named(cfg, registered, register, records, kind):
    register("run_data_none", records)
    cfg.DATASETS.TRAIN = ("run_data_none",)
    assert kind in error_of(cfg)


def test_images_without_any_id_are_numbered(cfg, registered, register, images):
    records = images("i", 3)
    for record in records:
        del record["image_id"]
    register("run_data_idless", records)
    cfg.DATASETS.TEST = cfg.DATASETS.TRAIN = ("run_data_idless",)
    assert [image["image_id"] for image in load_run_data(cfg).labeled] == [1, 2, 3]


@pytest.mark.parametrize("numbers", [{7: 0, 9: 0}, {7: 0}, {7: 1, 8: 2}])
def test_classes_without_a_category_id_are_named(cfg, registered, register, images, numbers):
    register("run_data_ids", images("c", 3), thing_dataset_id_to_contiguous_id=numbers)
    cfg.DATASETS.TRAIN = ("run_data_ids",)
    assert "run_data_ids: thing_dataset_id_to_contiguous_id" in error_of(cfg)


def test_several_category_ids_may_be_one_class(cfg, registered, register, images):
    numbers = {9: 1, 7: 0, 8: 0, 5: 1}
    register("run_data_ids", images("c", 3), thing_dataset_id_to_contiguous_id=numbers)
    cfg.DATASETS.TRAIN = ("run_data_ids",)
    assert load_run_data(cfg).category_ids == [7, 9]


def test_classes_that_share_a_name_are_named(cfg, register, images):
    for name, prefix in ((LABELED, "l"), (TEST, "t")):
        register(name, images(prefix, 2), ["cat", "cat"])
    register(UNLABELED, images("u", 2, annotated=False), classes=None)
    message = error_of(cfg)
    assert LABELED in message
    assert "'cat'" in message


def test_labeled_images_among_the_unlabeled_are_warned_of(cfg, registered, caplog):
    cfg.DATASETS.UNLABELED = (LABELED,)
    with caplog.at_level(logging.WARNING, logger="d2_ssod"):
        load_run_data(cfg)
    assert "3 of 3 unlabeled images are labeled images too" in caplog.text


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ("TRAIN", "VAL", "validation images are labeled images too"),
        ("UNLABELED", "VAL", "validation images are unlabeled images too"),
        ("TRAIN", "TEST", "test images are labeled images too"),
        ("UNLABELED", "TEST", "test images are unlabeled images too"),
        ("VAL", "TEST", "test images are validation images too"),
    ],
)
def test_images_of_two_kinds_at_once_are_warned_of(
    cfg, registered, register, images, first, second, said
):
    register("run_data_val", images("v", 2))
    cfg.DATASETS.VAL = ("run_data_val",)
    records = images("x", 5)
    register("run_data_one", records)
    register("run_data_other", records[2:])
    cfg.DATASETS[first] = ("run_data_one",)
    cfg.DATASETS[second] = ("run_data_other",)
    (line,) = (str(f) for f in check_run_data(cfg) if "images too" in str(f))
    assert line.startswith(f"DATASETS.{second}: {records[2]['file_name']} is among the ")
    assert f"; 3 of 3 {said}: " in line
    assert line.endswith("; take them out of one of the two")


def test_pictures_that_two_sets_of_one_key_have_are_warned_of(cfg, registered, register, images):
    for name in ("run_data_one", "run_data_other"):
        register(name, images("x", 2))
    cfg.DATASETS.UNLABELED = ("run_data_one", "run_data_other")
    (line,) = (str(f) for f in check_run_data(cfg) if "more than once" in str(f))
    assert line.startswith("DATASETS.UNLABELED: ")
    assert "x0.png is named 2 times (and 1 more" in line


def test_error_of_another_rank_is_raised_here(cfg, registered, monkeypatch):
    """Only one rank reads the images, but all must end."""
    monkeypatch.setattr(
        run_data.comm, "all_gather", lambda own: [own, "DATASETS.TRAIN: a.png is damaged"]
    )
    assert error_of(cfg) == "DATASETS.TRAIN: a.png is damaged"


def test_files_that_metadata_of_other_functions_name_are_not_asked_for(cfg, registered, register):
    for number, metadata in enumerate(
        [{"dirname": "/nowhere", "split": "train"}, {"image_root": "/nowhere", "json_file": "/no"}]
    ):
        register(f"run_data_elsewhere_{number}", [], **metadata)
        cfg.DATASETS.TEST = (f"run_data_elsewhere_{number}",)
        check_data_sets(cfg)


def voc_metadata(folder):
    return {"evaluator_type": "pascal_voc", "dirname": str(folder), "split": "test", "year": 2007}


def write_voc(folder, listed):
    """Write the list, and an XML file for each of its images."""
    (folder / "ImageSets" / "Main").mkdir(parents=True)
    (folder / "ImageSets" / "Main" / "test.txt").write_text(listed)
    (folder / "Annotations").mkdir()
    size = "<size><width>24</width><height>16</height></size>"
    for line in listed.splitlines():
        name = line.split()[0]
        (folder / "Annotations" / f"{name}.xml").write_text(f"<annotation>{size}</annotation>")


@pytest.fixture
def coco_of_texts(tmp_path):
    """Test images that Detectron2's function reads, whose category ids are texts."""
    contents = coco_contents()
    for row in contents["categories"]:
        row["id"] = str(row["id"])
    for row in contents["annotations"]:
        row["category_id"] = str(row["category_id"])
    name = "run_data_texts"
    register_coco_instances(name, {}, str(write_coco(tmp_path, contents)), str(tmp_path))
    yield name
    DatasetCatalog.remove(name)
    MetadataCatalog.pop(name)


def test_texts_as_category_ids_are_judged_by(cfg, registered, coco_of_texts):
    cfg.DATASETS.TEST = (coco_of_texts,)
    load_run_data(cfg)
    truth = ground_truth(coco_of_texts)
    assert [a["category_id"] for image in truth for a in image["annotations"]] == [0, 0]


def test_test_images_without_the_names_of_their_voc_files_are_named(
    cfg, registered, register, images, tmp_path
):
    write_voc(tmp_path, "v0\nv1 1\n")
    records = images("v", 2)
    register("run_data_voc", records, **voc_metadata(tmp_path))
    cfg.DATASETS.TEST = ("run_data_voc",)
    assert "image_id 0 (" in error_of(cfg)
    for record in records:
        record["image_id"] = Path(record["file_name"]).stem
    load_run_data(cfg)


def test_voc_files_that_only_the_evaluation_reads_are_asked_for_before_training(
    cfg, registered, register, images, tmp_path
):
    records = images("v", 2)
    for record in records:
        record["image_id"] = Path(record["file_name"]).stem
    register("run_data_voc", records, **voc_metadata(tmp_path))
    cfg.DATASETS.TEST = ("run_data_voc",)
    error = error_of(cfg)
    assert error.startswith(f"DATASETS.TEST (run_data_voc): {tmp_path}/ImageSets/Main/test.txt: ")
    assert error.endswith("; or set evaluator_type to 'coco'")
    with pytest.raises(ConfigError, match=r"test\.txt: cannot be read"):
        check_judging_sets(cfg, CLASSES)
    write_voc(tmp_path, "v0\nv1\n")
    (tmp_path / "Annotations" / "v1.xml").write_text("<annotation>")
    assert "v1.xml is not a VOC annotation file" in error_of(cfg)


def test_data_sets_of_the_config_are_registered_where_no_command_has_done_it(cfg, tmp_path):
    """As in a script that uses the hook."""
    boxes = [(1, 2, 10, 8)]
    path = write_coco(tmp_path / "own", coco_contents(3, boxes=boxes))
    save_picture(tmp_path / "more" / "unlabeled.png")
    with catalogs.restored_catalogs():
        cfg.SSOD.REGISTER = [
            {"NAME": "own_labeled", "JSON": str(path), "IMAGES": str(path.parent)},
            {"NAME": "own_unlabeled", "IMAGES": str(tmp_path / "more")},
        ]
        cfg.DATASETS.TRAIN, cfg.DATASETS.UNLABELED = ("own_labeled",), ("own_unlabeled",)
        cfg.DATASETS.TEST = ()
        cfg.MODEL.ROI_HEADS.NUM_CLASSES = len(coco_contents(1)["categories"])
        assert len(load_run_data(cfg).labeled) == 3
