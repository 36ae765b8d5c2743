"""The embedded data set and detector, small enough for two CPU cores; no part of the method.

digit_scenes/   generated pictures of handwritten digits, and their annotations
datasets.py     their names for a config; importing this package registers them
small_fpn.py    a backbone: ``MODEL.BACKBONE.NAME: build_small_fpn_backbone``
"""

from d2_ssod.data import datasets_root

from .datasets import register_digit_scenes
from .small_fpn import SmallFPN, build_small_fpn_backbone

__all__ = ["SmallFPN", "build_small_fpn_backbone", "register_digit_scenes"]

register_digit_scenes(datasets_root())
