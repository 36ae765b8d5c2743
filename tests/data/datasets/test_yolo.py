import pytest
from detectron2.structures import BoxMode
from pictures import save_picture

from d2_ssod.data.datasets import YoloSplit
from d2_ssod.errors import ConfigError


@pytest.fixture
def yolo(tmp_path):
    """Two pictures of 40 x 20 pixels, one with a box and a polygon, one without a label file."""
    (tmp_path / "data.yaml").write_text("train: images/train\nnames: [cat, dog]\n")
    for name in "ab":
        save_picture(tmp_path / "images" / "train" / f"{name}.png", 40, 20)
    label(tmp_path, "1 0.5 0.5 0.5 0.2\n0 0 0 0.5 0.1 0.25 1\n")
    return tmp_path


def label(folder, text):
    path = folder / "labels" / "train" / "a.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def read(folder, split="train", **options):
    return YoloSplit(str(folder / "data.yaml"), split, **options).read()


def test_boxes_and_polygons_become_corners_in_pixels(yolo):
    data_set = read(yolo)
    first, second = data_set.images
    assert data_set.thing_classes == ["cat", "dog"]
    assert [a["category_id"] for a in first["annotations"]] == [1, 0]
    assert first["annotations"][0]["bbox"] == pytest.approx([10, 8, 30, 12])
    assert first["annotations"][1]["bbox"] == pytest.approx([0, 0, 20, 20])
    assert first["annotations"][0]["bbox_mode"] == BoxMode.XYXY_ABS
    assert first["annotations"][0]["area"] == pytest.approx(80)
    assert second["annotations"] == []


def test_a_picture_without_a_label_file_is_said(yolo):
    (finding,) = read(yolo).findings
    assert finding.level == "warning"
    assert "1 of 2 pictures of 'train' have no label file" in str(finding)


def test_labels_may_lie_beside_the_pictures(yolo):
    (yolo / "labels" / "train" / "a.txt").rename(yolo / "images" / "train" / "a.txt")
    assert len(read(yolo).images[0]["annotations"]) == 2


POSE = "train: images/train\nnames: [cat, dog]\nkpt_shape: [4, 2]\n"


def test_keypoints_after_the_box_are_passed_over(yolo):
    (yolo / "data.yaml").write_text(POSE)
    label(yolo, "1 0.5 0.5 0.5 0.2 0 0 0.9 0.1 1 1 0.2 0.8\n0 0.5 0.5 0.5 0.2\n")
    annotations = read(yolo).images[0]["annotations"]
    assert [a["category_id"] for a in annotations] == [1, 0]
    assert [a["bbox"] for a in annotations] == [pytest.approx([10, 8, 30, 12])] * 2


def test_the_visibility_of_keypoints_is_no_part_of_the_box(yolo):
    (yolo / "data.yaml").write_text(POSE.replace("[4, 2]", "[2, 3]"))
    label(yolo, "1 0.5 0.5 0.5 0.2 0 0 2 1 1 1\n")
    (annotation,) = read(yolo).usable_images()[0]["annotations"]
    assert annotation["bbox"] == pytest.approx([10, 8, 30, 12])


def test_a_line_that_does_not_fit_the_keypoints_is_named(yolo):
    (yolo / "data.yaml").write_text(POSE)
    label(yolo, "0 0.5 0.5 0.5 0.2\n0 0 0 0.5 0.1 0.25 1\n")
    with pytest.raises(ConfigError, match=r"a.txt:2 reads .*, 6 values .*with 8 values of keyp"):
        read(yolo).usable_images()


def test_annotations_can_be_left_out(yolo):
    assert all("annotations" not in image for image in read(yolo, annotations=False).images)


@pytest.mark.parametrize(
    "text",
    [
        "path: .\ntrain: images/train\nnames: {1: dog, 0: cat}\n",
        "train: ../images/train\nnames: [cat, dog]\nnc: 2\n",
        "path: images\ntrain: [train]\nnames: [cat, dog]\n",
        "train: ..\\images\\train\nnames: [cat, dog]\n",
        "train: images\\train\nnames: [cat, dog]\n",
        "\ufefftrain: list.txt\nnames: [cat, dog]\n",
    ],
)
def test_the_yaml_file_may_say_it_in_several_ways(yolo, text):
    expected = read(yolo)
    (yolo / "list.txt").write_text("images/train/a.png\nimages/train/b.png\n")
    (yolo / "data.yaml").write_text(text)
    assert read(yolo).images == expected.images
    assert read(yolo).thing_classes == ["cat", "dog"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("2 0.5 0.5 0.5 0.2", "a.txt:1 has the class 2, of 2 classes"),
        ("-1 0.5 0.5 0.5 0.2", "the class -1"),
        ("cat 0.5 0.5 0.5 0.2", "reads 'cat"),
        ("0 0.5 0.5 0.5", "reads '0 0.5 0.5 0.5'"),
        ("0 0.5 0.5 0.5 nan", "reads"),
        ("0 20 10 20 4", "has the value 20, outside 0 to 1"),
        ("0 0.1 0.1 0.2 0.2 0.3", "reads"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(yolo, line, message):
    label(yolo, f"{line}\n")
    with pytest.raises(ConfigError, match=message):
        read(yolo).usable_images()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: images/train\n", "names is None"),
        ("train: images/train\nnames: {0: cat, 2: dog}\n", "names is"),
        ("names: [cat]\nval: x\n", r"the split 'train' is None.*the file has val"),
        ("train: images/train\nnames: [cat, [dog]]\n", r"names is \['cat', \['dog'\]\]"),
        ("names: [cat]\ntrain: [3]\n", r"the split 'train' is \[3\]"),
        ("names: [cat]\ntrain: ''\n", r"the split 'train' is ''"),
        ("names: [cat]\ntrain: nowhere\n", "train names nowhere, which is not there"),
        (POSE.replace("[4, 2]", "[4]"), r"kpt_shape is \[4\]"),
        (POSE.replace("[4, 2]", "[4, x]"), r"kpt_shape is \[4, 'x'\]"),
        (POSE.replace("[4, 2]", "4"), "kpt_shape is 4"),
        ("names: [cat]\ntrain: images/train\ntrain: x\n", "train stands twice, in lines 2 and 3"),
        ("- 3", "is not a data.yaml"),
        ("{", "is not a YAML file"),
        ("!!python/object/apply:os.system [echo]", "is not a YAML file"),
    ],
)
def test_a_yaml_file_that_cannot_be_used_is_named(yolo, text, message):
    (yolo / "data.yaml").write_text(text)
    with pytest.raises(ConfigError, match=f"data.yaml: .*{message}") as caught:
        read(yolo)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "written", ["[on, 010, null]", "{0: on, 1: 010, 2: null}", "\n  1: 010\n  0: on\n  2: null"]
)
def test_names_are_what_is_written_not_what_yaml_makes_of_it(yolo, written):
    (yolo / "data.yaml").write_text(f"train: images/train\nnames: {written}\n")
    assert read(yolo).thing_classes == ["on", "010", "null"]


def test_a_split_without_a_path_is_none(yolo):
    text = "train: images/train\nval: no\ntest: ''\nother:\nnames: [cat, dog]\nnc: 2\n"
    (yolo / "data.yaml").write_text(text)
    assert YoloSplit(str(yolo / "data.yaml")).splits() == ["train", "names"]


def test_a_file_in_the_current_folder_is_read_as_any_other(yolo, monkeypatch):
    expected = [image["annotations"] for image in read(yolo).images]
    monkeypatch.chdir(yolo)
    found = YoloSplit("data.yaml").read().images
    assert [image["annotations"] for image in found] == expected
    assert any(expected)


def test_copies_of_a_box_are_warned_of(yolo):
    label(yolo, "1 0.5 0.5 0.5 0.2\n" * 2 + "0 0.5 0.5 0.5 0.2\n")
    (copies,) = (str(f) for f in read(yolo).findings if "more than once" in f.kind)
    assert "image a.png has the box [10, 8, 30, 12] 2 times; remove the copies" in copies


def test_pictures_that_share_a_label_file_are_said(yolo):
    save_picture(yolo / "images" / "train" / "a.jpg", 40, 20)
    save_picture(yolo / "images" / "train" / "b.jpg", 40, 20)  # none of b has labels
    data_set = read(yolo)
    (shared,) = (f for f in data_set.findings if f.kind == "pictures of one name")
    assert (shared.level, shared.count) == ("warning", 1)
    assert "a.png has the label file of " in str(shared)
    assert [len(image["annotations"]) for image in data_set.images] == [2, 2, 0, 0]


def test_classes_by_number_are_in_the_order_of_the_numbers(yolo):
    names = {number: f"class {number}" for number in reversed(range(12))}
    (yolo / "data.yaml").write_text(f"train: images/train\nnames: {names}\n")
    label(yolo, "10 0.5 0.5 0.5 0.2\n")
    found = read(yolo)
    assert found.thing_classes == [f"class {number}" for number in range(12)]
    assert found.images[0]["annotations"][0]["category_id"] == 10


@pytest.mark.parametrize(
    ("line", "is_read"),
    [
        ("0 0.5 0.5 1.005 0.2", True),  # rounding of tools
        ("0 0 0 0.5 -0.005 0.5 1.005", True),
        ("0 0.5 0.5 1.02 0.2", False),
        ("0 -0.02 0.5 0.5 0.2", False),
    ],
)
def test_values_may_be_rounded_out_of_the_image_but_not_lie_outside(yolo, line, is_read):
    label(yolo, line + "\n")
    data_set = read(yolo)
    assert len(data_set.images[0]["annotations"]) == is_read
    assert ("outside 0 to 1" in "".join(map(str, data_set.findings))) == (not is_read)


def test_labels_of_the_folder_for_them_come_before_those_beside_the_pictures(yolo):
    (yolo / "images" / "train" / "a.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    assert len(read(yolo).images[0]["annotations"]) == 2


def test_a_path_of_another_machine_is_passed_over(yolo):
    text = "path: /somebody/else\ntrain: images/train\nnames: [cat, dog]\n"
    (yolo / "data.yaml").write_text(text)
    assert [len(image["annotations"]) for image in read(yolo).images] == [2, 0]


def test_the_last_folder_of_images_has_the_labels_beside_it(yolo):
    (yolo / "images" / "set").mkdir()
    for name in ("data.yaml", "images/train", "labels"):
        target = yolo / "images" / "set" / name
        target.parent.mkdir(exist_ok=True)
        (yolo / name).rename(target)
    assert len(read(yolo / "images" / "set").images[0]["annotations"]) == 2


def test_a_line_of_predictions_is_said_to_have_a_score(yolo):
    label(yolo, "0 0.5 0.5 0.2 0.2 0.91\n")
    assert "5 values after the class (with a score?)" in "".join(map(str, read(yolo).findings))
