"""Other systems for the same task, to compare with.

consistency.py         losses between two views, and how much they count in the course of training
csd.py                 CSD and ISD: SSD that learns from unlabeled images by them
proposal_learning.py   Faster R-CNN that learns from the proposals of unlabeled images
"""

from .consistency import (
    Ramp,
    box_consistency,
    class_consistency,
    is_foreground,
    mirror,
    one_sided_consistency,
)
from .csd import CSD, ISD
from .proposal_learning import ProposalLearningRCNN

__all__ = [
    "CSD",
    "ISD",
    "ProposalLearningRCNN",
    "Ramp",
    "box_consistency",
    "class_consistency",
    "is_foreground",
    "mirror",
    "one_sided_consistency",
]
