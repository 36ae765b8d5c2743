"""What a run has taken from elsewhere, when it is gone on with."""

import json
import logging
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from runs import bare_config
from torch import nn

from d2_ssod.artifacts import (
    RunFolder,
    TakenFrom,
    digest_of_file,
    has_learned_unlabeled,
    record_training,
    save_classes,
    write_taken_from,
)
from d2_ssod.engine import adoption, train_phases
from d2_ssod.engine.adoption import adopt_phase_0, adopt_pseudo_labels
from d2_ssod.engine.labeling.corrections import load_corrected
from d2_ssod.engine.labeling.extra_sources import check_extra_sources
from d2_ssod.engine.run_data import RunData
from d2_ssod.errors import ConfigError
from d2_ssod.json_files import write_json

NO_IMAGES = RunData([], [], np.zeros(1), ["cat"], [1])


@pytest.fixture
def cfg(tmp_path):
    """Of a run whose phase 0 and labels of phase 1 are there."""
    cfg = bare_config(tmp_path / "run")
    folder = RunFolder(cfg.OUTPUT_DIR)
    for path in (folder.phase(0).model, folder.phase(1).pseudo_labels):
        path.parent.mkdir(parents=True)
        path.write_text("made here")
    (tmp_path / "elsewhere").write_text("from elsewhere")
    (tmp_path / "other").write_text("other")
    return cfg


def note_taken(cfg, path):
    write_taken_from(RunFolder(cfg.OUTPUT_DIR).phase(0), TakenFrom(str(path), digest_of_file(path)))


def test_phase_0_stays_what_it_was_taken_from(cfg, tmp_path):
    note_taken(cfg, tmp_path / "elsewhere")
    shutil.copy(tmp_path / "elsewhere", tmp_path / "copy")
    for name in ("elsewhere", "copy", "gone"):
        cfg.SSOD.START.PHASE_0 = str(tmp_path / name)
        adopt_phase_0(cfg, ["cat"])
    cfg.SSOD.START.PHASE_0 = str(tmp_path / "other")
    with pytest.raises(ConfigError, match=r"SSOD\.START\.PHASE_0.*taken from .*elsewhere") as info:
        adopt_phase_0(cfg, ["cat"])
    assert "SSOD.RESUME_ANYWAY" in str(info.value)
    cfg.SSOD.RESUME_ANYWAY = True
    adopt_phase_0(cfg, ["cat"])


def test_phase_0_that_was_trained_is_not_taken_from_elsewhere(cfg, tmp_path):
    files = RunFolder(cfg.OUTPUT_DIR).phase(0)
    cfg.SSOD.START.PHASE_0 = str(tmp_path / "elsewhere")
    adopt_phase_0(cfg, ["cat"])  # not known: of an older version
    files.trained_with.touch()
    with pytest.raises(ConfigError, match=r"it was trained in this run, .*PHASE_0 '' goes on"):
        adopt_phase_0(cfg, ["cat"])
    shutil.copy(files.model, tmp_path / "copy")
    for same in (files.model, tmp_path / "copy"):
        cfg.SSOD.START.PHASE_0 = str(same)
        adopt_phase_0(cfg, ["cat"])


def test_what_was_said_of_an_earlier_model_is_not_said_of_the_one_taken(tmp_path, monkeypatch):
    cfg = bare_config(tmp_path / "run")
    folder = RunFolder(cfg.OUTPUT_DIR)
    files = folder.phase(0)
    files.folder.mkdir(parents=True)
    old = [files.trained_with, files.validation, files.labeled_predictions, folder.validation]
    for path in old:
        path.touch()
    results = {"dataset": "test", "phases": [{"phase": 0, "metrics": {}}], "ensembles": {}}
    old += [folder.summary(), folder.summary("more")]
    for path in old[-2:]:
        write_json(path, results)
    write_json(folder.summary("none"), results | {"phases": [{"phase": 1, "metrics": {}}]})
    files.partial_predictions.mkdir()
    cfg.SSOD.START.PHASE_0 = str(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").touch()
    monkeypatch.setattr(adoption, "load_model", lambda cfg, path: nn.Linear(1, 1))
    adopt_phase_0(cfg, ["cat"])
    assert files.model.exists()
    assert files.taken_from.exists()
    assert not any(path.exists() for path in [*old, files.partial_predictions])
    assert folder.summary("none").exists()


@pytest.mark.parametrize("name", ["phase_0/model_final.pth", "model_best.pth"])
def test_a_model_of_other_classes_is_not_taken(tmp_path, monkeypatch, name):
    monkeypatch.setattr(adoption, "load_model", lambda cfg, path: nn.Linear(1, 1))
    cfg = bare_config(tmp_path / "run")
    other = RunFolder(tmp_path / "other")
    other.phase(0).folder.mkdir(parents=True)
    (other.root / name).touch()
    save_classes(other, ["dog", "cat"])
    cfg.SSOD.START.PHASE_0 = str(other.root / name)
    with pytest.raises(ConfigError, match="in another order, 'dog', 'cat' instead of 'cat', 'dog'"):
        adopt_phase_0(cfg, ["cat", "dog"])
    adopt_phase_0(cfg, ["dog", "cat"])


PARTS = {
    "SSD": ["MODEL.META_ARCHITECTURE", "SSD"],
    "RETINANET": ["MODEL.META_ARCHITECTURE", "RetinaNet"],
    "FPN": ["MODEL.BACKBONE.NAME", "build_resnet_fpn_backbone"],
    "RESNETS": ["MODEL.BACKBONE.NAME", "build_resnet_fpn_backbone"],
    "ROI_BOX_CASCADE_HEAD": ["MODEL.ROI_HEADS.NAME", "UncertaintyCascadeROIHeads"],
}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("MODEL.PIXEL_MEAN", [1.0, 2.0, 3.0]),
        ("MODEL.ANCHOR_GENERATOR.SIZES", [[8, 16, 24, 48, 96]]),
        ("INPUT.FORMAT", "RGB"),
        ("MODEL.PIXEL_STD", [1.0, 2.0, 3.0]),
        ("MODEL.RPN.BBOX_REG_WEIGHTS", (2.0, 2.0, 1.0, 1.0)),
        ("MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS", (1.0, 1.0, 1.0, 1.0)),
        ("MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS", ((1.0, 1.0, 1.0, 1.0),) * 3),
        ("MODEL.ROI_HEADS.IN_FEATURES", ["p3"]),
        ("MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION", 7),
        ("MODEL.FPN.FUSE_TYPE", "avg"),
        ("MODEL.RESNETS.STRIDE_IN_1X1", False),
        ("MODEL.SSD.SIZE", 160),
        ("MODEL.SSD.SCALES", [0.3, 0.5, 0.7]),
        ("MODEL.SSD.ASPECT_RATIOS", [[5], [5]]),
        ("MODEL.SSD.STEPS", []),
        ("MODEL.RETINANET.BBOX_REG_WEIGHTS", (10.0, 10.0, 5.0, 5.0)),
        ("MODEL.RETINANET.IN_FEATURES", ["p3"]),
    ],
)
def test_a_model_that_sees_pictures_in_another_way_is_not_taken(tmp_path, monkeypatch, key, value):
    monkeypatch.setattr(adoption, "load_model", lambda cfg, path: nn.Linear(1, 1))
    other = RunFolder(tmp_path / "other")
    other.phase(0).folder.mkdir(parents=True)
    configs = bare_config(other.root), bare_config(tmp_path / "run")
    for cfg in configs:
        cfg.merge_from_list(PARTS.get(key.split(".")[1], []))
    record_training(configs[0], 0, [], other)
    other.phase(0).model.touch()
    cfg.SSOD.START.PHASE_0 = str(other.phase(0).model)
    cfg.merge_from_list([key, value])
    with pytest.raises(ConfigError, match=rf"is of another model than .*: {key} was"):
        adopt_phase_0(cfg, ["cat"])


@pytest.mark.parametrize("unlabeled", [[], [{"file_name": "u.png"}]])
def test_whether_a_model_has_learned_from_unlabeled_images_is_noted(
    tmp_path, monkeypatch, unlabeled
):
    monkeypatch.setattr(adoption, "load_model", lambda cfg, path: nn.Linear(1, 1))
    other, cfg = RunFolder(tmp_path / "other"), bare_config(tmp_path / "run")
    record_training(bare_config(other.root), 0, [], other, unlabeled)
    other.phase(0).model.touch()
    cfg.SSOD.START.PHASE_0 = str(other.phase(0).model)
    taken = RunFolder(cfg.OUTPUT_DIR).phase(0)
    taken.folder.mkdir(parents=True)
    adopt_phase_0(cfg, ["cat"])
    assert has_learned_unlabeled(taken) is bool(unlabeled)


def test_what_the_best_model_of_a_run_has_learned_from_is_that_of_its_phase(tmp_path, monkeypatch):
    monkeypatch.setattr(adoption, "load_model", lambda cfg, path: nn.Linear(1, 1))
    other, best = RunFolder(tmp_path / "other"), RunFolder(tmp_path / "other").best
    for phase in (0, 1):
        other.phase(phase).folder.mkdir(parents=True)
        other.phase(phase).model.write_text(f"of phase {phase}")
        if phase > 0:
            other.phase(phase).pseudo_labels.write_text('{"images": [], "annotations": []}')
        record_training(bare_config(other.root), phase, [], other)
    for content, learned in (("of phase 0", False), ("of phase 1", True), ("of none", None)):
        best.write_text(content)
        cfg = bare_config(tmp_path / content)
        cfg.SSOD.START.PHASE_0 = str(best)
        taken = RunFolder(cfg.OUTPUT_DIR).phase(0)
        taken.folder.mkdir(parents=True)
        adopt_phase_0(cfg, ["cat"])
        assert has_learned_unlabeled(taken) is learned


@pytest.mark.parametrize("phase", [0, 1])  # that of phase 0 may be from elsewhere
def test_the_best_model_of_a_run_is_known_as_the_one_of_its_phase(tmp_path, monkeypatch, phase):
    monkeypatch.setattr(adoption, "load_model", lambda cfg, path: nn.Linear(1, 1))
    other = RunFolder(tmp_path / "other")
    save_classes(other, ["cat"])
    other.phase(0).folder.mkdir()
    record_training(bare_config(other.root), phase, [], other)
    for path in (other.root / "model_best.pth", other.phase(0).model):
        path.touch()
    (tmp_path / "link.pth").symlink_to(other.root / "model_best.pth")
    cfg = bare_config(tmp_path / "run")
    cfg.MODEL.PIXEL_MEAN = [1.0, 2.0, 3.0]
    for path in (other.root / "model_best.pth", tmp_path / "link.pth", other.phase(0).model):
        cfg.SSOD.START.PHASE_0 = str(path)
        with pytest.raises(ConfigError, match=r"is of another model than .*PIXEL_MEAN was"):
            adopt_phase_0(cfg, ["cat"])


def test_the_classes_of_a_copy_in_the_runs_own_folder_are_not_known(tmp_path, monkeypatch, caplog):
    """What lies there is of this run, which has just begun."""
    monkeypatch.setattr(adoption, "load_model", lambda cfg, path: nn.Linear(1, 1))
    cfg = bare_config(tmp_path)
    save_classes(RunFolder(tmp_path), ["cat"])
    (tmp_path / "copy.pth").touch()
    cfg.SSOD.START.PHASE_0 = str(tmp_path / "copy.pth")
    adopt_phase_0(cfg, ["cat"])
    assert "they are taken to be cat, in this order" in caplog.text


def test_that_the_classes_of_a_model_are_not_known_is_said(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(adoption, "load_model", lambda cfg, path: nn.Linear(1, 1))
    cfg = bare_config(tmp_path / "run")
    RunFolder(cfg.OUTPUT_DIR).phase(0).folder.mkdir(parents=True)
    (tmp_path / "elsewhere").touch()
    cfg.SSOD.START.PHASE_0 = str(tmp_path / "elsewhere")
    adopt_phase_0(cfg, ["cat", "dog"])
    assert "they are taken to be cat, dog, in this order" in caplog.text


def test_a_model_that_is_gone_may_be_taken_again(cfg, tmp_path, monkeypatch):
    files = RunFolder(cfg.OUTPUT_DIR).phase(0)
    cfg.SSOD.START.PHASE_0 = str(tmp_path / "elsewhere")
    note_taken(cfg, tmp_path / "elsewhere")
    for path in (files.predictions, files.validation):
        path.touch()
    files.model.unlink()
    monkeypatch.setattr(adoption, "load_model", lambda cfg, path: nn.Linear(1, 1))
    adopt_phase_0(cfg, ["cat"])
    assert files.model.exists()
    assert files.validation.exists()


def test_a_model_is_not_taken_beside_what_another_has_made(tmp_path, monkeypatch):
    monkeypatch.setattr(adoption, "load_model", lambda cfg, path: nn.Linear(1, 1))
    cfg = bare_config(tmp_path / "run")
    files = RunFolder(cfg.OUTPUT_DIR).phase(0)
    files.folder.mkdir(parents=True)
    files.predictions.touch()
    cfg.SSOD.START.PHASE_0 = str(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").touch()
    with pytest.raises(ConfigError, match=r"predictions\.json: made with .*does not exist"):
        train_phases(cfg, NO_IMAGES)
    assert not files.model.exists()


def test_labels_that_are_not_read_are_said(cfg, tmp_path, caplog):
    cfg.SSOD.PSEUDO_LABEL.FROM = str(RunFolder(cfg.OUTPUT_DIR).phase(1).pseudo_labels)
    with caplog.at_level(logging.WARNING):
        adopt_pseudo_labels(cfg, None)
        assert not caplog.records
        cfg.SSOD.PSEUDO_LABEL.FROM = str(tmp_path / "elsewhere")
        adopt_pseudo_labels(cfg, None)
    assert "which are not read" in caplog.text


@pytest.mark.parametrize(
    ("key", "take"),
    [
        ("SSOD.START.PHASE_0", lambda cfg: adopt_phase_0(cfg, ["cat"])),
        ("SSOD.PSEUDO_LABEL.FROM", lambda cfg: adopt_pseudo_labels(cfg, NO_IMAGES)),
        ("SSOD.PSEUDO_LABEL.CORRECTED", lambda cfg: load_corrected(cfg, NO_IMAGES)),
        ("SSOD.CONSENSUS.EXTRA_SOURCES", lambda cfg: check_extra_sources(cfg, NO_IMAGES)),
    ],
)
def test_what_is_no_file_is_named_with_its_key(tmp_path, key, take):
    cfg = bare_config(tmp_path)
    # A person's labels may be a folder of files.
    for path in ("none",) if key.endswith("CORRECTED") else (str(tmp_path), "none"):
        cfg.merge_from_list([key, [path] if key.endswith("SOURCES") else path])
        with pytest.raises(ConfigError, match=f"^{key} is {path}, which is not a file"):
            take(cfg)


def test_nobody_is_told_to_delete_what_is_damaged_of_another_run(tmp_path, monkeypatch):
    monkeypatch.setattr(adoption, "load_model", lambda cfg, path: nn.Linear(1, 1))
    other = RunFolder(tmp_path / "other")
    other.phase(0).folder.mkdir(parents=True)
    other.phase(0).model.touch()
    cfg = bare_config(tmp_path / "run")
    cfg.SSOD.START.PHASE_0 = str(other.phase(0).model)
    for text in ("{", '{"settings": {}}'):
        other.phase(0).trained_with.write_text(text)
        with pytest.raises(ConfigError, match=r"trained_with\.json: .*; restore it$"):
            adopt_phase_0(cfg, ["cat"])


def test_what_was_said_of_one_model_that_was_taken_is_not_said_of_another(
    cfg, tmp_path, monkeypatch
):
    files = RunFolder(cfg.OUTPUT_DIR).phase(0)
    note_taken(cfg, tmp_path / "elsewhere")
    for path in (files.model, RunFolder(cfg.OUTPUT_DIR).phase(1).pseudo_labels):
        path.unlink()
    for path in (files.validation, files.predictions_source):
        path.touch()
    monkeypatch.setattr(adoption, "load_model", lambda cfg, path: nn.Linear(1, 1))
    cfg.SSOD.START.PHASE_0 = str(tmp_path / "other")
    adopt_phase_0(cfg, ["cat"])
    assert not files.validation.exists()
    assert not files.predictions_source.exists()
    assert json.loads(files.taken_from.read_text())["path"] == str(tmp_path / "other")


def test_phase_0_may_be_named_by_its_own_file(cfg, tmp_path):
    """Which is not the very file that it was taken from, as it is written anew."""
    note_taken(cfg, tmp_path / "elsewhere")
    cfg.SSOD.START.PHASE_0 = str(RunFolder(cfg.OUTPUT_DIR).phase(0).model)
    adopt_phase_0(cfg, ["cat"])


def test_labels_that_were_taken_need_their_file_no_more(cfg, tmp_path, caplog):
    cfg.SSOD.PSEUDO_LABEL.FROM = str(tmp_path / "gone")
    adopt_pseudo_labels(cfg, NO_IMAGES)
    assert not caplog.records


def test_labels_of_a_phase_that_there_is_not_are_not_taken(cfg, tmp_path):
    files = RunFolder(cfg.OUTPUT_DIR).phase(1)
    files.pseudo_labels.unlink()
    cfg.SSOD.NUM_PHASES = 0
    for name in ("gone", "elsewhere"):
        cfg.SSOD.PSEUDO_LABEL.FROM = str(tmp_path / name)
        adopt_pseudo_labels(cfg, NO_IMAGES)
        assert not files.pseudo_labels.exists()


@pytest.mark.parametrize(("filters", "learned"), [(True, 1), (False, 2)])
def test_images_that_a_person_has_found_empty_are_taken_where_labeled_ones_are(
    tmp_path, caplog, filters, learned
):
    cfg = bare_config(tmp_path / "run")
    cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = filters
    cfg.SSOD.PSEUDO_LABEL.FROM = str(tmp_path / "labels.json")
    images = [{"id": n, "file_name": f"{n}.png", "corrected": 1} for n in (1, 2)]
    objects = [{"id": 1, "image_id": 1, "category_id": 5, "bbox": [1, 2, 3, 4]}]
    categories = [{"id": 5, "name": "cat"}]
    content = {"images": images, "categories": categories, "annotations": objects}
    write_json(tmp_path / "labels.json", content)
    unlabeled = [
        {"file_name": f"/data/{n}.png", "image_id": n, "width": 9, "height": 9} for n in (1, 2)
    ]
    manifest = RunFolder(cfg.OUTPUT_DIR).phase(1).manifest
    write_json(manifest, {})  # of labels that were deleted
    with caplog.at_level(logging.INFO):
        adopt_pseudo_labels(cfg, SimpleNamespace(unlabeled=unlabeled, thing_classes=["cat"]))
    assert f"Phase 1 trains on the labels of {learned} images in " in caplog.text
    assert not manifest.exists()


def test_labels_without_objects_are_not_taken(tmp_path):
    cfg = bare_config(tmp_path / "run")
    cfg.SSOD.PSEUDO_LABEL.FROM = str(tmp_path / "labels.json")
    write_json(tmp_path / "labels.json", {"images": [], "categories": [], "annotations": []})
    with pytest.raises(ConfigError, match=r"labels\.json has no objects on unlabeled images"):
        adopt_pseudo_labels(cfg, NO_IMAGES)
    assert not RunFolder(cfg.OUTPUT_DIR).phase(1).pseudo_labels.exists()
