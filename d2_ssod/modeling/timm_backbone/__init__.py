"""Any backbone of timm's as a feature pyramid: ``MODEL.BACKBONE.NAME: build_timm_fpn_backbone``.

net.py       a model as timm makes it, with weights and normalization; timm is optional
layout.py    which of its maps are taken, and what they are, found out by measuring
pyramid.py   Detectron2's pyramids on these maps; importing this registers them
config.py    what the config says of it (``MODEL.TIMM``): checked, completed, described
"""

from .config import check_timm_backbone, describe_timm_backbone, with_timm_pixels
from .pyramid import (
    TIMM_BACKBONES,
    TimmFeatures,
    build_retinanet_timm_fpn_backbone,
    build_timm_features,
    build_timm_fpn_backbone,
)

__all__ = [
    "TIMM_BACKBONES",
    "TimmFeatures",
    "build_retinanet_timm_fpn_backbone",
    "build_timm_features",
    "build_timm_fpn_backbone",
    "check_timm_backbone",
    "describe_timm_backbone",
    "with_timm_pixels",
]
