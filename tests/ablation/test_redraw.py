import json

import pytest

from ablation.digits_folder import lay_out
from ablation.redraw import queue_of, redraw
from d2_ssod.demo.digit_scenes import SPLITS

SIZES = dict.fromkeys(SPLITS, 3) | {"unlabeled": 7}


def pictures(folder, part):
    """What each picture shows: its file, and its objects."""
    contents = json.loads((folder / f"{part}.json").read_text())
    objects = {image["id"]: [] for image in contents["images"]}
    for annotation in contents["annotations"]:
        own = {key: value for key, value in annotation.items() if key not in ("id", "image_id")}
        objects[annotation["image_id"]].append(own)
    place = folder / part.removesuffix("_truth")
    return {
        (place / image["file_name"]).resolve(): objects[image["id"]] for image in contents["images"]
    }


def test_other_pictures_are_labeled_and_keep_their_objects(tmp_path):
    lay_out(tmp_path / "digits", SIZES)
    redraw(tmp_path / "digits", tmp_path / "new" / "digits", seed=4)
    before, after = (
        {part: pictures(folder, part) for part in ("labeled", "unlabeled_truth", "val", "test")}
        for folder in (tmp_path / "digits", tmp_path / "new" / "digits")
    )
    assert len(after["labeled"]) == 3
    assert not after["labeled"].keys() & before["labeled"].keys()
    assert {**after["labeled"], **after["unlabeled_truth"]} == {
        **before["labeled"],
        **before["unlabeled_truth"],
    }
    assert (after["val"], after["test"]) == (before["val"], before["test"])
    assert all(path.is_file() for part in after.values() for path in part)
    settings = "settings.json"
    assert (tmp_path / "new/digits" / settings).samefile(tmp_path / "digits" / settings)


def test_a_seed_draws_the_same_pictures_again_and_another_others(tmp_path):
    lay_out(tmp_path / "digits", SIZES)
    drawn = []
    for number, seed in enumerate((1, 1, 2)):
        redraw(tmp_path / "digits", tmp_path / str(number), seed)
        drawn.append(pictures(tmp_path / str(number), "labeled"))
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize("count", [2, 7])
def test_as_many_are_labeled_as_asked_for(tmp_path, count):
    lay_out(tmp_path / "digits", SIZES)
    redraw(tmp_path / "digits", tmp_path / "new", seed=1, count=count)
    assert len(pictures(tmp_path / "new", "labeled")) == count
    assert len(pictures(tmp_path / "new", "unlabeled_truth")) == 3 + 7 - count


@pytest.mark.parametrize("count", [0, 8])
def test_a_count_that_there_is_not_is_refused(tmp_path, count):
    lay_out(tmp_path / "digits", SIZES)
    with pytest.raises(SystemExit, match=f"Cannot label {count} of the 7 pictures"):
        redraw(tmp_path / "digits", tmp_path / "new", seed=1, count=count)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("is_drawn", [True, False])
def test_labels_may_be_added_of_drawn_pictures_or_the_first_of_a_queue(tmp_path, is_drawn):
    data = tmp_path / "digits"
    lay_out(data, SIZES)
    before = {part: pictures(data, part) for part in ("labeled", "unlabeled_truth")}
    queue = [path.name for path in reversed(before["unlabeled_truth"])]
    table = tmp_path / "queue.csv"
    lines = [f"{rank},/elsewhere/{name}" for rank, name in enumerate(queue, start=1)]
    table.write_text("\n".join(["rank,file_name", *lines]), encoding="utf-8-sig")
    order = None if is_drawn else queue_of(table)
    redraw(data, tmp_path / "new", seed=1, count=2, add=True, order=order)
    after = pictures(tmp_path / "new", "labeled")
    added = {path.name for path in after.keys() - before["labeled"].keys()}
    assert before["labeled"].items() <= after.items()
    assert len(added) == 2
    assert is_drawn or added == set(queue[:2])
    assert len(pictures(tmp_path / "new", "unlabeled_truth")) == 7 - 2


def test_a_queue_that_is_too_short_or_of_another_folder_is_refused(tmp_path):
    lay_out(tmp_path / "digits", SIZES)
    own = [path.name for path in pictures(tmp_path / "digits", "unlabeled_truth")]
    for order in (own[:1], [own[0], own[0]], [own[0], "elsewhere.png"]):
        with pytest.raises(SystemExit, match="Of the first 2 pictures of the queue, 1 are among"):
            redraw(tmp_path / "digits", tmp_path / "new", 1, 2, True, order)
    assert not (tmp_path / "new").exists()
