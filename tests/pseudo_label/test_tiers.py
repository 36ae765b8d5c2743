"""Fused boxes of all models, in two tiers."""

import numpy as np
import pytest
from detectron2.config import get_cfg
from ensemble_boxes import weighted_boxes_fusion
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import DETECTIONS, PREDICTIONS, detections, rows, scored

from d2_ssod.config import add_ssod_config
from d2_ssod.pseudo_label import Tiers, build_pseudo_labels
from d2_ssod.pseudo_label.fuse import fuse_votes
from d2_ssod.pseudo_label.pairs import ImageBoxes
from d2_ssod.pseudo_label.tiers import calibrate
from d2_ssod.structures import Detections, concatenate


def fuse(sources, iou_thresh=0.55):
    """The fused boxes of one image, their votes and spread."""
    fused = fuse_votes([ImageBoxes.of([source]) for source in sources], iou_thresh)
    return fused.boxes.found, fused.votes, fused.spread


def test_fused_box_is_the_mean_by_score_and_its_score_counts_the_votes():
    # IoU 8 / 12 = 2/3. Weights .75 and .25: the edges move by a quarter of 2.
    a, b = detections((0, 0, 10, 10, 0.75, 0)), detections((2, 0, 12, 10, 0.25, 0))
    found, votes, spread = fuse([a, b, Detections.empty()])
    assert rows(found) == [(0.5, 0, 10.5, 10, pytest.approx(0.5 * 2 / 3), 0)]
    assert votes.tolist() == [2]
    # Both x edges: sqrt(.75 * .5^2 + .25 * 1.5^2) = sqrt(.75), of a width of 10; y: none.
    assert spread.tolist() == [[pytest.approx(np.sqrt(0.75) / 10), 0.0]]


def test_two_boxes_of_one_model_are_one_vote():
    twice = detections((0, 0, 10, 10, 0.8, 0), (1, 0, 11, 10, 0.4, 0))
    found, votes, spread = fuse([twice, Detections.empty()])
    assert votes.tolist() == [1]
    assert found.scores.tolist() == [pytest.approx(0.6 / 2)]
    assert np.isnan(spread).all()  # which is by how much models differ


def test_a_box_alone_has_no_spread():
    _, _, spread = fuse([detections((0, 0, 10, 10, 0.8, 0)), Detections.empty()])
    assert np.isnan(spread).all()


def test_classes_do_not_mix():
    found, _, _ = fuse([detections((0, 0, 10, 10, 0.8, 0)), detections((0, 0, 10, 10, 0.6, 1))])
    assert [(row[-2], row[-1]) for row in rows(found)] == [(0.4, 0), (0.3, 1)]


def test_nothing_fuses_to_nothing():
    found, votes, spread = fuse([Detections.empty(), Detections.empty()])
    assert (len(found), votes.shape, spread.shape) == (0, (0,), (0, 2))


@settings(max_examples=60, deadline=None)
@given(st.lists(DETECTIONS, min_size=1, max_size=3))
def test_boxes_are_those_of_weighted_boxes_fusion(sources):
    """Of the library; its scores count boxes, not models, so they are not compared."""
    size = 32.0
    fused, _, _ = fuse(sources)
    boxes, _, classes = weighted_boxes_fusion(
        [(d.boxes / size).tolist() for d in sources],
        [d.scores.tolist() for d in sources],
        [d.classes.tolist() for d in sources],
        iou_thr=0.55,
    )
    key = lambda table: table[np.lexsort(table.T.round(3))]  # noqa: E731
    expected = np.column_stack([boxes * size, classes]).reshape(-1, 5)
    found = np.column_stack([fused.boxes, fused.classes])
    np.testing.assert_allclose(key(found), key(expected), atol=2e-3)


# How certain


def test_calibrated_scores_add_up_to_the_objects_that_there_should_be():
    found = concatenate([scored(0.9, 0.6, 0.3, 0.2, 0.1), scored(0.5, 0.4, 0.2, number=1)])
    quality = calibrate(found, np.array([2.0, 0.5]))
    assert quality[:5].sum() == pytest.approx(2.0)
    assert quality[5:].sum() == pytest.approx(0.5)
    assert (np.diff(quality[:5]) < 0).all()
    # One shift of the log odds for the whole class.
    shift = np.log(quality / (1 - quality)) - np.log(found.scores / (1 - found.scores))
    np.testing.assert_allclose(shift[:5], shift[0], atol=1e-5)


def test_fewer_boxes_than_objects_are_not_all_right():
    assert calibrate(scored(0.9, 0.6), np.array([5.0])).sum() == pytest.approx(1.8)


def test_a_class_that_labels_do_not_have_is_not_believed():
    assert calibrate(scored(0.9), np.array([0.0]))[0] < 1e-9


def test_scores_of_zero_and_one_are_calibrated():
    quality = calibrate(scored(1.0, 0.0, 0.5), np.array([1.0]))
    assert np.isfinite(quality).all()


# Tiers


def label(sources, target, **settings):
    return Tiers(**settings).of_predictions(sources, np.array(target, dtype=np.float64))


def test_best_boxes_are_certain_the_next_uncertain_and_the_rest_background():
    source = {1: scored(0.9, 0.3), 2: scored(0.7), 3: scored(0.6, 0.5), 4: Detections.empty()}
    labels = label([source], [1.0], certain=0.5, all_boxes=1.0)  # 4 objects in 4 images
    assert {i: found.certain.tolist() for i, found in labels.items()} == {
        1: [True],
        2: [True],
        3: [False, False],
        4: [],
    }
    assert [found.votes.tolist() for found in labels.values()] == [[1], [1], [1, 1], []]


def test_low_scores_are_left_out_before_and_after_fusing():
    source, other = {1: scored(0.08, 0.04)}, {1: Detections.empty()}
    assert len(label([source], [5.0])[1]) == 1
    assert len(label([source, other], [5.0])[1]) == 0  # 0.08 / 2


def test_a_model_that_is_hardly_sure_of_a_box_has_no_vote():
    labels = label([{1: scored(0.8)}, {1: scored(0.04)}], [5.0])
    assert labels[1].votes.tolist() == [1]
    assert np.isnan(labels[1].spread).all()


def test_score_of_a_label_is_its_certainty():
    labels = label([{1: scored(0.9, 0.6, 0.3), 2: scored(0.2)}], [1.0], all_boxes=2.0)
    assert sum(found.scores.sum() for found in labels.values()) == pytest.approx(2.0)


@settings(max_examples=40, deadline=None)
@given(PREDICTIONS, st.floats(0, 2), st.floats(0, 1))
def test_tiers_hold_for_any_detections(source, target, certain):
    labels = label([source, source], [target] * 3, certain=certain, all_boxes=1.0)
    assert labels.keys() == source.keys()
    for number in range(3):
        kept = np.concatenate([d.certain[d.classes == number] for d in labels.values()])
        scores = np.concatenate([d.scores[d.classes == number] for d in labels.values()])
        assert len(kept) <= np.ceil(target * len(source))
        assert kept.sum() <= np.ceil(certain * target * len(source))
        if kept.any() and not kept.all():
            assert scores[kept].min() >= scores[~kept].max()
    for found in labels.values():
        assert (np.diff(found.scores) <= 0).all()
        assert ((found.scores >= 0) & (found.scores <= 1)).all()


def test_labels_of_two_tiers_are_selected_and_counted_like_others():
    seen = []
    labels = build_pseudo_labels(
        [{1: scored(0.9, 0.8), 2: scored(0.3), 3: Detections.empty()}],
        np.array([1.0]),
        fraction=0.5,
        rule=Tiers(certain=0.7, all_boxes=1.0),
        observe=lambda step, found: seen.append((step, sum(map(len, found.values())))),
    )
    assert labels.selection.kept == (1,)
    assert labels.boxes_after_consensus == 3
    assert seen == [("model 0", 3), ("consensus", 3), ("certain", 3), ("selected", 2)]
    assert any("2 certain" in line for line in labels.describe(["cat"]))


def test_settings_are_those_of_the_config():
    cfg = get_cfg()
    add_ssod_config(cfg)
    assert Tiers.from_config(cfg) == Tiers(0.55, 0.05, 0.5, 1.0)


def test_a_box_joins_a_cluster_and_not_a_box_of_one():
    # B joins A (IoU .6); C overlaps B (.63), but less the box of both (.47), and begins its own,
    # which D then joins, as it overlaps C most.
    boxes = detections(
        (0, 0, 100, 10, 0.9, 0), (25, 0, 125, 10, 0.8, 0),
        (48, 0, 148, 10, 0.7, 0), (58, 0, 158, 10, 0.6, 0),
    )  # fmt: skip
    found, _, _ = fuse([boxes])
    lefts = [25 * 0.8 / 1.7, (48 * 0.7 + 58 * 0.6) / 1.3]
    assert found.boxes[:, 0].tolist() == pytest.approx(lefts)


def test_boxes_that_overlap_by_the_threshold_are_two():
    pair = detections((0, 0, 10, 10, 0.9, 0), (0, 0, 10, 5, 0.8, 0))
    assert len(fuse([pair], iou_thresh=0.5)[0]) == 2
    assert len(fuse([pair], iou_thresh=0.49)[0]) == 1


def test_spread_is_that_of_the_edge_that_differs_most():
    a, b = detections((0, 0, 10, 10, 0.5, 0)), detections((2, 0, 10, 10, 0.5, 0))
    _, _, spread = fuse([a, b])
    assert spread.tolist() == [[pytest.approx(1 / 9), 0.0]]  # of a width of 9


def test_spread_is_of_right_and_bottom_edges_as_of_the_others():
    a, b = detections((0, 0, 10, 10, 0.5, 0)), detections((0, 1, 12, 13, 0.5, 0))
    _, _, spread = fuse([a, b])
    # Left 0 and right 1, of a width of 11; top .5 and bottom 1.5, of a height of 11.
    assert spread.tolist() == [[pytest.approx(1 / 11), pytest.approx(1.5 / 11)]]


def test_a_part_of_an_object_is_rounded_up_for_both_tiers():
    labels = label([{1: scored(0.9, 0.8, 0.7, 0.6, 0.5)}], [2.5], certain=0.5, all_boxes=1.0)
    assert labels[1].certain.tolist() == [True, True, False]  # 1.25 and 2.5 boxes


def test_boxes_join_clusters_in_the_order_of_their_scores():
    x, y, z = (0, 0, 100, 10, 0.5, 0), (25, 0, 125, 10, 0.9, 0), (50, 0, 150, 10, 0.8, 0)
    found, _, _ = fuse([detections(x, y, z)])  # {y, z} at 36.8, which x overlaps by .46
    assert sorted(found.boxes[:, 0].tolist()) == pytest.approx([0, (25 * 0.9 + 50 * 0.8) / 1.7])


def test_settings_of_tiers_are_read_from_the_config():
    cfg = get_cfg()
    add_ssod_config(cfg)
    for key, value in {"IOU_THRESH": 0.7, "MIN_SCORE": 0.2, "CERTAIN": 0.3, "ALL": 0.9}.items():
        cfg.SSOD.TIERS[key] = value
    assert Tiers.from_config(cfg) == Tiers(0.7, 0.2, 0.3, 0.9)


def test_a_detection_of_the_least_score_is_not_fused():
    # Alone 0.3 of two models: 0.15. With the other box, of 0.1, it would be (0.3 + 0.1) / 2.
    sources = [{1: detections((0, 0, 10, 10, 0.3, 0))}, {1: detections((0, 0, 10, 10, 0.1, 0))}]
    found = Tiers(min_score=0.1).of_predictions(sources, np.array([1.0]))[1]
    assert found.votes.tolist() == [1]


def test_of_no_images_there_are_no_labels():
    assert Tiers().of_predictions([{}, {}], np.ones(2)) == {}
