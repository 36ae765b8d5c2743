"""The augmentations that this project adds to Detectron2's."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.data import transforms as T


def build_augmentations(cfg: CfgNode) -> list[T.Augmentation]:
    """List the augmentations of ``SSOD.AUG``, which come before Detectron2's own."""
    aug = cfg.SSOD.AUG
    augmentations: list[T.Augmentation] = []
    if aug.COLOR > 0:
        limits = (1.0 - aug.COLOR, 1.0 + aug.COLOR)
        augmentations += [
            T.RandomBrightness(*limits),
            T.RandomContrast(*limits),
            T.RandomSaturation(*limits),
        ]
    if tuple(aug.SCALE) != (1.0, 1.0) or aug.SHIFT > 0:
        # Detectron2 shifts by up to half of the range that it is given.
        augmentations.append(T.RandomExtent(tuple(aug.SCALE), (2 * aug.SHIFT, 2 * aug.SHIFT)))
    return augmentations
