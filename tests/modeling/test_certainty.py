"""Labels that are not all certain: in the RoI heads' losses and in those of the RPN."""

from types import SimpleNamespace

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_model
from detectron2.modeling.proposal_generator import RPN
from detectron2.structures import Instances
from detectron2.utils.events import EventStorage
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
from runs import ROOT
from torch.nn import functional as F

from d2_ssod.engine.configs.files import read_config
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


def without_gates(target):
    target.remove("gt_box_gate")
    return target


def test_labels_that_say_no_gate_are_open():
    target = without_gates(two_tiers(0.25, (0.0, 0.0)))
    assert box_gate_of(torch.tensor(BOXES), target).tolist() == [[1.0] * 4] * 2
    opened, layers = [rois_of(two_tiers(0.25, (1.0, 1.0)))], make_layers(None)
    predictions = layers(random_features(opened))
    assert layers.losses(predictions, [rois_of(target)]) == layers.losses(predictions, opened)


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


def build_rpn(kind=UncertaintyRPN, beta=0.0, loss_type="smooth_l1"):
    cfg = make_config()
    cfg.MODEL.RPN.BBOX_REG_LOSS_TYPE = loss_type
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


def test_rpn_weighs_open_boxes_as_detectron2_does():
    losses = []
    for kind in (RPN, UncertaintyRPN):
        rpn = build_rpn(kind)
        rpn.loss_weight = {"loss_rpn_cls": 2.0, "loss_rpn_loc": 5.0}
        losses.append(rpn_losses(rpn, [two_tiers(0.25, (1.0, 1.0))]))
    torch.testing.assert_close(*losses, rtol=1e-5, atol=0)


def test_rpn_takes_an_uncertain_label_for_an_object_but_not_for_a_box():
    rpn = build_rpn()
    closed = say_how_certain(make_target(BOXES, pseudo=True), [0.2, 0.2], [[0.0, 0.0]] * 2)
    losses = rpn_losses(rpn, [closed])
    assert losses["loss_rpn_loc"] == 0
    plain = rpn_losses(build_rpn(RPN), [make_target(BOXES)])
    assert losses["loss_rpn_cls"].item() == plain["loss_rpn_cls"].item()
    sum(losses.values()).backward()  # the box branch still has a gradient, of zeros
    assert not rpn.rpn_head.anchor_deltas.weight.grad.any()


def test_rpn_refuses_gates_with_a_loss_of_whole_boxes():
    plain = [make_target(BOXES)]
    expected = rpn_losses(build_rpn(RPN, loss_type="giou"), plain)
    assert rpn_losses(build_rpn(loss_type="giou"), plain) == expected
    with pytest.raises(ValueError, match=r"MODEL\.RPN\.BBOX_REG_LOSS_TYPE.*got 'giou'"):
        rpn_losses(build_rpn(loss_type="giou"), [two_tiers()])


@pytest.mark.parametrize("loss_type", ["smooth_l1", "giou"])
def test_rpn_learns_labels_without_gates_as_detectron2_does(loss_type):
    expected = rpn_losses(build_rpn(RPN, loss_type=loss_type), [make_target(BOXES)])
    found = rpn_losses(build_rpn(loss_type=loss_type), [without_gates(two_tiers())])
    assert found == expected


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


# One-stage detectors: anchors on uncertain labels are ignored.


def one_stage(architecture):
    if architecture == "SSD":
        cfg = read_config(str(ROOT / "configs" / "digits_ssd.yaml"))
        cfg.defrost()
        cfg.MODEL.DEVICE = "cpu"
    else:
        cfg = make_config(
            "UncertaintyROIHeads",
            *("MODEL.META_ARCHITECTURE", architecture, "MODEL.RETINANET.IN_FEATURES", ["p2", "p3"]),
            *("MODEL.ANCHOR_GENERATOR.SIZES", [[16], [32]], "MODEL.RETINANET.NUM_CLASSES", 5),
        )
        cfg.MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS = [[1.0]]
    torch.manual_seed(0)
    model = build_model(cfg).eval()  # BatchNorm's statistics stay
    model.training = True
    return model


def losses_of(model, *instances):
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (3, 128, 128), generator=generator).to(torch.uint8)
    model.loss_normalizer = 1.0  # RetinaNet's running mean
    model.zero_grad()
    with EventStorage():
        return model([{"image": pixels, "instances": each} for each in instances])


def sized(target):
    """The same targets, of an image of 128 x 128."""
    own = Instances((128, 128))
    for name, values in target.get_fields().items():
        own.set(name, values)
    return own


ONE_STAGE = ["SSD", "UncertaintyRetinaNet"]


@pytest.mark.parametrize("architecture", ONE_STAGE)
def test_certain_labels_are_learned_as_ever_by_one_stage(architecture):
    model, plain = one_stage(architecture), sized(make_target(BOXES, [0, 1]))
    certain = sized(two_tiers(certainty=1.0, gate=(1.0, 1.0)))
    expected = {name: loss.item() for name, loss in losses_of(model, plain).items()}
    found = {name: loss.item() for name, loss in losses_of(model, certain).items()}
    assert found == pytest.approx(expected)
    assert min(expected.values()) > 0


@pytest.mark.parametrize("architecture", ONE_STAGE)
def test_uncertain_labels_are_neither_learned_nor_background_in_one_stage(architecture):
    """Only what lies elsewhere teaches: the gradient at priors on the label is none."""
    model = one_stage(architecture)
    seen = []
    if architecture == "SSD":
        original = model.ssd.compute_loss
        model.ssd.compute_loss = lambda t, heads, a, m: (
            seen.append((heads, m)) or original(t, heads, a, m)
        )
        losses = losses_of(model, sized(two_tiers(certainty=0.25)))
        (heads, (matched,)) = seen[0]
        confident = heads["cls_logits"][0, :, 0] == 50
        assert confident.any()
        assert (matched[confident] == -1).all()
        assert set(matched[matched >= 0].tolist()) == {0}
    else:
        original = model.label_anchors
        model.label_anchors = lambda *a: seen.append(original(*a)) or seen[-1]
        losses = losses_of(model, sized(two_tiers(certainty=0.25)))
        labels = seen[0][0][0]
        with_all = one_stage("RetinaNet")
        anchors = with_all.anchor_generator(
            [torch.zeros(1, 48, 32, 32), torch.zeros(1, 48, 16, 16)]
        )
        plain, _ = with_all.label_anchors(anchors, [make_target(BOXES, [0, 1])])
        assert (labels[plain[0] == 1] == -1).all()
        assert (plain[0] == 1).any()
        assert (labels[plain[0] == 0] == 0).all()
        assert (labels[plain[0] == 5] == 5).all()
    assert all(torch.isfinite(loss) for loss in losses.values())


@pytest.mark.parametrize("architecture", ONE_STAGE)
def test_labels_without_gates_are_open_in_one_stage(architecture):
    model = one_stage(architecture)
    opened = losses_of(model, sized(two_tiers(gate=(1.0, 1.0))))
    assert losses_of(model, sized(without_gates(two_tiers()))) == opened


@pytest.mark.parametrize("architecture", ONE_STAGE)
def test_closed_gates_leave_offsets_unlearned_in_one_stage(architecture):
    model = one_stage(architecture)
    closed = sized(say_how_certain(make_target(BOXES, [0, 1]), [1.0, 1.0], [[0.0, 0.0]] * 2))
    losses = losses_of(model, closed)
    assert losses["loss_box_reg"].item() == pytest.approx(0, abs=1e-6)
    assert losses["loss_cls"].item() > 0
    half = sized(say_how_certain(make_target(BOXES, [0, 1]), [1.0, 1.0], [[1.0, 0.0]] * 2))
    other = sized(say_how_certain(make_target(BOXES, [0, 1]), [1.0, 1.0], [[0.0, 1.0]] * 2))
    both = sized(make_target(BOXES, [0, 1]))
    parts = [losses_of(model, each)["loss_box_reg"].item() for each in (half, other, both)]
    assert parts[0] + parts[1] == pytest.approx(parts[2], rel=1e-5)
    assert min(parts) > 0


@pytest.mark.parametrize("architecture", ONE_STAGE)
def test_images_without_labels_may_stand_beside_uncertain_ones_in_one_stage(architecture):
    model = one_stage(architecture)
    losses = losses_of(model, sized(two_tiers()), sized(make_target([])))
    assert all(torch.isfinite(loss) for loss in losses.values())
    sum(losses.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_gates_are_of_the_offsets_of_their_own_axis_in_ssd():
    model = one_stage("SSD")
    half = sized(say_how_certain(make_target(BOXES, [0, 1]), [1.0, 1.0], [[1.0, 0.0]] * 2))
    pixels = torch.zeros(3, 128, 128, dtype=torch.uint8)
    images, targets = model.prepare([{"image": pixels, "instances": half}])
    outputs = model.outputs(images)
    deltas = outputs.deltas.detach().requires_grad_()
    model.losses(outputs._replace(deltas=deltas), targets)["loss_box_reg"].backward()
    assert deltas.grad[0].any(dim=0).tolist() == [True, False, True, False]


@pytest.mark.parametrize("heads", ["UncertaintyROIHeads", "UncertaintyCascadeROIHeads"])
def test_an_image_in_which_the_teacher_found_nothing_may_stand_beside_others(heads):
    torch.manual_seed(0)
    model = build_model(make_config(heads, "MODEL.PROPOSAL_GENERATOR.NAME", "UncertaintyRPN"))
    inputs = [make_input(0, pseudo=True), make_input(1, pseudo=True, boxes=())]
    say_how_certain(inputs[0]["instances"], [1.0, 0.3], [[1.0, 0.0], [0.0, 0.0]])
    nothing = inputs[1]["instances"]
    nothing.gt_certainty, nothing.gt_box_gate = torch.zeros(0), torch.zeros(0, 2)
    with EventStorage():
        losses = model.train()(inputs)
    assert all(torch.isfinite(loss) for loss in losses.values())


def test_rois_of_labels_that_say_nothing_may_stand_beside_uncertain_ones():
    """As a person's and two tiers do in nearly every batch."""
    plain, said = random_rois(1, pseudo=False), random_rois(1, pseudo=False)
    say_how_certain(said.target, [1.0] * 3, [[1.0, 1.0]] * 3)
    uncertain, layers = rois_of(two_tiers(0.25)), make_layers(None)
    predictions = layers(random_features([uncertain, plain]))
    found = layers.losses(predictions, [uncertain, plain])
    assert found == layers.losses(predictions, [uncertain, said])


def test_rpn_learns_labels_that_say_nothing_beside_uncertain_ones():
    said = say_how_certain(make_target(BOXES), [1.0] * 2, [[1.0, 1.0]] * 2)
    rpn = build_rpn()
    found = rpn_losses(rpn, [two_tiers(), make_target(BOXES)])
    expected = rpn_losses(rpn, [two_tiers(), said])
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-6, atol=0)


def test_labels_that_say_nothing_may_stand_beside_uncertain_ones_in_one_stage():
    said = say_how_certain(make_target(BOXES, [0, 1]), [1.0] * 2, [[1.0, 1.0]] * 2)
    for architecture in ONE_STAGE:
        model = one_stage(architecture)
        found = losses_of(model, sized(two_tiers()), sized(make_target(BOXES, [0, 1])))
        expected = losses_of(model, sized(two_tiers()), sized(said))
        assert found == expected


@pytest.mark.parametrize("architecture", ONE_STAGE)
def test_labels_that_are_nearly_certain_are_ignored_in_one_stage_as_well(architecture):
    model = one_stage(architecture)
    nearly = losses_of(model, sized(two_tiers(certainty=0.95)))
    assert nearly == losses_of(model, sized(two_tiers(certainty=0.25)))
    assert nearly["loss_cls"] != losses_of(model, sized(two_tiers(certainty=1.0)))["loss_cls"]
