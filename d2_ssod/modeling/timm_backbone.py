"""Any backbone of timm's as a feature pyramid: ``MODEL.BACKBONE.NAME: build_timm_fpn_backbone``.

timm is optional, and imported only where such a backbone is asked for. What it is to be
(``MODEL.TIMM``) is found out without memory or weights, on PyTorch's meta device.
"""

from __future__ import annotations

import difflib
import functools
import itertools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, FPN, Backbone, SimpleFeaturePyramid
from detectron2.modeling.backbone.fpn import LastLevelMaxPool, LastLevelP6P7
from torch import Tensor, nn

from d2_ssod.config import is_whole
from d2_ssod.errors import ConfigError

PRETRAINED = "pretrained"
"""``MODEL.TIMM.WEIGHTS`` for the weights that timm itself knows and downloads."""

_STRIDES = (4, 8, 16, 32)  # of the maps that are taken where none are chosen
_SCALES = (4.0, 2.0, 1.0, 0.5)  # of one map's size, that SimpleFeaturePyramid can make
_IMAGE = (128, 192)  # height and width of the image that maps are measured with
# What makes models that are built for one image size take others; most have nothing like it.
_ANY_SIZE = ({"strict_img_size": False}, {"dynamic_img_size": True}, {})


@dataclass(frozen=True)
class _Layout:
    """What a model of timm's gives, as far as a feature pyramid must know it.

    Attributes:
        options: arguments with which timm makes it.
        indices: which of its maps are taken, finest first.
        strides: their strides, powers of two, each twice the one before.
        channels: their channels.
        channels_last: maps are Tensor[B, H, W, C].
        parameters: how many arrays of weights the model has.
        trained: names of those that the maps need and ``MODEL.BACKBONE.FREEZE_AT`` does not freeze.
        mean: of the pixels that its weights were trained with, RGB, 0..1.
        std: their standard deviation.
    """

    options: dict[str, Any]
    indices: tuple[int, ...]
    strides: tuple[int, ...]
    channels: tuple[int, ...]
    channels_last: bool
    parameters: int
    trained: frozenset[str]
    mean: tuple[float, ...]
    std: tuple[float, ...]


class TimmFeatures(Backbone):
    """Feature maps of a model of timm's, by the names ``c2`` (stride 4), ``c3`` (8), ...

    Images in BGR are turned into RGB, which timm's weights were trained with.
    """

    def __init__(self, net: nn.Module, layout: _Layout, *, is_bgr: bool) -> None:
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

    ``p2`` .. ``p7`` where the model has maps of strides 4 to 32; RetinaNet's are ``p3`` .. ``p7``.
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
    layout = _layout_of(cfg, input_shape.channels)
    arguments = {
        "in_chans": input_shape.channels,
        "features_only": True,
        "out_indices": layout.indices,
        **layout.options,
    }
    net = _build_net(cfg.MODEL.TIMM.NAME, cfg.MODEL.TIMM.WEIGHTS, arguments)
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(name in layout.trained)
    net = _with_norm(net, cfg.MODEL.TIMM.NORM, layout.trained)
    is_bgr = cfg.INPUT.FORMAT == "BGR" and input_shape.channels == 3
    return TimmFeatures(net, layout, is_bgr=is_bgr)


def check_timm_backbone(cfg: CfgNode) -> None:
    """Check ``MODEL.TIMM``, if the config's backbone is one of timm's.

    Raises:
        ConfigError: no feature pyramid can be built from it.
    """
    if cfg.MODEL.BACKBONE.NAME in TIMM_BACKBONES:
        if not is_whole(cfg.MODEL.BACKBONE.FREEZE_AT):
            raise ConfigError(
                f"MODEL.BACKBONE.FREEZE_AT is {cfg.MODEL.BACKBONE.FREEZE_AT!r}; it must be a whole "
                "number"
            )
        _layout_of(cfg, len(cfg.MODEL.PIXEL_MEAN))
        if cfg.MODEL.TIMM.WEIGHTS not in ("", PRETRAINED):
            _check_is_file(cfg.MODEL.TIMM.WEIGHTS)


def with_timm_pixels(cfg: CfgNode) -> CfgNode:
    """Set the mean and deviation of pixels that timm's weights were trained with.

    ``MODEL.PIXEL_MEAN`` and ``.PIXEL_STD`` become those of timm's data config, scaled to 0..255 and
    in the order of ``INPUT.FORMAT``, if the backbone is one of timm's and both are Detectron2's
    defaults, which are those of its own ResNets.

    Args:
        cfg: checked (:func:`check_timm_backbone`).

    Returns:
        a frozen copy with both set, or ``cfg``.
    """
    orders = {"RGB": slice(None), "BGR": slice(None, None, -1), "L": None}
    default = get_cfg().MODEL
    is_set = any(list(cfg.MODEL[key]) != list(default[key]) for key in ("PIXEL_MEAN", "PIXEL_STD"))
    if cfg.MODEL.BACKBONE.NAME not in TIMM_BACKBONES or is_set or cfg.INPUT.FORMAT not in orders:
        return cfg
    layout, order = _layout_of(cfg, len(cfg.MODEL.PIXEL_MEAN)), orders[cfg.INPUT.FORMAT]
    own = cfg.clone()
    own.defrost()
    for key, of_rgb in {"PIXEL_MEAN": layout.mean, "PIXEL_STD": layout.std}.items():
        values = [round(255 * value, 3) for value in of_rgb]
        own.MODEL[key] = [round(sum(values) / len(values), 3)] if order is None else values[order]
    own.freeze()
    return own


def describe_timm_backbone(cfg: CfgNode) -> str:
    """Say in one line what is built of ``MODEL.TIMM``; empty if the backbone is another."""
    if cfg.MODEL.BACKBONE.NAME not in TIMM_BACKBONES:
        return ""
    timm, layout = _import_timm(cfg), _layout_of(cfg, len(cfg.MODEL.PIXEL_MEAN))
    return (
        f"Backbone: {cfg.MODEL.TIMM.NAME} of timm {timm.__version__}, strides "
        f"{', '.join(map(str, layout.strides))}, weights: {cfg.MODEL.TIMM.WEIGHTS or 'random'}, "
        f"{len(layout.trained)} of {layout.parameters} arrays of them trained, pixels "
        f"{cfg.INPUT.FORMAT}, mean {list(cfg.MODEL.PIXEL_MEAN)}, std {list(cfg.MODEL.PIXEL_STD)}"
    )


# What a model of timm's gives


def _layout_of(cfg: CfgNode, in_channels: int) -> _Layout:
    _import_timm(cfg)
    timm = cfg.MODEL.TIMM
    return _find_layout(
        timm.NAME, in_channels, tuple(timm.OUT_INDICES), cfg.MODEL.BACKBONE.FREEZE_AT
    )


def _import_timm(cfg: CfgNode) -> ModuleType:
    try:
        import timm
    except ImportError as error:
        raise ConfigError(
            f"MODEL.BACKBONE.NAME is {cfg.MODEL.BACKBONE.NAME!r}, which needs timm, and that "
            f"cannot be imported ({error}): install it (pip install timm), or choose another "
            "backbone"
        ) from error
    return timm


@functools.lru_cache(maxsize=32)
def _find_layout(
    name: str, in_channels: int, out_indices: tuple[int, ...], freeze_at: int
) -> _Layout:
    """Build the model on the meta device, and see what it makes of an image."""
    from timm.data import resolve_model_data_config

    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        options, net = _create_for_any_size(name, in_channels)
        reductions = [info["reduction"] for info in net.feature_info.info]
        indices = _choose(name, reductions, out_indices)
        # Those that are taken, and finer ones, up to which the model may be frozen.
        frozen_maps = {i for i in range(max(indices) + 1) if _log2(reductions[i]) <= freeze_at}
        wanted = sorted({*indices, *frozen_maps})
        _, net = _create_for_any_size(name, in_channels, out_indices=tuple(wanted))
        maps = dict(zip(wanted, _maps_of(name, net.eval(), in_channels), strict=True))
        needed, frozen = (
            _parameters_of(net, [maps[i] for i in which]) for which in (indices, frozen_maps)
        )
    channels_last = _is_channels_last(net)
    taken = [maps[i].movedim(-1, 1) if channels_last else maps[i] for i in indices]
    strides = tuple(reductions[i] for i in indices)
    _check_sizes(name, strides, taken)
    pixels = resolve_model_data_config(net)
    return _Layout(
        options=options,
        indices=indices,
        strides=strides,
        channels=tuple(of_stride.shape[1] for of_stride in taken),
        channels_last=channels_last,
        parameters=len(list(net.parameters())),
        trained=needed - frozen,
        mean=tuple(pixels["mean"]),
        std=tuple(pixels["std"]),
    )


def _create_for_any_size(
    name: str, in_channels: int, **arguments: Any
) -> tuple[dict[str, Any], nn.Module]:
    """Make a model without weights that takes images of any size, if there is a way.

    Returns:
        the arguments which that took, and the model.
    """
    import timm

    refusal: Exception | None = None
    for options in _ANY_SIZE:
        try:
            return options, timm.create_model(
                name, in_chans=in_channels, features_only=True, **options, **arguments
            )
        except TypeError as error:  # it has no such argument
            refusal = error
        except Exception as error:
            refusal = error
            break
    others = [other for other in timm.list_models() if other != name]
    similar = difflib.get_close_matches(name, others, n=3)
    raise ConfigError(
        f"MODEL.TIMM.NAME is {name!r}, of which timm {timm.__version__} cannot make feature maps "
        f"({_one_line(refusal)}); correct it"
        + (f", such as to {', '.join(similar)}" if similar else " to a name of timm.list_models()")
    ) from refusal


def _choose(name: str, reductions: list[int], out_indices: tuple[int, ...]) -> tuple[int, ...]:
    """Choose which maps are taken: ``out_indices``, or the last one of each usual stride."""
    known = ", ".join(f"{i}: {reduction}" for i, reduction in enumerate(reductions[:9]))
    known += ", ..." if len(reductions) > 9 else ""
    if any(i >= len(reductions) for i in out_indices):
        raise ConfigError(
            f"MODEL.TIMM.OUT_INDICES is {out_indices}, but {name} has only these maps, each with "
            f"its stride: {known}; choose from these"
        )
    last = {reduction: i for i, reduction in enumerate(reductions)}
    usual = tuple(last[stride] for stride in _STRIDES if stride in last)
    indices = out_indices or usual or (len(reductions) - 1,)
    strides = [reductions[i] for i in indices]
    is_power = all(stride >= 4 and stride.bit_count() == 1 for stride in strides)
    if not is_power or any(b != 2 * a for a, b in itertools.pairwise(strides)):
        raise ConfigError(
            f"MODEL.TIMM.OUT_INDICES is {out_indices}, and {name} gives strides "
            f"{', '.join(map(str, strides))} for it; a feature pyramid is built on powers of two "
            f"from 4, each twice the one before: choose others of its maps, each with its stride "
            f"({known}), or another MODEL.TIMM.NAME"
        )
    return indices


def _maps_of(name: str, net: nn.Module, in_channels: int) -> list[Tensor]:
    try:
        return list(net(torch.zeros(1, in_channels, *_IMAGE)))
    except Exception as error:
        raise ConfigError(
            f"MODEL.TIMM.NAME is {name!r}, which does not take images of any size (of {_IMAGE}: "
            f"{_one_line(error)}); choose one that does, such as a ResNet, EfficientNet, ConvNeXt "
            "or Swin"
        ) from error


def _check_sizes(name: str, strides: tuple[int, ...], maps: list[Tensor]) -> None:
    for stride, of_stride in zip(strides, maps, strict=True):
        found, expected = tuple(of_stride.shape[2:]), tuple(side // stride for side in _IMAGE)
        if found != expected:
            raise ConfigError(
                f"MODEL.TIMM.NAME is {name!r}, whose map of stride {stride} is {found} for an "
                f"image of {_IMAGE}, and must be {expected} for a feature pyramid: choose another"
            )


def _parameters_of(net: nn.Module, maps: list[Tensor]) -> frozenset[str]:
    """Name the parameters that maps are computed with."""
    if not maps:
        return frozenset()
    named = dict(net.named_parameters())
    total = sum(of_stride.sum() for of_stride in maps)
    gradients = torch.autograd.grad(
        total, list(named.values()), allow_unused=True, retain_graph=True
    )
    return frozenset(n for n, g in zip(named, gradients, strict=True) if g is not None)


def _is_channels_last(net: nn.Module) -> bool:
    from timm.layers import Format

    return Format(getattr(net, "output_fmt", None) or Format.NCHW) == Format.NHWC


# Building it


def _build_net(name: str, weights: str, arguments: dict[str, Any]) -> nn.Module:
    """Make a model with random weights, timm's own or those of a file."""
    import timm

    if not weights:
        return timm.create_model(name, **arguments)
    if weights == PRETRAINED:
        try:
            return timm.create_model(name, pretrained=True, **arguments)
        except Exception as error:
            raise ConfigError(
                f"MODEL.TIMM.WEIGHTS is {weights!r}, but timm has no weights of {name} or cannot "
                f"download them ({_one_line(error)}); give a file of them, or '' for random ones"
            ) from error
    _check_is_file(weights)
    # What a file does not have stays as random as in a model without it, and is found by that.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        without = timm.create_model(name, **arguments)
        torch.manual_seed(0)
        overlay = {"file": weights}
        try:
            with _silent_timm():
                net = timm.create_model(
                    name, pretrained=True, pretrained_cfg_overlay=overlay, **arguments
                )
        except Exception as error:
            raise _misfit(name, weights, _one_line(error)) from error
    found = dict(net.named_parameters())
    arrays = {n: p for n, p in without.named_parameters() if p.dim() > 1}
    missing = [n for n, p in arrays.items() if torch.equal(p, found[n])]
    if missing:
        counts = f"{len(missing)} of {len(arrays)} arrays are not in it, such as {missing[0]}"
        raise _misfit(name, weights, counts)
    return net


@contextmanager
def _silent_timm() -> Iterator[None]:
    """Leave out what timm says of arrays that are not needed."""
    logger = logging.getLogger("timm")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _misfit(name: str, weights: str, why: str) -> ConfigError:
    return ConfigError(
        f"MODEL.TIMM.WEIGHTS is {weights}, which does not fit {name} ({why}); give a file with the "
        f"state_dict of timm.create_model({name!r}), or '' for random weights"
    )


def _check_is_file(weights: str) -> None:
    if not Path(weights).is_file():
        raise ConfigError(
            f"MODEL.TIMM.WEIGHTS is {weights}, which is no file: correct the path, or set it to "
            f"{PRETRAINED!r} for timm's own, or to '' for none, also where MODEL.WEIGHTS has all"
        )


def _with_norm(net: nn.Module, norm: str, trained: frozenset[str]) -> nn.Module:
    """Freeze batch normalization, all of it or where it is not trained, or synchronize it."""
    from timm.layers import convert_sync_batchnorm
    from timm.utils.model import freeze_batch_norm_2d

    for name, module in list(net.named_modules()):
        if isinstance(module, nn.BatchNorm2d) and (
            norm == "FrozenBN" or f"{name}.weight" not in trained
        ):
            parent, _, child = name.rpartition(".")
            setattr(net.get_submodule(parent), child, freeze_batch_norm_2d(module))
    return convert_sync_batchnorm(net) if norm == "SyncBN" else net


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
        _scales(features.output_shape()[names[0]].stride),
        top_block=top_block,
        norm=fpn.NORM or "LN",
    )


def _scales(stride: int) -> list[float]:
    """Choose the scales of one map's size that lead to strides from 4."""
    return [scale for scale in _SCALES if stride / scale >= 4]


def _top_stride(features: TimmFeatures) -> int:
    """Compute the stride of the pyramid's coarsest level, before others are put on top."""
    strides = [shape.stride for shape in features.output_shape().values()]
    return strides[-1] if len(strides) > 1 else int(strides[0] / _SCALES[-1])


def _name(letter: str, stride: int) -> str:
    return f"{letter}{_log2(stride)}"


def _log2(stride: int) -> int:
    return stride.bit_length() - 1


def _one_line(error: Exception | None) -> str:
    return " ".join(str(error).split())[:200]
