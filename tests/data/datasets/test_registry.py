import json

import pytest
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from pictures import coco_contents, save_picture, write_coco

from d2_ssod.data import register_from_config
from d2_ssod.errors import ConfigError

KEY = "SSOD.REGISTER"


@pytest.fixture
def labeled(tmp_path):
    path = write_coco(tmp_path / "labeled", coco_contents(2, difficulty=0.5))
    return {"NAME": "test_reg_labeled", "IMAGES": str(path.parent), "JSON": str(path)}


@pytest.fixture
def unlabeled(tmp_path):
    save_picture(tmp_path / "unlabeled" / "sub" / "a.jpg")
    return {"NAME": "test_reg_unlabeled", "IMAGES": str(tmp_path / "unlabeled")}


def test_register_gives_loadable_data_sets(labeled, unlabeled):
    names = register_from_config([labeled, unlabeled], KEY)
    assert names == ["test_reg_labeled", "test_reg_unlabeled"]
    records = DatasetCatalog.get("test_reg_labeled")
    assert [len(record["annotations"]) for record in records] == [1, 1]
    assert records[0]["difficulty"] == 0.5
    metadata = MetadataCatalog.get("test_reg_labeled")
    assert metadata.thing_classes == ["cat", "dog"]
    assert metadata.evaluator_type == "coco"
    assert metadata.json_file == labeled["JSON"]
    (record,) = DatasetCatalog.get("test_reg_unlabeled")
    assert record["file_name"] == f"{unlabeled['IMAGES']}/sub/a.jpg"


def test_register_loads_lazily(labeled):
    with open(labeled["JSON"], "w") as file:
        file.write("broken")
    register_from_config([labeled], KEY)
    with pytest.raises(ConfigError, match=r"instances.json: not valid JSON"):
        DatasetCatalog.get("test_reg_labeled")


def test_register_takes_config_nodes_and_no_entries(labeled):
    assert register_from_config([CfgNode(labeled)], KEY) == ["test_reg_labeled"]
    assert register_from_config((), KEY) == []


def test_register_takes_an_empty_json_as_none(unlabeled):
    register_from_config([{**unlabeled, "JSON": ""}], KEY)
    assert len(DatasetCatalog.get("test_reg_unlabeled")) == 1


def test_register_twice_changes_nothing(labeled, unlabeled):
    register_from_config([labeled, unlabeled], KEY)
    before = DatasetCatalog["test_reg_labeled"]
    register_from_config([labeled, unlabeled], KEY)
    assert DatasetCatalog["test_reg_labeled"] is before


def test_register_expands_the_home_folder(unlabeled, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    register_from_config([{**unlabeled, "IMAGES": "~/unlabeled"}], KEY)
    assert len(DatasetCatalog.get("test_reg_unlabeled")) == 1


def test_register_refuses_another_data_set_of_the_same_name(labeled, unlabeled):
    register_from_config([labeled], KEY)
    clash = {**unlabeled, "NAME": labeled["NAME"]}
    with pytest.raises(ConfigError, match=r"REGISTER\[1\].NAME: 'test_reg_labeled' is already"):
        register_from_config([labeled, clash], KEY)
    with pytest.raises(ConfigError, match=r"'voc_2007_test' is already"):
        register_from_config([{**unlabeled, "NAME": "voc_2007_test"}], KEY)


def test_a_name_that_is_taken_can_be_freed_as_the_message_says(labeled, unlabeled):
    register_from_config([labeled], KEY)
    other = {**unlabeled, "NAME": labeled["NAME"]}
    with pytest.raises(ConfigError) as caught:
        register_from_config([other], KEY)
    for catalog in (DatasetCatalog, MetadataCatalog):
        call = f"remove({labeled['NAME']!r})"
        assert f"{type(catalog).__name__.lstrip('_')}.{call}" in str(caught.value)
        catalog.remove(labeled["NAME"])
    register_from_config([other], KEY)
    assert len(DatasetCatalog.get(labeled["NAME"])) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"JASON": "x"}, r"REGISTER\[0\]: unknown key 'JASON'"),
        ({"IMAGES": "/nowhere/at/all"}, r"REGISTER\[0\].IMAGES: /nowhere/at/all is not a folder"),
        ({"JSON": "/nowhere/a.json"}, r"REGISTER\[0\].JSON: /nowhere/a.json is not a file"),
        ({"JSON": 3}, r"REGISTER\[0\].JSON: 3 is not a file"),
        ({"NAME": ""}, r"REGISTER\[0\]: NAME is missing"),
        ({"NAME": 5}, r"REGISTER\[0\]: NAME is missing"),
        ({"IMAGES": None}, r"REGISTER\[0\]: IMAGES is missing"),
    ],
)
def test_register_names_what_is_wrong(labeled, change, message):
    with pytest.raises(ConfigError, match=f"^SSOD.{message}") as caught:
        register_from_config([{**labeled, **change}], KEY)
    assert "\n" not in str(caught.value)
    assert "test_reg_labeled" not in DatasetCatalog


@pytest.mark.parametrize(
    ("stray", "right"),
    [
        ("IMAGE", "IMAGES"),
        ("images", "IMAGES"),
        ("JSN", "JSON"),
        ("NAMES", "NAME"),
        ("UNLABELLED", "UNLABELED"),
        ("CLASS", "CLASSES"),
    ],
)
@pytest.mark.parametrize("value", ["/tmp", ""])
def test_register_suggests_the_key_that_was_meant(labeled, stray, right, value):
    entry = {key: v for key, v in labeled.items() if key != right}
    with pytest.raises(ConfigError) as caught:
        register_from_config([{**entry, stray: value}], KEY)
    said = f"SSOD.REGISTER[0]: unknown key {stray!r}: correct it, such as to {right}, or remove it;"
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize("stray", ["EPOCHS", 7])
def test_register_lists_the_keys_where_none_is_near(labeled, stray):
    with pytest.raises(ConfigError, match="correct or remove it; the keys are NAME, JSON, IMAGES"):
        register_from_config([{**labeled, stray: 1}], KEY)


@pytest.mark.parametrize("entries", ["text", {"NAME": "x"}, ["text"], None, 3])
def test_register_rejects_other_structures(entries):
    with pytest.raises(ConfigError, match=r"^SSOD.REGISTER.*expected"):
        register_from_config(entries, KEY)


def test_register_serves_unlabeled_coco_files(tmp_path):
    path = write_coco(tmp_path, coco_contents(2, boxes=[]))
    contents = json.loads(path.read_text())
    del contents["annotations"], contents["categories"]
    path.write_text(json.dumps(contents))
    entry = {"NAME": "test_reg_coco", "IMAGES": str(tmp_path), "JSON": str(path)}
    register_from_config([entry], KEY)
    assert [r["image_id"] for r in DatasetCatalog.get("test_reg_coco")] == [1, 2]


def test_register_takes_several_folders(tmp_path):
    for name in ("one", "two"):
        save_picture(tmp_path / name / "a.png")
    entry = {"NAME": "test_reg_two", "IMAGES": [str(tmp_path / "one"), str(tmp_path / "two")]}
    register_from_config([entry], KEY)
    assert [r["image_id"] for r in DatasetCatalog.get("test_reg_two")] == [1, 2]


def test_register_leaves_annotations_out_where_asked(labeled):
    register_from_config([{**labeled, "NAME": "test_reg_bare", "UNLABELED": True}], KEY)
    assert all("annotations" not in r for r in DatasetCatalog.get("test_reg_bare"))


def test_register_takes_voc_folders_and_yolo_files(tmp_path):
    save_picture(tmp_path / "voc" / "a.png", 40, 20)
    (tmp_path / "voc" / "a.xml").write_text(
        "<annotation><object><name>cat</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax>"
        "<ymax>9</ymax></bndbox></object></annotation>"
    )
    save_picture(tmp_path / "images" / "val" / "b.png", 40, 20)
    (tmp_path / "images" / "val" / "b.txt").write_text("0 0.5 0.5 0.5 0.5")
    (tmp_path / "data.yaml").write_text("val: images/val\nnames: [cat]")
    entries = [
        {"NAME": "test_reg_voc", "VOC": str(tmp_path / "voc"), "CLASSES": ["dog", "cat"]},
        {"NAME": "test_reg_yolo", "YOLO": str(tmp_path / "data.yaml"), "SPLIT": "val"},
    ]
    register_from_config(entries, KEY)
    found = [DatasetCatalog.get(entry["NAME"])[0]["annotations"][0] for entry in entries]
    assert [a["category_id"] for a in found] == [1, 0]
    assert MetadataCatalog.get("test_reg_voc").thing_classes == ["dog", "cat"]
    assert MetadataCatalog.get("test_reg_yolo").evaluator_type == "coco"
    register_from_config(entries, KEY)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"VOC": "/nowhere"}, r"VOC: /nowhere is not a folder"),
        ({"VOC": "/tmp", "SPLIT": "a", "LIST": "b"}, "both SPLIT and LIST"),
        ({"VOC": "/tmp", "CLASSES": "cat"}, r"CLASSES is 'cat'; expected a list"),
        ({"VOC": "/tmp", "JSON": "a.json"}, "VOC does not go with JSON"),
        ({"YOLO": "/tmp"}, "YOLO: /tmp is not a file"),
        ({"YOLO": "a", "IMAGES": "/tmp"}, "IMAGES does not go with YOLO"),
        ({"IMAGES": ["/nowhere"]}, "IMAGES: /nowhere is not a folder, a picture"),
        ({"IMAGES": {"a": 1}}, "expected a folder"),
        ({"IMAGES": "/tmp", "UNLABELED": True}, "UNLABELED does not go with IMAGES"),
        ({}, "IMAGES is missing"),
    ],
)
def test_register_names_what_is_wrong_in_other_formats(entry, message):
    with pytest.raises(ConfigError, match=rf"^SSOD.REGISTER\[0\].*{message}"):
        register_from_config([{"NAME": "test_reg_wrong", **entry}], KEY)
