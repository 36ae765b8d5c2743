import torch
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import build_backbone
from roi_samples import make_config
from torch import nn

from d2_ssod.demo import SmallFPN


def test_small_fpn_gives_the_maps_it_announces():
    backbone = build_backbone(make_config())
    assert isinstance(backbone, SmallFPN)
    features = backbone(torch.randn(2, 3, 96, 128))
    for name, shape in backbone.output_shape().items():
        expected = (2, shape.channels, 96 // shape.stride, 128 // shape.stride)
        assert tuple(features[name].shape) == expected
    assert features.keys() == backbone.output_shape().keys()


def test_small_fpn_is_small():
    parameters = sum(p.numel() for p in build_backbone(make_config()).parameters())
    assert 150_000 < parameters < 250_000


def test_small_fpn_takes_the_norm_of_the_config():
    for name, kind in {"BN": nn.BatchNorm2d, "FrozenBN": FrozenBatchNorm2d}.items():
        backbone = build_backbone(make_config("UncertaintyROIHeads", "MODEL.RESNETS.NORM", name))
        assert any(isinstance(module, kind) for module in backbone.modules())
    plain = build_backbone(make_config("UncertaintyROIHeads", "MODEL.RESNETS.NORM", ""))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in plain.modules())
    assert plain(torch.randn(1, 3, 32, 32))["p3"].shape[-1] == 4
