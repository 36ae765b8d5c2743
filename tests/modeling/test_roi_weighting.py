import math

import pytest
import torch
from roi_samples import make_config, make_target

from d2_ssod.modeling import ROI_WEIGHTINGS, RoIBatch, build_roi_weighting
from d2_ssod.modeling.roi_weighting import RoIWeights, check_roi_weights

# Three RoIs in one image, worked by hand. i is background, j1 and j2 are foreground.
#   i  = (0, 0, 20, 10), area 200      f_i  = (1, 0)
#   j1 = (0, 0, 10, 10), area 100      f_j1 = (-1, 0)      s(i, j1) = |-1| = 1
#   j2 = (20, 0, 30, 10), area 100     f_j2 = (0.6, 0.8)   s(i, j2) = 0.6
#   IoU(i, j1) = 100 / 200 = 0.5   IoF(i, j1) = 100 / 200 = 0.5   IoU(i, j2) = IoF(i, j2) = 0
BOXES = [[0, 0, 20, 10], [0, 0, 10, 10], [20, 0, 30, 10]]
EMBEDDINGS = [[1.0, 0.0], [-1.0, 0.0], [0.6, 0.8]]
FOREGROUND = [False, True, True]
# Pseudo-boxes: g1 = j1; g2 = (20, 0, 30, 20), IoU(j2, g2) = 100 / 200 = 0.5, IoF(i, g2) = 0.
GT_BOXES = [[0, 0, 10, 10], [20, 0, 30, 20]]

# g(0.5; 0.25, 50, 15): 50 exp(-7.5) = 0.0276542, exp(-0.0276542) = 0.972725, 0.25 + 0.75 * that
OVERLAP_AT_HALF = 0.979544


def make_rois(boxes=BOXES, embeddings=EMBEDDINGS, foreground=FOREGROUND, gt_boxes=GT_BOXES):
    return RoIBatch(
        boxes=torch.tensor(boxes, dtype=torch.float32),
        embeddings=torch.tensor(embeddings, requires_grad=True),
        is_foreground=torch.tensor(foreground),
        rois_per_image=[len(boxes)],
        targets=[make_target(gt_boxes, pseudo=True)],
    )


def build(*options):
    options = [f"SSOD.ROI_WEIGHTING.{o}" if i % 2 == 0 else o for i, o in enumerate(options)]
    return build_roi_weighting(make_config("UncertaintyROIHeads", *options))


def test_paper_weights_golden():
    weighting = build("NAME", "uncertainty", "VARIANT", "paper")
    result = weighting(make_rois())
    # D_i = 1 - max(1 * (1 - 0.5), 0.6 * (1 - 0)) = 0.4
    assert result.dissimilarity[0].item() == pytest.approx(0.4, abs=1e-6)
    assert result.max_iou[0].item() == pytest.approx(0.5, abs=1e-6)
    # g(0.4; 0, 50, 10): 50 exp(-4) = 0.915782, exp(-0.915782) = 0.400203
    expected = [OVERLAP_AT_HALF * 0.400203, 1.0, 1.0]
    assert result.weights.tolist() == pytest.approx(expected, abs=1e-5)
    assert not weighting.weights_box_loss


def test_released_weights_golden():
    weighting = build("NAME", "uncertainty", "VARIANT", "released")
    result = weighting(make_rois())
    # D_i = 1 - max(1, 0.6) * (1 - max(0.5, 0)) = 0.5
    assert result.dissimilarity[0].item() == pytest.approx(0.5, abs=1e-6)
    assert result.max_iou.tolist() == pytest.approx([0.5, 1.0, 0.5], abs=1e-6)
    # g(0.5; 0, 50, 10): 50 exp(-5) = 0.336897, exp(-0.336897) = 0.713981
    # j1, at IoU 1: 50 exp(-15) = 1.52951e-5, 0.25 + 0.75 * 0.9999847 = 0.9999885; j2 at IoU 0.5
    expected = [OVERLAP_AT_HALF * 0.713981, 0.9999885, OVERLAP_AT_HALF]
    assert result.weights.tolist() == pytest.approx(expected, abs=1e-5)
    assert weighting.weights_box_loss


def test_paper_weights_without_foreground_golden():
    rois = make_rois(foreground=[False] * 3, gt_boxes=[])
    result = build("NAME", "uncertainty", "VARIANT", "paper")(rois)
    # IoU_i = 0, D_i = 1: 0.25 * exp(-50 exp(-10)) = 0.25 * 0.997733
    assert result.dissimilarity.tolist() == [1.0] * 3
    assert result.weights.tolist() == pytest.approx([0.249433] * 3, abs=1e-5)


def test_released_weights_without_pseudo_box_golden():
    rois = make_rois(foreground=[False] * 3, gt_boxes=[])
    result = build("NAME", "uncertainty", "VARIANT", "released")(rois)
    # The IoU factor is 1, D_i = 1.
    assert result.weights.tolist() == pytest.approx([0.997733] * 3, abs=1e-5)


def test_soft_sampling_golden():
    weighting = build("NAME", "soft_sampling")
    result = weighting(make_rois())
    # g(0.5; 0.25, 50, 20): 50 exp(-10) = 0.00227, 0.25 + 0.75 * 0.997733
    assert result.weights.tolist() == pytest.approx([0.998300, 1.0, 1.0], abs=1e-5)
    assert result.max_iou is None
    assert result.dissimilarity is None
    assert not weighting.weights_box_loss


def test_constant_golden():
    weighting = build("NAME", "constant", "CONSTANT", 0.45)
    assert weighting(make_rois()).weights.tolist() == pytest.approx([0.45, 1.0, 1.0])
    assert not weighting.weights_box_loss


def test_weighting_none_is_no_weighting():
    assert build("NAME", "none") is None


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        # A is the floor of the IoU factor alone, B and the two rates shift it up or down.
        ("A", 1.0, 0.400203),
        ("B", 0.0, 1.0),
        ("C_IOU", 0.0, 0.25 * 0.400203),  # 0.25 + 0.75 exp(-50)
        ("C_SIM", 0.0, 0.0),  # exp(-50)
    ],
)
def test_uncertainty_constants_come_from_the_config(key, value, expected):
    result = build("NAME", "uncertainty", key, value)(make_rois())
    assert result.weights[0].item() == pytest.approx(expected, abs=1e-5)


def test_soft_sampling_constants_come_from_the_config():
    result = build("NAME", "soft_sampling", "C_SOFT_SAMPLING", 10.0, "A", 0.5, "B", 40.0)(
        make_rois()
    )
    expected = 0.5 + 0.5 * math.exp(-40 * math.exp(-5))
    assert result.weights[0].item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", ["uncertainty", "soft_sampling", "constant"])
@pytest.mark.parametrize("variant", ["paper", "released"])
def test_weights_have_no_gradient(name, variant):
    for values in build("NAME", name, "VARIANT", variant)(make_rois()):
        assert values is None or not values.requires_grad


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_weights_of_an_image_do_not_depend_on_the_others(variant):
    weighting = build("NAME", "uncertainty", "VARIANT", variant)
    one = make_rois()
    other = make_rois(
        boxes=[[5, 5, 25, 15], [0, 0, 20, 11]],
        embeddings=[[0.5, 0.5], [1.0, 0.1]],
        foreground=[True, False],
        gt_boxes=[[5, 5, 24, 15]],
    )
    both = RoIBatch(
        boxes=torch.cat([one.boxes, other.boxes]),
        embeddings=torch.cat([one.embeddings, other.embeddings]),
        is_foreground=torch.cat([one.is_foreground, other.is_foreground]),
        rois_per_image=[3, 2],
        targets=one.targets + other.targets,
    )
    alone = torch.cat([weighting(one).weights, weighting(other).weights])
    assert torch.allclose(weighting(both).weights, alone, atol=1e-6)


class OfMyOwn:
    weights_box_loss = False

    def __call__(self, rois):
        return RoIWeights(torch.ones(len(rois.boxes)))


def test_a_weighting_of_ones_own_is_checked(monkeypatch):
    monkeypatch.setitem(ROI_WEIGHTINGS, "mine", lambda cfg: OfMyOwn())
    weighting = build("NAME", "mine")
    check_roi_weights(weighting(make_rois()), 3, weighting)
    for wrong, error, words in (
        (torch.ones(3), TypeError, "OfMyOwn must give RoIWeights, got Tensor"),
        (RoIWeights(torch.ones(2)), ValueError, r"give weights of shape \(3,\).* got \(2,\)"),
        (RoIWeights(torch.ones(3, 1)), ValueError, r"got \(3, 1\)"),
        (RoIWeights(torch.ones(3), torch.ones(1)), ValueError, "give max_iou of shape"),
    ):
        with pytest.raises(error, match=words):
            check_roi_weights(wrong, 3, weighting)
    monkeypatch.setitem(ROI_WEIGHTINGS, "mine", lambda cfg: lambda rois: rois)
    with pytest.raises(TypeError, match=r"NAME 'mine' is a function; .*weights_box_loss"):
        build("NAME", "mine")
