import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import PREDICTIONS, assert_same, detections, rows, scored

from d2_ssod.errors import ConfigError
from d2_ssod.pseudo_label import keep_best, match_counts, objects_per_image
from d2_ssod.pseudo_label.threshold import THRESHOLD_GRID
from d2_ssod.structures import Detections


def test_grid_holds_the_floats_nearest_to_the_decimals():
    assert THRESHOLD_GRID.tolist() == [float(f"{i // 100}.{i % 100:02d}") for i in range(10, 101)]


def test_objects_per_image_counts_no_crowds():
    images = [
        {
            "annotations": [
                {"category_id": 0},
                {"category_id": 0, "iscrowd": 1},
                {"category_id": 2, "iscrowd": 0},
            ]
        },
        {"annotations": [{"category_id": 0}]},
        {"annotations": []},
        {},
    ]
    # Class 0: 2 objects, class 1: none, class 2: 1, in 4 images.
    assert objects_per_image(images, 3).tolist() == [0.5, 0.0, 0.25]


def test_objects_per_image_without_images_names_the_key():
    with pytest.raises(ConfigError, match=r"DATASETS\.TRAIN"):
        objects_per_image([], 3)


def test_match_counts_by_hand():
    predictions = {
        1: detections((0, 0, 9, 9, 0.9, 0), (0, 0, 9, 9, 0.555, 0), (0, 0, 9, 9, 0.3, 1)),
        2: detections((0, 0, 9, 9, 0.305, 0), (0, 0, 9, 9, 0.07, 0)),
    }
    # Class 0, target 1 per image = 2 boxes: more than 0.305 and not more than 0.555. The lowest
    # such threshold is 0.31 (score 0.305 > 0.30 still counts).
    # Class 1, target 0: no box. Score 0.3 > 0.29, but not > 0.30.
    # Class 2, never seen, target 1: nothing helps, all thresholds tie at the lowest.
    thresholds = match_counts(predictions, np.array([1.0, 0.0, 1.0]))
    assert thresholds.values.tolist() == [0.31, 0.30, 0.10]
    assert thresholds.target.tolist() == [1.0, 0.0, 1.0]
    assert thresholds.achieved.tolist() == [1.0, 0.0, 0.0]
    pseudo = thresholds.apply(predictions)
    assert rows(pseudo[1]) == [(0, 0, 9, 9, 0.9, 0), (0, 0, 9, 9, 0.555, 0)]
    assert len(pseudo[2]) == 0


def test_match_counts_tie_between_too_many_and_too_few_takes_lowest():
    # 10 images; 3 boxes above 0.44, 1 above 0.45. Target 0.2 = 2 boxes: both are one box off.
    predictions = {i: Detections.empty() for i in range(10)}
    predictions[0] = scored(0.55, 0.45, 0.45)
    thresholds = match_counts(predictions, np.array([0.2]))
    assert thresholds.values.tolist() == [0.10]
    assert thresholds.achieved.tolist() == [0.3]


@pytest.mark.parametrize(("images", "more", "fewer"), [(10, 4, 2), (10, 9, 5), (7, 3, 1)])
def test_match_counts_tie_is_not_decided_by_rounding(images, more, fewer):
    # Such as target 0.3 between 0.4 and 0.2: as floats, 0.4 - 0.3 > 0.3 - 0.2.
    predictions = {i: Detections.empty() for i in range(images)}
    predictions[0] = scored(*[0.55] * fewer, *[0.45] * (more - fewer))
    target = np.array([(more + fewer) / 2 / images])
    assert match_counts(predictions, target).values.tolist() == [0.10]


def test_match_counts_score_one_never_passes_threshold_one():
    thresholds = match_counts({0: scored(1.0)}, np.array([0.0]))
    assert thresholds.values.tolist() == [1.0]
    assert len(thresholds.apply({0: scored(1.0)})[0]) == 0


@pytest.mark.parametrize("target", [[np.nan], [-1.0], [[1.0]]])
def test_match_counts_refuses_a_bad_target(target):
    with pytest.raises(ValueError, match="target"):
        match_counts({0: scored(0.5)}, np.array(target))


def test_match_counts_refuses_an_unknown_class():
    with pytest.raises(ValueError, match=r"class ids must be in 0\.\.0"):
        match_counts({0: scored(0.5, number=1)}, np.array([1.0]))


def test_match_counts_refuses_scores_that_are_no_numbers():
    """They would be counted as above every threshold, and dropped by each."""
    with pytest.raises(ValueError, match="1 are not finite"):
        match_counts({0: scored(0.5, np.nan)}, np.array([1.0]))


@pytest.mark.parametrize("number", [-1, 2, 17])
def test_objects_of_no_class_are_not_counted(number):
    record = {"file_name": "a.png", "annotations": [{"category_id": number}]}
    with pytest.raises(ConfigError, match=rf"a\.png: category_id {number} is none of the 2"):
        objects_per_image([record], 2)


def test_match_counts_refuses_no_images():
    with pytest.raises(ValueError, match="at least one image"):
        match_counts({}, np.array([1.0]))


@settings(max_examples=60, deadline=None)
@given(PREDICTIONS, st.lists(st.integers(0, 12), min_size=3, max_size=3))
def test_match_counts_is_optimal_and_lowest(predictions, objects):
    target = np.array(objects) / 4  # four labeled images
    thresholds = match_counts(predictions, target)
    pseudo = thresholds.apply(predictions)
    for number in range(3):
        scores = np.concatenate([d.scores[d.classes == number] for d in predictions.values()])
        # In whole numbers, scaled by 4 * len(predictions): exact.
        distances = [
            abs(4 * int((scores > np.float32(t)).sum()) - objects[number] * len(predictions))
            for t in THRESHOLD_GRID
        ]
        assert thresholds.values[number] == THRESHOLD_GRID[int(np.argmin(distances))]
        kept = sum(int((d.classes == number).sum()) for d in pseudo.values())
        assert thresholds.achieved[number] == kept / len(predictions)


@settings(max_examples=60, deadline=None)
@given(PREDICTIONS, st.floats(0, 3), st.floats(0, 3))
def test_match_counts_more_objects_never_raise_the_threshold(predictions, one, other):
    fewer, more = sorted([one, other])
    low = match_counts(predictions, np.full(3, more)).values
    high = match_counts(predictions, np.full(3, fewer)).values
    assert (low <= high).all()


def test_keep_best_by_hand():
    predictions = {
        "a": detections((0, 0, 9, 9, 0.5, 0), (1, 0, 9, 9, 0.9, 0), (0, 0, 9, 9, 0.2, 1)),
        "b": detections((2, 0, 9, 9, 0.5, 0), (3, 0, 9, 9, 0.6, 0), (4, 0, 9, 9, 0.1, 0)),
        "c": Detections.empty(),
    }
    # Class 0 has 5 boxes, half of it is 2.5: the two best, 0.9 and 0.6. Class 1: floor(0.5) = 0.
    half = keep_best(predictions, 0.5)
    assert list(half) == ["a", "b", "c"]
    assert rows(half["a"]) == [(1, 0, 9, 9, 0.9, 0)]
    assert rows(half["b"]) == [(3, 0, 9, 9, 0.6, 0)]
    assert len(half["c"]) == 0
    # 60 %: three; of the two boxes with 0.5 that of the first image.
    assert rows(keep_best(predictions, 0.6)["a"])[0] == (0, 0, 9, 9, 0.5, 0)


@settings(max_examples=60, deadline=None)
@given(PREDICTIONS, st.integers(0, 10))
def test_keep_best_keeps_the_top_of_each_class(predictions, tenths):
    kept = keep_best(predictions, tenths / 10)
    assert list(kept) == list(predictions)
    for number in range(3):
        before = np.concatenate([d.scores[d.classes == number] for d in predictions.values()])
        after = np.concatenate([d.scores[d.classes == number] for d in kept.values()])
        assert sorted(after) == sorted(before)[len(before) - len(before) * tenths // 10 :]
    for image_id, found in kept.items():  # unchanged and in the old order
        old = rows(predictions[image_id])
        positions = iter(old)
        assert all(row in positions for row in rows(found))


def test_keep_best_all_changes_nothing():
    predictions = {0: scored(0.5, 0.6), 1: Detections.empty()}
    kept = keep_best(predictions, 1.0)
    for image_id, found in predictions.items():
        assert_same(kept[image_id], found)


def test_keep_best_refuses_a_bad_fraction():
    with pytest.raises(ValueError, match=r"fraction must be in \[0, 1\], got 1.5"):
        keep_best({0: scored(0.5)}, 1.5)


def test_rounding_does_not_decide_a_tie():
    # 3 / 22 objects per image, 55 images: 7.5 boxes, which is 7.499... in float64.
    source = {i: scored(0.9 if i < 7 else 0.5) if i < 8 else scored() for i in range(55)}
    assert match_counts(source, np.array([3 / 22])).values.tolist() == [0.10]
