"""The augmentations that this project adds to Detectron2's."""

from __future__ import annotations

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from torch import Tensor
from torchvision.transforms import v2

from d2_ssod.errors import ConfigError

_COLOR_FORMATS = ("RGB", "BGR", "L")  # INPUT.FORMAT of images whose colors can be changed
_GREY = 127  # of what is erased
_LARGE = 2_000_000  # pixels up to which a picture is cheap to change at full size
_MARGIN = 1.25  # of what is left for the resizing


def build_augmentations(cfg: CfgNode) -> list[T.Augmentation]:
    """List the augmentations of ``SSOD.AUG``, which come before Detectron2's own."""
    aug = cfg.SSOD.AUG
    augmentations: list[T.Augmentation] = []
    if aug.COLOR > 0:
        check_color_format(cfg.INPUT.FORMAT)
    if aug.PHOTOMETRIC:
        augmentations.append(RandomPhotometric(cfg.INPUT.FORMAT))
    if aug.COLOR > 0:
        limits = (1.0 - aug.COLOR, 1.0 + aug.COLOR)
        augmentations += [T.RandomBrightness(*limits), T.RandomContrast(*limits)]
        if cfg.INPUT.FORMAT != "L":  # grey pictures have no saturation
            # Detectron2's, whose grey is that of RGB: in BGR, red and blue count as each other.
            augmentations.append(T.RandomSaturation(*limits))
    if tuple(aug.SCALE) != (1.0, 1.0) or aug.SHIFT > 0:
        # Detectron2 shifts by up to half of the range that it is given.
        augmentations.append(RandomExtent(tuple(aug.SCALE), (2 * aug.SHIFT, 2 * aug.SHIFT)))
    if aug.EXPAND > 1:
        fill = sum(cfg.MODEL.PIXEL_MEAN) / len(cfg.MODEL.PIXEL_MEAN)
        augmentations.append(T.RandomApply(RandomExpand(aug.EXPAND, fill), prob=0.5))
    if aug.IOU_CROP:
        augmentations.append(RandomIoUCrop())
    cuts_out = aug.IOU_CROP or cfg.INPUT.CROP.ENABLED  # then all pixels may be needed
    if augmentations and not cuts_out and min(cfg.INPUT.MIN_SIZE_TRAIN) > 0:
        factor = _MARGIN / min(1.0, *aug.SCALE)
        edges = max(cfg.INPUT.MIN_SIZE_TRAIN), cfg.INPUT.MAX_SIZE_TRAIN
        augmentations.insert(0, ShrinkLarge(*(round(factor * edge) for edge in edges)))
    return augmentations


def check_color_format(image_format: str) -> None:
    """Check that images of ``INPUT.FORMAT`` have colors that can be changed.

    Raises:
        ConfigError: they have not.
    """
    if image_format not in _COLOR_FORMATS:
        raise ConfigError(
            f"INPUT.FORMAT is {image_format!r}, whose channels cannot be changed as colors are "
            "(SSOD.AUG.COLOR, PHOTOMETRIC, STRONG): switch these off, or set it to 'RGB'"
        )


def _check_pixels(dtype: torch.dtype) -> None:
    """Refuse floats: torchvision takes them for 0..1, Detectron2 for 0..255."""
    if dtype != torch.uint8:
        raise TypeError(
            f"colors are changed of images of torch.uint8, got {dtype}: have the augmentation "
            "before it round, clip to 0..255 and return uint8"
        )


def channels_first(image: np.ndarray) -> Tensor:
    """Copy pixels [H, W, C] to a Tensor[C, H, W]; as decoded they may be read-only."""
    return torch.from_numpy(image.transpose(2, 0, 1).copy())


class ShrinkLarge(T.Augmentation):
    """Makes a picture of millions of pixels smaller before others change all of them.

    Not below what the resizing after them leaves of its details: a photograph of 12 million pixels
    takes a quarter of the time so.
    """

    def __init__(self, short: int, most: int) -> None:
        """Take the short edge that is left, and the most of the long one."""
        super().__init__()
        self.short, self.most = short, most

    def get_transform(self, image: np.ndarray) -> T.Transform:
        """Give the resizing; none of a picture that is not large."""
        height, width = image.shape[:2]
        shape = T.ResizeShortestEdge.get_output_shape(height, width, self.short, self.most)
        if height * width <= _LARGE or min(shape) >= min(height, width):
            return T.NoOpTransform()
        return T.ResizeTransform(height, width, *shape)


class RandomExtent(T.RandomExtent):
    """Detectron2's, which leaves nothing of a picture of one row or column."""

    def get_transform(self, image: np.ndarray) -> T.Transform:
        """Draw the part of the picture, of a pixel at least."""
        transform = super().get_transform(image)
        transform.output_size = tuple(max(1, edge) for edge in transform.output_size)
        return transform


class RandomExpand(T.Augmentation):
    """Puts an image somewhere on a larger canvas, so that its objects become smaller."""

    def __init__(self, max_ratio: float, fill: float) -> None:
        """Take how many times longer the canvas's sides are at most, and its grey."""
        super().__init__()
        self.max_ratio, self.fill = max_ratio, fill

    def get_transform(self, image: np.ndarray) -> T.Transform:
        """Draw the canvas's size, both sides by one factor of 1..max_ratio, and the place on it."""
        height, width = image.shape[:2]
        ratio = np.random.uniform(1.0, self.max_ratio)
        extra_x, extra_y = int(width * (ratio - 1)), int(height * (ratio - 1))
        left, top = np.random.randint(extra_x + 1), np.random.randint(extra_y + 1)
        return T.PadTransform(left, top, extra_x - left, extra_y - top, width, height, self.fill)


class RandomIoUCrop(T.Augmentation):
    """SSD's cut-out (Liu et al., ECCV 2016, 2.2): of objects whose center is in it.

    Drawn are: the whole picture, any part of it, or one with which the IoU of some object is at
    least one of ``min_ious``. A part has .3 to 1 of the sides of the picture, its own differ by a
    factor of 2 at most, and it has the center of an object. Where none is found, another is drawn.
    (Detectron2's ``MinIoURandomCrop`` asks for that IoU of all objects, and keeps what reaches into
    the part of those whose center is outside.)
    """

    def __init__(
        self, min_ious: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7, 0.9), trials: int = 50
    ) -> None:
        """Take the IoUs of which one is drawn, and how many parts are tried for one."""
        super().__init__()
        self.min_ious, self.trials = (None, 0.0, *min_ious), trials

    def get_transform(self, image: np.ndarray, boxes: np.ndarray) -> T.Transform:
        """Draw the part.

        Args:
            image: uint8 [H, W, C].
            boxes: of its objects, [n, 4], XYXY.
        """
        height, width = image.shape[:2]
        while True:
            min_iou = self.min_ious[np.random.randint(len(self.min_ious))]
            if min_iou is None:
                return T.NoOpTransform()
            for _ in range(self.trials):
                sides = np.floor(np.random.uniform(0.3, 1.0, 2) * (width, height))
                corner = np.floor(np.random.uniform(0.0, 1.0, 2) * ((width, height) - sides))
                if min(sides) < 1 or max(sides) > 2 * min(sides):
                    continue
                part = np.concatenate([corner, corner + sides])
                if len(boxes) == 0 or _reaches(part, boxes, min_iou):
                    return CropToObjects(*map(int, (*corner, *sides)), width, height)


def _reaches(part: np.ndarray, boxes: np.ndarray, min_iou: float) -> bool:
    """Tell whether a part has the center of an object, and such an IoU with one."""
    common = np.minimum(part[2:], boxes[:, 2:]) - np.maximum(part[:2], boxes[:, :2])
    common = common.clip(min=0).prod(1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    iou = common / (areas + (part[2:] - part[:2]).prod() - common)
    return bool(iou.max() >= min_iou and _centers_within(part, boxes).any())


def _centers_within(part: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    return ((centers > part[:2]) & (centers < part[2:])).all(1)


class CropToObjects(T.CropTransform):
    """Cuts out a part of a picture; boxes whose center is outside have no area then."""

    def apply_box(self, box: np.ndarray) -> np.ndarray:
        """Move boxes, [n, 4], XYXY."""
        part = np.array([self.x0, self.y0, self.x0 + self.w, self.y0 + self.h])
        boxes = np.asarray(box, dtype=np.float64).reshape(-1, 4)
        return np.where(_centers_within(part, boxes)[:, None], super().apply_box(boxes), 0.0)


class RandomPhotometric(T.Augmentation):
    """SSD's changes of color: brightness, contrast, saturation, hue and the order of channels.

    Each with probability 0.5 (Liu et al., ECCV 2016), and as torchvision makes them: brightness by
    a factor of 0.875 to 1.125, where SSD adds up to 32 of 255; contrast, about the mean grey, and
    saturation by 0.5 to 1.5; hue by up to 18 of 360 degrees. Grey images (``INPUT.FORMAT`` L) keep
    their hue.
    """

    def __init__(self, image_format: str) -> None:
        """Take ``INPUT.FORMAT``: "RGB", "BGR" or "L"."""
        super().__init__()
        check_color_format(image_format)
        self._is_bgr = image_format == "BGR"
        self._change = v2.RandomPhotometricDistort()

    def get_transform(self, image: np.ndarray) -> T.Transform:
        """Give what draws and makes the change."""
        return T.ColorTransform(self._changed)

    def _changed(self, image: np.ndarray) -> np.ndarray:
        """Change an image, uint8 [H, W, C]."""
        pixels = channels_first(image)
        _check_pixels(pixels.dtype)
        pixels = self._change(pixels.flip(0) if self._is_bgr else pixels)
        pixels = pixels.flip(0) if self._is_bgr else pixels
        return pixels.permute(1, 2, 0).numpy()


class _Blur(v2.GaussianBlur):
    """torchvision's, which a picture that is narrower than half of the kernel is too small for."""

    def forward(self, image: Tensor) -> Tensor:
        """Blur an image Tensor[C, H, W], unless it is too small."""
        is_small = min(image.shape[-2:]) <= max(self.kernel_size) // 2
        return image if is_small else super().forward(image)


class StrongAugmentation:
    """Changes of color and erased parts, which leave every box where it is.

    Color jitter (brightness, contrast, saturation by 0.4, hue by 0.1; probability 0.8), grey (0.2),
    Gaussian blur (sigma 0.1 to 2 pixels; 0.5), up to three rectangles made grey (0.7, 0.5, 0.3) of
    0.02 to 0.2 of the image: the kinds and probabilities of Unbiased Teacher (Liu et al., ICLR
    2021), which fills its rectangles with noise.
    """

    def __init__(self, image_format: str) -> None:
        """Take ``INPUT.FORMAT``: "RGB", "BGR" or "L"."""
        check_color_format(image_format)
        self._is_bgr = image_format == "BGR"
        self._transform = v2.Compose(
            [
                v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
                v2.RandomGrayscale(p=0.2),
                v2.RandomApply([_Blur(kernel_size=9, sigma=(0.1, 2.0))], p=0.5),
                v2.RandomErasing(p=0.7, scale=(0.02, 0.2), ratio=(0.3, 3.3), value=_GREY),
                v2.RandomErasing(p=0.5, scale=(0.02, 0.2), ratio=(0.1, 6.0), value=_GREY),
                v2.RandomErasing(p=0.3, scale=(0.02, 0.2), ratio=(0.05, 8.0), value=_GREY),
            ]
        )

    def __call__(self, image: Tensor) -> Tensor:
        """Change an image, uint8 Tensor[C, H, W]; the one given stays as it is."""
        _check_pixels(image.dtype)
        changed = self._transform(image.flip(0) if self._is_bgr else image)
        return changed.flip(0) if self._is_bgr else changed
