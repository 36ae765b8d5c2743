import json
import logging
import math

import pytest
from detectron2.data import MetadataCatalog
from detectron2.data.datasets.coco import load_coco_json
from pictures import coco_contents, write_coco

from d2_ssod.data.datasets.coco import load_coco
from d2_ssod.errors import ConfigError


def load(folder, contents, **arguments):
    path = write_coco(folder, contents)
    return load_coco(str(path), str(folder), "test_coco_name", **arguments)


def test_load_coco_is_detectron2_loader(tmp_path):
    contents = coco_contents(3, boxes=[(1, 2, 10, 8), (0, 0, 3.5, 4)])
    theirs = load_coco_json(str(write_coco(tmp_path, contents)), str(tmp_path), "test_coco_other")
    assert load(tmp_path, contents) == theirs
    assert len(theirs) == 3
    assert MetadataCatalog.get("test_coco_name").thing_classes == ["cat", "dog"]


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
    assert "left out 4 boxes without area" in caplog.text


def test_load_coco_of_no_images_is_empty(tmp_path):
    assert load(tmp_path, coco_contents(0)) == []


def change(where, **values):
    return lambda contents: contents[where][1].update(values)


def drop(where, key):
    return lambda contents: contents[where][1].pop(key)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (change("annotations", category_id=7), "annotation 2 of image 2.png has category_id 7"),
        (change("annotations", image_id=9), "annotation 2 of image 9 is of an image that is not"),
        (change("annotations", bbox=[1, 2, -3, 4]), "annotation 2 of image 2.png .*negative size"),
        (change("annotations", bbox=[1, 2, math.nan, 4]), "annotation 2 .*expected four numbers"),
        (change("annotations", bbox=[1, 2, math.inf, 4]), "annotation 2 .*expected four numbers"),
        (change("annotations", bbox=[1, 2, 3]), "annotation 2 .*expected four numbers"),
        (change("annotations", bbox=[1, 2, "3", 4]), "annotation 2 .*expected four numbers"),
        (change("annotations", bbox=None), "annotation 2 .*expected four numbers"),
        (change("annotations", id=1), "annotation 1 of image 2.png has an id that another"),
        (change("annotations", ignore=1), 'annotation 2 .*"ignore"'),
        (drop("annotations", "bbox"), "annotation 2 of image 2.png has no bbox"),
        (drop("annotations", "id"), "annotation None of image 2.png has no id"),
        (change("images", id=1), "two images have the id 1"),
        (drop("images", "width"), "has no width"),
    ],
)
def test_load_coco_names_the_mistake(tmp_path, damage, message):
    contents = coco_contents(2)
    path = write_coco(tmp_path, contents)
    damage(contents)
    path.write_text(json.dumps(contents))
    with pytest.raises(ConfigError, match=f"instances.json: .*{message}") as caught:
        load_coco(str(path), str(tmp_path), "test_coco_name")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"images": 3}', '"x"', "\xff"])
def test_load_coco_rejects_other_files(tmp_path, text):
    path = tmp_path / "instances.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ConfigError, match=r"instances\.json: "):
        load_coco(str(path), str(tmp_path), "test_coco_name")


def test_load_coco_names_the_missing_file(tmp_path):
    with pytest.raises(ConfigError, match=r"absent\.json: cannot be read"):
        load_coco(str(tmp_path / "absent.json"), str(tmp_path), "test_coco_name")


def test_load_coco_allows_repeated_ids_where_coco_has_them(tmp_path):
    contents = coco_contents(2)
    contents["annotations"][1]["id"] = 1
    path = write_coco(tmp_path, contents, "instances_valminusminival2014.json")
    records = load_coco(str(path), str(tmp_path), "test_coco_name")
    assert sum(len(record["annotations"]) for record in records) == 2
