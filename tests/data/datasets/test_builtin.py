import os
import subprocess
import sys
from pathlib import Path

import pytest
from catalogs import registered_anew
from detectron2.data import DatasetCatalog, MetadataCatalog
from pictures import coco_contents, save_picture, write_coco

import d2_ssod.demo  # noqa: F401
from d2_ssod.data import datasets_root, register_builtin
from d2_ssod.data.datasets import builtin
from d2_ssod.errors import ConfigError

OURS = [*builtin.COCO, *builtin.VOC]


@pytest.fixture
def root(tmp_path):
    """The built-in data sets, registered anew below a folder of the test's own."""
    with registered_anew(OURS, register_builtin, tmp_path):
        yield tmp_path


@pytest.mark.parametrize("name", ["coco_1_percent_labeled", "voc_2007_trainval_labeled"])
def test_a_name_that_somebody_has_taken_stays_theirs(tmp_path, name):
    with registered_anew([name], lambda _: DatasetCatalog.register(name, list), tmp_path):
        register_builtin(datasets_root())
        assert DatasetCatalog.get(name) == []
        MetadataCatalog.get(name)


def test_importing_the_package_registers_all_names():
    assert set(OURS) <= set(DatasetCatalog.list())
    for name in ("voc_2007_test", "coco_2014_minival", "coco_2017_val"):
        assert name in DatasetCatalog


def test_importing_the_package_reads_and_writes_nothing(tmp_path):
    code = "import d2_ssod.data; print(d2_ssod.data.datasets_root())"
    repository = Path(__file__).parents[3]
    environment = {**os.environ, "DETECTRON2_DATASETS": "own", "PYTHONPATH": str(repository)}
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["own"]
    assert list(tmp_path.iterdir()) == []


def test_registering_twice_changes_nothing():
    before = {name: DatasetCatalog[name] for name in OURS}
    register_builtin(datasets_root())
    assert before == {name: DatasetCatalog[name] for name in OURS}


@pytest.mark.parametrize("name", builtin.COCO)
def test_coco_splits_load_from_their_layout(root, name):
    images, file_name, annotated = builtin.COCO[name]
    contents = coco_contents(2)
    # The real files have COCO's 80 categories with gaps in the ids.
    ids = MetadataCatalog.get(name).thing_dataset_id_to_contiguous_id
    classes = MetadataCatalog.get(name).thing_classes
    contents["categories"] = [{"id": i, "name": classes[index]} for i, index in ids.items()]
    contents["annotations"][0]["category_id"] = 90
    written = write_coco(root / "coco" / images, contents)
    (root / "coco" / "annotations").mkdir()
    written.rename(root / "coco" / "annotations" / file_name)
    records = DatasetCatalog.get(name)
    assert [record["image_id"] for record in records] == [1, 2]
    assert os.path.isfile(records[0]["file_name"])
    assert ("annotations" in records[0]) == annotated
    if annotated:
        assert records[0]["annotations"][0]["category_id"] == 79


def test_classes_other_than_the_names_are_named(root):
    classes = [*MetadataCatalog.get("coco_35_labeled").thing_classes[1:], "unicorn"]
    written = write_coco(root / "coco" / "images", coco_contents(2, classes=classes))
    (root / "coco" / "annotations").mkdir()
    written.rename(root / "coco" / "annotations" / builtin.COCO["coco_35_labeled"][1])
    with pytest.raises(ConfigError, match=r"of this name: missing 'person', additional 'unicorn';"):
        DatasetCatalog.get("coco_35_labeled")


def test_missing_coco_file_is_named(root):
    with pytest.raises(ConfigError, match=r"instances_valminusminival2014.json: cannot be read"):
        DatasetCatalog.get("coco_35_labeled")


def test_voc_splits_load_from_their_layout(root):
    for year in (2007, 2012):
        folder = root / f"VOC{year}"
        (folder / "ImageSets" / "Main").mkdir(parents=True)
        (folder / "ImageSets" / "Main" / "trainval.txt").write_text("000001\n")
        save_picture(folder / "JPEGImages" / "000001.jpg", 40, 30)
        (folder / "Annotations").mkdir()
        (folder / "Annotations" / "000001.xml").write_text(
            "<annotation><size><width>40</width><height>30</height></size><object>"
            "<name>tvmonitor</name><difficult>0</difficult><bndbox><xmin>1</xmin><ymin>1</ymin>"
            "<xmax>9</xmax><ymax>9</ymax></bndbox></object><object><name>cat</name>"
            "<difficult>1</difficult><bndbox><xmin>2</xmin><ymin>2</ymin><xmax>8</xmax>"
            "<ymax>8</ymax></bndbox></object></annotation>"
        )
    for name in ("voc_2007_trainval_labeled", "voc_2012_trainval_labeled"):
        (record,) = DatasetCatalog.get(name)
        found = [(a["category_id"], a["iscrowd"]) for a in record["annotations"]]
        assert found == [(19, 0), (7, 1)]  # difficult ones neither train nor count
    (record,) = DatasetCatalog.get("voc_2012_trainval_unlabeled")
    assert "annotations" not in record
    labeled, test = map(MetadataCatalog.get, ("voc_2007_trainval_labeled", "voc_2007_test"))
    assert labeled.thing_classes == test.thing_classes
    assert (labeled.year, labeled.split) == (2007, "trainval")
    assert labeled.dirname == str(root / "VOC2007")
