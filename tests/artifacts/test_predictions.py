import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from samples import CATEGORY_IDS, FOUND, assert_same, detections

from d2_ssod.artifacts import load_predictions, predictions, save_predictions
from d2_ssod.errors import ConfigError
from d2_ssod.structures import Detections


@pytest.fixture
def path(tmp_path):
    return tmp_path / "phase_1" / "predictions.json"


def test_predictions_are_coco_results(path):
    save_predictions(path, FOUND, CATEGORY_IDS)
    assert json.loads(path.read_text()) == [
        {"image_id": 3, "category_id": 3, "bbox": [10, 20, 30, 40], "score": 0.75},
        {"image_id": 3, "category_id": 7, "bbox": [0.1, 0.2, 50.6, 60.7], "score": 0.12346},
        {"image_id": 1, "category_id": 7, "bbox": [5, 5, 20, 10], "score": 0.5},
    ]


def test_predictions_are_the_same_however_many_images_are_written_at_a_time(path, monkeypatch):
    save_predictions(path, FOUND, CATEGORY_IDS)
    whole = path.read_text()
    monkeypatch.setattr(predictions, "_AT_A_TIME", 1)
    save_predictions(path, FOUND, CATEGORY_IDS)
    assert path.read_text() == whole


def test_predictions_one_per_line(path):
    save_predictions(path, FOUND, CATEGORY_IDS)
    assert len(path.read_text().splitlines()) == 3 + 2


def test_predictions_have_no_more_decimals_than_they_need(path):
    """float32 0.1 is 0.10000000149; a file of millions of them would be twice as large."""
    save_predictions(path, {1: detections((0.1, 0.7, 1.234567, 3.3, 0.1, 0))}, CATEGORY_IDS)
    assert '"bbox": [0.1, 0.7, 1.13, 2.6], "score": 0.1}' in path.read_text()


def test_predictions_without_area_are_left_out(path):
    thin = detections((5, 5, 5.004, 9, 0.9, 0), (5, 5, 5.006, 9, 0.8, 0), (5, 5, 9, 5, 0.7, 0))
    save_predictions(path, {1: thin}, CATEGORY_IDS)
    loaded = load_predictions(path, [1], CATEGORY_IDS)
    assert_same(loaded[1], detections((5, 5, 5.01, 9, 0.8, 0)))


_SIZE = st.just(0.0) | st.floats(0.0107421875, 1700, width=32)


@st.composite
def _drawn(draw):
    """XYXY boxes, scores, classes, and which of the boxes have an area."""
    n = draw(st.integers(0, 20))
    corners = draw(arrays(np.float32, (n, 2), elements=st.floats(0, 31000, width=32)))
    sizes = draw(arrays(np.float32, (n, 2), elements=_SIZE))
    found = Detections(
        np.hstack([corners, corners + sizes]),
        draw(arrays(np.float32, n, elements=st.floats(0, 1, width=32))),
        draw(arrays(np.int64, n, elements=st.integers(0, 1))),
    )
    return found, (sizes > 0).all(axis=1)


@settings(max_examples=100, deadline=None)
@given(_drawn())
def test_predictions_are_loaded_as_saved_but_for_rounding_and_then_stay(tmp_path_factory, drawn):
    found, has_area = drawn
    backwards = np.arange(len(found))[::-1]
    predictions = {"b": found, 10: Detections.empty(), 2: found.select(backwards)}
    kept = {"b": has_area, 10: np.zeros(0, bool), 2: has_area[backwards]}
    folder = tmp_path_factory.mktemp("predictions")
    first = save_predictions(folder / "first.json", predictions, CATEGORY_IDS)
    loaded = load_predictions(first, list(predictions), CATEGORY_IDS)
    assert list(loaded) == list(predictions)
    for image_id, of_image in predictions.items():
        expected, actual = of_image.select(kept[image_id]), loaded[image_id]
        np.testing.assert_array_equal(actual.classes, expected.classes)
        np.testing.assert_allclose(actual.scores, expected.scores, rtol=0, atol=0.51e-5)
        # x and the width are rounded by up to 0.005 each, and float32 by up to 0.002.
        np.testing.assert_allclose(actual.boxes, expected.boxes, rtol=0, atol=0.0125)
    second = save_predictions(folder / "second.json", loaded, CATEGORY_IDS)
    assert second.read_bytes() == first.read_bytes()
    again = load_predictions(second, list(predictions), CATEGORY_IDS)
    for image_id, of_image in loaded.items():
        assert_same(again[image_id], of_image)


def test_predictions_of_no_box_round_trip(path):
    save_predictions(path, {1: Detections.empty()}, CATEGORY_IDS)
    loaded = load_predictions(path, [1], CATEGORY_IDS)
    assert_same(loaded[1], Detections.empty())


def test_predictions_are_loaded_in_the_order_of_the_data_set(path):
    save_predictions(path, FOUND, CATEGORY_IDS)
    loaded = load_predictions(path, [1, 2, 3], CATEGORY_IDS)
    assert list(loaded) == [1, 2, 3]
    assert [len(of_image) for of_image in loaded.values()] == [1, 0, 2]


def test_predictions_of_an_unknown_image_name_it(path):
    save_predictions(path, FOUND, CATEGORY_IDS)
    with pytest.raises(ConfigError, match=r"predictions\.json: detection 2 .*1"):
        load_predictions(path, [3], CATEGORY_IDS)


def test_predictions_of_an_unknown_category_name_it(path):
    save_predictions(path, FOUND, CATEGORY_IDS)
    with pytest.raises(ConfigError, match=r"detection 1 .*7"):
        load_predictions(path, [3, 1], [3, 8])


@pytest.mark.parametrize("text", ["{}", '[{"image_id": 1}]', "[1]", "[", ""])
def test_predictions_of_another_format_name_the_file(tmp_path, text):
    path = tmp_path / "predictions.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"predictions\.json: "):
        load_predictions(path, [1], CATEGORY_IDS)


@pytest.mark.parametrize(
    "wrong",
    [
        {"bbox": [1, 2, 3]},
        {"bbox": [1, 2, 3, 4, 5]},
        {"bbox": [1, 2, 3, "wide"]},
        {"bbox": None},
        {"bbox": [1, float("nan"), 3, 4]},
        {"bbox": [1, 2, float("inf"), 4]},
        {"bbox": [1, 2, 3, -0.5]},
        {"score": None},
        {"score": "high"},
        {"score": 87.5},
        {"score": -0.1},
        {"score": float("nan")},
        {"image_id": [1]},
        {"category_id": None},
    ],
)
def test_predictions_that_are_no_coco_results_name_the_place(tmp_path, wrong):
    path = tmp_path / "predictions.json"
    right = {"image_id": 1, "category_id": 7, "bbox": [1, 2, 3, 4], "score": 0.5}
    path.write_text(json.dumps([right, {**right, **wrong}]))
    with pytest.raises(ConfigError, match=r"predictions\.json: detection 1 .* delete the file"):
        load_predictions(path, [1], CATEGORY_IDS)


def test_boxes_of_an_image_stay_in_their_order_where_images_are_mixed(path):
    """As in a file of another program."""
    scores = np.linspace(0.9, 0.1, 400).round(5)
    row = {"category_id": 7, "bbox": [1, 2, 3, 4]}
    rows = [{**row, "image_id": n % 2, "score": s} for n, s in enumerate(scores.tolist())]
    path.parent.mkdir()
    path.write_text(json.dumps(rows))
    loaded = load_predictions(path, [0, 1], CATEGORY_IDS)
    for number, of_image in loaded.items():
        np.testing.assert_allclose(of_image.scores, scores[number::2], rtol=1e-6)
