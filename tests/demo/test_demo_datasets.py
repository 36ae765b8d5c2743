import json
import os

import pytest
from catalogs import registered_anew
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.detection_utils import read_image

from d2_ssod.demo import digit_scenes, register_digit_scenes
from d2_ssod.demo.datasets import DIGIT_SCENES
from d2_ssod.demo.digit_scenes import writer


@pytest.fixture
def root(tmp_path):
    """The embedded data sets, registered anew below a folder of the test's own."""
    with registered_anew(DIGIT_SCENES, register_digit_scenes, tmp_path):
        yield tmp_path


def test_digit_scenes_are_generated_on_first_use(root, monkeypatch):
    sizes = {"labeled": 3, "unlabeled": 4, "test": 5, "val": 2}
    monkeypatch.setattr(writer, "DEFAULT_SIZES", sizes)
    assert not (root / "digit_scenes").exists()
    records = DatasetCatalog.get("digit_scenes_labeled")
    assert len(records) == 3
    for record in records:
        assert 0 <= record["difficulty"] <= 1
        assert {a["category_id"] for a in record["annotations"]} <= set(range(5))
        assert read_image(record["file_name"], "BGR").shape == (128, 128, 3)
    for split in ("unlabeled", "test", "val"):
        assert len(DatasetCatalog.get(f"digit_scenes_{split}")) == sizes[split]


def test_digit_scenes_metadata_is_there_before_loading_and_agrees(root, monkeypatch):
    monkeypatch.setattr(writer, "DEFAULT_SIZES", dict.fromkeys(writer.SPLITS, 1))
    for name in DIGIT_SCENES:
        metadata = MetadataCatalog.get(name)
        assert metadata.thing_classes == ["0", "1", "2", "3", "4"]
        assert metadata.thing_dataset_id_to_contiguous_id == {1: 0, 2: 1, 3: 2, 4: 3, 5: 4}
        assert metadata.evaluator_type == "coco"
        DatasetCatalog.get(name)  # would fail if the file said otherwise
        assert os.path.isfile(metadata.json_file)


def test_unlabeled_digit_scenes_never_read_the_truth(root, monkeypatch):
    monkeypatch.setattr(writer, "DEFAULT_SIZES", dict.fromkeys(writer.SPLITS, 3))
    truth = DatasetCatalog.get("digit_scenes_unlabeled_truth")
    assert all(record["annotations"] for record in truth)
    digit_scenes.annotation_file(root / "digit_scenes", digit_scenes.HIDDEN_TRUTH).unlink()
    unlabeled = DatasetCatalog.get("digit_scenes_unlabeled")
    assert all("annotations" not in record for record in unlabeled)
    assert [r["file_name"] for r in unlabeled] == [r["file_name"] for r in truth]


def test_records_are_plain_data(root, monkeypatch):
    monkeypatch.setattr(writer, "DEFAULT_SIZES", dict.fromkeys(writer.SPLITS, 1))
    assert json.dumps(DatasetCatalog.get("digit_scenes_labeled"))
