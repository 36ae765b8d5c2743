"""The augmentations that this project adds to Detectron2's."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.data import transforms as T
from torch import Tensor
from torchvision.transforms import v2

_GREY = 127  # of what is erased


def build_augmentations(cfg: CfgNode) -> list[T.Augmentation]:
    """List the augmentations of ``SSOD.AUG``, which come before Detectron2's own."""
    aug = cfg.SSOD.AUG
    augmentations: list[T.Augmentation] = []
    if aug.COLOR > 0:
        limits = (1.0 - aug.COLOR, 1.0 + aug.COLOR)
        augmentations += [T.RandomBrightness(*limits), T.RandomContrast(*limits)]
        if cfg.INPUT.FORMAT != "L":  # grey pictures have no saturation
            augmentations.append(T.RandomSaturation(*limits))
    if tuple(aug.SCALE) != (1.0, 1.0) or aug.SHIFT > 0:
        # Detectron2 shifts by up to half of the range that it is given.
        augmentations.append(T.RandomExtent(tuple(aug.SCALE), (2 * aug.SHIFT, 2 * aug.SHIFT)))
    return augmentations


class StrongAugmentation:
    """Changes of colour and erased parts, which leave every box where it is.

    Color jitter (brightness, contrast, saturation by 0.4, hue by 0.1; probability 0.8), grey (0.2),
    Gaussian blur (sigma 0.1 to 2 pixels; 0.5), up to three rectangles made grey (0.7, 0.5, 0.3), as
    in Unbiased Teacher (Liu et al., ICLR 2021).
    """

    def __init__(self, image_format: str) -> None:
        """Take ``INPUT.FORMAT``: "RGB", "BGR" or "L"."""
        self._is_bgr = image_format == "BGR"
        self._transform = v2.Compose(
            [
                v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
                v2.RandomGrayscale(p=0.2),
                v2.RandomApply([v2.GaussianBlur(kernel_size=9, sigma=(0.1, 2.0))], p=0.5),
                v2.RandomErasing(p=0.7, scale=(0.02, 0.2), ratio=(0.3, 3.3), value=_GREY),
                v2.RandomErasing(p=0.5, scale=(0.02, 0.2), ratio=(0.1, 6.0), value=_GREY),
                v2.RandomErasing(p=0.3, scale=(0.02, 0.2), ratio=(0.05, 8.0), value=_GREY),
            ]
        )

    def __call__(self, image: Tensor) -> Tensor:
        """Change an image, uint8 Tensor[C, H, W]; the one given stays as it is."""
        changed = self._transform(image.flip(0) if self._is_bgr else image)
        return changed.flip(0) if self._is_bgr else changed
