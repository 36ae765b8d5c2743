"""Detectron2's feature pyramids on the maps of a model of timm's."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, FPN, Backbone, SimpleFeaturePyramid
from detectron2.modeling.backbone.fpn import LastLevelMaxPool, LastLevelP6P7
from torch import Tensor, nn

from .layout import Layout, finest_stride, layout_of, log2
from .net import build_net, with_norm

_SCALES = (4.0, 2.0, 1.0, 0.5)  # of one map's size, that SimpleFeaturePyramid can make


class TimmFeatures(Backbone):
    """Feature maps of a model of timm's, by the names ``c2`` (stride 4), ``c3`` (8), ...

    Images in BGR are turned into RGB, which timm's weights were trained with.
    """

    def __init__(self, net: nn.Module, layout: Layout, *, is_bgr: bool) -> None:
        """Take a model that gives the maps of ``layout`` and no others."""
        super().__init__()
        self.net = net
        self._is_bgr, self._channels_last = is_bgr, layout.channels_last
        self._shapes = {
            _name("c", stride): ShapeSpec(channels=channels, stride=stride)
            for stride, channels in zip(layout.strides, layout.channels, strict=True)
        }

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Compute the maps of images Tensor[B, C, H, W], H and W divisible by the last stride."""
        maps = self.net(x.flip(1) if self._is_bgr else x)
        if self._channels_last:
            maps = [of_stride.permute(0, 3, 1, 2).contiguous() for of_stride in maps]
        return dict(zip(self._shapes, maps, strict=True))

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Give channels and stride of each feature map."""
        return self._shapes


class _PaddedSimplePyramid(SimpleFeaturePyramid):
    """Detectron2's, which misspells the key by which images are padded."""

    @property
    def size_divisibility(self) -> int:
        """Images are padded to a multiple of this."""
        return self._size_divisibility

    @property
    def padding_constraints(self) -> dict[str, int]:
        """The same, as Detectron2 asks for it."""
        return {"size_divisibility": self._size_divisibility}


@BACKBONE_REGISTRY.register()
def build_timm_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """Build the pyramid of ``MODEL.TIMM``, with a coarsest level that is a subsampled copy.

    ``p2`` .. ``p6`` where the model has maps of strides 4 to 32, as ``build_resnet_fpn_backbone``.
    """
    features = build_timm_features(cfg, input_shape)
    top_block = LastLevelMaxPool()
    top_block.in_feature = _name("p", _top_stride(features))
    return _build_pyramid(cfg, features, top_block)


@BACKBONE_REGISTRY.register()
def build_retinanet_timm_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """Build the pyramid of ``MODEL.TIMM`` with two more levels by convolutions, for one stage.

    ``p3`` .. ``p7``, as ``build_retinanet_resnet_fpn_backbone``, where the model has maps of
    strides 8 to 32; others with ``MODEL.TIMM.OUT_INDICES``.
    """
    features = build_timm_features(cfg, input_shape)
    channels = cfg.MODEL.FPN.OUT_CHANNELS
    top_block = LastLevelP6P7(channels, channels, _name("p", _top_stride(features)))
    return _build_pyramid(cfg, features, top_block)


TIMM_BACKBONES = (build_timm_fpn_backbone.__name__, build_retinanet_timm_fpn_backbone.__name__)
"""Values of ``MODEL.BACKBONE.NAME`` that read ``MODEL.TIMM``."""


def build_timm_features(cfg: CfgNode, input_shape: ShapeSpec) -> TimmFeatures:
    """Build the model of ``MODEL.TIMM``, with its weights, and what is frozen of it.

    Raises:
        ConfigError: timm is not installed, or a key of ``MODEL.TIMM`` has a value that no feature
            pyramid can be built from.
    """
    layout = layout_of(cfg, input_shape.channels)
    arguments = {
        "in_chans": input_shape.channels,
        "features_only": True,
        "out_indices": layout.indices,
        **layout.options,
    }
    net = build_net(cfg.MODEL.TIMM.NAME, cfg.MODEL.TIMM.WEIGHTS, arguments)
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(name in layout.trained)
    net = with_norm(net, cfg.MODEL.TIMM.NORM, layout.trained)
    is_bgr = cfg.INPUT.FORMAT == "BGR" and input_shape.channels == 3
    return TimmFeatures(net, layout, is_bgr=is_bgr)


def _build_pyramid(cfg: CfgNode, features: TimmFeatures, top_block: nn.Module) -> Backbone:
    """Put Detectron2's feature pyramid on several maps, or its simple one (ViTDet's) on one."""
    fpn, names = cfg.MODEL.FPN, list(features.output_shape())
    if len(names) > 1:
        return FPN(
            features,
            names,
            fpn.OUT_CHANNELS,
            norm=fpn.NORM,
            top_block=top_block,
            fuse_type=fpn.FUSE_TYPE,
        )
    return _PaddedSimplePyramid(
        features,
        names[0],
        fpn.OUT_CHANNELS,
        _scales(features.output_shape()[names[0]].stride, finest_stride(cfg.MODEL.BACKBONE.NAME)),
        top_block=top_block,
        norm=fpn.NORM or "LN",
    )


def _scales(stride: int, finest: int) -> list[float]:
    """Choose the scales of one map's size that lead to strides from the finest one."""
    return [scale for scale in _SCALES if stride / scale >= finest]


def _top_stride(features: TimmFeatures) -> int:
    """Compute the stride of the pyramid's coarsest level, before others are put on top."""
    strides = [shape.stride for shape in features.output_shape().values()]
    return strides[-1] if len(strides) > 1 else int(strides[0] / _SCALES[-1])


def _name(letter: str, stride: int) -> str:
    return f"{letter}{log2(stride)}"
