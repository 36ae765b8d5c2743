"""Whether a person has changed labels since they were written."""

import json

import pytest
from samples import CATEGORY_IDS, FOUND

from d2_ssod.artifacts import describe_written, load_labels, save_pseudo_labels, were_changed
from d2_ssod.structures import Detections

CLASSES = ["a", "b"]
IMAGES = [
    {"image_id": n, "file_name": f"/data/u/{n}.jpg", "width": 640, "height": 480} for n in (1, 2, 3)
]


@pytest.fixture
def labels(tmp_path):
    """What was written of labels, and where."""
    path = tmp_path / "pseudo_labels.json"
    save_pseudo_labels(path, FOUND, IMAGES, CLASSES, CATEGORY_IDS)
    return path, describe_written(FOUND, IMAGES, CLASSES)


def changed(path, written, change=lambda content: None):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return were_changed(load_labels(path, IMAGES, CLASSES), written)


def test_what_is_written_is_counted(labels):
    _, written = labels
    assert [written[key] for key in ("images", "images_empty", "boxes")] == [2, 0, 3]
    with_empty = describe_written({**FOUND, 2: Detections.empty()}, IMAGES, CLASSES)
    assert [with_empty[key] for key in ("images", "images_empty", "boxes")] == [3, 1, 3]


def test_what_a_tool_does_to_names_ids_and_order_is_no_change(labels):
    def by_a_tool(content):
        content["annotations"].reverse()
        for image in content["images"]:
            image.update(id=image["id"] + 100, file_name=image["file_name"].replace("/data/", "x/"))
        for own in content["annotations"]:
            own.pop("score")
            own["image_id"] += 100
            own["bbox"] = [value + 1e-9 for value in own["bbox"]]

    assert not changed(*labels)
    assert not changed(*labels, by_a_tool)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content["annotations"].pop(),
        lambda content: content["annotations"].append(content["annotations"][0]),
        lambda content: content["annotations"][0]["bbox"].__setitem__(2, 7.0),
        lambda content: content["annotations"][0].update(category_id=CATEGORY_IDS[0]),
    ],
)
def test_other_boxes_and_classes_are_changes(labels, change):
    path, written = labels
    assert changed(path, written, change)
    assert not changed(path, {})  # an earlier version has not noted what it wrote
