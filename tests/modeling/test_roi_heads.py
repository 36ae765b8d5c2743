"""The heads inside a whole GeneralizedRCNN, built from configs."""

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_model
from detectron2.structures import Instances
from roi_samples import SIZE, make_config, make_input, make_rois, make_target
from torch import nn

from d2_ssod.errors import ConfigError
from d2_ssod.modeling import SampledRoIs, UncertaintyOutputLayers, UncertaintyRes5ROIHeads

HEADS = {
    "UncertaintyROIHeads": "StandardROIHeads",
    "UncertaintyCascadeROIHeads": "CascadeROIHeads",
    "UncertaintyRes5ROIHeads": "Res5ROIHeads",
}


def build(heads="UncertaintyROIHeads", *options):
    torch.manual_seed(0)
    return build_model(make_config(heads, *options)).train()


def losses_of(model, inputs):
    """A step's losses; proposals and RoIs are sampled the same way in every call."""
    torch.manual_seed(1)
    return model(inputs)


def predictors(model):
    return [m for m in model.modules() if isinstance(m, UncertaintyOutputLayers)]


def classification_losses(losses):
    return {k: v for k, v in losses.items() if k.startswith("loss_cls")}


def test_features_that_the_last_stage_does_not_take_are_refused():
    """A C4 model's are those of res4."""
    keys = ("MODEL.ROI_HEADS.IN_FEATURES", ["res3"], "MODEL.RESNETS.OUT_FEATURES", ["res3"])
    keys += ("MODEL.RPN.IN_FEATURES", ["res3"])
    with pytest.raises(ConfigError, match=r"IN_FEATURES is \['res3'\], of \d+ channels, but .*"):
        build("UncertaintyRes5ROIHeads", *keys)


def test_a_last_stage_of_ones_own_is_taken(monkeypatch):
    build_res5 = UncertaintyRes5ROIHeads._build_res5_block.__func__

    def wrapped(cls, cfg):
        stage, channels = build_res5(cls, cfg)
        return nn.Sequential(nn.Identity(), stage), channels

    monkeypatch.setattr(UncertaintyRes5ROIHeads, "_build_res5_block", classmethod(wrapped))
    assert isinstance(build("UncertaintyRes5ROIHeads").roi_heads.res5[0], nn.Identity)


@pytest.mark.parametrize("heads", HEADS)
def test_every_parameter_has_a_gradient_in_every_step(heads):
    batches = {
        "labeled": [make_input(0), make_input(1)],
        "mixed": [make_input(0), make_input(1, pseudo=True)],
        "no ground truth": [make_input(0, boxes=()), make_input(1, boxes=())],
        # Too small for any proposal to match it.
        "no foreground": [make_input(0, pseudo=True, boxes=((5, 5, 7, 7),))],
    }
    options = (
        "SSOD.ROI_WEIGHTING.VARIANT",
        "released",
        "MODEL.ROI_HEADS.PROPOSAL_APPEND_GT",
        False,
    )
    model = build(heads, *options)
    for name, inputs in batches.items():
        model.zero_grad(set_to_none=True)
        losses = losses_of(model, inputs)
        sum(losses.values()).backward()
        without = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
        assert not without, name
        assert all(torch.isfinite(loss) for loss in losses.values()), name


@pytest.mark.parametrize("heads", HEADS)
def test_training_lowers_the_loss(heads):
    model = build(heads)
    inputs = [make_input(0), make_input(1, pseudo=True)]
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.002)
    first = sum(losses_of(model, inputs).values())
    for _ in range(15):
        loss = sum(losses_of(model, inputs).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert sum(losses_of(model, inputs).values()) < 0.9 * first


@pytest.mark.parametrize("heads", HEADS)
def test_inference_gives_detections(heads):
    model = build(heads, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0).eval()
    with torch.no_grad():
        outputs = model([make_input(0), make_input(1)])
    for output in outputs:
        instances = output["instances"]
        assert len(instances) > 0
        assert set(instances.get_fields()) == {"pred_boxes", "scores", "pred_classes"}
        assert instances.image_size == SIZE


@pytest.mark.parametrize("heads", HEADS)
def test_every_stage_has_uncertainty_layers(heads):
    expected = 3 if "Cascade" in heads else 1
    assert len(predictors(build(heads))) == expected


def test_cascade_stages_keep_their_box_transforms():
    model = build("UncertaintyCascadeROIHeads")
    weights = [layers.box2box_transform.weights for layers in predictors(model)]
    assert weights == list(make_config().MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS)


@pytest.mark.parametrize(("heads", "original"), HEADS.items())
def test_detectron2_checkpoints_load(heads, original, tmp_path):
    theirs = build(original).eval()
    DetectionCheckpointer(theirs, str(tmp_path)).save("model")
    torch.manual_seed(2)
    ours = build_model(make_config(heads)).eval()
    incompatible = DetectionCheckpointer(ours).load(str(tmp_path / "model.pth"))
    assert incompatible == {} or not incompatible.get("unexpected_keys")
    extra = ours.state_dict().keys() - theirs.state_dict().keys()
    assert {key.split(".")[-2] for key in extra} == {"embedding"}
    assert not theirs.state_dict().keys() - ours.state_dict().keys()
    for key, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[key], value), key


def test_detectron2_checkpoint_gives_the_same_detections():
    theirs = build("StandardROIHeads", "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0).eval()
    ours = build("UncertaintyROIHeads", "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0).eval()
    ours.load_state_dict(theirs.state_dict(), strict=False)
    with torch.no_grad():
        found, expected = (m([make_input(0)])[0]["instances"] for m in (ours, theirs))
    assert torch.equal(found.pred_boxes.tensor, expected.pred_boxes.tensor)
    assert torch.equal(found.scores, expected.scores)


def test_pseudo_mark_survives_moving_the_targets():
    moved = make_input(0, pseudo=True)["instances"].to("cpu")
    assert moved.gt_is_pseudo.all()


@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("pseudo", [False, True])
def test_weights_reach_the_loss_of_pseudo_labeled_images_alone(heads, pseudo):
    inputs = [make_input(0, pseudo=pseudo), make_input(1, pseudo=pseudo)]
    found = {}
    for name in ("none", "constant"):
        options = ("SSOD.ROI_WEIGHTING.NAME", name, "SSOD.ROI_WEIGHTING.CONSTANT", 0.25)
        found[name] = losses_of(build(heads, *options), inputs)
    assert found["none"].keys() == found["constant"].keys()
    weighted = classification_losses(found["none"])
    assert weighted
    for key, unweighted in found["none"].items():
        if key in weighted and pseudo:
            # Background is most of the loss, and counts a quarter.
            assert found["constant"][key] < 0.9 * unweighted
        else:
            assert torch.equal(found["constant"][key], unweighted), key


@pytest.mark.parametrize("heads", HEADS)
def test_apply_to_all_weighs_labeled_images(heads):
    inputs = [make_input(0), make_input(1)]
    found = {}
    for apply_to in ("pseudo", "all"):
        options = ("SSOD.ROI_WEIGHTING.NAME", "constant", "SSOD.ROI_WEIGHTING.CONSTANT", 0.25)
        model = build(heads, *options, "SSOD.ROI_WEIGHTING.APPLY_TO", apply_to)
        found[apply_to] = classification_losses(losses_of(model, inputs))
    for key, loss in found["all"].items():
        assert loss < 0.9 * found["pseudo"][key]


@pytest.mark.parametrize("pseudo", [False, True])
def test_released_weights_reach_the_box_loss_of_pseudo_labeled_images(pseudo):
    # Positives at IoU 0.5 and above count 0.98 and more; a smaller C_IOU makes it plain.
    inputs = [make_input(0, pseudo=pseudo)]
    found = {}
    for name in ("none", "uncertainty"):
        options = ("SSOD.ROI_WEIGHTING.NAME", name, "SSOD.ROI_WEIGHTING.VARIANT", "released")
        model = build("UncertaintyROIHeads", *options, "SSOD.ROI_WEIGHTING.C_IOU", 4.0)
        found[name] = losses_of(model, inputs)["loss_box_reg"]
    assert (found["uncertainty"] < 0.95 * found["none"]) == pseudo
    assert torch.equal(found["uncertainty"], found["none"]) != pseudo


@pytest.mark.parametrize("heads", HEADS)
def test_statistics_are_logged_in_the_first_step(heads, storage):
    losses_of(build(heads), [make_input(0), make_input(1, pseudo=True)])
    logged = [name for name in storage.latest() if "roi_weighting/" in name]
    assert len(logged) == 12 * (3 if "Cascade" in heads else 1)


def test_similarity_loss_does_not_change_the_detectors_gradient():
    """With and without the similarity loss, everything but the embedding gets the same gradient."""
    inputs = [make_input(0), make_input(1, pseudo=True)]
    gradients = []
    for weight in (0.0, 5.0):
        model = build("UncertaintyROIHeads", "SSOD.SIMILARITY.LOSS_WEIGHT", weight)
        sum(losses_of(model, inputs).values()).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    without, with_similarity = gradients
    for name, gradient in with_similarity.items():
        assert torch.equal(gradient, without[name]) != (".embedding." in name), name


def test_sampled_rois_keep_fields_and_target():
    target = make_target([[0, 0, 5, 5], [1, 1, 7, 7]], [0, 1], pseudo=True)
    rois = make_rois([[0, 0, 5, 5]], [0], target)
    assert isinstance(rois, Instances)
    assert rois.target is target
    assert len(rois) == 1
    assert "target" not in rois.get_fields()


def test_sampled_rois_do_not_change_the_instances_they_are_made_from():
    sampled = Instances(SIZE, gt_classes=torch.tensor([1, 2]))
    SampledRoIs.attach(sampled, make_target([])).gt_extra = torch.zeros(2)
    assert set(sampled.get_fields()) == {"gt_classes"}


@pytest.mark.parametrize("heads", ["UncertaintyROIHeads", "UncertaintyCascadeROIHeads"])
def test_heads_with_predictors_of_detectron2_are_refused(heads):
    """They would train without weights, certainties and the similarity loss, unsaid."""
    ours, theirs = build(heads), build(HEADS[heads])
    arguments = {
        name: getattr(ours.roi_heads, name)
        for name in ("num_classes", "batch_size_per_image", "positive_fraction")
    }
    parts = theirs.roi_heads
    arguments |= {"proposal_matcher": parts.proposal_matcher, "box_head": parts.box_head}
    arguments |= {"box_in_features": parts.box_in_features, "box_pooler": parts.box_pooler}
    if heads == "UncertaintyCascadeROIHeads":
        arguments["box_predictors"] = list(parts.box_predictor)
        arguments["box_head"] = list(parts.box_head)
        arguments["box_heads"] = arguments.pop("box_head")
        arguments["proposal_matchers"] = parts.proposal_matchers
        del arguments["proposal_matcher"]
    else:
        arguments["box_predictor"] = parts.box_predictor
    with pytest.raises(TypeError, match="is a FastRCNNOutputLayers, which knows no pseudo-labels"):
        type(ours.roi_heads)(**arguments)
