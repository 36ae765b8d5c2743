"""Other systems for the same task, to compare with: one-stage consistency training.

consistency.py   its losses, and how much they count in the course of training
csd.py           CSD and ISD: SSD that learns from unlabeled images by them
"""

from .consistency import (
    Ramp,
    box_consistency,
    class_consistency,
    is_foreground,
    mirror,
    one_sided_consistency,
)
from .csd import CSD, ISD, ConsistentSSD

__all__ = [
    "CSD",
    "ISD",
    "ConsistentSSD",
    "Ramp",
    "box_consistency",
    "class_consistency",
    "is_foreground",
    "mirror",
    "one_sided_consistency",
]
