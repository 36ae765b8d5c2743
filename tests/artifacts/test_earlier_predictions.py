"""Predictions that were made before images were added."""

import pytest
from runs import bare_config
from samples import assert_same, scored

from d2_ssod.artifacts import (
    RunFolder,
    discard_partial_predictions,
    keep_partial_predictions,
    load_earlier_predictions,
    load_partial_predictions,
    load_predictions_by_file,
    prediction_source,
    save_predictions,
    set_aside_predictions,
)
from d2_ssod.json_files import write_json
from d2_ssod.structures import Detections

CATEGORY_IDS = [7]
NOTHING = Detections.empty()


def images(*names):
    return [{"file_name": f"/data/{n}", "image_id": i} for i, n in enumerate(names, start=1)]


@pytest.fixture
def files(tmp_path):
    """The folder of phase 0, which has predicted on a.png and c.png."""
    files = RunFolder(tmp_path).phase(0)
    cfg = bare_config(tmp_path)
    write_json(files.predictions_source, prediction_source(cfg, images("a.png", "c.png")))
    return files


def whole(files):
    save_predictions(files.predictions, {1: scored(0.75), 2: NOTHING}, CATEGORY_IDS)


def interrupted(files):
    with keep_partial_predictions(files.partial_predictions) as keep:
        keep({2: scored(0.5)})


MORE = images("a.png", "b.png", "c.png")


def test_whole_predictions_are_found_again_by_file(files):
    whole(files)
    set_aside_predictions(files, CATEGORY_IDS)
    assert not files.predictions.exists()
    found = load_earlier_predictions(files.partial_predictions, MORE)
    assert found.keys() == {1, 3}
    assert_same(found[1], scored(0.75))
    assert_same(found[3], NOTHING)  # predicted, though the file has no trace of it


def test_a_pass_that_was_interrupted_is_found_again_by_file(files):
    interrupted(files)
    set_aside_predictions(files, CATEGORY_IDS)
    assert load_partial_predictions(files.partial_predictions) == {}
    found = load_earlier_predictions(files.partial_predictions, MORE)
    assert found.keys() == {3}
    assert_same(found[3], scored(0.5))


@pytest.mark.parametrize("make", [whole, interrupted])
def test_setting_aside_again_gives_the_same(files, make):
    """As after an interruption, before the note of the new images is written."""
    make(files)
    set_aside_predictions(files, CATEGORY_IDS)
    before = load_earlier_predictions(files.partial_predictions, MORE)
    set_aside_predictions(files, CATEGORY_IDS)
    after = load_earlier_predictions(files.partial_predictions, MORE)
    assert after.keys() == before.keys()
    for number in before:
        assert_same(after[number], before[number])


def test_images_may_be_added_while_added_ones_are_predicted(files, tmp_path):
    whole(files)
    set_aside_predictions(files, CATEGORY_IDS)
    write_json(files.predictions_source, prediction_source(bare_config(tmp_path), MORE))
    with keep_partial_predictions(files.partial_predictions) as keep:
        keep({2: scored(0.25)})  # b.png
    set_aside_predictions(files, CATEGORY_IDS)
    found = load_earlier_predictions(
        files.partial_predictions, images("0.png", "a.png", "b.png", "c.png")
    )
    assert found.keys() == {2, 3, 4}
    assert_same(found[3], scored(0.25))


def test_what_is_set_aside_is_discarded_with_the_pass(files):
    whole(files)
    set_aside_predictions(files, CATEGORY_IDS)
    discard_partial_predictions(files.partial_predictions)
    assert load_earlier_predictions(files.partial_predictions, MORE) == {}


def test_predictions_are_those_of_the_files_whatever_their_ids_are_now(files):
    whole(files)
    found = load_predictions_by_file(files, images("0.png", "a.png", "c.png"), CATEGORY_IDS)
    assert found.keys() == {2, 3}
    assert_same(found[2], scored(0.75))


def test_what_was_set_aside_of_images_that_are_gone_is_made_again(files):
    whole(files)
    set_aside_predictions(files, CATEGORY_IDS)
    assert load_earlier_predictions(files.partial_predictions, images("a.png", "b.png")) == {}
