import math
from types import SimpleNamespace

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers
from detectron2.structures import Boxes, Instances
from roi_samples import (
    CLASSES,
    DIM,
    layer_arguments,
    make_config,
    make_layers,
    make_rois,
    make_target,
    random_features,
    random_rois,
)

from d2_ssod import ops
from d2_ssod.modeling import RoIWeights, UncertaintyOutputLayers, build_roi_weighting, is_pseudo
from d2_ssod.modeling.roi_weighting import ConstantWeighting, SoftSamplingWeighting


class FixedWeighting:
    """One weight for foreground, another for background."""

    def __init__(self, foreground, background, weights_box_loss):
        self.values = (foreground, background)
        self.weights_box_loss = weights_box_loss

    def __call__(self, rois):
        foreground, background = self.values
        return RoIWeights(
            torch.where(rois.is_foreground, foreground, background).to(rois.boxes.dtype)
        )


def losses_of(layers, rois, features=None):
    features = random_features(rois) if features is None else features
    return layers.losses(layers(features), rois)


def detectron2_losses(rois, layers, **overrides):
    """The losses of Detectron2's own layers with the same weights."""
    reference = FastRCNNOutputLayers(ShapeSpec(channels=DIM), **layer_arguments(**overrides))
    state = {k: v for k, v in layers.state_dict().items() if not k.startswith("embedding.")}
    reference.load_state_dict(state)
    return losses_of(reference.train(), rois)


SETTINGS = [
    {},
    {"cls_agnostic_bbox_reg": True},
    {"smooth_l1_beta": 0.5},
    {"box_reg_loss_type": "giou"},
    {"box_reg_loss_type": "diou"},
    {"box_reg_loss_type": "ciou", "cls_agnostic_bbox_reg": True},
    {"loss_weight": {"loss_box_reg": 2.0, "loss_cls": 0.5}},
]


@pytest.mark.parametrize("settings", SETTINGS)
def test_losses_without_weighting_are_detectron2s_exactly(settings):
    rois = [random_rois(0, pseudo=True), random_rois(1, pseudo=False)]
    layers = make_layers(None, **settings)
    found = losses_of(layers, rois)
    for name, expected in detectron2_losses(rois, layers, **settings).items():
        assert torch.equal(found[name], expected), name
        assert expected > 0


@pytest.mark.parametrize("settings", SETTINGS)
def test_losses_with_all_ones_weights_are_detectron2s(settings):
    rois = [random_rois(0, pseudo=True), random_rois(1, pseudo=False)]
    layers = make_layers(FixedWeighting(1.0, 1.0, weights_box_loss=True), **settings)
    found = losses_of(layers, rois)
    for name, expected in detectron2_losses(rois, layers, **settings).items():
        torch.testing.assert_close(found[name], expected, rtol=1e-6, atol=0)


def test_losses_without_foreground_with_all_ones_weights_are_detectron2s():
    rois = [random_rois(0, pseudo=True, foreground=0)]
    rois[0].target.gt_boxes = Boxes(torch.zeros(0, 4))
    layers = make_layers(FixedWeighting(1.0, 1.0, True), weigh_all_images=True)
    found = losses_of(layers, rois)
    for name, expected in detectron2_losses(rois, layers).items():
        torch.testing.assert_close(found[name], expected, rtol=1e-6, atol=0)


def zero_layers(weighting, **overrides):
    """Layers whose scores and deltas are all 0, so that the cross-entropy is ln(K + 1)."""
    layers = make_layers(weighting, **overrides)
    for linear in (layers.cls_score, layers.bbox_pred):
        torch.nn.init.zeros_(linear.weight)
        torch.nn.init.zeros_(linear.bias)
    return layers


FOUR_BOXES = [[0, 0, 10, 10], [40, 40, 50, 50], [60, 60, 70, 70], [80, 80, 90, 90]]


def one_foreground_of_four(pseudo=True):
    """One foreground RoI 1 pixel left of its box, 10 pixels wide, and three of background."""
    target = make_target([[1, 0, 11, 10]], [1], pseudo)
    matched = [[1, 0, 11, 10], *FOUR_BOXES[1:]]
    return make_rois(FOUR_BOXES, [1, CLASSES, CLASSES, CLASSES], target, matched)


def test_classification_loss_is_divided_by_the_number_of_rois():
    layers = zero_layers(ConstantWeighting(background_weight=0.25))
    # (1 + 3 * 0.25) ln 4 / 4; divided by the sum of the weights it would be ln 4.
    expected = 1.75 * math.log(4) / 4
    loss = losses_of(layers, [one_foreground_of_four()])["loss_cls"]
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_classification_loss_of_a_mixed_batch_golden():
    layers = zero_layers(ConstantWeighting(background_weight=0.25))
    rois = [one_foreground_of_four(pseudo=False), one_foreground_of_four(pseudo=True)]
    # The labeled image's four RoIs count 1 each.
    expected = (4 + 1.75) * math.log(4) / 8
    assert losses_of(layers, rois)["loss_cls"].item() == pytest.approx(expected, rel=1e-6)


def test_classification_loss_of_all_images_golden():
    layers = zero_layers(ConstantWeighting(background_weight=0.25), weigh_all_images=True)
    rois = [one_foreground_of_four(pseudo=False), one_foreground_of_four(pseudo=True)]
    expected = 2 * 1.75 * math.log(4) / 8
    assert losses_of(layers, rois)["loss_cls"].item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("agnostic", [False, True])
def test_released_weighs_the_box_loss_and_positives(agnostic):
    cfg = make_config("UncertaintyROIHeads", "SSOD.ROI_WEIGHTING.VARIANT", "released")
    layers = zero_layers(build_roi_weighting(cfg), cls_agnostic_bbox_reg=agnostic)
    losses = losses_of(layers, [one_foreground_of_four()])
    # The RoI is regressed by 1 / 10 of its width, times the transform's weight 10: |1| in all.
    # Its IoU with the only pseudo-box is 9 / 11.
    weight = 0.25 + 0.75 * math.exp(-50 * math.exp(-15 * 9 / 11))
    assert weight < 0.9999
    assert losses["loss_box_reg"].item() == pytest.approx(weight / 4, rel=1e-5)


@pytest.mark.parametrize(
    ("variant", "positive"),
    [("paper", 1.0), ("released", 0.25 + 0.75 * math.exp(-50 * math.exp(-15 / 3)))],
)
def test_positive_weight_in_the_classification_loss(variant, positive):
    cfg = make_config("UncertaintyROIHeads", "SSOD.ROI_WEIGHTING.VARIANT", variant)
    layers = zero_layers(build_roi_weighting(cfg))
    # One foreground RoI alone, at IoU 1 / 3 with the pseudo-box.
    target = make_target([[0, 5, 10, 15]], [1], pseudo=True)
    losses = losses_of(layers, [make_rois([[0, 0, 10, 10]], [1], target, [[0, 5, 10, 15]])])
    assert losses["loss_cls"].item() == pytest.approx(positive * math.log(4), rel=1e-5)


def test_paper_leaves_the_box_loss_alone():
    rois = [random_rois(0, pseudo=True)]
    cfg = make_config("UncertaintyROIHeads", "SSOD.ROI_WEIGHTING.VARIANT", "paper")
    layers = make_layers(build_roi_weighting(cfg))
    losses = losses_of(layers, rois)
    expected = detectron2_losses(rois, layers)
    assert torch.equal(losses["loss_box_reg"], expected["loss_box_reg"])
    assert losses["loss_cls"] < expected["loss_cls"]


def test_box_loss_weights_go_with_their_rois():
    layers = make_layers(FixedWeighting(0.5, 0.125, weights_box_loss=True))
    weighted = [random_rois(0, pseudo=True)]
    found = losses_of(layers, weighted)["loss_box_reg"]
    expected = detectron2_losses(weighted, layers)["loss_box_reg"]
    torch.testing.assert_close(found, 0.5 * expected)


@pytest.mark.parametrize("settings", SETTINGS)
def test_loss_weights_scale_weighted_losses(settings):
    """A weight of 0.5 for all RoIs halves both losses, whatever the kind of box loss."""
    rois = [random_rois(3, pseudo=True)]
    layers = make_layers(FixedWeighting(0.5, 0.5, weights_box_loss=True), **settings)
    found = losses_of(layers, rois)
    for name, expected in detectron2_losses(rois, layers, **settings).items():
        torch.testing.assert_close(found[name], 0.5 * expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("pseudo", [False, True])
def test_only_pseudo_labeled_images_are_weighted_by_default(pseudo):
    rois = [random_rois(0, pseudo=pseudo), random_rois(1, pseudo=pseudo)]
    layers = make_layers(SoftSamplingWeighting(a=0.25, b=50.0, c=20.0))
    found = losses_of(layers, rois)["loss_cls"]
    unweighted = detectron2_losses(rois, layers)["loss_cls"]
    assert torch.equal(found, unweighted) != pseudo


def test_batch_may_mix_labeled_and_pseudo_labeled_images():
    """The loss of a batch is that of its images alone, weighted by their number of RoIs."""
    layers = make_layers(SoftSamplingWeighting(a=0.25, b=50.0, c=20.0))
    rois = [
        random_rois(0, pseudo=False, foreground=2, background=3),
        random_rois(1, pseudo=True, foreground=1, background=6),
        random_rois(2, pseudo=False, foreground=0, background=2),
        random_rois(3, pseudo=True, foreground=4, background=1),
    ]
    features = random_features(rois)
    counts = [len(of_image) for of_image in rois]
    alone = [
        losses_of(layers, [of_image], part)
        for of_image, part in zip(rois, features.split(counts), strict=True)
    ]
    together = losses_of(layers, rois, features)
    for name in ("loss_cls", "loss_box_reg"):
        expected = sum(n * loss[name] for n, loss in zip(counts, alone, strict=True)) / sum(counts)
        torch.testing.assert_close(together[name], expected, rtol=1e-5, atol=1e-7)
    # The similarity loss is the mean over the images, not over the RoIs.
    expected = sum(loss["loss_similarity"] for loss in alone) / len(rois)
    torch.testing.assert_close(together["loss_similarity"], expected, rtol=1e-5, atol=1e-7)


def test_similarity_loss_trains_the_embedding_alone():
    layers = make_layers(ConstantWeighting(background_weight=0.5))
    rois = [random_rois(0, pseudo=True), random_rois(1, pseudo=False)]
    features = random_features(rois).requires_grad_()
    losses_of(layers, rois, features)["loss_similarity"].backward()
    assert features.grad is None
    with_gradient = {name for name, p in layers.named_parameters() if p.grad is not None}
    assert with_gradient == {"embedding.weight", "embedding.bias"}
    assert layers.embedding.weight.grad.abs().sum() > 0


def test_detector_losses_do_not_train_the_embedding():
    layers = make_layers(build_roi_weighting(make_config()))
    rois = [random_rois(0, pseudo=True)]
    losses = losses_of(layers, rois)
    (losses["loss_cls"] + losses["loss_box_reg"]).backward()
    assert layers.embedding.weight.grad is None
    assert layers.cls_score.weight.grad.abs().sum() > 0


def test_similarity_loss_has_its_weight():
    rois = [random_rois(0, pseudo=False)]
    single = losses_of(make_layers(None), rois)["loss_similarity"]
    triple = losses_of(make_layers(None, similarity_loss_weight=3.0), rois)["loss_similarity"]
    torch.testing.assert_close(triple, 3 * single)


def test_a_similarity_loss_of_weight_0_is_not_computed_but_has_a_gradient(monkeypatch):
    """Distributed training asks for one of every layer."""
    monkeypatch.setattr(ops, "similarity_loss", None)
    layers = make_layers(None, similarity_loss_weight=0.0)
    monkeypatch.setattr(layers.embedding, "forward", None)
    losses = losses_of(layers, [random_rois(0, pseudo=False)])
    assert losses["loss_similarity"].item() == 0
    sum(losses.values()).backward()
    assert not any(layers.embedding.weight.grad.flatten().tolist())
    assert not any(layers.embedding.bias.grad.tolist())


def test_a_weighting_has_embeddings_without_a_similarity_loss():
    rois = [random_rois(0, pseudo=True)]
    without, with_it = (
        losses_of(
            make_layers(build_roi_weighting(make_config()), similarity_loss_weight=weight), rois
        )
        for weight in (0.0, 1.0)
    )
    assert without["loss_similarity"].item() == 0 < with_it["loss_similarity"].item()
    assert torch.equal(without["loss_cls"], with_it["loss_cls"])


@pytest.mark.parametrize(("same_class", "expected"), [(False, 12 / 16), (True, 10 / 16)])
def test_same_class_counts_foreground_pairs_only(same_class, expected):
    layers = make_layers(None, similarity_same_class=same_class)
    # All embeddings are alike, s = 1: a pair costs 1 unless it is to be alike. The four RoIs are
    # disjoint, so the 4 pairs (i, i) are to be alike, and with SAME_CLASS also the 2 ordered pairs
    # of the two foreground RoIs, of one class; not those of the two background RoIs.
    torch.nn.init.zeros_(layers.embedding.weight)
    torch.nn.init.ones_(layers.embedding.bias)
    rois = make_rois(
        FOUR_BOXES, [1, CLASSES, 1, CLASSES], make_target([FOUR_BOXES[0], FOUR_BOXES[2]], [1, 1])
    )
    loss = losses_of(layers, [rois])["loss_similarity"]
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_similarity_threshold_decides_what_is_alike():
    # One box holds 80 % of the other: alike above 0.7, not above 0.9.
    rois = make_rois([[0, 0, 10, 10], [2, 0, 40, 10]], [CLASSES] * 2, make_target([]))
    found = []
    for threshold in (0.7, 0.9):
        layers = make_layers(None, similarity_iof_thresh=threshold)
        torch.nn.init.zeros_(layers.embedding.weight)
        torch.nn.init.ones_(layers.embedding.bias)
        found.append(losses_of(layers, [rois])["loss_similarity"].item())
    assert found == pytest.approx([0.0, 0.5], abs=1e-6)


@pytest.mark.parametrize("targets", ["no foreground", "no ground truth"])
def test_every_parameter_has_a_gradient_without_foreground(targets):
    cfg = make_config("UncertaintyROIHeads", "SSOD.ROI_WEIGHTING.APPLY_TO", "all")
    layers = make_layers(build_roi_weighting(cfg), weigh_all_images=True)
    rois = random_rois(0, pseudo=True, foreground=0)
    if targets == "no foreground":
        rois = make_rois(
            rois.proposal_boxes.tensor.tolist(),
            rois.gt_classes.tolist(),
            make_target([[1, 1, 5, 5]], [0], pseudo=True),
        )
    sum(losses_of(layers, [rois]).values()).backward()
    assert all(p.grad is not None for p in layers.parameters())
    assert all(torch.isfinite(p.grad).all() for p in layers.parameters())


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_a_batch_without_rois_teaches_nothing(variant):
    """Of pictures in which neither the proposals nor a teacher find anything."""
    cfg = make_config("UncertaintyROIHeads", "SSOD.ROI_WEIGHTING.VARIANT", variant)
    layers = make_layers(build_roi_weighting(cfg))
    losses = losses_of(layers, [make_rois([], [], make_target([], [], pseudo=True))])
    assert {loss.item() for loss in losses.values()} == {0.0}
    sum(losses.values()).backward()


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_statistics_are_logged_from_the_first_iteration(variant, storage):
    cfg = make_config("UncertaintyROIHeads", "SSOD.ROI_WEIGHTING.VARIANT", variant)
    losses_of(make_layers(build_roi_weighting(cfg)), [random_rois(0, pseudo=True)])
    latest = storage.latest()
    for quantity in ("weights", "max_iou", "dissimilarity"):
        names = [f"roi_weighting/{quantity}_{label}" for label in ("q10", "q50", "q90", "mean")]
        low, middle, high, mean = (latest[name][0] for name in names)
        assert 0 <= low <= middle <= high <= 1 + 1e-6
        assert low <= mean <= high


def test_statistics_are_of_the_background_of_the_weighted_images(storage):
    layers = make_layers(FixedWeighting(0.9, 0.2, weights_box_loss=False))
    losses_of(layers, [random_rois(0, pseudo=False), random_rois(1, pseudo=True)])
    latest = storage.latest()
    assert latest["roi_weighting/weights_mean"][0] == pytest.approx(0.2)
    assert latest["roi_weighting/weights_q10"][0] == pytest.approx(0.2)


def test_statistics_are_not_logged_where_nothing_is_weighted(storage):
    losses_of(make_layers(build_roi_weighting(make_config())), [random_rois(0, pseudo=False)])
    assert not [name for name in storage.latest() if name.startswith("roi_weighting/")]


def test_inference_needs_no_embedding():
    layers = make_layers(None).eval()
    scores, deltas = layers(torch.randn(4, DIM))
    assert scores.shape == (4, CLASSES + 1)
    assert deltas.shape == (4, 4 * CLASSES)


def test_embedding_has_the_configured_size():
    assert make_layers(None).embedding.out_features == DIM
    assert make_layers(None, embed_dim=4).embedding.out_features == 4


def test_layers_read_all_of_their_keys():
    cfg = make_config(
        "UncertaintyROIHeads",
        *("SSOD.ROI_WEIGHTING.NAME", "constant", "SSOD.ROI_WEIGHTING.APPLY_TO", "all"),
        *("SSOD.SIMILARITY.EMBED_DIM", 7, "SSOD.SIMILARITY.IOF_THRESH", 0.6),
        *("SSOD.SIMILARITY.LOSS_WEIGHT", 0.5, "SSOD.SIMILARITY.SAME_CLASS", True),
    )
    layers = UncertaintyOutputLayers(cfg, ShapeSpec(channels=DIM))
    assert isinstance(layers.weighting, ConstantWeighting)
    assert layers.weigh_all_images
    assert layers.embedding.out_features == 7
    assert layers.similarity_iof_thresh == 0.6
    assert layers.similarity_loss_weight == 0.5
    assert layers.similarity_same_class
    assert layers.num_classes == 5


def test_is_pseudo_knows_the_three_cases():
    boxes = [[0, 0, 5, 5]]
    assert is_pseudo(make_target(boxes, pseudo=True))
    assert not is_pseudo(make_target(boxes, pseudo=False))
    assert not is_pseudo(make_target([]))
    unmarked = make_target(boxes)
    unmarked.remove("gt_is_pseudo")
    assert not is_pseudo(unmarked)
    nothing_found = make_target([], pseudo=True)
    nothing_found.gt_certainty = torch.zeros(0)
    assert is_pseudo(nothing_found)  # by a mean teacher


def test_rois_that_forget_their_targets_are_refused():
    sampled = random_rois(0, pseudo=True)
    plain = Instances(sampled.image_size, **sampled.get_fields())
    with pytest.raises(TypeError, match=r"got \['Instances'\].*one of the heads UncertaintyROIH"):
        losses_of(make_layers(None), [plain])


@pytest.mark.parametrize("flags", [[True, False], [False, True, True]])
def test_images_of_both_labels_and_pseudo_labels_are_refused(flags):
    mixed = make_target([[0, 0, 5, 5]] * len(flags))
    mixed.gt_is_pseudo = torch.tensor(flags)
    with pytest.raises(ValueError, match="gt_is_pseudo must be the same for all boxes"):
        is_pseudo(mixed)


def test_a_loss_without_softmax_is_refused():
    with pytest.raises(ValueError, match="USE_SIGMOID_CE"):
        UncertaintyOutputLayers(
            make_config("UncertaintyROIHeads", "MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE", True),
            ShapeSpec(channels=DIM),
        )


def test_weights_are_computed_without_gradient():
    seen = SimpleNamespace(enabled=None)

    class Watching(FixedWeighting):
        def __call__(self, rois):
            seen.enabled = torch.is_grad_enabled()
            return super().__call__(rois)

    losses_of(make_layers(Watching(1.0, 0.5, False)), [random_rois(0, pseudo=True)])
    assert seen.enabled is False


def test_weights_of_boxes_stay_out_where_labels_are_uncertain():
    def box_loss(weighting):
        rois = one_foreground_of_four(pseudo=True)
        rois.target.gt_certainty = torch.tensor([0.5])
        return losses_of(zero_layers(weighting), [rois])["loss_box_reg"].item()

    plain = box_loss(None)
    assert plain > 0
    assert box_loss(FixedWeighting(0.5, 0.5, weights_box_loss=False)) == plain
    assert box_loss(FixedWeighting(0.5, 0.5, weights_box_loss=True)) == plain / 2


def test_weights_of_boxes_are_of_the_foreground_of_all_images():
    rois = [one_foreground_of_four(pseudo=False), one_foreground_of_four(pseudo=True)]
    plain = losses_of(zero_layers(None), rois)["loss_box_reg"]
    weighting = FixedWeighting(3.0, 7.0, weights_box_loss=True)
    # 1 of the labeled image, 3 of the other.
    found = losses_of(zero_layers(weighting), rois)["loss_box_reg"]
    assert found.item() == pytest.approx((1 + 3) / 2 * plain.item(), rel=1e-6)


def test_weights_of_ones_own_may_be_of_another_precision():
    class Double(FixedWeighting):
        def __call__(self, rois):
            return RoIWeights(super().__call__(rois).weights.double())

    rois = [random_rois(0, pseudo=True), random_rois(1, pseudo=False)]
    found, expected = (
        losses_of(make_layers(kind(1.0, 0.25, True)), rois) for kind in (Double, FixedWeighting)
    )
    assert found == expected


def test_logged_weights_are_those_of_the_weighed_images(storage):
    weighting = FixedWeighting(1.0, 0.25, weights_box_loss=False)
    # The labeled image before it has foreground and background in other places.
    rois = [
        random_rois(0, pseudo=False, foreground=1, background=7),
        random_rois(1, pseudo=True, foreground=5, background=3),
    ]
    losses_of(make_layers(weighting), rois)
    assert storage.latest()["roi_weighting/weights_mean"][0] == 0.25
