"""Models leave Detectron2 as docs/extending.md says, and find the same."""

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.export import TracingAdapter, scripting_with_instances
from detectron2.modeling import build_model
from detectron2.structures import Boxes

import d2_ssod.modeling  # noqa: F401
from d2_ssod.config import add_ssod_config

IN_INSTANCES = {
    **dict.fromkeys(("proposal_boxes", "pred_boxes"), Boxes),
    **dict.fromkeys(("objectness_logits", "scores", "pred_classes"), torch.Tensor),
}


@pytest.fixture(scope="module")
def cfg():
    cfg = get_cfg()
    add_ssod_config(cfg)
    cfg.merge_from_file("configs/Base-SSOD-FPN.yaml")
    cfg.MODEL.DEVICE, cfg.MODEL.WEIGHTS = "cpu", ""
    cfg.MODEL.RESNETS.DEPTH = 18
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64
    return cfg


@pytest.fixture(scope="module")
def model(cfg):
    torch.manual_seed(3)
    return build_model(cfg).eval()


def picture(width):
    return {"image": torch.randint(0, 255, (3, 96, width)).float()}


def check_same(model, found, image):
    with torch.no_grad():
        (expected,) = model.inference([image], do_postprocess=False)
    assert len(expected) > 0
    torch.testing.assert_close(found.pred_boxes.tensor, expected.pred_boxes.tensor)
    torch.testing.assert_close(found.scores, expected.scores)


@pytest.mark.filterwarnings("ignore")
def test_a_traced_model_finds_the_same_in_pictures_of_other_sizes(model):
    adapter = TracingAdapter(
        model, [picture(128)], lambda model, images: model.inference(images, do_postprocess=False)
    )
    traced = torch.jit.trace(adapter, adapter.flattened_inputs, check_trace=False)
    other = picture(160)
    (found,) = adapter.outputs_schema(traced(other["image"]))
    check_same(model, found, other)


@pytest.mark.filterwarnings("ignore")
def test_a_scripted_model_finds_the_same_with_detectron2s_heads(cfg, model):
    cfg = cfg.clone()
    cfg.MODEL.ROI_HEADS.NAME = "StandardROIHeads"
    plain = build_model(cfg).eval()
    left = plain.load_state_dict(model.state_dict(), strict=False)
    assert not left.missing_keys
    assert all(".embedding." in key for key in left.unexpected_keys)
    scripted, image = scripting_with_instances(plain, IN_INSTANCES), picture(128)
    with torch.no_grad():
        (found,) = scripted.inference([image], do_postprocess=False)
    check_same(model, found, image)
