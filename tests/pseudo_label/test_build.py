import numpy as np
import pytest
from hypothesis import given, settings
from samples import PREDICTIONS, assert_same, detections, rows, scored

from d2_ssod.pseudo_label import (
    Consensus,
    Tiers,
    build_pseudo_labels,
    keep_best,
    match_counts,
    select_easiest,
)
from d2_ssod.structures import Detections

# Two models, four images. Target: one object of class 0 per image, none of class 1.
OLD = {
    1: detections((0, 0, 10, 10, 0.905, 0)),
    2: detections((0, 0, 10, 10, 0.705, 0), (50, 0, 60, 10, 0.6, 0)),
    3: detections((0, 0, 10, 10, 0.505, 0), (50, 0, 60, 10, 0.3, 1)),
    4: Detections.empty(),
}
NEW = {
    1: detections((1, 0, 11, 10, 0.8, 0)),
    2: detections((1, 0, 11, 10, 0.955, 0)),
    3: detections((70, 0, 80, 10, 0.9, 0)),
    4: detections((0, 0, 10, 10, 0.4, 0), (20, 0, 30, 10, 0.35, 0)),
}
TARGET = np.array([1.0, 0.0])


@pytest.fixture
def labels():
    return build_pseudo_labels([OLD, NEW], TARGET, fraction=0.5)


def test_build_by_hand(labels):
    # Old model: four boxes of class 0 in four images, so all count: 0.10. Its class 1 must go:
    # 0.30. New model: five, of which 0.35 must go: 0.35 is the lowest threshold for four.
    assert [t.values.tolist() for t in labels.thresholds] == [[0.10, 0.30], [0.35, 0.10]]
    assert labels.boxes_after_threshold == (4, 4)
    # Agreed (IoU 9/11): image 1 the old model's 0.905, image 2 the new model's 0.955.
    assert labels.boxes_after_consensus == 2
    # One of two images: the easier.
    assert list(labels.selected) == [2]
    assert rows(labels.selected[2]) == [(1, 0, 11, 10, 0.955, 0)]
    assert labels.selection.left_out == (1,)
    assert labels.selection.empty == (3, 4)
    assert labels.num_unlabeled == 4
    assert labels.num_boxes == 1
    assert labels.boxes_per_class.tolist() == [1, 0]
    assert labels.score_of_last_kept == pytest.approx(0.955)


def test_build_describes_what_was_chosen(labels):
    text = "\n".join(labels.describe(["cat", "dog"]))
    assert "cat 0.10, dog 0.30" in text
    assert "1.00 boxes per unlabeled image" in text
    assert "Consensus of 2 models: 2 boxes" in text
    assert "easiest 1 of 4 images with 1 boxes" in text
    assert "1 are left for later, 2 have no pseudo-label" in text
    assert "0.955" in text


def test_build_describes_many_classes_in_short():
    labels = build_pseudo_labels([{1: scored(0.5)}], np.ones(80), fraction=1.0)
    assert "of 80 classes 0.10 to 0.10, median 0.10" in labels.describe(["c"] * 80)[0]


def test_build_selecting_nothing():
    labels = build_pseudo_labels([{1: Detections.empty()}], TARGET, fraction=1.0)
    assert labels.selected == {}
    assert labels.score_of_last_kept is None
    assert labels.boxes_per_class.tolist() == [0, 0]
    assert "easiest 0 of 1 images" in labels.describe(["cat", "dog"])[-1]


@settings(max_examples=40, deadline=None)
@given(PREDICTIONS)
def test_build_is_the_steps_one_after_another(predictions):
    target = np.array([0.5, 1.0, 0.0])
    other = {i: d.select(np.arange(len(d)) % 3 > 0) for i, d in predictions.items()}
    pseudo = [keep_best(match_counts(p, target).apply(p), 0.5) for p in (predictions, other)]
    consensus = Consensus(iou_thresh=0.4, nms_thresh=0.2)
    agreed = consensus.of_predictions(pseudo)
    kept = select_easiest(agreed, 0.5).kept
    labels = build_pseudo_labels(
        [predictions, other],
        target,
        fraction=0.5,
        rule=consensus,
        keep_fraction=0.5,
    )
    assert tuple(labels.selected) == kept
    for image_id in kept:
        assert_same(labels.selected[image_id], agreed[image_id])


def test_tiers_are_of_the_raw_boxes_that_thresholds_would_drop():
    sources = [{1: scored(0.9, 0.3), 2: scored(0.2)}]
    # Thresholds keep the best box of the two images; the tiers take as many uncertain ones more.
    made = build_pseudo_labels(
        sources, np.array([0.5]), fraction=1.0, rule=Tiers(certain=1.0, all_boxes=3.0)
    )
    assert made.boxes_after_threshold == (1,)
    assert made.boxes_after_consensus == 3


def test_selected_images_are_in_the_order_of_their_scores():
    source = {1: scored(0.5), 2: scored(0.9), 3: scored(0.7), 4: scored(0.3)}
    made = build_pseudo_labels([source], np.array([1.0]), fraction=0.75)
    assert list(made.selected) == [2, 3, 1]
    assert made.score_of_last_kept == pytest.approx(0.5)


def test_what_is_no_list_of_models_is_refused():
    with pytest.raises(TypeError, match="a list of the predictions of each model"):
        build_pseudo_labels(OLD, TARGET, fraction=1.0)
    with pytest.raises(TypeError, match=r"rule must be a rule with its settings.*'consensus'"):
        build_pseudo_labels([OLD], TARGET, fraction=1.0, rule="consensus")


def test_images_are_selected_by_the_rule_that_is_asked_for():
    # Means 0.55 and 0.6.
    source = {1: scored(0.9, 0.2), 2: scored(0.6), 3: detections((0, 0, 10, 10, 0.1, 1))}
    # sum s^2 / sum s: image 1 0.85 / 1.1 = 0.77, image 2 0.6.
    of = {
        rule: list(
            build_pseudo_labels(
                [source], np.array([1.0, 0.0]), fraction=0.5, selection_rule=rule
            ).selected
        )
        for rule in ("mean_score", "expected_quality")
    }
    assert of == {"mean_score": [2], "expected_quality": [1]}


def test_labels_of_no_image_are_of_no_tiers():
    # What has tiers is refused of a rule that says it gives none.
    assert not build_pseudo_labels([{1: Detections.empty()}], TARGET, fraction=1.0).has_tiers


def test_the_labels_after_each_step_are_observed():
    seen = {}
    build_pseudo_labels([OLD, NEW], TARGET, fraction=0.5, observe=seen.__setitem__)
    assert list(seen) == ["model 0", "model 1", "consensus", "selected"]
    # Above the thresholds (see above): the old model's class 1 and the new one's 0.35 are not.
    assert [sum(map(len, labels.values())) for labels in seen.values()] == [4, 4, 2, 1]
