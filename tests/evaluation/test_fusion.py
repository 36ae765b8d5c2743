import warnings
from dataclasses import replace

import numpy as np
import pytest
from detectron2.config import get_cfg
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import detections

from d2_ssod.config import add_ssod_config
from d2_ssod.evaluation import Fusion
from d2_ssod.structures import Detections

SIZE = (80, 100)  # height, width


def table(found):
    return np.column_stack([found.boxes, found.scores, found.classes])


def test_fuse_by_hand():
    a = detections((0, 0, 10, 10, 0.8, 0), (50, 50, 60, 70, 0.9, 0))
    b = detections((0, 0, 12, 10, 0.4, 0), (50, 50, 60, 70, 0.7, 1))
    # IoU of the first boxes is 10/12: one cluster, x2 = (0.8 * 10 + 0.4 * 12) / 1.2 = 32/3, score
    # (0.8 + 0.4) / 2. The others differ in class: each alone, score halved.
    fused = table(Fusion(weights=(1, 1)).fuse([a, b], SIZE))
    expected = [
        [0, 0, 32 / 3, 10, 0.6, 0],
        [50, 50, 60, 70, 0.45, 0],
        [50, 50, 60, 70, 0.35, 1],
    ]
    np.testing.assert_allclose(fused, expected, rtol=1e-6)


def test_fuse_by_hand_with_weights():
    a, b = detections((0, 0, 10, 10, 0.8, 0)), detections((0, 0, 12, 10, 0.4, 0))
    # 0.8 * 1 and 0.4 * 3: x2 = (0.8 * 10 + 1.2 * 12) / 2 = 11.2; score (2.0 / 2) * 2 / 4 = 0.5.
    fused = table(Fusion(weights=(1, 3)).fuse([a, b], SIZE))
    np.testing.assert_allclose(fused, [[0, 0, 11.2, 10, 0.5, 0]], rtol=1e-6)


def test_fuse_cuts_scores_to_1():
    a, b = detections(), detections((0, 0, 10, 10, 0.9, 0), (0, 0, 10, 10, 0.7, 0))
    # Both boxes from one model: (0.9 + 0.7) / 2 * 2 / 1.5 = 1.07; with equal weights 0.8.
    for weight, score in ((0.5, 1.0), (1.0, 0.8)):
        fused = table(Fusion(weights=(weight, 1.0)).fuse([a, b], SIZE))
        np.testing.assert_allclose(fused, [[0, 0, 10, 10, score, 0]], rtol=1e-6)


def test_fuse_iou_threshold_decides():
    a, b = detections((0, 0, 10, 10, 0.8, 0)), detections((0, 0, 12, 10, 0.4, 0))  # IoU 0.83
    assert len(Fusion(weights=(1, 1), iou_thresh=0.8).fuse([a, b], SIZE)) == 1
    assert len(Fusion(weights=(1, 1), iou_thresh=0.85).fuse([a, b], SIZE)) == 2


def test_fuse_skips_low_scores():
    a = detections((0, 0, 10, 10, 0.8, 0), (50, 50, 60, 70, 0.09, 0), (20, 0, 30, 9, 0.0, 1))
    fused = Fusion(weights=(1,), skip_box_thresh=0.1).fuse([a], SIZE)
    assert fused.scores.tolist() == [np.float32(0.8)]
    assert len(Fusion(weights=(1,), skip_box_thresh=0.0).fuse([a], SIZE)) == 2  # 0 never counts


def test_fuse_of_nothing_is_nothing():
    for n in (1, 2):
        assert len(Fusion(weights=(1,) * n).fuse([Detections.empty()] * n, SIZE)) == 0


def test_fuse_limits_the_number_of_boxes():
    rows = [
        (x, y, x + 5, y + 5, 0.2 + 0.001 * x + 0.0001 * y, 0)
        for x in range(0, 95, 6)
        for y in range(0, 75, 6)
    ]
    fused = Fusion(weights=(1,)).fuse([detections(*rows)], SIZE)
    assert len(rows) > 100
    assert len(fused) == 100
    np.testing.assert_allclose(fused.scores, sorted((r[4] for r in rows), reverse=True)[:100])
    assert len(Fusion(weights=(1,), max_detections=7).fuse([detections(*rows)], SIZE)) == 7
    assert len(Fusion(weights=(1,), max_detections=None).fuse([detections(*rows)], SIZE)) == len(
        rows
    )


def test_fuse_outside_and_empty_boxes_are_silent(capsys):
    odd = detections(
        (-10, -10, 20, 20, 0.9, 0),  # sticks out
        (90, 70, 200, 200, 0.8, 0),  # sticks out
        (150, 10, 160, 20, 0.7, 0),  # outside
        (10, 10, 10, 20, 0.6, 0),  # no width
        (30, 20, 20, 10, 0.5, 0),  # turned around twice
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fused = Fusion(weights=(1,)).fuse([odd], SIZE)
    np.testing.assert_allclose(fused.boxes, [[0, 0, 20, 20], [90, 70, 100, 80]], atol=1e-5)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("weights", [[1], [1, 1, 1], [1, 0], [1, -1], [1, float("nan")]])
def test_fuse_refuses_bad_weights(weights):
    with pytest.raises(ValueError, match="weights must be"):
        Fusion(weights=tuple(weights)).fuse([Detections.empty()] * 2, SIZE)


def test_fusion_without_weights_gives_every_model_the_same():
    a, b = detections((0, 0, 10, 10, 0.8, 0)), detections((0, 0, 12, 10, 0.4, 0))
    fused = table(Fusion().fuse([a, b], SIZE))
    np.testing.assert_array_equal(fused, table(Fusion(weights=(2, 2)).fuse([a, b], SIZE)))
    assert Fusion().weights_of(3) == (1.0, 1.0, 1.0)


def test_fusion_among_takes_the_weights_of_the_chosen_models():
    fusion = Fusion(weights=(0.9, 1.0, 1.4), iou_thresh=0.7, max_detections=5)
    assert fusion.among([1, 2], of=3) == replace(fusion, weights=(1.0, 1.4))
    assert fusion.among([2, 0], of=3).weights == (1.4, 0.9)
    assert Fusion().among([1, 2], of=3).weights_of(2) == (1.0, 1.0)
    with pytest.raises(ValueError, match="each of the 2 models"):
        fusion.among([1], of=2)


def test_fusion_reads_its_keys():
    cfg = get_cfg()
    add_ssod_config(cfg)
    assert Fusion.from_config(cfg) == Fusion()
    for key, value in {
        "IOU_THRESH": 0.5,
        "SKIP_BOX_THRESH": 0.01,
        "WEIGHTS": [0.9, 1.0, 1.4],  # a config file gives lists
    }.items():
        cfg.SSOD.ENSEMBLE[key] = value
    cfg.TEST.DETECTIONS_PER_IMAGE = 7
    assert Fusion.from_config(cfg) == Fusion((0.9, 1.0, 1.4), 0.5, 0.01, 7)
    cfg.TEST.DETECTIONS_PER_IMAGE = -1  # all, as in Detectron2
    assert Fusion.from_config(cfg).max_detections is None


_ROWS = st.tuples(
    st.floats(-20, 110),
    st.floats(-20, 110),
    st.floats(0, 60),
    st.floats(0, 60),
    st.floats(0, 1),
    st.integers(0, 2),
).map(lambda r: (r[0], r[1], r[0] + r[2], r[1] + r[3], r[4], r[5]))
_DETECTIONS = st.lists(_ROWS, max_size=10).map(lambda drawn: detections(*drawn))


@settings(max_examples=100, deadline=None)
@given(st.lists(_DETECTIONS, min_size=1, max_size=3), st.data())
def test_fuse_stays_within_what_was_given(sources, data):
    weights = [data.draw(st.sampled_from([0.5, 1.0, 1.7])) for _ in sources]
    fused = Fusion(weights=tuple(weights)).fuse(sources, SIZE)
    given_boxes = np.concatenate([source.boxes for source in sources])
    given_classes = np.concatenate([source.classes for source in sources])
    assert len(fused) <= len(given_boxes)
    assert (np.diff(fused.scores) <= 0).all()
    assert ((fused.scores > 0) & (fused.scores <= 1)).all()
    for box, number in zip(fused.boxes, fused.classes, strict=True):
        of_class = given_boxes[given_classes == number].clip(0, [100, 80, 100, 80])
        assert (box >= of_class.min(axis=0) - 1e-3).all()
        assert (box <= of_class.max(axis=0) + 1e-3).all()


def test_fused_boxes_end_at_the_edges_of_the_image():
    """The library fuses in float32, with which a mean of ones may be more than 1."""
    rng = np.random.default_rng(0)
    for height, width in rng.integers(20, 1400, (200, 2)):
        scores = rng.uniform(0.1, 1, 3)
        found = [detections((0, 0, width, height, score, 0)) for score in scores]
        (box,) = Fusion().fuse(found, (int(height), int(width))).boxes
        assert (box >= 0).all()
        assert box[2] <= width
        assert box[3] <= height
