"""Which maps of a model of timm's are taken, and what they are.

That is found out by measuring, without memory or weights, on PyTorch's meta device.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.config import CfgNode
from torch import Tensor, nn

from d2_ssod.errors import ConfigError

from .net import create_for_any_size, import_timm, shortly

_STRIDES = (4, 8, 16, 32)  # of the maps that are taken where none are chosen
_IMAGE = (128, 192)  # height and width of the image that maps are measured with


@dataclass(frozen=True)
class Layout:
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


def layout_of(cfg: CfgNode, in_channels: int) -> Layout:
    """Find out what the model of ``MODEL.TIMM`` gives for images of so many channels.

    Raises:
        ConfigError: timm is not installed, or no feature pyramid can be built from the model.
    """
    import_timm(cfg)
    timm, backbone = cfg.MODEL.TIMM, cfg.MODEL.BACKBONE
    return _find_layout(
        *(timm.NAME, in_channels, tuple(timm.OUT_INDICES)),
        *(backbone.FREEZE_AT, finest_stride(backbone.NAME)),
    )


def finest_stride(backbone: str) -> int:
    """Give the stride of the finest map that a pyramid is built on where none are chosen.

    RetinaNet's is 8: what it does not read would be computed in vain, and have no gradients, which
    training with several processes does not take.
    """
    return 8 if backbone == "build_retinanet_timm_fpn_backbone" else 4


@functools.lru_cache(maxsize=32)
def _find_layout(
    name: str, in_channels: int, out_indices: tuple[int, ...], freeze_at: int, finest: int
) -> Layout:
    """Build the model on the meta device, and see what it makes of an image."""
    from timm.data import resolve_model_data_config

    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        options, net = create_for_any_size(name, in_channels)
        reductions = [info["reduction"] for info in net.feature_info.info]
        indices = _choose(name, reductions, out_indices, finest)
        # Those that are taken, and finer ones, up to which the model may be frozen.
        frozen_maps = {i for i in range(max(indices) + 1) if log2(reductions[i]) <= freeze_at}
        wanted = sorted({*indices, *frozen_maps})
        _, net = create_for_any_size(name, in_channels, out_indices=tuple(wanted))
        maps = dict(zip(wanted, _maps_of(name, net.eval(), in_channels), strict=True))
        needed, frozen = (
            _parameters_of(net, [maps[i] for i in which]) for which in (indices, frozen_maps)
        )
    channels_last = _is_channels_last(net)
    taken = [maps[i].movedim(-1, 1) if channels_last else maps[i] for i in indices]
    strides = tuple(reductions[i] for i in indices)
    _check_sizes(name, strides, taken)
    pixels = resolve_model_data_config(net)
    return Layout(
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


def _choose(
    name: str, reductions: list[int], out_indices: tuple[int, ...], finest: int
) -> tuple[int, ...]:
    """Choose which maps are taken: ``out_indices``, or the last one of each usual stride."""
    known = ", ".join(f"{i}: {reduction}" for i, reduction in enumerate(reductions[:9]))
    known += ", ..." if len(reductions) > 9 else ""
    if any(i >= len(reductions) for i in out_indices):
        raise ConfigError(
            f"MODEL.TIMM.OUT_INDICES is {out_indices}, but {name} has only these maps, each with "
            f"its stride: {known}; choose from these"
        )
    last = {reduction: i for i, reduction in enumerate(reductions)}
    usual = tuple(last[stride] for stride in _STRIDES if stride >= finest and stride in last)
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
            f"{shortly(error)}); choose one that does, such as a ResNet, EfficientNet, ConvNeXt "
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


def log2(stride: int) -> int:
    """Compute the logarithm to base 2, rounded down."""
    return stride.bit_length() - 1
