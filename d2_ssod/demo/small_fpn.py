"""A backbone small enough to train on a CPU in minutes, for the embedded data set and the tests."""

from __future__ import annotations

from detectron2.layers import ShapeSpec, get_norm
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from torch import Tensor, nn
from torch.nn import functional as F

_WIDTHS = (12, 24, 48, 72)  # channels at strides 2, 4, 8, 16
_FPN_CHANNELS = 48


def _conv_norm(inputs: int, outputs: int, stride: int, norm: str) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=not norm)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(convolution, get_norm(norm, outputs) or nn.Identity())


class _Stage(nn.Module):
    """Halves the resolution, then adds a two-convolution residual."""

    def __init__(self, inputs: int, outputs: int, norm: str) -> None:
        super().__init__()
        self.down = _conv_norm(inputs, outputs, 2, norm)
        self.residual = nn.Sequential(
            _conv_norm(outputs, outputs, 1, norm),
            nn.ReLU(inplace=True),
            _conv_norm(outputs, outputs, 1, norm),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.down(x))
        return F.relu(x + self.residual(x))


class SmallFPN(Backbone):
    """Four residual stages and a feature pyramid of ``p2`` (stride 4) and ``p3`` (8)."""

    def __init__(self, in_channels: int, norm: str) -> None:
        super().__init__()
        inputs = (in_channels, *_WIDTHS[:-1])
        self.stages = nn.ModuleList(
            _Stage(i, o, norm) for i, o in zip(inputs, _WIDTHS, strict=True)
        )
        self.laterals = nn.ModuleList(nn.Conv2d(width, _FPN_CHANNELS, 1) for width in _WIDTHS[1:])
        self.outputs = nn.ModuleList(
            nn.Conv2d(_FPN_CHANNELS, _FPN_CHANNELS, 3, padding=1) for _ in range(2)
        )

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Compute ``p2`` and ``p3`` of images Tensor[B, C, H, W], H and W divisible by 16."""
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        c2, c3, c4 = (lateral(f) for lateral, f in zip(self.laterals, features[1:], strict=True))
        m3 = c3 + F.interpolate(c4, scale_factor=2.0, mode="nearest")
        m2 = c2 + F.interpolate(m3, scale_factor=2.0, mode="nearest")
        return {"p2": self.outputs[0](m2), "p3": self.outputs[1](m3)}

    @property
    def size_divisibility(self) -> int:
        """Images are padded to a multiple of this."""
        return 16

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Give channels and stride of each feature map."""
        return {
            "p2": ShapeSpec(channels=_FPN_CHANNELS, stride=4),
            "p3": ShapeSpec(channels=_FPN_CHANNELS, stride=8),
        }


@BACKBONE_REGISTRY.register()
def build_small_fpn_backbone(cfg, input_shape: ShapeSpec) -> SmallFPN:
    """Build a :class:`SmallFPN` whose norm is ``MODEL.RESNETS.NORM``."""
    return SmallFPN(input_shape.channels, cfg.MODEL.RESNETS.NORM)
