"""Labels that are not all certain: in the RoI heads' losses and in those of the RPN."""

from types import SimpleNamespace

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_model
from detectron2.modeling.proposal_generator import RPN
from roi_samples import (
    CLASSES,
    make_config,
    make_input,
    make_layers,
    make_rois,
    make_target,
    random_features,
    random_rois,
)
from torch.nn import functional as F

from d2_ssod.modeling import UncertaintyRPN
from d2_ssod.modeling.certainty import box_gate_of, certainty_of


def say_how_certain(target, certainty, gate):
    target.gt_certainty = torch.tensor(certainty)
    target.gt_box_gate = torch.tensor(gate)
    return target


BOXES = [[0.0, 0.0, 20.0, 20.0], [50.0, 50.0, 90.0, 90.0]]


def two_tiers(certainty=0.25, gate=(0.0, 0.0)):
    """A certain label, and one that is not."""
    target = make_target(BOXES, [0, 1], pseudo=True)
    return say_how_certain(target, [1.0, certainty], [[1.0, 1.0], list(gate)])


def rois_of(target):
    boxes = [[1.0, 1.0, 19.0, 19.0], [52.0, 48.0, 88.0, 91.0], [100.0, 5.0, 120.0, 25.0]]
    matched = [*BOXES, BOXES[1]]  # that of a background RoI means nothing
    return make_rois(boxes, [0, 1, CLASSES], target, matched)


def test_each_label_is_found_by_its_box():
    target = two_tiers(0.25, (1.0, 0.0))
    matched = torch.tensor(BOXES)[[1, 0, 1]]
    assert certainty_of(matched, target).tolist() == [0.25, 1.0, 0.25]
    assert box_gate_of(matched, target).tolist() == [[1, 0, 1, 0], [1, 1, 1, 1], [1, 0, 1, 0]]


@pytest.mark.parametrize("target", [make_target(BOXES), make_target([])])
def test_labels_that_say_nothing_are_certain(target):
    matched = torch.tensor(BOXES)
    assert certainty_of(matched, target).tolist() == [1.0, 1.0]
    assert box_gate_of(matched, target).tolist() == [[1.0] * 4] * 2


def test_an_uncertain_label_is_part_its_class_and_part_background():
    rois = [rois_of(two_tiers(0.25))]
    layers, features = make_layers(None), random_features(rois)
    predictions = layers(features)
    log_p = F.log_softmax(predictions.scores, dim=1)
    expected = -(log_p[0, 0] + 0.25 * log_p[1, 1] + 0.75 * log_p[1, CLASSES] + log_p[2, CLASSES])
    assert layers.losses(predictions, rois)["loss_cls"].item() == pytest.approx(
        expected.item() / 3, rel=1e-6
    )


@pytest.mark.parametrize("settings", [{}, {"cls_agnostic_bbox_reg": True}])
def test_box_loss_leaves_out_closed_edges(settings):
    rois, layers = [rois_of(two_tiers(gate=(1.0, 0.0)))], make_layers(None, **settings)
    predictions = layers(random_features(rois))
    deltas = predictions.deltas.view(3, -1, 4)
    deltas = deltas[[0, 1], [0, 0] if settings else [0, 1]]
    goal = layers.box2box_transform.get_deltas(
        rois[0].proposal_boxes.tensor[:2], torch.tensor(BOXES)
    )
    differences = (deltas - goal).abs()
    expected = differences[0].sum() + differences[1, 0] + differences[1, 2]
    assert layers.losses(predictions, rois)["loss_box_reg"].item() == pytest.approx(
        expected.item() / 3, rel=1e-6
    )


def test_loss_of_whole_boxes_needs_both_gates_open():
    layers = make_layers(None, box_reg_loss_type="giou")

    def loss_with(gate):
        rois = [rois_of(two_tiers(gate=gate))]
        return layers.losses(layers(random_features(rois)), rois)["loss_box_reg"]

    half, closed, opened = map(loss_with, [(1.0, 0.0), (0.0, 0.0), (1.0, 1.0)])
    assert torch.equal(half, closed)
    assert opened > half


@pytest.mark.parametrize("loss_type", ["smooth_l1", "giou"])
def test_certain_labels_give_detectron2s_losses(loss_type):
    plain = [random_rois(0, pseudo=True), random_rois(1, pseudo=False)]
    said = [random_rois(0, pseudo=True), random_rois(1, pseudo=False)]
    for rois in said:
        count = len(rois.target)
        say_how_certain(rois.target, [1.0] * count, [[1.0, 1.0]] * count)
    layers = make_layers(None, box_reg_loss_type=loss_type)
    expected = layers.losses(layers(random_features(plain)), plain)
    found = layers.losses(layers(random_features(said)), said)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-6, atol=0)


# The RPN


def build_rpn(kind=UncertaintyRPN, beta=0.0):
    cfg = make_config()
    cfg.MODEL.RPN.SMOOTH_L1_BETA = beta
    torch.manual_seed(0)
    rpn = kind(cfg, {"p3": ShapeSpec(channels=8, stride=8)})
    torch.nn.init.normal_(rpn.rpn_head.anchor_deltas.weight, std=0.1)
    return rpn.train()


def rpn_losses(rpn, targets):
    torch.manual_seed(1)
    features = {"p3": torch.randn(len(targets), 8, 16, 16)}
    images = SimpleNamespace(image_sizes=[(128, 128)] * len(targets))
    return rpn(images, features, targets)[1]


def test_rpn_with_certain_labels_is_detectron2s():
    targets = [make_target(BOXES), make_target([])]
    expected = rpn_losses(build_rpn(RPN), targets)
    assert {k: v.item() for k, v in rpn_losses(build_rpn(), targets).items()} == {
        k: v.item() for k, v in expected.items()
    }


@pytest.mark.parametrize("beta", [0.0, 0.1])
def test_rpn_learns_open_boxes_as_detectron2_does(beta):
    opened = two_tiers(0.25, (1.0, 1.0))
    expected = rpn_losses(build_rpn(RPN, beta), [opened, make_target(BOXES)])
    found = rpn_losses(build_rpn(beta=beta), [opened, make_target(BOXES)])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)


def test_rpn_takes_an_uncertain_label_for_an_object_but_not_for_a_box():
    rpn = build_rpn()
    closed = say_how_certain(make_target(BOXES, pseudo=True), [0.2, 0.2], [[0.0, 0.0]] * 2)
    losses = rpn_losses(rpn, [closed])
    assert losses["loss_rpn_loc"] == 0
    plain = rpn_losses(build_rpn(RPN), [make_target(BOXES)])
    assert losses["loss_rpn_cls"].item() == plain["loss_rpn_cls"].item()
    sum(losses.values()).backward()  # the box branch still has a gradient, of zeros
    assert not rpn.rpn_head.anchor_deltas.weight.grad.any()


def test_rpn_learns_one_axis_alone():
    """Where left and right are open, dy and dh have no gradient."""
    rpn = build_rpn()
    one_axis = say_how_certain(make_target(BOXES, pseudo=True), [1.0, 1.0], [[1.0, 0.0]] * 2)
    rpn_losses(rpn, [one_axis])["loss_rpn_loc"].backward()
    gradient = rpn.rpn_head.anchor_deltas.weight.grad.view(-1, 4, 8).abs().sum(dim=(0, 2))
    assert gradient[0] > 0
    assert gradient[2] > 0
    assert gradient[1] == gradient[3] == 0


@pytest.mark.parametrize("heads", ["UncertaintyROIHeads", "UncertaintyCascadeROIHeads"])
def test_whole_detector_trains_on_two_tiers(heads):
    torch.manual_seed(0)
    cfg = make_config(heads, "MODEL.PROPOSAL_GENERATOR.NAME", "UncertaintyRPN")
    model = build_model(cfg).train()
    inputs = [make_input(0), make_input(1, pseudo=True)]
    say_how_certain(inputs[1]["instances"], [1.0, 0.3], [[1.0, 0.0], [0.0, 0.0]])
    losses = model(inputs)
    sum(losses.values()).backward()
    assert all(torch.isfinite(loss) for loss in losses.values())
    without = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not without
