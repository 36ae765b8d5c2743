"""What the config says of timm's backbones: checked, completed and described."""

from __future__ import annotations

from detectron2.config import CfgNode, get_cfg

from d2_ssod.config import with_values
from d2_ssod.errors import ConfigError
from d2_ssod.limits import is_whole

from .layout import layout_of
from .net import PRETRAINED, check_weights_exist, import_timm
from .pyramid import TIMM_BACKBONES


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
        layout_of(cfg, len(cfg.MODEL.PIXEL_MEAN))
        if cfg.MODEL.TIMM.WEIGHTS not in ("", PRETRAINED):
            check_weights_exist(cfg.MODEL.TIMM.WEIGHTS)


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
    layout, order = layout_of(cfg, len(cfg.MODEL.PIXEL_MEAN)), orders[cfg.INPUT.FORMAT]
    pixels = {}
    for key, of_rgb in {"MODEL.PIXEL_MEAN": layout.mean, "MODEL.PIXEL_STD": layout.std}.items():
        values = [round(255 * value, 3) for value in of_rgb]
        pixels[key] = [round(sum(values) / len(values), 3)] if order is None else values[order]
    return with_values(cfg, pixels)


def describe_timm_backbone(cfg: CfgNode) -> str:
    """Say in one line what is built of ``MODEL.TIMM``; empty if the backbone is another."""
    if cfg.MODEL.BACKBONE.NAME not in TIMM_BACKBONES:
        return ""
    timm, layout = import_timm(cfg), layout_of(cfg, len(cfg.MODEL.PIXEL_MEAN))
    return (
        f"Backbone: {cfg.MODEL.TIMM.NAME} of timm {timm.__version__}, strides "
        f"{', '.join(map(str, layout.strides))}, weights: {cfg.MODEL.TIMM.WEIGHTS or 'random'}, "
        f"{len(layout.trained)} of {layout.parameters} arrays of them trained, pixels "
        f"{cfg.INPUT.FORMAT}, mean {list(cfg.MODEL.PIXEL_MEAN)}, std {list(cfg.MODEL.PIXEL_STD)}"
    )
