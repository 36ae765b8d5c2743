"""YOLO's text files."""

import os
from unittest.mock import DEFAULT, Mock

import pytest
import yaml
from samples import detections

from d2_ssod import json_files
from d2_ssod.artifacts import labels_of_a_person, save_yolo, save_yolo_data, unique_stems
from d2_ssod.errors import ConfigError


def named(*files):
    return [{"file_name": file, "image_id": n} for n, file in enumerate(files, start=1)]


@pytest.mark.parametrize(
    ("files", "stems"),
    [
        ([], []),
        (["/d/x/a.png", "/d/y/b.png", "/d/b.c.png"], ["a", "b", "b.c"]),
        (["/d/x/a.png", "/d/y/a.jpg", "/d/b.png"], ["x/a", "y/a", "b"]),
        (["/d/a/f.jpg", "/d/a/f_1.jpg", "/d/b/f.jpg"], ["a/f", "a/f_1", "b/f"]),
        (["/d/f.jpg", "/d/b/f.jpg", "/d/b/c/g.jpg"], ["f", "b/f", "b/c/g"]),
        (["/d/a.jpg", "/d/a.png", "/d/b.png"], ["a.jpg", "a.png", "b"]),
        (["/d/a.jpg", "/d/a.png", "/d/a.jpg.png"], ["a.jpg", "a.png", "a.jpg.png"]),
        (["/d/a", "/d/a.png"], ["a", "a.png"]),
        (["/d/a.jpg", "/d/./a.jpg", "/d/x/b.jpg"], ["a", "a", "b"]),
    ],
)
def test_images_of_one_name_are_named_by_their_folders(files, stems):
    assert unique_stems(named(*files)) == stems


def test_every_image_has_a_file_where_yolo_looks_for_it(tmp_path):
    images = [
        {**image, "width": 8, "height": 8}
        for image in named("/d/a/f.jpg", "/d/a/f_1.jpg", "/d/b/f.jpg", "/d/c/f.jpg")
    ]
    found = {n: detections((0, 0, 8, 8, 0.5, n)) for n in (1, 2, 3)}
    save_yolo(tmp_path, images, found, with_scores=False)
    files = {str(p.relative_to(tmp_path)): p.read_text()[0] for p in tmp_path.rglob("*.txt")}
    assert files == {"a/f.txt": "1", "a/f_1.txt": "2", "b/f.txt": "3"}


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


def test_boxes_end_at_the_edges_of_the_picture(tmp_path):
    """Ultralytics leaves out images with numbers beyond 0 and 1."""
    image = {"file_name": "/a/1.png", "image_id": 1, "width": 100, "height": 50}
    reaching = detections(
        (-20, -10, 50, 90, 0.9, 1), (-9, 0, 0, 9, 0.8, 1), (90, 40, 120, 60, 0.7, 0)
    )
    save_yolo(tmp_path, [image], {1: reaching}, with_scores=False)
    assert (tmp_path / "1.txt").read_text().splitlines() == [
        "1 0.250000 0.500000 0.500000 1.000000",
        "0 0.950000 0.900000 0.100000 0.200000",
    ]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([None], None),
        (["0 .5 .5 .1 .1 .9\n", "0 .5 .5 .1 .1 .9\n", None], None),  # predictions
        (["0 .5 .5 .1 .1 .9\n", "", None], 1),  # a picture without objects, by a person
        (["0 .5 .5 .1 .1\n"], 0),
        (["0 .5 .5 .1 .1 .9\n", "0 .1 .1 .2 .1 .2 .2\n"], 1),  # a polygon
        (["0 .5 .5 .1 .1 .2 .3 2\n"], 0),  # a pose
        ([None, "", ""], 1),
    ],
)
def test_labels_of_a_person_are_told_from_predictions(tmp_path, texts, expected):
    paths = [tmp_path / f"{number}.txt" for number in range(len(texts))]
    for path, text in zip(paths, texts, strict=True):
        if text is not None:
            path.write_text(text)
    found = labels_of_a_person(tmp_path, [path.stem for path in paths])
    assert found == (None if expected is None else paths[expected])


def test_predictions_of_nothing_are_predictions(tmp_path):
    image = {"file_name": "/a/1.png", "image_id": 1, "width": 100, "height": 50}
    save_yolo(tmp_path, [image], {1: detections()}, with_scores=True)
    assert labels_of_a_person(tmp_path, ["1"]) is None
    (tmp_path / "1.txt").write_text("0 .5 .5 .1 .1\n")
    assert labels_of_a_person(tmp_path, ["1"]) == tmp_path / "1.txt"


def test_predictions_that_a_person_has_emptied_are_a_persons(tmp_path):
    image = {"file_name": "/a/1.png", "image_id": 1, "width": 100, "height": 50}
    for found in (detections(), detections((0, 0, 5, 5, 0.9, 0))):
        save_yolo(tmp_path, [image], {1: found}, with_scores=True)
        assert labels_of_a_person(tmp_path, ["1"]) is None
    (tmp_path / "1.txt").write_text("")
    assert labels_of_a_person(tmp_path, ["1"]) == tmp_path / "1.txt"


def test_empty_files_that_were_there_before_predictions_stay_a_persons(tmp_path):
    (tmp_path / "bg.txt").touch()
    image = {"file_name": "/a/1.png", "image_id": 1, "width": 100, "height": 50}
    save_yolo(tmp_path, [image], {1: detections((0, 0, 5, 5, 0.9, 0))}, with_scores=True)
    assert labels_of_a_person(tmp_path, ["1", "bg"]) == tmp_path / "bg.txt"


def test_text_files_are_whole_or_not_there(tmp_path, monkeypatch):
    """Where the disk is full, or the process is killed, none is left that seems a person's."""
    images = [{"file_name": f"/a/{n}.png", "image_id": n, "width": 9, "height": 9} for n in (1, 2)]
    found = dict.fromkeys((1, 2), detections((0, 0, 5, 5, 0.9, 0)))
    replace = Mock(wraps=os.replace, side_effect=[DEFAULT, DEFAULT, OSError(28, "full")])
    monkeypatch.setattr(json_files.os, "replace", replace)
    with pytest.raises(OSError, match="full"):
        save_yolo(tmp_path, images, found, with_scores=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".predicted.json", "1.txt"]
    assert labels_of_a_person(tmp_path, ["1", "2"]) is None


def test_text_files_may_have_names_as_long_as_the_system_allows(tmp_path):
    image = {"file_name": f"/a/{'x' * 250}.png", "image_id": 1, "width": 9, "height": 9}
    save_yolo(tmp_path, [image], {1: detections()}, with_scores=True)
    assert (tmp_path / f"{'x' * 250}.txt").exists()


def test_names_of_classes_may_be_any_text(tmp_path):
    classes = ["cat: 1", 'a "dog"', "猫", "\U0001f600", "yes"]
    save_yolo_data(tmp_path, [], {}, classes)
    data = yaml.safe_load((tmp_path / "data.yaml").read_text(encoding="utf-8"))
    assert data["names"] == dict(enumerate(classes))


def test_it_is_said_where_images_are_put(tmp_path):
    save_yolo_data(tmp_path, [], {}, ["cat"])
    text = (tmp_path / "data.yaml").read_text()
    assert "images/a/1.jpg beside labels/a/1.txt" in text
    assert "that have a text file in labels/" in text


@pytest.mark.parametrize("text", ["5", "[5]", "{"])
def test_a_damaged_list_of_empty_files_is_named(tmp_path, text):
    (tmp_path / ".predicted.json").write_text(text)
    with pytest.raises(ConfigError, match=r"\.predicted\.json: "):
        labels_of_a_person(tmp_path, ["1"])
