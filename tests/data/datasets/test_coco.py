import json
import logging
import math

import pytest
from detectron2.data.datasets.coco import load_coco_json
from pictures import coco_contents, save_picture, write_coco

from d2_ssod.data.datasets import CocoFile
from d2_ssod.errors import ConfigError


def read(folder, contents, **arguments):
    path = write_coco(folder, contents)
    return CocoFile(str(path), str(folder), **arguments).read()


def load(folder, contents, **arguments):
    return read(folder, contents, **arguments).usable_images()


def boxes_of(records):
    return [[annotation["bbox"] for annotation in record["annotations"]] for record in records]


def test_records_are_those_of_detectron2_with_areas(tmp_path):
    contents = coco_contents(3, boxes=[(1, 2, 10, 8), (0, 0, 3.5, 4)])
    theirs = load_coco_json(str(write_coco(tmp_path, contents)), str(tmp_path), "test_coco_other")
    for record in theirs:
        for annotation in record["annotations"]:
            annotation["area"] = 1
    data_set = read(tmp_path, contents)
    assert data_set.images == theirs
    assert len(theirs) == 3
    assert data_set.thing_classes == ["cat", "dog"]
    assert data_set.category_ids == [1, 2]
    assert not list(data_set.findings)


@pytest.mark.parametrize("key", ["neg_category_ids", "not_exhaustive_category_ids"])
def test_images_that_are_not_labeled_throughout_are_said(tmp_path, key):
    contents = coco_contents(3)
    contents["images"][0][key] = []
    contents["images"][2][key] = [2]
    (finding,) = read(tmp_path, contents).findings
    assert str(finding).endswith("are labeled throughout")
    assert f": image {contents['images'][2]['file_name']} has {key}; objects without" in str(
        finding
    )
    assert not list(read(tmp_path, contents, annotations=False).findings)


def test_a_category_that_groups_the_others_is_no_class(tmp_path):
    contents = coco_contents(2)  # of category 1
    contents["categories"] = [
        {"id": 0, "name": "pets", "supercategory": "none"},
        {"id": 1, "name": "cat", "supercategory": "pets"},
        {"id": 2, "name": "dog", "supercategory": "pets"},
    ]
    data_set = read(tmp_path, contents)
    assert (data_set.thing_classes, data_set.category_ids) == (["cat", "dog"], [1, 2])
    contents["annotations"][0]["category_id"] = 0  # it has an object
    assert read(tmp_path, contents).thing_classes == ["pets", "cat", "dog"]
    contents["annotations"][0]["category_id"] = 1
    contents["categories"][0]["name"] = "other"  # it groups nothing
    assert read(tmp_path, contents).thing_classes == ["other", "cat", "dog"]
    contents["categories"] = [
        {"id": 0, "name": "cat", "supercategory": "none"},
        {"id": 1, "name": "cat", "supercategory": "cat"},
    ]
    assert read(tmp_path, contents).category_ids == [1]


def test_boxes_that_were_drawn_turned_are_said(tmp_path):
    contents = coco_contents(2)
    contents["annotations"][0]["attributes"] = {"rotation": 180.0, "occluded": False}
    assert list(read(tmp_path, contents).findings) == []
    contents["annotations"][0]["attributes"]["rotation"] = 45.0
    data_set = read(tmp_path, contents)
    (finding,) = data_set.findings
    assert "has a rotation of 45 degrees" in str(finding)
    assert boxes_of(data_set.images) == [[[1, 2, 10, 8]], [[1, 2, 10, 8]]]


def test_objects_of_which_a_model_was_not_sure_are_said(tmp_path):
    contents = coco_contents(3)
    contents["annotations"][0]["score"] = 1.0  # as tools write it of a person's
    contents["annotations"][1]["score"] = None
    assert list(read(tmp_path, contents).findings) == []
    contents["annotations"][2]["score"] = 0.25
    data_set = read(tmp_path, contents)
    (finding,) = data_set.findings
    assert (finding.level, finding.kind) == ("warning", "objects with the score of a model")
    assert "annotation 3 of image" in str(finding)
    assert [len(image["annotations"]) for image in data_set.images] == [1, 1, 1]
    contents["annotations"][2]["bbox"] = [1, 1, 0, 0]  # which is left out
    kinds = [finding.kind for finding in read(tmp_path, contents).findings]
    assert "objects with the score of a model" not in kinds


def test_load_coco_keeps_additional_image_keys(tmp_path):
    records = load(tmp_path, coco_contents(difficulty=0.25, license=1, coco_url="x"))
    assert [record["difficulty"] for record in records] == [0.25, 0.25]
    assert "coco_url" not in records[0]
    assert "id" not in records[0]


def test_load_coco_lets_no_additional_key_replace_another(tmp_path):
    contents = coco_contents()
    expected = load(tmp_path, contents)
    for image in contents["images"]:
        image.update(image_id=77, annotations=[], is_pseudo=True)
    assert load(tmp_path, contents) == expected


def test_load_coco_without_annotations_is_unlabeled(tmp_path):
    for contents in (coco_contents(boxes=[]), coco_contents(boxes=[], classes=())):
        for absent in ([], ["annotations"], ["annotations", "categories"]):
            left = {key: value for key, value in contents.items() if key not in absent}
            records = load(tmp_path, left)
            assert [record["image_id"] for record in records] == [1, 2]
            assert all("annotations" not in record for record in records)


def test_load_coco_can_leave_annotations_out(tmp_path):
    records = load(tmp_path, coco_contents(), annotations=False)
    assert all("annotations" not in record for record in records)


def test_load_coco_keeps_images_without_objects(tmp_path):
    contents = coco_contents(2)
    contents["annotations"] = contents["annotations"][:1]
    assert [len(record["annotations"]) for record in load(tmp_path, contents)] == [1, 0]


def test_load_coco_leaves_out_boxes_without_area(tmp_path, caplog):
    contents = coco_contents(2, boxes=[(1, 2, 10, 8), (3, 3, 0, 5), (3, 3, 5, 0)])
    with caplog.at_level(logging.WARNING):
        records = load(tmp_path, contents)
    assert [len(record["annotations"]) for record in records] == [1, 1]
    assert "(and 3 more: boxes without area)" in caplog.text


def test_load_coco_of_no_images_is_empty(tmp_path):
    assert load(tmp_path, coco_contents(0)) == []


def change(where, **values):
    return lambda contents: contents[where][1].update(values)


def drop(where, key):
    return lambda contents: contents[where][1].pop(key)


def damaged(folder, damage, count=2, **arguments):
    """Read a file of two images with a box each, changed by ``damage``."""
    contents = coco_contents(count, **arguments)
    path = write_coco(folder, contents)
    damage(contents)
    path.write_text(json.dumps(contents))
    return CocoFile(str(path), str(folder)).read()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (change("annotations", category_id=7), "annotation 2 of image 2.png has category_id 7"),
        (change("annotations", image_id=9), "annotation 2 is of the image 9, which is not in"),
        (drop("annotations", "image_id"), "annotation 2 is of the image None"),
        (change("annotations", bbox=[1, 2, -3, 4]), "annotation 2 of image 2.png .*negative size"),
        (change("annotations", bbox=[1, 2, math.nan, 4]), "annotation 2 .*expected four numbers"),
        (change("annotations", bbox=[1, 2, math.inf, 4]), "annotation 2 .*expected four numbers"),
        (change("annotations", bbox=[1, 2, 3]), "annotation 2 .*expected four numbers"),
        (change("annotations", bbox=[1, 2, "x", 4]), "annotation 2 .*expected four numbers"),
        (change("annotations", bbox=[1, 2, True, 4]), "annotation 2 .*expected four numbers"),
        (change("annotations", bbox=None), "annotation 2 .*expected four numbers"),
        (change("annotations", iscrowd="maybe"), "annotation 2 .*iscrowd 'maybe'"),
        (change("annotations", ignore=1), 'annotation 2 .*"ignore"'),
        (drop("annotations", "bbox"), "annotation 2 of image 2.png has the bbox None"),
        (change("images", id=1), "two images have the id 1"),
        (change("images", id=1.5), "image number 2 has the id 1.5"),
        (change("images", id=[1]), "image number 2 has the id"),
        (drop("images", "id"), "image number 2 has the id None"),
        (change("images", file_name=3), "image number 2 has the file_name 3"),
        (change("images", width=-1, height=4), "image 2.png has the width -1"),
        (change("images", width="wide"), "image 2.png has the width 'wide'"),
        (change("categories", id=1), "categories 'cat' and 'dog' both have the id 1"),
        (change("categories", id=[2]), "category .* has no id"),
        (drop("categories", "id"), "category .* has no id"),
        (drop("categories", "name"), "category .* has no name"),
        (lambda c: c["images"].append(3), "image number 3 is 3"),
        (lambda c: c["annotations"].append(None), '"annotations" is no list of records'),
        (lambda c: c.update(categories={"1": "cat"}), '"categories" is no list of records'),
    ],
)
def test_load_coco_names_the_mistake(tmp_path, damage, message):
    data_set = damaged(tmp_path, damage)
    with pytest.raises(ConfigError, match=f"instances.json: .*{message}") as caught:
        data_set.usable_images()
    assert "\n" not in str(caught.value)


def edit_all(where, **values):
    def edit(contents):
        for row in contents[where]:
            row.update(values)

    return edit


def renumber(*ids):
    """Give the images these ids, in the annotations too."""

    def edit(contents):
        for image, annotation, new in zip(
            contents["images"], contents["annotations"], ids, strict=True
        ):
            image["id"] = annotation["image_id"] = new

    return edit


@pytest.mark.parametrize(
    "habit",
    [
        edit_all("annotations", segmentation=[[]]),
        edit_all("annotations", segmentation=[1, 2, 3, 4]),
        edit_all("annotations", segmentation=[[1, 2, 3, 4]], keypoints=[[1, 2]]),
        edit_all("annotations", iscrowd=None),
        edit_all("annotations", iscrowd="0"),
        edit_all("annotations", iscrowd=False),
        edit_all("annotations", id="a1"),
        edit_all("annotations", id=0),
        edit_all("annotations", category_id="1"),
        edit_all("annotations", category_id=1.0),
        edit_all("annotations", bbox=["1", "2", "10", 8.0]),
        edit_all("annotations", ignore=0),
        edit_all("images", width="24", height="16"),
        edit_all("images", width=24.0, height=16.0),
        edit_all("images", width=None, height=None),
        edit_all("images", sem_seg_file_name="x.png", pan_seg_file_name="y.png"),
        edit_all("images", proposal_boxes=[[1]], image="x", segments_info=[]),
        renumber(1.0, 2.0),
        lambda c: c["categories"][0].update(id="1"),
        lambda c: [a.pop("iscrowd") for a in c["annotations"]],
        lambda c: [a.pop("id") for a in c["annotations"]],
        lambda c: [i.pop("width") for i in c["images"]],
    ],
)
def test_habits_of_tools_change_nothing(tmp_path, habit):
    expected = load(tmp_path, coco_contents(2))
    data_set = damaged(tmp_path, habit)
    assert data_set.usable_images() == expected
    assert not list(data_set.findings)


@pytest.mark.parametrize(
    "area", [{}, {"area": None}, {"area": 0}, {"area": "x"}, {"area": -4}, {"area": math.nan}]
)
def test_areas_are_filled_in(tmp_path, area):
    def edit(contents):
        for annotation in contents["annotations"]:
            del annotation["area"]
            annotation.update(area)

    records = damaged(tmp_path, edit).usable_images()
    assert [a["area"] for r in records for a in r["annotations"]] == [80, 80]


def test_crowds_stay_crowds(tmp_path):
    records = damaged(tmp_path, edit_all("annotations", iscrowd="1")).usable_images()
    assert [a["iscrowd"] for r in records for a in r["annotations"]] == [1, 1]


@pytest.mark.parametrize("ids", [("b", "a"), (7, "a"), ("10", 9), ("0001", "0002")])
def test_image_ids_may_be_texts_and_mixed(tmp_path, ids):
    records = damaged(tmp_path, renumber(*ids)).usable_images()
    assert sorted(map(str, (r["image_id"] for r in records))) == sorted(map(str, ids))
    assert boxes_of(records) == [[[1, 2, 10, 8]]] * 2


def test_references_may_be_texts_of_numbers(tmp_path):
    records = damaged(tmp_path, change("annotations", image_id="2")).usable_images()
    assert boxes_of(records) == [[[1, 2, 10, 8]]] * 2


def test_names_of_categories_may_be_numbers(tmp_path):
    assert damaged(tmp_path, change("categories", name=3)).thing_classes == ["cat", "3"]


@pytest.mark.parametrize(
    "name", ["sub\\2.png", "http://host:8080/data/sub/2.png", "/data/local-files/?d=sub/2.png"]
)
def test_files_are_found_under_other_spellings(tmp_path, name):
    save_picture(tmp_path / "sub" / "2.png")
    records = damaged(tmp_path, change("images", file_name=name)).usable_images()
    if "http" not in name:  # of a URL, the folders of the server come first
        assert records[1]["file_name"] == f"{tmp_path}/sub/2.png"
    else:
        assert records[1]["file_name"] == f"{tmp_path}/{name}"


def test_a_byte_order_mark_is_no_text(tmp_path):
    path = write_coco(tmp_path, coco_contents(2))
    path.write_text(path.read_text(), encoding="utf-8-sig")
    assert len(CocoFile(str(path), str(tmp_path)).read().usable_images()) == 2


def test_boxes_outside_their_image_are_left_out(tmp_path, caplog):
    boxes = [(1, 2, 10, 8), (30, 2, 5, 5), (-9, 3, 5, 5), (3, 20, 5, 5), (20, 10, 50, 50)]
    with caplog.at_level(logging.WARNING):
        records = load(tmp_path, coco_contents(1, boxes=boxes))
    assert boxes_of(records) == [[list(boxes[0]), list(boxes[4])]]  # the last one reaches out
    assert "outside its image of 24 x 16 pixels (and 2 more: boxes outside" in caplog.text


@pytest.mark.parametrize("box", [(-5, 2, 5, 5), (1, -5, 5, 5), (24, 2, 5, 5), (1, 16, 5, 5)])
def test_boxes_that_only_touch_their_image_are_outside(tmp_path, box):
    data_set = read(tmp_path, coco_contents(1, boxes=[box]))
    assert boxes_of(data_set.images) == [[]]
    assert "outside its image" in str(*data_set.findings)


def test_copies_of_a_box_are_warned_of(tmp_path):
    data_set = read(tmp_path, coco_contents(2, boxes=[(1, 2, 10, 8), (1, 2, 10, 8)]))
    (finding,) = data_set.findings
    assert (finding.level, finding.count) == ("warning", 2)
    assert "[1, 2, 10, 8] 2 times" in str(finding)
    assert len(data_set.images[0]["annotations"]) == 2


def test_all_mistakes_are_found_at_once(tmp_path):
    def damage(contents):
        for annotation in contents["annotations"][:3]:
            annotation["category_id"] = 77
        contents["annotations"][3]["bbox"] = "x"
        del contents["images"][4]["id"]

    findings = list(damaged(tmp_path, damage, count=5).findings)
    assert [f.count for f in findings if "categories" in f.kind] == [3]
    assert len(findings) == 4  # the image without id leaves its annotation alone
    assert all(finding.level == "error" for finding in findings)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"images": 3}', '"x"', "\xff", "[" * 100_000, "[" + "9" * 5000 + "]"]
)
def test_load_coco_rejects_other_files(tmp_path, text):
    path = tmp_path / "instances.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ConfigError, match=r"instances\.json: ") as caught:
        CocoFile(str(path), str(tmp_path)).read()
    assert len(str(caught.value)) < 500


def test_load_coco_names_the_missing_file(tmp_path):
    with pytest.raises(ConfigError, match=r"absent\.json: cannot be read"):
        CocoFile(str(tmp_path / "absent.json"), str(tmp_path)).read()


def test_ids_of_annotations_may_repeat(tmp_path):
    """COCO's own minival of 2014 has some; they are not used."""
    records = damaged(tmp_path, change("annotations", id=1)).usable_images()
    assert sum(len(record["annotations"]) for record in records) == 2


def test_images_and_classes_are_in_the_order_of_their_numbers(tmp_path):
    contents = coco_contents(11)
    contents["categories"] = [{"id": i, "name": f"class {i}"} for i in reversed(range(1, 12))]
    for image in contents["images"]:
        image["id"] = 12 - image["id"]
    data_set = read(tmp_path, contents)
    assert [record["image_id"] for record in data_set.images] == list(range(1, 12))
    assert data_set.category_ids == list(range(1, 12))


@pytest.mark.parametrize(
    ("angle", "is_said"), [(90, True), (-30.5, True), (180, False), (0, False)]
)
def test_a_box_that_stands_on_its_side_is_said(tmp_path, angle, is_said):
    content = {
        "images": [{"id": 1, "file_name": "1.png", "width": 40, "height": 40}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [5, 5, 20, 4]}
            | {"attributes": {"rotation": angle}}
        ],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    found = "".join(map(str, CocoFile(str(tmp_path / "a.json"), "").read().findings))
    assert (f"has a rotation of {angle:g} degrees" in found) == is_said
