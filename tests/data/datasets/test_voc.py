import logging

import pytest
from detectron2.data.datasets.pascal_voc import load_voc_instances
from detectron2.structures import BoxMode
from pictures import save_picture

from d2_ssod.data.datasets.voc import load_voc_labeled, load_voc_unlabeled
from d2_ssod.errors import ConfigError

CLASSES = ("aeroplane", "bicycle", "bird")


def object_xml(name, box, difficult):
    corners = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    inner = "".join(f"<{corner}>{value}</{corner}>" for corner, value in corners)
    flag = "" if difficult is None else f"<difficult>{difficult}</difficult>"
    return f"<object><name>{name}</name>{flag}<bndbox>{inner}</bndbox></object>"


def write_image(folder, image_id, objects):
    save_picture(folder / "JPEGImages" / f"{image_id}.jpg", 40, 30)
    path = folder / "Annotations" / f"{image_id}.xml"
    path.parent.mkdir(exist_ok=True)
    size = "<size><width>40</width><height>30</height><depth>3</depth></size>"
    body = "".join(object_xml(*item) for item in objects)
    path.write_text(f"<annotation>{size}{body}</annotation>")


@pytest.fixture
def voc(tmp_path):
    lists = tmp_path / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "trainval.txt").write_text("000005\n000007\n2008_000001\n")
    write_image(tmp_path, "000005", [("bird", (1, 1, 40, 30), 0), ("bicycle", (5, 6, 9, 9), 1)])
    write_image(tmp_path, "000007", [("aeroplane", (3, 4, 7.5, 9), None)])
    write_image(tmp_path, "2008_000001", [("bird", (2, 2, 8, 8), 1)])
    return tmp_path


def test_labeled_drops_difficult_objects(voc, caplog):
    with caplog.at_level(logging.INFO):
        records = load_voc_labeled(str(voc), "trainval", CLASSES)
    assert [record["image_id"] for record in records] == ["000005", "000007", "2008_000001"]
    assert [len(record["annotations"]) for record in records] == [1, 1, 0]
    assert "left out 2 difficult objects" in caplog.text


def test_labeled_boxes_are_continuous_coordinates(voc):
    first, second, _ = load_voc_labeled(str(voc), "trainval", CLASSES)
    whole = {"category_id": 2, "bbox": [0, 0, 40, 30], "bbox_mode": BoxMode.XYXY_ABS}
    assert first["annotations"] == [whole]
    assert second["annotations"][0]["bbox"] == [2, 3, 7.5, 9]
    assert second["annotations"][0]["category_id"] == 0
    assert (first["height"], first["width"]) == (30, 40)


def test_labeled_agrees_with_detectron2_where_nothing_is_difficult(voc):
    theirs = load_voc_instances(str(voc), "trainval", CLASSES)
    assert load_voc_labeled(str(voc), "trainval", CLASSES)[1] == theirs[1]


def test_unlabeled_needs_no_annotation_files(voc):
    for path in (voc / "Annotations").iterdir():
        path.unlink()
    records = load_voc_unlabeled(str(voc), "trainval")
    assert records[2] == {
        "file_name": f"{voc}/JPEGImages/2008_000001.jpg",
        "image_id": "2008_000001",
        "height": 30,
        "width": 40,
    }
    assert len(records) == 3


@pytest.mark.parametrize("load", [load_voc_unlabeled, lambda f, s: load_voc_labeled(f, s, CLASSES)])
def test_missing_list_is_named_with_what_to_do(tmp_path, load):
    with pytest.raises(ConfigError, match=r"Main/trainval.txt: .*DETECTRON2_DATASETS"):
        load(str(tmp_path), "trainval")


def test_unlabeled_names_the_missing_image(voc):
    (voc / "JPEGImages" / "000007.jpg").unlink()
    with pytest.raises(ConfigError, match=r"000007.jpg: does not exist"):
        load_voc_unlabeled(str(voc), "trainval")


@pytest.mark.parametrize(
    "text",
    [
        "<annotation>",
        "<annotation></annotation>",
        "<annotation><size><width>4</width><height>3</height></size>"
        + object_xml("unicorn", (1, 1, 2, 2), 0)
        + "</annotation>",
        "<annotation><size><width>4</width><height>3</height></size>"
        "<object><name>bird</name></object></annotation>",
    ],
)
def test_labeled_names_the_malformed_file(voc, text):
    (voc / "Annotations" / "000007.xml").write_text(text)
    with pytest.raises(ConfigError, match=r"000007.xml: is not a VOC annotation file") as caught:
        load_voc_labeled(str(voc), "trainval", CLASSES)
    assert "\n" not in str(caught.value)
