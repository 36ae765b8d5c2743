import json

import pytest

from d2_ssod.commands import main

CONTENTS = {
    "images": [{"id": i, "file_name": f"{i}.jpg", "width": 9, "height": 9} for i in range(40)],
    "annotations": [{"id": 100 + i, "image_id": i % 40, "category_id": 7} for i in range(80)],
    "categories": [{"id": 7, "name": "cat"}],
}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "instances_train.json"
    path.write_text(json.dumps(CONTENTS))
    return path


def split(file, *arguments, code=0):
    with pytest.raises(SystemExit) as caught:
        main(["split", str(file), *map(str, arguments)])
    assert caught.value.code == code


def parts(folder, percent):
    stem = f"instances_train_{percent}_percent"
    return [json.loads((folder / f"{stem}_{n}.json").read_text()) for n in ("labeled", "unlabeled")]


def ids(part):
    return [image["id"] for image in part["images"]]


def test_images_are_labeled_or_not(file, tmp_path):
    split(file, "--percent", 10)
    labeled, rest = parts(tmp_path, 10)
    assert len(ids(labeled)) == 4
    assert sorted(ids(labeled) + ids(rest)) == list(range(40))
    assert [a["image_id"] in ids(labeled) for a in labeled["annotations"]] == [True] * 8
    assert rest["annotations"] == []
    assert labeled["categories"] == rest["categories"] == CONTENTS["categories"]
    assert labeled["info"] == {"source": file.name, "percent": 10.0, "seed": 1}


def test_images_to_validate_by_keep_their_annotations(file, tmp_path):
    split(file, "--percent", 85, "--val")
    paths = sorted(tmp_path.glob("instances_train_85_percent_*.json"))
    assert [path.stem.rpartition("_")[2] for path in paths] == ["labeled", "val"]
    labeled, val = (json.loads(path.read_text()) for path in paths)
    assert (len(ids(labeled)), len(ids(val))) == (34, 6)
    assert sorted(ids(labeled) + ids(val)) == list(range(40))
    assert [a["image_id"] in ids(val) for a in val["annotations"]] == [True] * 12
    assert len(labeled["annotations"]) == 68


def test_the_share_is_rounded_to_whole_images(file, tmp_path):
    split(file, "--percent", 7)  # 2.8 images
    assert len(ids(parts(tmp_path, 7)[0])) == 3


def test_same_seed_gives_the_same_split_whatever_the_order(file, tmp_path):
    split(file, "--percent", 10, "--output", tmp_path / "first")
    file.write_text(json.dumps({**CONTENTS, "images": CONTENTS["images"][::-1]}))
    split(file, "--percent", 10, "--output", tmp_path / "second")
    split(file, "--percent", 10, "--seed", 2, "--output", tmp_path / "other")
    first, second, other = (
        sorted(ids(parts(tmp_path / name, 10)[0])) for name in ("first", "second", "other")
    )
    assert first == second != other


def test_a_split_that_exists_stays(file, tmp_path, capsys):
    split(file, "--percent", 2.5)
    before = parts(tmp_path, "2.5")
    split(file, "--percent", 2.5, "--seed", 5, code=2)
    assert "instances_train_2.5_percent_labeled.json exists" in capsys.readouterr().err
    assert parts(tmp_path, "2.5") == before


def test_a_seed_that_is_none_is_said(file, capsys):
    split(file, "--percent", 2.5, "--seed", -1, code=2)
    assert "--seed is -1; give a whole number from 0" in capsys.readouterr().err


@pytest.mark.parametrize("percent", [0, 1, 100, -5, "nan"])
def test_both_parts_have_images(file, percent, capsys):
    split(file, "--percent", percent, code=2)
    assert f"--percent is {percent}, which makes" in capsys.readouterr().err


@pytest.mark.parametrize(
    "contents",
    [[], {}, {"images": 1}, {"images": [{}]}, {"images": [{"id": 1}], "annotations": [5]}],
)
def test_other_files_end_with_one_line(file, contents, capsys):
    file.write_text(json.dumps(contents))
    split(file, "--percent", 50, code=2)
    error = capsys.readouterr().err
    assert error.startswith(f"error: {file}: ")
    assert error.count("\n") == 1


@pytest.mark.parametrize("kind", [str, float])
def test_ids_may_be_texts_or_decimals(file, tmp_path, kind):
    """As readers of data sets take them, also if the annotations have whole numbers."""
    split(file, "--percent", 10, "--output", tmp_path / "whole")
    images = [{**image, "id": kind(image["id"])} for image in CONTENTS["images"]]
    file.write_text(json.dumps({**CONTENTS, "images": images}))
    split(file, "--percent", 10)
    labeled, _ = parts(tmp_path, 10)
    expected, _ = parts(tmp_path / "whole", 10)
    assert ids(labeled) == [kind(own_id) for own_id in ids(expected)]
    assert labeled["annotations"] == expected["annotations"]


@pytest.mark.parametrize("name", ["voc", "data.yaml"])
def test_other_data_sets_are_split_otherwise(tmp_path, capsys, name):
    (tmp_path / "voc").mkdir()
    split(tmp_path / name, "--percent", 50, code=2)
    assert "split takes a COCO file; of Pascal VOC list the images" in capsys.readouterr().err


def test_images_that_share_an_id_are_said(file, tmp_path, capsys):
    images = [{"id": i % 30, "file_name": f"{i}.jpg"} for i in range(40)]
    file.write_text(json.dumps({**CONTENTS, "images": images, "annotations": []}))
    split(file, "--percent", 50, code=2)
    assert "2 images have the id 0; give each its own" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [file]


def test_an_annotation_of_no_image_is_said(file, tmp_path, capsys):
    annotations = [*CONTENTS["annotations"], {"id": 1, "image_id": 99, "category_id": 7}]
    file.write_text(json.dumps({**CONTENTS, "annotations": annotations}))
    split(file, "--percent", 10, code=2)
    assert "image_id 99, which is no image's id" in capsys.readouterr().err


def test_images_of_one_file_are_said(file, tmp_path, capsys):
    """Drawn apart, the picture would be labeled and unlabeled, or trained on and judged by."""
    images = [{"id": i, "file_name": f"{i % 30}.jpg"} for i in range(40)]
    file.write_text(json.dumps({**CONTENTS, "images": images, "annotations": []}))
    split(file, "--percent", 50, code=2)
    assert "2 images are '0.jpg', which would be labeled and not" in capsys.readouterr().err
