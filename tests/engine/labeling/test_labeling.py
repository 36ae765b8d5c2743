"""What the labels of a phase are made by: the config's keys, and the predictions on disk."""

import dataclasses
import json
import logging

import numpy as np
import pytest
import runs
from detectron2.structures import BoxMode
from samples import detections

from d2_ssod.artifacts import (
    RunFolder,
    digest_of_file,
    keep_partial_predictions,
    prediction_source,
    save_predictions,
    save_pseudo_labels,
)
from d2_ssod.engine import multi_phase
from d2_ssod.engine.labeling import next_phase, predicting
from d2_ssod.engine.labeling.corrections import (
    describe_corrected,
    load_corrected,
    read_corrected,
    say_corrected,
    unused_corrections,
)
from d2_ssod.engine.run_data import RunData
from d2_ssod.errors import ConfigError
from d2_ssod.json_files import write_json
from d2_ssod.pseudo_label import LABEL_RULES, Consensus, LabelRule, Tiers

OBJECT = {"bbox": [0, 0, 9, 9], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0}
# Another labeled image has no object, and is not trained on.
DATA = RunData(
    labeled=[{"file_name": "l.png", "image_id": 1, "annotations": [OBJECT] * 3}],
    unlabeled=[
        {"file_name": f"{i}.png", "image_id": i, "width": 100, "height": 80} for i in (1, 2)
    ],
    objects_per_image=np.array([1.5]),
    thing_classes=["cat"],
    category_ids=[7],
)


def test_labels_are_made_by_the_configs_keys(tmp_path, monkeypatch):
    cfg = runs.bare_config(tmp_path)
    keys = {"NUM_PHASES": 2, "EASY_FRACTIONS": [0.3, 0.9], "SELECTION": "class_balanced"}
    keys |= {"PSEUDO_LABEL.KEEP_FRACTION": 0.5, "CONSENSUS.IOU_THRESH": 0.7}
    cfg.merge_from_list([part for k, v in keys.items() for part in (f"SSOD.{k}", v)])
    for phase in (0, 1):
        path = RunFolder(tmp_path).phase(phase).predictions
        path.parent.mkdir()
        save_predictions(path, {1: detections((0, 0, 9, 9 + phase, 0.5, 0))}, [7])
    given, build = {}, next_phase.build_pseudo_labels

    def watched(sources, target, **keys):
        given.update(keys, heights=[s[1].boxes[0, 3] for s in sources], target=target.tolist())
        return build(sources, target, **keys)

    monkeypatch.setattr(next_phase, "build_pseudo_labels", watched)
    next_phase._make_pseudo_labels(cfg, 2, DATA)
    assert given.pop("observe")
    assert given == {
        "heights": [9, 10],  # oldest first
        "target": [1.5],
        "fraction": 0.9,
        "rule": Consensus(iou_thresh=0.7),
        "keep_fraction": 0.5,
        "selection_rule": "class_balanced",
    }


def label_by(rule, tmp_path, monkeypatch):
    monkeypatch.setitem(LABEL_RULES, "mine", rule)
    cfg = runs.bare_config(tmp_path)
    cfg.SSOD.LABELS, cfg.SSOD.NUM_PHASES = "mine", 1
    path = RunFolder(tmp_path).phase(0).predictions
    path.parent.mkdir(exist_ok=True)
    save_predictions(path, {2: detections((0, 0, 9, 9, 0.25, 0))}, [7])
    next_phase._make_pseudo_labels(cfg, 1, DATA)
    return json.loads(RunFolder(tmp_path).phase(1).pseudo_labels.read_text())["annotations"]


def test_labels_are_made_by_a_rule_of_ones_own(tmp_path, monkeypatch):
    rule = LabelRule(lambda cfg: lambda sources: sources.raw[0])
    (label,) = label_by(rule, tmp_path, monkeypatch)
    assert (label["image_id"], label["score"]) == (2, 0.25)


def test_a_rule_that_does_not_say_that_it_has_tiers_is_refused(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="'mine' gives labels in tiers: say so by has_tiers"):
        label_by(LabelRule(Tiers.from_config), tmp_path, monkeypatch)
    assert not RunFolder(tmp_path).phase(1).pseudo_labels.exists()


@pytest.mark.parametrize("box", [(100, 0, 120, 9), (0, 80, 9, 99), (-9, 0, 0, 9), (0, -9, 9, 0)])
def test_labels_beyond_their_image_are_refused_before_they_are_written(tmp_path, monkeypatch, box):
    made = {1: detections((0, 0, 100, 80, 0.5, 0)), 2: detections((*box, 0.5, 0))}
    with pytest.raises(ConfigError, match=r"^1 labels lie outside .* as in 2\.png: .*SSOD\.LABELS"):
        label_by(LabelRule(lambda cfg: lambda sources: made), tmp_path, monkeypatch)
    assert not RunFolder(tmp_path).phase(1).pseudo_labels.exists()


def test_what_goes_wrong_while_labels_are_made_is_known_to_all_ranks(tmp_path, monkeypatch):
    """By on_main_process, which tells them (test_agreement)."""
    depths, depth = [], 0

    def on_main_process(function):
        nonlocal depth
        depth += 1
        try:
            return function()
        finally:
            depth -= 1

    monkeypatch.setattr(next_phase, "on_main_process", on_main_process)
    monkeypatch.setattr(next_phase, "predict_unlabeled", lambda *_: None)
    monkeypatch.setattr(next_phase, "_make_pseudo_labels", lambda *_: depths.append(depth))
    next_phase.label_next_phase(runs.bare_config(tmp_path), 0, DATA)
    assert depths == [1]


def test_a_teacher_expects_the_objects_of_images_that_have_some(tmp_path, monkeypatch):
    class Seen(Exception):
        pass

    class Trainer:
        def __init__(self, *_):
            pass

        def learn_from_teacher(self, objects):
            raise Seen(objects.tolist())

    cfg = runs.bare_config(tmp_path)
    cfg.merge_from_list(["SSOD.NUM_PHASES", 1, "SSOD.TEACHER.ENABLED", True])
    monkeypatch.setattr(multi_phase, "read_pseudo_labels", lambda *_: [])
    with pytest.raises(Seen, match=r"3\.0"):
        multi_phase._train_phase(cfg, 1, DATA, Trainer)


def test_methods_of_ones_own_trainer_that_are_not_called_are_said(tmp_path, monkeypatch, caplog):
    class Trainer(multi_phase.PhaseTrainer):
        def build_train_loader(cls, cfg):
            """Not called."""

        @classmethod
        def build_model(cls, cfg):
            """Called in training alone."""

        @classmethod
        def build_mapper(cls, cfg):
            """Called."""

    def begin(cfg, data):
        raise NotImplementedError

    monkeypatch.setattr(multi_phase, "begin", begin)
    for trainer in (Trainer, multi_phase.PhaseTrainer):
        with pytest.raises(NotImplementedError):
            multi_phase.train_phases(runs.bare_config(tmp_path), DATA, trainer)
    not_called, in_training = caplog.messages
    assert not_called.startswith("build_train_loader of Trainer will not be called")
    assert in_training.startswith("build_model of Trainer is called in training alone")


@pytest.mark.parametrize(("tta", "is_noted"), [(False, True), (True, True), (False, False)])
def test_unlabeled_images_are_predicted_as_the_config_says(tmp_path, monkeypatch, tta, is_noted):
    cfg, given = runs.bare_config(tmp_path), {}
    cfg.SSOD.TTA.ENABLED = tta
    files = RunFolder(tmp_path).phase(0)
    with keep_partial_predictions(files.partial_predictions) as keep:
        keep({2: detections()})
    if is_noted:  # or nothing tells what was predicted, and how
        write_json(files.predictions_source, prediction_source(cfg, DATA.unlabeled))

    def predict(model, loader, **_):
        given["model"] = model
        return {1: detections()} if is_noted else {1: detections(), 2: detections()}

    def build_loader(cfg, images, **keys):
        given.update(keys, images=[image["image_id"] for image in images])

    monkeypatch.setattr(predicting, "GeneralizedRCNNWithTTA", lambda cfg, model: ("tta", model))
    monkeypatch.setattr(predicting, "predict", predict)
    monkeypatch.setattr(predicting, "build_inference_loader", build_loader)
    predicting._predict_remaining(cfg, 0, DATA, "model")
    assert given.pop("model") == (("tta", "model") if tta else "model")
    assert list(given.pop("done")) == ([2] if is_noted else [])
    assert given == {"images": [1, 2], "original_size": tta}


def test_parts_that_a_kill_has_left_beside_whole_predictions_are_deleted(tmp_path):
    cfg = runs.bare_config(tmp_path)
    files = RunFolder(tmp_path).phase(0)
    with keep_partial_predictions(files.partial_predictions) as keep:
        keep({2: detections()})
    files.predictions.touch()
    predicting.predict_unlabeled(cfg, 0, DATA)
    assert not files.partial_predictions.exists()


def test_corrected_boxes_that_are_corners_are_refused(tmp_path):
    path, cfg = tmp_path / "corrected.json", runs.bare_config(tmp_path)
    boxes = [[60 + n, 40, 90, 75] for n in range(12)]
    content = {
        "images": [{"id": 1, "file_name": "1.png"}],
        "categories": [{"id": 7, "name": "cat"}],
        "annotations": [{"image_id": 1, "category_id": 7, "bbox": bbox} for bbox in boxes],
    }
    path.write_text(json.dumps(content))
    cfg.SSOD.PSEUDO_LABEL.CORRECTED = str(path)
    with pytest.raises(ConfigError, match=r"CORRECTED \(.*corrected\.json\).*x0, y0, x1, y1"):
        load_corrected(cfg, DATA)


def test_boxes_that_a_person_has_left_as_proposed_are_sure(tmp_path):
    path, cfg = tmp_path / "corrected.json", runs.bare_config(tmp_path)
    box = {"image_id": 1, "category_id": 7, "bbox": [1, 2, 9, 9], "score": 0.4}
    content = {"images": [{"id": 1, "file_name": "1.png", "corrected": True}]}
    content |= {"categories": [{"id": 7, "name": "cat"}], "annotations": [box]}
    path.write_text(json.dumps(content))
    cfg.SSOD.PSEUDO_LABEL.CORRECTED = str(path)
    assert load_corrected(cfg, DATA)[1].scores.tolist() == [1]


def test_crowds_that_a_person_has_drawn_are_said(tmp_path, caplog):
    path, cfg = tmp_path / "corrected.json", runs.bare_config(tmp_path)
    content = {
        "images": [{"id": 1, "file_name": "1.png"}],
        "categories": [{"id": 7, "name": "cat"}],
        "annotations": [{"image_id": 1, "category_id": 7, "bbox": [1, 2, 9, 9], "iscrowd": 1}],
    }
    path.write_text(json.dumps(content))
    cfg.SSOD.PSEUDO_LABEL.CORRECTED = str(path)
    assert [len(found) for found in load_corrected(cfg, DATA).values()] == [0]
    assert "corrected.json): 1 of 1 annotations are crowds" in caplog.text


@pytest.mark.parametrize("corrected", [{}, {1: detections((0, 0, 9, 9, 1.0, 0))}])
def test_changes_in_place_are_said_to_hold_for_one_phase(tmp_path, caplog, corrected):
    """Where there are no corrections by file, which are there to stay."""
    caplog.set_level(logging.WARNING, "d2_ssod")
    cfg, files = runs.bare_config(tmp_path), RunFolder(tmp_path).phase(1)
    of_models = {n: detections((0, 0, 9, 9, 0.5, 0)) for n in (1, 2)}
    write_json(files.manifest, {})
    save_pseudo_labels(files.pseudo_labels, of_models, DATA.unlabeled, ["cat"], [7])
    say_corrected(cfg, 2, DATA, corrected)  # an earlier version has not noted what it wrote
    write_json(files.manifest, {"pseudo_labels_sha256": digest_of_file(files.pseudo_labels)})
    say_corrected(cfg, 2, DATA, corrected)
    assert not caplog.records
    other = {**of_models, 2: detections((0, 0, 8, 9, 1.0, 0))}
    save_pseudo_labels(files.pseudo_labels, other, DATA.unlabeled, ["cat"], [7])
    say_corrected(cfg, 2, DATA, corrected)
    assert ("which holds for its own phase alone" in caplog.text) == (not corrected)


def test_corrections_are_the_same_whatever_their_order_and_ids(tmp_path):
    cfg, files = runs.bare_config(tmp_path), RunFolder(tmp_path).phase(1)
    cfg.SSOD.NUM_PHASES, cfg.SSOD.PSEUDO_LABEL.CORRECTED = 1, "mine.json"
    both = {1: detections((0, 0, 9, 9, 1.0, 0)), 2: detections()}
    note = describe_corrected(cfg, both, DATA)
    write_json(files.pseudo_labels, {})
    renumbered = [{**image, "image_id": image["image_id"] + 10} for image in DATA.unlabeled]
    other = {12: both[2], 11: both[1]}
    of_other_ids = dataclasses.replace(DATA, unlabeled=renumbered)
    write_json(files.manifest, {"format_version": 2, "corrected": note})
    assert unused_corrections(cfg, other, of_other_ids) is None
    assert unused_corrections(cfg, {11: both[1]}, of_other_ids) is not None
    assert unused_corrections(cfg, {12: both[1], 11: both[2]}, of_other_ids) is not None
    del note["labels_sha256"]  # of an earlier version
    write_json(files.manifest, {"format_version": 2, "corrected": note})
    assert unused_corrections(cfg, both, DATA) is None
    assert unused_corrections(cfg, other, of_other_ids) is not None


def test_of_an_image_in_several_rounds_the_last_one_counts(tmp_path):
    cfg = runs.bare_config(tmp_path)
    cfg.SSOD.PSEUDO_LABEL.CORRECTED = str(tmp_path / "rounds")
    (tmp_path / "rounds").mkdir()
    with pytest.raises(ConfigError, match=r"rounds, a folder without JSON files: correct"):
        load_corrected(cfg, DATA)
    for number, widths in ((10, {2: 3}), (9, {1: 9, 2: 9}), (8, {1: 8})):
        found = {n: detections((0, 0, width, 9, 1.0, 0)) for n, width in widths.items()}
        path = tmp_path / "rounds" / f"{number}.json"
        save_pseudo_labels(path, found, DATA.unlabeled, ["cat"], [7])
    boxes = {n: found.boxes[:, 2].tolist() for n, found in load_corrected(cfg, DATA).items()}
    assert boxes == {1: [9], 2: [3]}


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({1: detections((0, 0, 9, 9, 0.4, 0))}, "all 1 boxes have a model's scores"),
        ({1: detections((0, 0, 9, 9, 0.4, 0), (0, 0, 5, 5, 1.0, 0))}, ""),
        ({1: detections(), 2: detections()}, "none of the 2 images has an object"),
        ({}, "none of the 0 images has an object"),
    ],
)
def test_corrections_in_which_nobody_seems_to_have_worked_are_said(tmp_path, found, said):
    cfg = runs.bare_config(tmp_path)
    cfg.SSOD.PSEUDO_LABEL.CORRECTED = str(tmp_path / "mine.json")
    save_pseudo_labels(tmp_path / "mine.json", found, DATA.unlabeled, ["cat"], [7])
    _, findings = read_corrected(cfg, DATA.unlabeled, ["cat"])
    assert [finding.cases for finding in findings] == ([(said,)] if said else [])


CORRECTED = {1: detections((0, 0, 9, 9, 1.0, 0))}


@pytest.mark.parametrize(
    ("phases", "manifest", "is_trained", "said"),
    [
        (0, None, False, None),
        (1, None, False, "is learned from as it was given (SSOD.PSEUDO_LABEL.FROM)"),
        (1, {}, False, "was made without the labels of mine.json"),
        (1, {}, True, None),  # those of phase 2 will be made with them
        (2, {}, True, "The labels of all phases are made already, without those of mine.json"),
        (2, "with them", True, None),
        (2, "with them", False, None),
    ],
)
def test_corrections_that_come_too_late_are_said(tmp_path, phases, manifest, is_trained, said):
    cfg, folder = runs.bare_config(tmp_path), RunFolder(tmp_path)
    cfg.SSOD.NUM_PHASES, cfg.SSOD.PSEUDO_LABEL.CORRECTED = 2, "mine.json"
    if manifest == "with them":
        manifest = {"corrected": describe_corrected(cfg, CORRECTED, DATA)}
    for phase in range(1, phases + 1):
        files = folder.phase(phase)
        write_json(files.pseudo_labels, {})
        if manifest is not None:
            write_json(files.manifest, manifest)
        write_json(files.trained_with, {})  # also where what was trained is gone since
        if is_trained:
            (files.folder / "model_0000001.pth").touch()
    line = unused_corrections(cfg, CORRECTED, DATA)
    assert (line is None) == (said is None)
    assert said is None or said in line


@pytest.mark.parametrize(
    ("version", "filters", "is_said"), [(1, False, True), (1, True, False), (2, False, False)]
)
def test_images_found_empty_that_an_earlier_version_left_out_are_said(
    tmp_path, version, filters, is_said
):
    cfg, files = runs.bare_config(tmp_path), RunFolder(tmp_path).phase(1)
    cfg.SSOD.NUM_PHASES, cfg.SSOD.PSEUDO_LABEL.CORRECTED = 1, "mine.json"
    cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = filters
    corrected = {**CORRECTED, 2: detections()}
    write_json(files.pseudo_labels, {})
    note = {"format_version": version, "corrected": describe_corrected(cfg, corrected, DATA)}
    write_json(files.manifest, note)
    line = unused_corrections(cfg, corrected, DATA) or ""
    assert ("was made without the labels of mine.json" in line) == is_said


def test_images_that_a_person_has_found_empty_are_counted(tmp_path):
    cfg = runs.bare_config(tmp_path)
    of_images = {1: detections((0, 0, 9, 9, 1.0, 0)), 2: detections(), 3: detections()}
    three = [{"image_id": n, "file_name": f"{n}.png"} for n in of_images]
    found = describe_corrected(cfg, of_images, dataclasses.replace(DATA, unlabeled=three))
    assert [found[name] for name in ("images", "boxes", "images_empty")] == [3, 1, 2]


def test_corrections_of_an_earlier_round_that_are_left_out_are_said(tmp_path, caplog):
    caplog.set_level(logging.WARNING, "d2_ssod")
    cfg = runs.bare_config(tmp_path)
    path = RunFolder(tmp_path).phase(1).pseudo_labels
    path.parent.mkdir()
    both = {n: detections((0, 0, 9, 9, 1.0, 0)) for n in (1, 2)}
    save_pseudo_labels(path, both, DATA.unlabeled, ["cat"], [7], corrected={1, 2})
    say_corrected(cfg, 2, DATA, both)
    assert not caplog.records
    say_corrected(cfg, 2, DATA, {1: both[1]})
    assert "Phase 2: 1 images of which phase 1 had a person's labels, such as 2.png" in caplog.text
    caplog.clear()
    for note, is_said in (({"corrected": {"images": 2}}, True), ({}, False)):
        write_json(path.with_name("manifest.json"), note)
        say_corrected(cfg, 2, DATA, {1: both[1]})
        assert bool(caplog.records) == is_said
        caplog.clear()
    path.with_name("manifest.json").write_text("damaged since, too")
    say_corrected(cfg, 2, DATA, {})
    assert not caplog.records
    path.with_name("manifest.json").unlink()
    path.write_text("damaged since it was learned from")
    say_corrected(cfg, 2, DATA, {})
    assert not caplog.records


@pytest.mark.parametrize("corrected", [{}, {2: detections((0, 0, 5, 5, 1.0, 0))}])
def test_labels_are_judged_before_they_are_written(tmp_path, monkeypatch, corrected):
    def stop(cfg, phase, labels, learned, data):
        raise ConfigError(f"{labels.num_boxes} labels of phase {phase}, on images {[*learned]}")

    said = []
    rule = LabelRule(lambda cfg: lambda sources: sources.raw[0])
    monkeypatch.setattr(next_phase, "load_corrected", lambda cfg, data: corrected)
    monkeypatch.setattr(next_phase, "say_corrected", lambda *given: said.append(given[1:]))
    with monkeypatch.context() as patch:
        patch.setattr(next_phase, "check_labels", stop)
        left = r"\[\]" if corrected else r"\[2\]"
        with pytest.raises(ConfigError, match=rf"^1 labels of phase 1, on images {left}$"):
            label_by(rule, tmp_path, patch)
    assert not RunFolder(tmp_path).phase(1).pseudo_labels.exists()
    label_by(rule, tmp_path, monkeypatch)
    assert RunFolder(tmp_path).phase(1).pseudo_labels.exists()
    assert said == [(1, DATA, corrected)]


@pytest.mark.parametrize(("images", "said"), [(1, "1 unlabeled images were added"), (3, "")])
def test_images_that_came_too_late_are_said_but_not_those_that_are_gone(tmp_path, images, said):
    cfg, folder = runs.bare_config(tmp_path), RunFolder(tmp_path)
    cfg.SSOD.NUM_PHASES = 1
    write_json(folder.phase(1).pseudo_labels, {})
    was = [{"file_name": f"{n}.png", "image_id": n} for n in range(1, images + 1)]
    write_json(folder.phase(0).predictions_source, prediction_source(cfg, was))
    assert (predicting.unused_images(cfg, DATA) or "").startswith(said)
    assert (predicting.unused_images(cfg, DATA) is None) == (said == "")
    # Which is all that it is read for now.
    folder.phase(0).predictions_source.write_text("damaged")
    predicting.check_existing_predictions(cfg, DATA)
    assert f"{folder.phase(0).predictions_source}: " in predicting.unused_images(cfg, DATA)
