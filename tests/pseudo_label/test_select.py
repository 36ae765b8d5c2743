import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import PREDICTIONS, scored

from d2_ssod.errors import ConfigError
from d2_ssod.pseudo_label import IMAGE_SCORES, easy_fraction, select_easiest
from d2_ssod.pseudo_label.shares import floor_share
from d2_ssod.structures import Detections, concatenate


def test_select_by_hand():
    pseudo = {
        10: scored(0.5, 1.0),  # 0.75
        11: Detections.empty(),
        12: scored(0.875),
        13: scored(0.25),
        14: scored(0.75),  # ties with 10
        15: scored(0.5),
    }
    # Five images have pseudo-labels; half of them, rounded down, is two.
    selection = select_easiest(pseudo, 0.5)
    assert selection.kept == (12, 10)
    assert selection.left_out == (14, 15, 13)
    assert selection.empty == (11,)
    assert selection.scores == {10: 0.75, 12: 0.875, 13: 0.25, 14: 0.75, 15: 0.5}


def test_select_orders_equal_scores_by_id():
    # Numbers by value (9 before 10), then texts by letters ("10" before "9").
    pseudo = {image_id: scored(0.5) for image_id in ["9", 10, "b", 9, "10", "a"]}
    assert select_easiest(pseudo, 1.0).kept == (9, 10, "10", "9", "a", "b")


def test_select_mean_does_not_depend_on_box_order():
    scores = np.random.default_rng(0).uniform(0.05, 1, 30)
    pseudo = {2: scored(*scores), 1: scored(*scores[::-1]), 0: scored(*sorted(scores))}
    selection = select_easiest(pseudo, 1.0)
    assert len(set(selection.scores.values())) == 1
    assert selection.kept == (0, 1, 2)


def test_select_without_any_pseudo_label_selects_nothing():
    selection = select_easiest({1: Detections.empty(), 2: Detections.empty()}, 1.0)
    assert selection.kept == selection.left_out == ()
    assert selection.empty == (1, 2)


@pytest.mark.parametrize(
    ("fraction", "count", "expected"),
    [
        (1 / 3, 3, 1),  # 1/3 as a float is below a third
        (0.29, 100, 29),  # 0.29 * 100 = 28.999999999999996
        (0.7, 10, 7),
        (0.57, 100, 57),  # 56.99999999999999
        (0.5, 5, 2),
        (1.0, 5, 5),
        (0.0, 5, 0),
        (1.0, 0, 0),
        (0.999999, 10**6, 999999),
    ],
)
def test_floor_share_by_hand(fraction, count, expected):
    assert floor_share(fraction, count) == expected


@given(st.integers(1, 1000), st.data())
def test_floor_share_of_phases_is_whole_number_division(num_phases, data):
    phase = data.draw(st.integers(1, num_phases))
    count = data.draw(st.integers(0, 10**6))
    assert floor_share(phase / num_phases, count) == phase * count // num_phases


@pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan")])
def test_floor_share_refuses_a_bad_fraction(fraction):
    with pytest.raises(ValueError, match="fraction"):
        floor_share(fraction, 3)


def test_easy_fraction_grows_to_one():
    assert [easy_fraction(i, 4) for i in range(1, 5)] == [0.25, 0.5, 0.75, 1.0]
    assert easy_fraction(1, 1) == 1.0


def test_easy_fraction_override():
    assert easy_fraction(1, 2, [0.3, 0.9]) == 0.3
    assert easy_fraction(2, 2, (0.3, 1)) == 1.0


@pytest.mark.parametrize("overrides", [[0.5], [0.5, 1.5], [0.5, float("nan")], [0.1, 0.2, 0.3]])
def test_easy_fraction_names_the_key(overrides):
    with pytest.raises(ConfigError, match=r"SSOD\.EASY_FRACTIONS"):
        easy_fraction(1, 2, overrides)


@pytest.mark.parametrize("phase", [0, 3])
def test_easy_fraction_refuses_other_phases(phase):
    with pytest.raises(ValueError, match=r"1\.\.2"):
        easy_fraction(phase, 2)


@settings(max_examples=100, deadline=None)
@given(PREDICTIONS, st.integers(0, 6))
def test_select_is_the_top_of_the_ranking(pseudo, sixths):
    selection = select_easiest(pseudo, sixths / 6)
    with_labels = [i for i, found in pseudo.items() if len(found)]
    assert sorted(selection.kept + selection.left_out) == with_labels
    assert set(selection.empty) == set(pseudo) - set(with_labels)
    assert len(selection.kept) == sixths * len(with_labels) // 6
    ranked = selection.kept + selection.left_out
    keys = [(-selection.scores[i], i) for i in ranked]
    assert keys == sorted(keys)
    for image_id in ranked:
        mean = pseudo[image_id].scores.astype(np.float64).mean()
        assert selection.scores[image_id] == pytest.approx(mean, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(PREDICTIONS, st.integers(1, 4))
def test_select_phases_grow(pseudo, num_phases):
    before = ()
    for phase in range(1, num_phases + 1):
        kept = select_easiest(pseudo, easy_fraction(phase, num_phases)).kept
        assert kept[: len(before)] == before
        before = kept
    assert len(before) == sum(len(found) > 0 for found in pseudo.values())


# Other rules than Eq. 1


def of_class(number, *scores):
    """Boxes of one class with these scores."""
    found = scored(*scores)
    return Detections(found.boxes, found.scores, np.full(len(scores), number, dtype=np.int64))


def joined(*parts):
    return concatenate(list(parts))


def test_expected_quality_by_hand():
    pseudo = {1: scored(0.5, 0.5), 2: scored(0.75, 0.25), 3: scored(1.0, 0.0), 4: scored(0.0)}
    selection = select_easiest(pseudo, 1.0, "expected_quality")
    # (.25 + .25) / 1, (.5625 + .0625) / 1, 1 / 1, 0 / 0 as 0.
    assert selection.scores == {1: 0.5, 2: 0.625, 3: 1.0, 4: 0.0}
    assert selection.kept == (3, 2, 1, 4)


def test_class_balanced_by_hand():
    pseudo = {
        1: of_class(0, 0.9, 0.8),  # ranks 4/4 and 3/4
        2: of_class(0, 0.7, 0.6),  # 2/4 and 1/4
        3: of_class(1, 0.2),  # 2/2
        4: joined(of_class(1, 0.1), of_class(2, 0.5)),  # 1/2 and 1/1
        5: Detections.empty(),
    }
    selection = select_easiest(pseudo, 0.75, "class_balanced")
    assert selection.scores == {1: 0.875, 2: 0.375, 3: 1.0, 4: 0.75}
    assert selection.kept == (3, 1, 4)
    assert selection.empty == (5,)
    # By their mean score the images of class 1 come last.
    assert select_easiest(pseudo, 0.75).kept == (1, 2, 4)


def test_class_balanced_gives_equal_scores_equal_ranks():
    pseudo = {number: scored(0.5) for number in range(3)}
    assert set(select_easiest(pseudo, 1.0, "class_balanced").scores.values()) == {1.0}


def test_no_class_vanishes_from_balanced_images():
    """One class is always less certain than the other, as crazing on steel is."""
    rng = np.random.default_rng(0)
    pseudo = {}
    for number in range(200):
        low, high = (0.1, 0.3) if number % 2 else (0.6, 0.95)
        pseudo[number] = of_class(number % 2, *rng.uniform(low, high, 3))
    uncertain = [n for n in select_easiest(pseudo, 0.5).kept if n % 2]
    balanced = [n for n in select_easiest(pseudo, 0.5, "class_balanced").kept if n % 2]
    assert uncertain == []
    assert 40 <= len(balanced) <= 60


@settings(max_examples=30, deadline=None)
@given(PREDICTIONS, st.sampled_from(list(IMAGE_SCORES)))
def test_every_rule_scores_the_images_with_boxes_between_0_and_1(pseudo, rule):
    selection = select_easiest(pseudo, 1.0, rule)
    with_boxes = {image_id for image_id, found in pseudo.items() if len(found)}
    assert set(selection.scores) == set(selection.kept) == with_boxes
    assert all(0 <= score <= 1 for score in selection.scores.values())
    nothing = {1: Detections.empty()}
    assert select_easiest(nothing, 1.0, rule).kept == ()
    assert select_easiest({}, 1.0, rule).kept == ()


def test_unknown_rule_is_refused():
    with pytest.raises(ValueError, match="rule must be one of mean_score"):
        select_easiest({}, 1.0, "best")
