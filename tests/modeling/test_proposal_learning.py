"""Proposal Learning's losses beside values computed by hand."""

import math
from types import SimpleNamespace

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from roi_samples import make_config
from runs import ROOT
from torch import nn

from d2_ssod.engine.configs.files import read_config
from d2_ssod.errors import ConfigError
from d2_ssod.modeling.baselines.proposal_learning import (
    Noise,
    ProposalLearner,
    Weights,
    _places,
    box_loss,
    contrast,
)

CONFIG = ROOT / "configs" / "digits_proposal_learning.yaml"
LOSSES = {"loss_location", "loss_contrast", "loss_noisy_cls", "loss_noisy_box"}


def config(*overrides):
    cfg = read_config(str(CONFIG), list(overrides))
    cfg.defrost()
    cfg.MODEL.DEVICE = "cpu"
    return cfg


def test_contrast_is_infonce_within_each_image():
    x, y = (1.0, 0.0), (0.0, 1.0)
    # Image 0 has proposals 0 (x and 2x: the length does not count) and 1 (y, x); image 1 has one
    # proposal whose copies are y, y.
    features = torch.tensor([x, (2.0, 0.0), y, x, y, y])
    found = contrast(
        features, torch.tensor([0, 0, 1, 1, 2, 2]), torch.tensor([0, 0, 0, 0, 1, 1]), 0.5
    )
    e = math.exp(1 / 0.5)  # of two that are alike; 1 of two at a right angle
    pairs = [
        -math.log(e / (e + 1 + e)),  # copy 0 against 1, 2, 3
        -math.log(e / (e + 1 + e)),
        -math.log(1 / (1 + 1 + 1)),  # copy 2, which is like none
        -math.log(1 / (e + e + 1)),
        0.0,  # image 1: there is no other
        0.0,
    ]
    assert found.item() == pytest.approx(sum(pairs) / 6, rel=1e-5)


def test_contrast_is_computed_in_full_precision_under_autocast():
    torch.manual_seed(0)
    features, proposals = torch.randn(12, 8), torch.arange(6).repeat(2)
    arguments = (features, proposals, torch.zeros(12, dtype=torch.int64), 0.1)
    with torch.autocast("cpu", torch.bfloat16):
        found = contrast(*arguments)
    assert torch.equal(found, contrast(*arguments))


def test_contrast_of_single_copies_is_nothing_and_has_a_gradient():
    features = torch.eye(2, requires_grad=True)
    loss = contrast(features, torch.tensor([0, 1]), torch.tensor([0, 0]), 0.1)
    loss.backward()
    assert loss.item() == 0
    assert not features.grad.any()


def test_box_loss_is_of_the_likeliest_class_weighted_by_it():
    probabilities = torch.tensor([[0.2, 0.5, 0.3], [0.1, 0.0, 0.9]])
    goal = torch.zeros(2, 8)
    deltas = torch.tensor(
        [[9.0, 9, 9, 9, 0.5, 2.0, 0, 0], [1.0, 0, 0, 0, 9, 9, 9, 9]]  # classes 0 and 1
    )
    expected = (0.5 * (0.5 * 0.25 + 1.5) + 0.1 * 0.5) / 2
    assert box_loss(deltas, goal, probabilities).item() == pytest.approx(expected)
    same = box_loss(deltas[:, 4:], goal[:, 4:], probabilities)
    assert same.item() == pytest.approx((0.5 * (0.125 + 1.5) + 0.1 * 4 * 8.5) / 2)


def test_noise_leaves_out_channels():
    torch.manual_seed(0)
    noisy = Noise(copies=3, drop=0.5)(torch.ones(2, 40, 3, 3))
    assert noisy.shape == (6, 40, 3, 3)
    channels = noisy.flatten(2)
    assert (channels == channels[:, :, :1]).all()
    assert set(noisy.unique().tolist()) == {0.0, 2.0}
    assert (Noise(copies=2, drop=0.0)(torch.ones(1, 4, 2, 2)) == 1).all()


def test_places_are_in_parts_of_the_image():
    proposals = Instances((50, 200))
    proposals.proposal_boxes = Boxes(torch.tensor([[20.0, 10, 60, 20]]))
    assert _places(proposals).tolist()[0] == pytest.approx([0.2, 0.3, 0.2, 0.2])


@pytest.fixture
def detector():
    torch.manual_seed(0)
    return build_model(config()).train()


def image(seed, labeled):
    generator = torch.Generator().manual_seed(seed)
    given = {"image": torch.randint(0, 256, (3, 128, 128), generator=generator).to(torch.uint8)}
    if labeled:
        instances = Instances((128, 128))
        instances.gt_boxes = Boxes(torch.tensor([[20.0, 30.0, 60.0, 80.0]]))
        instances.gt_classes = torch.tensor([2])
        given["instances"] = instances
    return given


def test_images_without_proposals_teach_nothing(detector):
    heads, none = detector.roi_heads, torch.zeros(0, dtype=torch.int64)
    resolution = heads.box_pooler.output_size
    pooled = torch.zeros(0, detector.backbone.output_shape()["p3"].channels, *resolution)
    losses = detector.learner(pooled, torch.zeros(0, 4), none, heads.box_head, heads.box_predictor)
    assert {loss.item() for loss in losses.values()} == {0.0}
    sum(losses.values()).backward()


def test_both_kinds_of_images_teach(detector):
    with EventStorage():
        losses = detector([image(1, False), image(2, True), image(3, False)])
    assert set(losses) > LOSSES
    assert {"loss_cls", "loss_box_reg", "loss_rpn_cls", "loss_rpn_loc"} < set(losses)
    assert all(losses[name].item() > 0 for name in LOSSES)
    sum(losses[name] for name in LOSSES).backward()
    taught = {name.split(".")[0] for name, p in detector.named_parameters() if p.grad is not None}
    assert taught == {"backbone", "roi_heads", "learner"}  # proposals are as they are
    assert detector.proposal_generator.training


def test_without_noise_copies_say_what_the_clean_features_say(detector):
    detector.learner.noise = Noise(copies=2, drop=0.0)
    with EventStorage():
        losses = detector([image(1, False), image(2, True)])
    assert losses["loss_noisy_cls"].item() == pytest.approx(0, abs=1e-6)
    assert losses["loss_noisy_box"].item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("labeled", [True, False])
def test_batch_of_one_kind_is_refused(detector, labeled):
    with EventStorage(), pytest.raises(ConfigError, match=r"SSOD\.SAMPLING to balanced"):
        detector([image(1, labeled), image(2, labeled)])


def test_it_detects_as_any_other(detector):
    with torch.no_grad():
        (found,) = detector.eval()([{**image(1, False), "height": 64, "width": 64}])
    assert found["instances"].image_size == (64, 64)


@pytest.mark.parametrize("name", ["UncertaintyCascadeROIHeads", "UncertaintyRes5ROIHeads"])
def test_heads_of_several_predictors_or_of_one_map_are_refused(name):
    keys = ("MODEL.META_ARCHITECTURE", "ProposalLearningRCNN")
    cfg = make_config(name, *keys, "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", True)
    with pytest.raises(ConfigError, match=rf"MODEL\.ROI_HEADS\.NAME is '{name}"):
        build_model(cfg)


def learner_of(noise):
    """Of features of two numbers, which are compared as they are, and three classes."""
    torch.manual_seed(0)
    learner = ProposalLearner(2, noise=noise, weights=Weights(2.0, 3.0, 5.0, 7.0), temperature=0.5)
    learner.locate, learner.project = nn.Linear(2, 4), nn.Identity()
    predictor = SimpleNamespace(cls_score=nn.Linear(2, 4), bbox_pred=nn.Linear(2, 12))
    pooled = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 2.0]]).view(3, 2, 1, 1).requires_grad_()
    return learner, pooled, (nn.Flatten(), predictor)


def test_copies_stand_for_their_own_proposal():
    learner, pooled, heads = learner_of(Noise(copies=2, drop=0.0))
    features, images = pooled.detach().flatten(1), torch.tensor([0, 0, 1])
    places = learner.locate(features).detach()
    found = learner(pooled, places, images, *heads)
    assert found["loss_location"].item() == pytest.approx(0, abs=1e-10)
    own = torch.tensor([0, 1, 2, 0, 1, 2])
    expected = contrast(features.repeat(2, 1), own, images[own], 0.5)
    assert found["loss_contrast"].item() == pytest.approx(3 * expected.item())
    found["loss_contrast"].backward()
    assert pooled.grad.any()  # the head learns from it


def test_clean_features_are_only_aimed_at():
    class Shift:
        copies = 1

        def __call__(self, pooled):
            return pooled.detach() + 1.0

    learner, pooled, heads = learner_of(Shift())
    found = learner(pooled, torch.zeros(3, 4), torch.tensor([0, 0, 1]), *heads)
    assert found["loss_noisy_box"].item() > 0
    (found["loss_noisy_cls"] + found["loss_noisy_box"]).backward()
    assert pooled.grad is None


def test_labels_are_learned_from_their_own_images(detector):
    found = []
    for batch in ([image(1, False), image(2, True)], [image(2, True), image(1, False)]):
        torch.manual_seed(3)
        with EventStorage():
            found.append(detector(batch))
    for name in ("loss_rpn_cls", "loss_rpn_loc"):
        assert found[0][name].item() == pytest.approx(found[1][name].item(), rel=1e-4)


def test_the_best_proposals_of_each_image_are_learned_from(detector, monkeypatch):
    def proposed(count):
        proposals = Instances((128, 128))
        proposals.proposal_boxes = Boxes(torch.tensor([[8.0, 8, 40 + i, 40] for i in range(count)]))
        return proposals

    given = []
    monkeypatch.setattr(
        detector.proposal_generator, "forward", lambda *_: ([proposed(3), proposed(9)], {})
    )
    monkeypatch.setattr(detector.learner, "forward", lambda *of: given.append(of) or {})
    detector.proposals = 5
    images = detector.preprocess_image([image(1, False), image(2, False)])
    detector._learn_from_proposals(images, detector.backbone(images.tensor))
    ((pooled, places, numbers, *_),) = given
    assert numbers.tolist() == [0] * 3 + [1] * 5
    assert len(pooled) == len(places) == 8
    # The first of each image, whose widths tell them apart.
    assert (places[:, 2] * 128).tolist() == [32, 33, 34, 32, 33, 34, 35, 36]


def test_learner_reads_its_keys():
    keys = {
        "COPIES": 3, "DROP": 0.25, "LOCATION_WEIGHT": 2.0, "CONTRAST_WEIGHT": 3.0,
        "CLASS_WEIGHT": 5.0, "BOX_WEIGHT": 7.0, "TEMPERATURE": 0.5, "PROPOSALS": 11,
    }  # fmt: skip
    pairs = [(f"MODEL.PROPOSAL_LEARNING.{key}", str(value)) for key, value in keys.items()]
    detector = build_model(config(*(part for pair in pairs for part in pair)))
    assert detector.learner.noise == Noise(3, 0.25)
    assert detector.learner.weights == Weights(2.0, 3.0, 5.0, 7.0)
    assert detector.learner.temperature == 0.5
    assert detector.proposals == 11


def test_targets_go_with_their_own_images(detector):
    """What is in an unlabeled image makes no difference to the losses of labels."""
    for module in detector.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()  # whose statistics would be those of both
    found = []
    for seed in (1, 5):
        torch.manual_seed(3)
        with EventStorage():
            found.append(detector([image(seed, False), image(2, True)]))
    for name in ("loss_rpn_cls", "loss_rpn_loc"):
        assert found[0][name].item() == pytest.approx(found[1][name].item(), rel=1e-4)


def test_losses_of_proposals_golden():
    """Places are off by 1 in all of the four numbers; noisy features say that nothing is there."""

    class Nothing:
        copies = 2

        def __call__(self, pooled):
            return torch.full_like(pooled, -1.0).repeat(2, 1, 1, 1)

    learner, pooled, (head, predictor) = learner_of(Nothing())
    for linear in (learner.locate, predictor.cls_score, predictor.bbox_pred):
        nn.init.zeros_(linear.weight)
        nn.init.zeros_(linear.bias)
    with torch.no_grad():
        predictor.cls_score.weight[1], predictor.bbox_pred.weight[4] = 50.0, 4.0
    # Clean: sums 1, 1.4 and 2 of features make it class 1, with offsets of 4, 5.6 and 8; noisy: -2
    # makes the first offset -8, and class 1 nothing.
    found = learner(pooled, torch.ones(3, 4), torch.tensor([0, 0, 1]), head, predictor)
    assert found["loss_location"].item() == pytest.approx(2.0)  # its weight
    assert found["loss_noisy_box"].item() == pytest.approx(7.0 * (11.5 + 13.1 + 15.5) / 3)
