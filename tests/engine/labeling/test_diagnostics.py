"""What is said about pseudo-labels before they are trained on."""

import dataclasses
import logging
from contextlib import nullcontext

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from runs import bare_config
from samples import detections

from d2_ssod.artifacts import RunFolder, read_history
from d2_ssod.engine import RunData
from d2_ssod.engine.labeling.corrections import left_to_models
from d2_ssod.engine.labeling.diagnostics import LabelTruth, act_on, check_labels
from d2_ssod.errors import ConfigError
from d2_ssod.evaluation import load_truth
from d2_ssod.pseudo_label import build_pseudo_labels

CLASSES = ["cat", "dog"]
TRUTH = "diagnostics_truth"


@pytest.fixture
def cfg(tmp_path):
    return bare_config(tmp_path)


@pytest.fixture
def data(tmp_path):
    images = [{"file_name": str(tmp_path / f"{n}.png"), "image_id": n} for n in range(4)]
    pair = {"annotations": [{"category_id": 0}, {"category_id": 1}]}
    return RunData([pair], images, np.array([1.0, 1.0]), CLASSES, [1, 2])


@pytest.fixture
def truth(cfg, data):
    """A data set with a cat in each of the unlabeled images but the last, in another order."""
    box = {"bbox": [0, 0, 10, 10], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0}
    images = [
        {**image, "image_id": 100 - number, "annotations": [{**box, "iscrowd": number}]}
        for number, image in enumerate(data.unlabeled[:3][::-1])
    ]
    DatasetCatalog.register(TRUTH, lambda: images)
    MetadataCatalog.get(TRUTH).thing_classes = CLASSES
    cfg.SSOD.DIAGNOSTICS.UNLABELED_TRUTH = TRUTH
    yield images
    DatasetCatalog.remove(TRUTH)
    MetadataCatalog.pop(TRUTH)


def labels_of(*classes):
    """Pseudo-labels of one model: a box of each of these classes in an image of its own."""
    found = {n: detections((0, 0, 10, 10, 0.9, c)) for n, c in enumerate(classes)}
    return build_pseudo_labels([found], np.array([1.0, 1.0]), fraction=1.0)


def judge(cfg, phase, labels, data, corrected=None):
    """Check labels of models where there are none of a person's."""
    check_labels(cfg, phase, labels, left_to_models(labels.selected, corrected or {}), data)


@pytest.mark.parametrize("action", ["off", "warn", "stop"])
def test_a_vanished_class_is_said_or_ends_the_run(cfg, data, caplog, action):
    cfg.SSOD.GUARD.VANISHED_CLASS = action
    labels = labels_of(0, 0, 0, 0)
    if action == "stop":
        with pytest.raises(ConfigError, match=r"Phase 2: classes vanish \(dog .*VANISHED_CLASS"):
            judge(cfg, 2, labels, data)
        return
    judge(cfg, 2, labels, data)
    assert ("classes vanish (dog 0.0%" in caplog.text) == (action == "warn")


@pytest.mark.parametrize("action", ["off", "warn", "stop"])
def test_what_a_guard_says_is_in_the_history(cfg, action):
    cfg.SSOD.GUARD.CONSENSUS = action
    with pytest.raises(ConfigError) if action == "stop" else nullcontext():
        act_on(cfg, "CONSENSUS", 2, "odd")
    keys, history = ("name", "phase", "text"), read_history(RunFolder(cfg.OUTPUT_DIR))
    noted = [tuple(event[key] for key in keys) for event in history]
    assert noted == ([] if action == "off" else [("CONSENSUS", 2, "Phase 2: odd")])


def test_good_labels_are_passed_in_silence(cfg, data, caplog):
    judge(cfg, 1, labels_of(0, 1, 0, 1), data)
    assert caplog.text == ""


def test_guards_judge_the_models_unless_a_person_has_labeled_nearly_all(cfg, data, caplog):
    """However many dogs a person has drawn, those in other images are learned as background."""
    dogs = detections(*[(0, 0, 10, 10, 1.0, 1)] * 9)
    of_cats = labels_of(*[0] * 20)
    for by_person, is_said in ((3, True), (18, True), (19, False), (20, False)):
        judge(cfg, 1, of_cats, data, dict.fromkeys(range(by_person), dogs))
        assert ("classes vanish (dog 0.0%" in caplog.text) == is_said
        assert "a selected image has" not in caplog.text
        caplog.clear()


def test_models_that_agree_on_little_are_said_whoever_labels_their_images(cfg, data, caplog):
    sources = [
        {n: detections((x if n else 0, 0, x + 9 if n else 9, 9, 0.9, n % 2)) for n in range(20)}
        for x in (0, 50)
    ]
    labels = build_pseudo_labels(sources, np.array([1.0, 1.0]), fraction=1.0)
    assert len(labels.selected) == 1
    judge(cfg, 2, labels, data, {n: detections((0, 0, 9, 9, 1.0, 0)) for n in range(20)})
    assert "(SSOD.GUARD.CONSENSUS)" in caplog.text


def test_every_guard_has_its_own_limit(cfg, data, caplog):
    cfg.SSOD.GUARD.RATE_FACTOR = 1.0
    judge(cfg, 1, labels_of(0, 1, 0, 1), data)  # 1 box per image, 2 objects
    assert "(SSOD.GUARD.BOX_RATE)" in caplog.text


def test_images_without_objects_do_not_count_for_the_rate_of_boxes(cfg, data, caplog):
    nine_empty = [*data.labeled, *({"annotations": []} for _ in range(9))]
    rare = dataclasses.replace(data, labeled=nine_empty, objects_per_image=np.array([0.1, 0.1]))
    judge(cfg, 1, labels_of(0, 1, 0, 1), rare)
    assert caplog.text == ""


def test_truth_is_matched_by_picture(cfg, data, truth):
    found = load_truth(cfg, data.unlabeled, data.thing_classes)
    assert set(found) == {0, 1, 2}
    assert [len(found[n].objects) for n in (0, 1, 2)] == [0, 0, 1]
    assert [len(found[n].crowds) for n in (0, 1, 2)] == [1, 1, 0]


def test_pictures_of_one_name_in_other_folders_are_others(cfg, data, truth, tmp_path):
    elsewhere = {**data.unlabeled[0], "file_name": str(tmp_path / "other" / "0.png")}
    found = load_truth(cfg, [elsewhere, data.unlabeled[1]], data.thing_classes)
    assert set(found) == {1}


def test_labels_are_measured_after_each_step(cfg, data, truth, caplog):
    measure = LabelTruth(cfg, 1, data)
    found = {n: detections((0, 0, 10, 10, 0.9, 0)) for n in range(4)}
    with caplog.at_level(logging.INFO, logger="d2_ssod"):
        build_pseudo_labels(
            [found, found], np.array([1.0, 1.0]), fraction=0.75, observe=measure.observe
        )
    assert list(measure.found) == ["model 0", "model 1", "consensus", "selected"]
    assert measure.found["consensus"]["precision"] == 1
    assert measure.found["consensus"]["boxes"] == 1  # two are in crowds, of one nothing is known
    assert "Phase 1, true labels: selected: precision 1.00" in caplog.text


def test_without_a_truth_nothing_is_measured(cfg, data):
    measure = LabelTruth(cfg, 1, data)
    measure.observe("consensus", {0: detections((0, 0, 10, 10, 0.9, 0))})
    assert measure.found == {}


def test_a_truth_that_is_none_is_named(cfg, data, truth):
    cfg.SSOD.DIAGNOSTICS.UNLABELED_TRUTH = "no_such_set"
    with pytest.raises(ConfigError, match=r"UNLABELED_TRUTH: .*'no_such_set'"):
        load_truth(cfg, data.unlabeled, data.thing_classes)
    cfg.SSOD.DIAGNOSTICS.UNLABELED_TRUTH = TRUTH
    for image in truth:
        image["file_name"] += ".other"
    with pytest.raises(ConfigError, match="none of the unlabeled images"):
        load_truth(cfg, data.unlabeled, data.thing_classes)
    MetadataCatalog.pop(TRUTH)
    MetadataCatalog.get(TRUTH).thing_classes = ["dog", "cat"]
    with pytest.raises(ConfigError, match=r"other classes than DATASETS.TRAIN: the same names in"):
        load_truth(cfg, data.unlabeled, data.thing_classes)


def test_truth_is_found_by_a_link(cfg, data, truth, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    linked = [
        {**image, "file_name": str(tmp_path / "link" / f"{n}.png")}
        for n, image in enumerate(data.unlabeled)
    ]
    assert set(load_truth(cfg, linked, data.thing_classes)) == {0, 1, 2}


def test_what_helps_a_vanished_class_depends_on_the_selected_images(cfg, data, caplog):
    judge(cfg, 2, labels_of(0, 0, 0, 0), data)  # of all images
    assert "train phase 0 longer, or label more of them" in caplog.text
