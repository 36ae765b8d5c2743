import numpy as np
import pytest
from detectron2.config import get_cfg
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import DETECTIONS, PREDICTIONS, assert_same, detections, rows

from d2_ssod.config import add_ssod_config
from d2_ssod.pseudo_label import Consensus, pairs
from d2_ssod.structures import Detections

DEFAULT = Consensus()


def intersect(a, b, consensus=DEFAULT):
    """What both of two models see in an image."""
    return consensus.of_predictions([{7: a}, {7: b}])[7]


def test_intersect_keeps_the_better_of_a_pair_and_drops_the_lonely():
    # 10 x 10 boxes shifted by 2: intersection 80, union 120, IoU 2/3 > 0.5.
    a = detections((0, 0, 10, 10, 0.6, 0), (50, 0, 60, 10, 0.99, 0), (80, 0, 90, 10, 0.9, 1))
    b = detections((2, 0, 12, 10, 0.8, 0), (82, 0, 92, 10, 0.7, 1), (20, 50, 30, 60, 0.95, 0))
    assert rows(intersect(a, b)) == [(80, 0, 90, 10, 0.9, 1), (2, 0, 12, 10, 0.8, 0)]


def test_intersect_needs_the_same_class():
    a, b = detections((0, 0, 10, 10, 0.6, 0)), detections((0, 0, 10, 10, 0.6, 1))
    assert len(intersect(a, b)) == 0


def test_intersect_needs_more_than_the_threshold():
    # 12 x 10 against 24 x 10 around it: IoU exactly 1/2.
    a, b = detections((0, 0, 12, 10, 0.6, 0)), detections((0, 0, 24, 10, 0.7, 0))
    assert len(intersect(a, b)) == 0
    assert rows(intersect(a, b, Consensus(iou_thresh=0.49))) == rows(b)


def test_intersect_tie_takes_the_first_models_box():
    a, b = detections((0, 0, 10, 10, 0.6, 0)), detections((1, 0, 11, 10, 0.6, 0))
    assert rows(intersect(a, b)) == rows(a)
    assert rows(intersect(b, a)) == rows(b)


def test_intersect_of_empty_images_is_empty():
    a = detections((0, 0, 10, 10, 0.6, 0))
    nothing = Detections.empty()
    for pair in [(a, nothing), (nothing, a), (nothing, nothing)]:
        assert len(intersect(*pair)) == 0


def test_intersect_suppresses_chains_by_score():
    # Boxes 20 wide shifted by s overlap with IoU (20 - s) / (20 + s).
    # A: a1 at 0 (0.9). B: b1 at 5 (0.8), IoU(a1, b1) = 15/25 = 0.6: pair, a1 kept.
    # A: a2 at 11 (0.5), IoU(a2, b1) = 14/26 = 0.54: pair, b1 kept as well (0.8 > 0.5).
    # NMS at 0.3: a1 suppresses b1 (0.6). a2 lost its only pair and is not kept.
    a = detections((0, 0, 20, 10, 0.9, 0), (11, 0, 31, 10, 0.5, 0))
    b = detections((5, 0, 25, 10, 0.8, 0))
    assert rows(intersect(a, b)) == [(0, 0, 20, 10, 0.9, 0)]
    # Without suppression both stay.
    assert rows(intersect(a, b, Consensus(nms_thresh=1.0))) == [
        (0, 0, 20, 10, 0.9, 0),
        (5, 0, 25, 10, 0.8, 0),
    ]


def test_intersect_suppression_does_not_cross_classes():
    a = detections((0, 0, 10, 10, 0.9, 0), (0, 0, 10, 10, 0.8, 1))
    assert rows(intersect(a, a)) == rows(a)


def test_intersect_keeps_a_box_of_both_models_once():
    # Each box pairs with itself and with the other; without suppression a box could come twice.
    a = detections((0, 0, 10, 10, 0.9, 0), (1, 0, 11, 10, 0.8, 0))
    assert rows(intersect(a, a, Consensus(nms_thresh=1.0))) == rows(a)


def test_consensus_of_three_folds_from_the_left():
    # Shifts 0, 5, 10 of boxes 20 wide: neighbors have IoU 0.6, the outer two 1/3.
    a = {7: detections((0, 0, 20, 10, 0.9, 0))}
    b = {7: detections((5, 0, 25, 10, 0.8, 0))}
    c = {7: detections((10, 0, 30, 10, 0.7, 0))}
    # (a and b) = a's box; a's box and c's: IoU 1/3, no pair.
    assert len(DEFAULT.of_predictions([a, b, c])[7]) == 0
    # (b and a) = a's box again; but (b and c) = b's box, and b's and a's: pair, a's is better.
    assert rows(DEFAULT.of_predictions([b, c, a])[7]) == [(0, 0, 20, 10, 0.9, 0)]
    # Three votes of three is the same rule, not that of counting, by which b's would stay: only b
    # has two partners.
    assert rows(Consensus(min_votes=3).of_predictions([b, c, a])[7]) == [(0, 0, 20, 10, 0.9, 0)]


def test_consensus_with_votes_accepts_two_of_three():
    a = {7: detections((0, 0, 20, 10, 0.9, 0), (100, 0, 120, 10, 0.9, 0))}
    b = {7: detections((5, 0, 25, 10, 0.8, 0))}
    c = {7: detections((200, 0, 220, 10, 0.7, 0))}
    assert rows(Consensus(min_votes=2).of_predictions([a, b, c])[7]) == [(0, 0, 20, 10, 0.9, 0)]
    # One vote: everything, after suppression.
    assert [row[0] for row in rows(Consensus(min_votes=1).of_predictions([a, b, c])[7])] == [
        0,
        100,
        200,
    ]
    # As many votes as models, or more: the fold.
    for votes in (0, 3, 4):
        assert len(Consensus(min_votes=votes).of_predictions([a, b, c])[7]) == 0


def test_vote_counts_models_not_boxes():
    # Two boxes of model 1 on the object are one vote.
    a = detections((0, 0, 20, 10, 0.9, 0))
    b = detections((1, 0, 21, 10, 0.8, 0), (2, 0, 22, 10, 0.7, 0))
    c = detections((100, 0, 120, 10, 0.6, 0))
    sources = [{7: found} for found in (a, b, c, Detections.empty())]
    assert len(Consensus(min_votes=3).of_predictions(sources)[7]) == 0
    assert rows(Consensus(min_votes=2).of_predictions(sources)[7]) == rows(a)


def test_consensus_of_one_model_is_unchanged():
    only = {1: detections((0, 0, 10, 10, 0.9, 0), (1, 0, 11, 10, 0.8, 0)), 2: Detections.empty()}
    for votes in (0, 2):
        agreed = Consensus(min_votes=votes).of_predictions([only])
        assert list(agreed) == [1, 2]
        assert_same(agreed[1], only[1])


def test_consensus_refuses_different_images():
    with pytest.raises(ValueError, match="same images"):
        DEFAULT.of_predictions([{1: Detections.empty()}, {2: Detections.empty()}])


def test_consensus_refuses_no_models():
    with pytest.raises(ValueError, match="at least one"):
        DEFAULT.of_predictions([])


def test_consensus_refuses_negative_votes():
    with pytest.raises(ValueError, match=r"min_votes must be >= 0 .* got -1"):
        Consensus(min_votes=-1)


def test_consensus_reads_its_keys():
    cfg = get_cfg()
    add_ssod_config(cfg)
    assert Consensus.from_config(cfg) == DEFAULT
    for key, value in {"IOU_THRESH": 0.6, "NMS_THRESH": 0.2, "MIN_VOTES": 2}.items():
        cfg.SSOD.CONSENSUS[key] = value
    assert Consensus.from_config(cfg) == Consensus(iou_thresh=0.6, nms_thresh=0.2, min_votes=2)


def _iou(p, q):
    width = min(p[2], q[2]) - max(p[0], q[0])
    height = min(p[3], q[3]) - max(p[1], q[1])
    common = max(width, 0) * max(height, 0)
    areas = [(r[2] - r[0]) * (r[3] - r[1]) for r in (p, q)]
    return common / (sum(areas) - common)


def _intersect_by_loops(a, b, iou_thresh, nms_thresh):
    """The rule of the method as it reads, one pair after another."""
    kept = []
    for p in rows(a):
        for q in rows(b):
            if p[5] == q[5] and _iou(p, q) > iou_thresh:
                kept.append((1, q) if q[4] > p[4] else (0, p))
    # The order among equal scores: model A before B, each in its own order.
    order = [(0, p) for p in rows(a)] + [(1, q) for q in rows(b)]
    kept = sorted(set(kept), key=lambda item: (-item[1][4], order.index(item)))
    result = []
    for _, row in kept:
        if all(row[5] != other[5] or _iou(row, other) <= nms_thresh for other in result):
            result.append(row)
    return result


@settings(max_examples=200, deadline=None)
@given(DETECTIONS, DETECTIONS, st.sampled_from([0.3, 0.5, 0.6]), st.sampled_from([0.0, 0.3, 0.5]))
def test_intersect_equals_the_rule_in_loops(a, b, iou_thresh, nms_thresh):
    agreed = intersect(a, b, Consensus(iou_thresh, nms_thresh))
    assert rows(agreed) == _intersect_by_loops(a, b, iou_thresh, nms_thresh)


@settings(max_examples=100, deadline=None)
@given(DETECTIONS, DETECTIONS)
def test_intersect_boxes_are_unchanged_and_have_a_partner(a, b):
    for row in rows(intersect(a, b)):
        sources = [other for own, other in ((a, b), (b, a)) if row in rows(own)]
        assert sources
        assert any(
            partner[5] == row[5] and _iou(partner, row) > 0.5 and partner[4] <= row[4]
            for other in sources
            for partner in rows(other)
        )


@settings(max_examples=100, deadline=None)
@given(DETECTIONS)
def test_intersect_with_itself_is_its_own_suppression(a):
    alone = Consensus(min_votes=1).of_predictions([{7: a}, {7: Detections.empty()}])[7]
    assert rows(intersect(a, a)) == rows(alone)
    assert set(rows(intersect(a, a))) <= set(rows(a))


@settings(max_examples=60, deadline=None)
@given(PREDICTIONS, st.data(), st.integers(0, 3))
def test_consensus_keeps_images_and_only_given_boxes(first, data, min_votes):
    sources = [first] + [{i: data.draw(DETECTIONS) for i in first} for _ in range(2)]
    agreed = Consensus(min_votes=min_votes).of_predictions(sources)
    assert list(agreed) == list(first)
    for image_id, found in agreed.items():
        given_boxes = {row for source in sources for row in rows(source[image_id])}
        assert set(rows(found)) <= given_boxes
        assert (np.diff(found.scores) <= 0).all()


# Many images at once


def nested_loops(sources, consensus):
    """Box by box, as the text has it: what is kept of one image."""
    boxes = [
        (model, *row)
        for model, found in enumerate(sources)
        for row in zip(*columns(found), strict=True)
    ]

    def mean_the_same(a, b):
        return a[0] != b[0] and a[3] == b[3] and overlap(a[1], b[1]) > consensus.iou_thresh

    def beats(a, b):
        return (a[2], -a[0]) > (b[2], -b[0])

    kept = []
    for box in boxes:
        partners = [other for other in boxes if mean_the_same(box, other)]
        votes = 1 + len({other[0] for other in partners})
        wins = consensus.min_votes == 1 or any(beats(box, other) for other in partners)
        if votes >= consensus.min_votes and wins and all(box[1:] != other[1:] for other in kept):
            kept.append(box)
    best = []
    for box in sorted(kept, key=lambda box: -box[2]):
        if all(
            box[3] != other[3] or overlap(box[1], other[1]) <= consensus.nms_thresh
            for other in best
        ):
            best.append(box)
    return [(*box[1], round(box[2], 6), box[3]) for box in best]


def columns(found):
    return (
        [tuple(box) for box in found.boxes.tolist()],
        found.scores.tolist(),
        found.classes.tolist(),
    )


def overlap(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return width * height / (sum(areas) - width * height)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(DETECTIONS, DETECTIONS, DETECTIONS), min_size=1, max_size=4), st.data())
def test_votes_of_many_images_are_those_of_nested_loops(images, data):
    thresholds = st.sampled_from([0.0, 0.3, 0.5, 1.0])
    consensus = Consensus(
        data.draw(thresholds), data.draw(thresholds), data.draw(st.integers(1, 2))
    )
    sources = [dict(enumerate(of_model)) for of_model in zip(*images, strict=True)]
    agreed = consensus.of_predictions(sources)
    for number, of_image in enumerate(images):
        assert rows(agreed[number]) == nested_loops(of_image, consensus)


def test_images_are_compared_in_parts_that_fit_into_memory(monkeypatch):
    sources = [{i: detections((0, 0, 10, 10, 0.5 + 0.01 * i, 0)) for i in range(9)}] * 2
    whole = DEFAULT.of_predictions(sources)
    monkeypatch.setattr(pairs, "_PAIRS_AT_ONCE", 8)
    in_parts = DEFAULT.of_predictions(sources)
    assert list(in_parts) == list(whole) == list(range(9))
    for number in range(9):
        assert_same(in_parts[number], whole[number])


@pytest.mark.parametrize("min_votes", [1, 2])
def test_of_the_very_same_box_the_best_score_stays(min_votes):
    sources = [{7: detections((0, 0, 10, 10, score, 0))} for score in (0.5, 0.7, 0.9)]
    found = Consensus(min_votes=min_votes).of_predictions(sources)[7]
    assert rows(found) == rows(sources[2][7])
