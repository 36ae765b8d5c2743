"""SSD300's VGG-16 (Liu et al., ECCV 2016) as a Detectron2 backbone: torchvision's."""

from __future__ import annotations

import re

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from torch import Tensor, nn
from torchvision.models import vgg16
from torchvision.models.detection.ssd import SSDFeatureExtractorVGG

# Name of each feature map: its channels, and its stride in 300 pixels.
_MAPS = {
    "conv4_3": ShapeSpec(channels=512, stride=8),
    "fc7": ShapeSpec(channels=1024, stride=16),
    "conv8_2": ShapeSpec(channels=512, stride=32),
    "conv9_2": ShapeSpec(channels=256, stride=64),
    "conv10_2": ShapeSpec(channels=256, stride=100),
    "conv11_2": ShapeSpec(channels=256, stride=300),
}
_STAGES = (0, 5, 10, 17)  # first layers of conv1 to conv4, in VGG-16's own numbers
_POOL4, _FC6, _FC7 = 23, 31, 33


class SSDVGG16(Backbone):
    """VGG-16 up to conv5_3, two convolutions for its fully connected layers, four more blocks."""

    def __init__(self, freeze_at: int = 0) -> None:
        """Build it with random weights.

        Args:
            freeze_at: the first so many stages, 0 to 4, are not trained.
        """
        super().__init__()
        self.layers = SSDFeatureExtractorVGG(vgg16(weights=None).features, highres=False)
        end = (*_STAGES, _POOL4)[min(max(freeze_at, 0), len(_STAGES))]
        for parameter in self.layers.features[:end].parameters():
            parameter.requires_grad_(False)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Compute the feature maps of images Tensor[B, 3, 300, 300]: 38, 19, 10, 5, 3, 1 wide."""
        return dict(zip(_MAPS, self.layers(x).values(), strict=True))

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Give channels and stride of each feature map."""
        return dict(_MAPS)

    @staticmethod
    def own_names(state: dict[str, Tensor]) -> dict[str, str]:
        """Find out what the tensors of a file of VGG-16 are called here.

        Files of torchvision (``vgg16_features-amdegroot``: ``features.0.weight``) and amdegroot's
        ssd.pytorch (``vgg16_reducedfc``: ``0.weight``) number VGG-16's layers.

        Args:
            state: of the file.

        Returns:
            The name in this module of each tensor that it has; of other files, none.
        """
        layers = {
            name: re.fullmatch(r"(?:features\.)?(\d+)\.(weight|bias)", name) for name in state
        }
        return {
            name: f"layers.{_own_name(int(found[1]))}.{found[2]}"
            for name, found in layers.items()
            if found
        }


def _own_name(layer: int) -> str:
    """Name the layer with a number of VGG-16's; 31 and 33 are the convolutions fc6 and fc7."""
    if layer < _POOL4:
        return f"features.{layer}"
    last = {_FC6: "7.1", _FC7: "7.3"}
    return f"extra.0.{last.get(layer, layer - _POOL4)}"


@BACKBONE_REGISTRY.register()
def build_ssd_vgg16_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> nn.Module:
    """Build an :class:`SSDVGG16`; ``MODEL.BACKBONE.FREEZE_AT`` counts its stages."""
    return SSDVGG16(cfg.MODEL.BACKBONE.FREEZE_AT)
