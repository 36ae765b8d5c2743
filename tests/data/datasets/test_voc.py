import shutil

import pytest
from detectron2.data.datasets.pascal_voc import load_voc_instances
from detectron2.structures import BoxMode
from pictures import object_xml, save_picture, write_voc_image

from d2_ssod.data.datasets import VocFolder
from d2_ssod.errors import ConfigError

CLASSES = ("aeroplane", "bicycle", "bird")


@pytest.fixture
def voc(tmp_path):
    lists = tmp_path / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "trainval.txt").write_text("000005\n000007\n2008_000001\n")
    write_voc_image(tmp_path, "000005", [("bird", (1, 1, 40, 30), 0), ("bicycle", (5, 6, 9, 9), 1)])
    write_voc_image(tmp_path, "000007", [("aeroplane", (3, 4, 7.5, 9), None)])
    write_voc_image(tmp_path, "2008_000001", [("bird", (2, 2, 8, 8), 1)])
    return tmp_path


def load(folder, split="trainval", **options):
    data_set = VocFolder(str(folder), split, class_names=CLASSES, **options).read()
    return data_set.usable_images()


def error_of(folder, **options):
    with pytest.raises(ConfigError) as caught:
        load(folder, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def rewrite(folder, image_id, *replacements):
    path = folder / "Annotations" / f"{image_id}.xml"
    text = path.read_text()
    for old, new in replacements:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)


def test_difficult_objects_are_neither_trained_nor_counted(voc):
    crowds = [[a["iscrowd"] for a in record["annotations"]] for record in load(voc)]
    assert crowds == [[0, 1], [0], [1]]


def test_boxes_are_continuous_coordinates(voc):
    first, second, _ = load(voc)
    whole = {"category_id": 2, "bbox": [0, 0, 40, 30], "bbox_mode": BoxMode.XYXY_ABS}
    assert first["annotations"][:1] == [{**whole, "iscrowd": 0, "area": 1200}]
    assert second["annotations"][0]["bbox"] == [2, 3, 7.5, 9]
    assert second["annotations"][0]["category_id"] == 0
    assert (first["height"], first["width"]) == (30, 40)


def test_records_agree_with_detectron2_where_nothing_is_difficult(voc):
    theirs = load_voc_instances(str(voc), "trainval", CLASSES)[1]
    ours = load(voc)[1]
    for annotation in ours["annotations"]:
        del annotation["iscrowd"], annotation["area"]
    assert ours == theirs


def test_unlabeled_needs_no_annotation_files(voc):
    for path in (voc / "Annotations").iterdir():
        path.unlink()
    records = load(voc, annotations=False)
    assert records[2] == {
        "file_name": f"{voc}/JPEGImages/2008_000001.jpg",
        "image_id": "2008_000001",
        "height": 30,
        "width": 40,
    }
    assert len(records) == 3


@pytest.mark.parametrize("annotations", [True, False])
def test_missing_list_is_named_with_what_to_do(tmp_path, annotations):
    message = error_of(tmp_path, annotations=annotations, advice="put it there")
    assert "Main/trainval.txt: cannot be read" in message
    assert "put it there" in message


def test_unlabeled_names_the_missing_image(voc):
    (voc / "JPEGImages" / "000007.jpg").unlink()
    assert "000007.jpg does not exist" in error_of(voc, annotations=False)


SIZE = "<annotation><size><width>4</width><height>3</height></size>"


@pytest.mark.parametrize(
    "text",
    [
        "<annotation>",
        "",
        f"{SIZE}<object><name>bird</name></object></annotation>",
        f"{SIZE}<object><bndbox><xmin>1</xmin></bndbox></object></annotation>",
        SIZE + object_xml("bird", (1, 1, "x", 2), 0) + "</annotation>",
        SIZE + object_xml("bird", (1, 1, "nan", 2), 0) + "</annotation>",
        SIZE + object_xml("bird", (1, 1, 2, 2), "perhaps") + "</annotation>",
        "<?xml version='1.0' encoding='no-such'?><annotation></annotation>",
    ],
)
def test_the_malformed_file_is_named(voc, text):
    (voc / "Annotations" / "000007.xml").write_text(text)
    assert "000007.xml" in error_of(voc)


def test_an_unknown_class_is_named_with_where_own_data_goes(voc):
    rewrite(voc, "000007", ("aeroplane", "Aeroplane"))
    message = error_of(voc)
    assert "000007.xml has an object of the class 'Aeroplane'" in message
    assert "SSOD.REGISTER" in message


@pytest.mark.parametrize(
    "habit",
    [
        ("<difficult>0</difficult>", "<difficult/>"),
        ("<difficult>0</difficult>", "<difficult>false</difficult><pose>Left</pose>"),
        ("<xmin>1</xmin>", "<xmin>1.0</xmin>"),
        ("<name>bird</name>", "<name> bird\n</name>"),
        ("<size><width>40</width><height>30</height><depth>3</depth></size>", ""),
        ("<width>40</width>", "<width>0</width>"),
        ("<width>40</width>", "<width>40.0</width>"),
        ("<annotation>", "<annotation><folder>x</folder><filename>else.png</filename>"),
    ],
)
def test_habits_of_tools_change_nothing(voc, habit):
    expected = load(voc)
    rewrite(voc, "000005", habit)
    assert load(voc) == expected


def test_exchanged_corners_are_put_right_and_said(voc):
    expected = load(voc)
    rewrite(voc, "000005", ("<xmin>1</xmin>", "<xmin>40</xmin>"), ("<xmax>40<", "<xmax>1<"))
    data_set = VocFolder(str(voc), "trainval", class_names=CLASSES).read()
    assert data_set.images == expected
    (finding,) = data_set.findings
    assert (finding.level, finding.kind) == ("warning", "boxes with exchanged corners")


def test_boxes_of_tools_that_count_from_0_are_said(voc):
    assert "pixels from 1" not in str(VocFolder(str(voc), "trainval").read().findings)
    rewrite(voc, "000007", ("<ymin>4</ymin>", "<ymin>0</ymin>"))
    (finding,) = VocFolder(str(voc), "trainval").read().findings
    assert "xmin 3 and ymin 0, but VOC counts pixels from 1" in str(finding)
    assert "add 1 to xmin and ymin of all files" in str(finding)


def test_a_folder_of_a_tool_has_files_side_by_side(tmp_path):
    for name, kind in (("b", "dog"), ("a", "cat")):
        write_voc_image(tmp_path, name, [(kind, (1, 1, 9, 9), None)])
        (tmp_path / "Annotations" / f"{name}.xml").rename(tmp_path / f"{name}.xml")
        (tmp_path / "JPEGImages" / f"{name}.jpg").rename(tmp_path / f"{name}.JPG")
    for folder in ("Annotations", "JPEGImages"):
        (tmp_path / folder).rmdir()
    data_set = VocFolder(str(tmp_path)).read()
    assert data_set.thing_classes == ["cat", "dog"]
    assert [r["file_name"] for r in data_set.images] == [f"{tmp_path}/{n}.JPG" for n in "ab"]
    assert [r["annotations"][0]["category_id"] for r in data_set.images] == [0, 1]


def test_a_list_names_images_by_file_or_stem(voc, tmp_path):
    path = tmp_path / "own.txt"
    path.write_text("JPEGImages/000007.jpg\n000005 1\n")
    records = VocFolder(str(voc), list_file=str(path), class_names=CLASSES).read().images
    assert [record["image_id"] for record in records] == ["000007", "000005"]


def test_pictures_may_be_elsewhere_and_of_any_kind(voc, tmp_path):
    for path in (voc / "JPEGImages").iterdir():
        save_picture(tmp_path / "else" / f"{path.stem}.png", 40, 30)
    records = load(voc, image_root=str(tmp_path / "else"))
    assert records[0]["file_name"] == f"{tmp_path}/else/000005.png"


def test_all_mistakes_are_found_at_once(voc):
    rewrite(voc, "000007", ("aeroplane", "plane"))
    rewrite(voc, "2008_000001", ("bird", "Bird"))
    (voc / "Annotations" / "000005.xml").write_text("<")
    findings = list(VocFolder(str(voc), "trainval", class_names=CLASSES).read().findings)
    assert sorted(finding.count for finding in findings) == [1, 2]


@pytest.fixture
def cameras(tmp_path):
    """A picture of each class by name: at the top, and the same name in two sub-folders."""
    for folder, kind in (("", "bird"), ("cam1/", "bicycle"), ("cam2/day/", "aeroplane")):
        write_voc_image(tmp_path, f"{folder}f0", [(kind, (1, 1, 9, 9), None)])
    return tmp_path


def listed(folder, *lines):
    """Read what a list names; image ids, pictures relative to JPEGImages, and classes."""
    path = folder / "ImageSets" / "Main" / "some.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))
    return described(folder, load(folder, "some"))


def described(folder, records):
    return [
        (
            record["image_id"],
            record["file_name"].removeprefix(f"{folder}/JPEGImages/"),
            CLASSES[record["annotations"][0]["category_id"]],
        )
        for record in records
    ]


def test_files_in_sub_folders_are_found(cameras):
    assert described(cameras, load(cameras, "")) == [
        ("cam1/f0", "cam1/f0.jpg", "bicycle"),
        ("cam2/day/f0", "cam2/day/f0.jpg", "aeroplane"),
        ("f0", "f0.jpg", "bird"),
    ]


def test_all_files_may_be_in_sub_folders(cameras):
    for path in (cameras / "Annotations" / "f0.xml", cameras / "JPEGImages" / "f0.jpg"):
        path.unlink()
    assert [image_id for image_id, *_ in described(cameras, load(cameras, ""))] == [
        "cam1/f0",
        "cam2/day/f0",
    ]


@pytest.mark.parametrize("top", ["", "images"])
def test_sub_folders_may_have_files_side_by_side(cameras, top):
    for name in ("cam1/f0", "cam2/day/f0"):
        (cameras / top / name).parent.mkdir(parents=True, exist_ok=True)
        (cameras / "Annotations" / f"{name}.xml").rename(cameras / top / f"{name}.xml")
        (cameras / "JPEGImages" / f"{name}.jpg").rename(cameras / top / f"{name}.jpg")
    for folder in ("Annotations", "JPEGImages"):
        shutil.rmtree(cameras / folder)
    records = load(cameras, "")
    assert [record["image_id"] for record in records] == ["cam1/f0", "cam2/day/f0"]
    assert records[0]["file_name"] == str(cameras / top / "cam1" / "f0.jpg")


def test_pictures_may_lie_beside_the_folder_of_annotations(cameras):
    (cameras / "JPEGImages" / "f0.jpg").rename(cameras / "f0.jpg")
    (cameras / "JPEGImages" / "cam1").rename(cameras / "cam1")
    shutil.rmtree(cameras / "JPEGImages")
    shutil.rmtree(cameras / "Annotations" / "cam2")
    (cameras / "Annotations").rename(cameras / "annotations")
    files = [record["file_name"] for record in load(cameras, "")]
    assert files == [f"{cameras}/cam1/f0.jpg", f"{cameras}/f0.jpg"]


def test_folders_may_have_the_names_that_fiftyone_gives_them(cameras):
    expected = described(cameras, load(cameras, ""))
    (cameras / "JPEGImages").rename(cameras / "data")
    (cameras / "Annotations").rename(cameras / "labels")
    records = load(cameras, "")
    for record in records:
        record["file_name"] = record["file_name"].replace("/data/", "/JPEGImages/")
    assert described(cameras, records) == expected
    (cameras / "data").rename(cameras / "pictures")  # alone, "labels" is a sub-folder
    assert {record["image_id"].split("/")[0] for record in load(cameras, "")} == {"labels"}


def test_a_list_names_files_in_sub_folders(cameras):
    names = ["cam1/f0", "JPEGImages/cam2/day/f0.jpg", "f0", "elsewhere/f0.jpg"]
    assert listed(cameras, *names) == [
        ("cam1/f0", "cam1/f0.jpg", "bicycle"),
        ("cam2/day/f0", "cam2/day/f0.jpg", "aeroplane"),
        *[("f0", "f0.jpg", "bird")] * 2,
    ]


def test_names_in_a_list_may_have_spaces(cameras):
    write_voc_image(cameras, "cam1/f0 at noon", [("bird", (1, 1, 9, 9), None)])
    lines = ["cam1/f0 at noon", "cam1/f0 at noon.jpg ", "cam1/f0 at noon  1", "f0 -1", "cam1/f0 1"]
    noon = ("cam1/f0 at noon", "cam1/f0 at noon.jpg", "bird")
    assert listed(cameras, *lines) == [
        *[noon] * 3,
        ("f0", "f0.jpg", "bird"),
        ("cam1/f0", "cam1/f0.jpg", "bicycle"),
    ]


def test_unlabeled_pictures_of_a_list_may_be_in_sub_folders(cameras):
    shutil.rmtree(cameras / "Annotations")
    (cameras / "own.txt").write_text("cam1/f0\n")
    files = VocFolder(str(cameras), list_file=str(cameras / "own.txt"), annotations=False)
    (record,) = files.read().usable_images()
    assert record["file_name"] == f"{cameras}/JPEGImages/cam1/f0.jpg"


def test_a_folder_without_xml_files_may_be_one_of_yolo(tmp_path):
    save_picture(tmp_path / "images" / "a.png")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    message = error_of(tmp_path, split="")
    assert f"{tmp_path}: was read as Pascal VOC, but there are no .xml files in it" in message
    assert "for YOLO name its data.yaml" in message


def test_an_export_of_several_parts_is_not_one_data_set(tmp_path):
    """As Roboflow's, with test/ beside train/."""
    for part in ("train", "test"):
        save_picture(tmp_path / part / "a.jpg")
        (tmp_path / part / "a.xml").write_text("<annotation/>")
    message = error_of(tmp_path, split="")
    assert "has annotations of several parts, test, train; give one" in message
    assert [r["file_name"] for r in load(tmp_path / "train", "")] == [f"{tmp_path}/train/a.jpg"]


def test_of_pictures_that_differ_in_the_extension_the_one_that_is_written_is_taken(voc):
    other = save_picture(voc / "JPEGImages" / "000005.png", 40, 30)
    data_set = VocFolder(str(voc), "trainval", class_names=CLASSES).read()
    (finding,) = data_set.findings
    assert finding.level == "warning"
    assert "000005.jpg is taken for '000005', not " in str(finding)
    assert data_set.images[0]["file_name"].endswith("000005.jpg")
    written = "<filename>C:\\photos\\000005.png</filename>"
    rewrite(voc, "000005", ("<annotation>", f"<annotation>{written}"))
    for annotations in (True, False):
        data_set = VocFolder(str(voc), "trainval", "", "", CLASSES, annotations).read()
        assert not len(data_set.findings)
        assert data_set.images[0]["file_name"] == str(other)


def test_copies_of_a_box_are_warned_of(voc):
    write_voc_image(voc, "000007", [("bird", (3, 4, 7, 9), 0)] * 3)
    data_set = VocFolder(str(voc), "trainval", class_names=CLASSES).read()
    assert "image 000007.jpg has the box [2, 3, 7, 9] 3 times" in str(next(iter(data_set.findings)))


def test_a_list_may_begin_with_a_byte_order_mark(voc):
    path = voc / "ImageSets" / "Main" / "trainval.txt"
    path.write_text(path.read_text(), encoding="utf-8-sig")
    assert [record["image_id"] for record in load(voc)] == ["000005", "000007", "2008_000001"]


def test_classes_of_the_files_are_in_the_order_of_their_names(tmp_path):
    names = ["pear", "fig", "kiwi", "apple", "plum", "lime", "date", "mango"]
    write_voc_image(tmp_path, "a", [(name, (1, 1, 9, 9), 0) for name in names])
    data_set = VocFolder(str(tmp_path)).read()
    assert data_set.thing_classes == sorted(names)
    (image,) = data_set.images
    assert [sorted(names)[a["category_id"]] for a in image["annotations"]] == names
