"""YOLO's text files."""

import yaml
from samples import detections

from d2_ssod.artifacts import save_yolo, save_yolo_data, unique_stems


def test_images_of_one_name_are_written_apart():
    images = [{"file_name": f"{f}/a.png", "image_id": n} for n, f in enumerate("xyz", start=1)]
    images.append({"file_name": "b.png", "image_id": 4})
    assert unique_stems(images) == ["a_1", "a_2", "a_3", "b"]


def test_boxes_are_parts_of_the_image(tmp_path):
    images = [
        {"file_name": "/a/1.png", "image_id": 1, "width": 100, "height": 50},
        {"file_name": "/a/2.png", "image_id": 2, "width": 100, "height": 50},
    ]
    found = {1: detections((10, 5, 30, 25, 0.75, 1)), 2: detections()}
    save_yolo(tmp_path / "labels", images, found, with_scores=False)
    assert (tmp_path / "labels" / "1.txt").read_text() == "1 0.200000 0.300000 0.200000 0.400000\n"
    assert (tmp_path / "labels" / "2.txt").read_text() == ""
    save_yolo(tmp_path / "scored", images, found, with_scores=True)
    assert (tmp_path / "scored" / "1.txt").read_text().endswith(" 0.400000 0.75000\n")


def test_names_of_classes_may_be_any_text(tmp_path):
    classes = ["cat: 1", 'a "dog"', "猫", "yes"]
    save_yolo_data(tmp_path, classes)
    data = yaml.safe_load((tmp_path / "data.yaml").read_text(encoding="utf-8"))
    assert data["names"] == dict(enumerate(classes))
