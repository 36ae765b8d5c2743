import json
import logging

import pytest
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog
from detectron2.structures import BoxMode
from lookup import CLASS_OF_IMAGE, HALF, IMAGES, batches, finding, register_coco, write_coco

from d2_ssod.artifacts import (
    RunFolder,
    record_training,
    save_ensemble_validation,
    save_validation,
)
from d2_ssod.config import add_ssod_config
from d2_ssod.data.datasets import CocoFile
from d2_ssod.errors import ConfigError
from d2_ssod.evaluation import evaluate_run, run
from d2_ssod.json_files import write_json

FIRST, SECOND, LABELED = "lookup_first", "lookup_second", "lookup_labeled"


@pytest.fixture
def cfg(tmp_path, monkeypatch):
    """A finished run of two phases, whose models are looked up instead of loaded."""
    json_file = write_coco(tmp_path)
    truth = {image["image_id"]: image for image in CocoFile(json_file, "").read().images}
    for image in truth.values():
        image["annotations"][0]["category_id"] = CLASS_OF_IMAGE[image["image_id"]]
    box = {"bbox": [0, 0, 5, 5], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0}
    size = {"height": 9, "width": 9}
    images = {
        FIRST: [{**truth[image["image_id"]], **image} for image in IMAGES],
        SECOND: [truth[image["image_id"]] for image in IMAGES],
        LABELED: [
            {"file_name": f"{i}.png", "image_id": i, **size, "annotations": [box] * i}
            for i in range(3)
        ],
    }
    for name, dicts in images.items():
        register_coco(json_file, name)
        if name in DatasetCatalog.list():
            DatasetCatalog.remove(name)
        DatasetCatalog.register(name, lambda dicts=dicts: dicts)
    cfg = get_cfg()
    add_ssod_config(cfg)
    cfg.OUTPUT_DIR = str(tmp_path / "run")
    cfg.SSOD.NUM_PHASES = 1
    cfg.DATASETS.TRAIN = (LABELED,)
    cfg.DATASETS.TEST = (FIRST, SECOND)
    write_json(
        RunFolder(cfg.OUTPUT_DIR).phase(1).pseudo_labels,
        {
            "images": [{"id": 7}, {"id": 8}, {"id": 9}],
            "annotations": [{"image_id": image_id} for image_id in (7, 7, 9)],
        },
    )
    models = [finding(1), finding(1, 2, 3, shift=4)]
    monkeypatch.setattr(run, "load_phase_model", lambda cfg, phase: models[phase])
    monkeypatch.setattr(run, "build_inference_loader", lambda cfg, images: batches())
    return cfg


def summary_of(path):
    return json.loads(path.read_text())


def test_run_is_summarized_for_every_test_set(cfg, caplog):
    with caplog.at_level(logging.INFO, logger="d2_ssod"):
        returned = evaluate_run(cfg)
    folder = RunFolder(cfg.OUTPUT_DIR)
    first, second = summary_of(folder.summary()), summary_of(folder.summary(SECOND))
    assert [first["dataset"], second["dataset"]] == [FIRST, SECOND]
    assert returned["dataset"] == FIRST
    assert [phase["metrics"]["AP"] for phase in first["phases"]] == pytest.approx([HALF / 2, 40])
    assert list(first["ensembles"]) == ["1~N", "0~N"]
    # Of the first data set the difficulties are known.
    assert first["phases"][0]["metrics"]["AP/easy"] == pytest.approx(100)
    assert "AP/easy" not in second["phases"][0]["metrics"]
    assert caplog.text.count("phase 1 ") == 2  # both tables


def test_summary_counts_the_images_that_have_labels(cfg):
    zero, one = evaluate_run(cfg)["phases"]
    counts = ("labeled_images", "pseudo_images", "pseudo_boxes")
    assert [zero[key] for key in counts] == [2, 0, 0]
    assert [one[key] for key in counts] == [2, 2, 3]


def test_what_a_phase_was_trained_on_counts_also_where_it_has_changed_since(cfg):
    folder = RunFolder(cfg.OUTPUT_DIR)
    record_training(cfg, 1, [{"file_name": "1.png"}], folder)
    folder.phase(1).model.touch()
    content = json.loads(folder.phase(1).pseudo_labels.read_text())
    folder.phase(1).pseudo_labels.write_text(json.dumps({**content, "annotations": []}))
    zero, one = evaluate_run(cfg)["phases"]
    counts = ("labeled_images", "pseudo_images", "pseudo_boxes")
    assert [zero[key] for key in counts] == [2, 0, 0]  # of it nothing is known
    assert [one[key] for key in counts] == [1, 2, 3]
    folder.phase(1).model.unlink()  # to be trained anew, on what there is now
    assert [evaluate_run(cfg)["phases"][1][key] for key in counts] == [2, 0, 0]


def test_crowds_that_a_person_has_marked_are_no_objects_of_the_summary(cfg):
    path = RunFolder(cfg.OUTPUT_DIR).phase(1).pseudo_labels
    content = json.loads(path.read_text())
    content["annotations"][0]["iscrowd"] = 1
    path.write_text(json.dumps(content))
    assert evaluate_run(cfg)["phases"][1]["pseudo_boxes"] == 2


def test_labeled_images_without_objects_count_where_they_are_trained_on(cfg):
    cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = False
    assert [phase["labeled_images"] for phase in evaluate_run(cfg)["phases"]] == [3, 3]


def test_run_is_fused_as_the_config_says(cfg):
    assert evaluate_run(cfg)["ensembles"]["0~N"]["AP"] < 80
    cfg.SSOD.ENSEMBLE.SKIP_BOX_THRESH = 0.95
    assert evaluate_run(cfg)["ensembles"]["0~N"]["AP"] == 0


@pytest.mark.parametrize("name", ["phase_1/pseudo_labels.json", "summary.json"])
def test_a_damaged_file_is_named_before_anything_is_evaluated(cfg, monkeypatch, name):
    monkeypatch.setattr(run, "evaluate_phases", pytest.fail)
    (RunFolder(cfg.OUTPUT_DIR).root / name).write_text("[")
    with pytest.raises(ConfigError, match=rf"{name}: "):
        evaluate_run(cfg)


def test_without_test_images_the_table_is_of_the_validation_images(cfg, caplog):
    cfg.DATASETS.TEST, cfg.DATASETS.VAL = (), (FIRST, SECOND)
    folder = RunFolder(cfg.OUTPUT_DIR)
    with caplog.at_level(logging.INFO, logger="d2_ssod"):
        assert evaluate_run(cfg) is None
        for phase in (0, 1):
            save_validation(folder, phase, {"AP": 20.0 + phase, "AP50": 40.0})
        save_ensemble_validation(folder, 1, {"0~N": {"AP": 23.25, "AP50": 41.0}})
        assert evaluate_run(cfg) is None
    nothing, again, table = caplog.messages
    assert nothing == again == "DATASETS.TEST names no data set: nothing is tested"
    title, headings, _, *rows = table.splitlines()
    assert title == "Results on the validation images:"
    assert headings.split() == ["while", "training", "AP", "AP50"]
    assert [row.split() for row in rows] == [
        ["phase", "0", "20.0", "40.0"],
        ["phase", "1", "21.0", "40.0"],
        ["ensemble", "0~1", "23.2", "41.0"],
    ]
