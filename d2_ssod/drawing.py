"""Pictures with boxes on them."""

from __future__ import annotations

import os
from collections.abc import Sequence

import matplotlib
import numpy as np
import torch
from torch import Tensor
from torchvision.utils import draw_bounding_boxes

from d2_ssod.structures import Detections


def draw_detections(picture: np.ndarray, found: Detections, classes: Sequence[str]) -> Tensor:
    """Draw boxes, in a color for each class, with their classes and scores.

    Args:
        picture: uint8 [H, W, 3], RGB.
        found: the boxes.
        classes: class names.

    Returns:
        uint8 Tensor[3, H, W].
    """
    image = torch.tensor(picture).permute(2, 0, 1)
    if len(found) == 0:
        return image
    rows = zip(found.classes.tolist(), found.scores.tolist(), strict=True)
    return draw_bounding_boxes(
        image,
        torch.from_numpy(found.boxes),
        labels=[f"{classes[number]} {score:.0%}" for number, score in rows],
        colors=[f"hsl({n * 360 // len(classes)}, 100%, 45%)" for n in found.classes.tolist()],
        width=max(1, round(min(picture.shape[:2]) / 200)),
        font=_font(),
        font_size=max(10, round(min(picture.shape[:2]) / 30)),
    )


def _font() -> str:
    """Name a font that can be scaled, with the letters of Europe; it comes with matplotlib."""
    return os.path.join(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
