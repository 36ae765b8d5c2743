"""Sampled RoIs, targets, images and small models."""

from pathlib import Path

import torch
from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.structures import Boxes, Instances

import d2_ssod.demo  # noqa: F401  registers the small backbone
from d2_ssod.config import add_ssod_config
from d2_ssod.modeling import SampledRoIs, UncertaintyOutputLayers

CONFIG_FILE = Path(__file__).parents[2] / "configs" / "digits_two_phase.yaml"
SIZE = (128, 128)
DIM = 6  # channels of a box feature
CLASSES = 3


def make_config(heads="UncertaintyROIHeads", *options):
    """The embedded data set's config for the CPU, with other heads; C4's for Res5 heads."""
    cfg = get_cfg()
    add_ssod_config(cfg)
    cfg.merge_from_file(str(CONFIG_FILE))
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.ROI_HEADS.NAME = heads
    cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = 16
    if "Cascade" in heads:
        cfg.MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG = True
    if "Res5" in heads:
        cfg.MODEL.BACKBONE.NAME = "build_resnet_backbone"
        cfg.MODEL.RESNETS.OUT_FEATURES = ["res4"]
        cfg.MODEL.RESNETS.STEM_OUT_CHANNELS = 8
        cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 16
        cfg.MODEL.RESNETS.WIDTH_PER_GROUP = 4
        cfg.MODEL.RPN.IN_FEATURES = ["res4"]
        cfg.MODEL.ROI_HEADS.IN_FEATURES = ["res4"]
        cfg.MODEL.ROI_BOX_HEAD.NAME = ""
    cfg.merge_from_list(list(options))
    return cfg


def make_target(boxes, classes=None, pseudo=False):
    """The ground truth (or pseudo-labels) of an image, as the mapper gives it."""
    target = Instances(SIZE)
    target.gt_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    target.gt_classes = torch.tensor(classes or [0] * len(boxes), dtype=torch.int64)
    target.gt_scores = torch.ones(len(boxes))
    target.gt_is_pseudo = torch.full((len(boxes),), pseudo)
    return target


def make_rois(boxes, classes, target, matched=None):
    """Sampled RoIs of one image; ``matched``: the box that each one is to be regressed to."""
    rois = Instances(SIZE)
    rois.proposal_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    rois.gt_classes = torch.tensor(classes, dtype=torch.int64)
    rois.gt_boxes = Boxes(torch.tensor(matched or boxes, dtype=torch.float32).reshape(-1, 4))
    return SampledRoIs.attach(rois, target)


def random_rois(seed, *, pseudo, foreground=3, background=5):
    """RoIs of one image: ``foreground`` ones near their ground truth, the others anywhere."""
    generator = torch.Generator().manual_seed(seed)

    def boxes(count):
        corner = torch.rand(count, 2, generator=generator) * 80
        return torch.cat([corner, corner + 15 + torch.rand(count, 2, generator=generator) * 30], 1)

    truth = boxes(foreground)
    classes = torch.randint(CLASSES, (foreground,), generator=generator)
    near = truth + torch.rand(foreground, 4, generator=generator) * 4
    return make_rois(
        torch.cat([near, boxes(background)]).tolist(),
        classes.tolist() + [CLASSES] * background,
        make_target(truth.tolist(), classes.tolist(), pseudo),
        matched=torch.cat([truth, torch.zeros(background, 4)]).tolist(),
    )


def layer_arguments(**overrides):
    """Arguments of Detectron2's output layers."""
    return {
        "box2box_transform": Box2BoxTransform(weights=(10.0, 10.0, 5.0, 5.0)),
        "num_classes": CLASSES,
        **overrides,
    }


def make_layers(weighting, *, seed=0, **overrides):
    """Output layers for features of ``DIM`` channels, with weights that are not tiny."""
    torch.manual_seed(seed)
    layers = UncertaintyOutputLayers(
        ShapeSpec(channels=DIM), weighting=weighting, **layer_arguments(**overrides)
    )
    for parameter in layers.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return layers.train()


def random_features(rois, seed=0):
    """Box features of all RoIs of a batch."""
    count = sum(len(of_image) for of_image in rois)
    return torch.randn(count, DIM, generator=torch.Generator().manual_seed(seed))


def make_input(seed, *, pseudo=False, boxes=((20, 20, 60, 60), (70, 60, 120, 110))):
    """One image with its targets, as the mapper gives it."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "image": torch.randint(256, (3, *SIZE), generator=generator, dtype=torch.uint8),
        "height": SIZE[0],
        "width": SIZE[1],
        "instances": make_target(list(boxes), [i % 5 for i in range(len(boxes))], pseudo),
    }
