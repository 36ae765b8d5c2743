"""The boxes of one image, and of a data set: what every step takes and gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from detectron2.structures import Boxes, Instances

ImageId = int | str

# The tiers of a pseudo-label, where there are two: learned as a person's label, or less so.
CERTAIN, UNCERTAIN = "certain", "uncertain"


@dataclass(frozen=True)
class Detections:
    """The boxes that one model, or several fused, found in one image.

    Attributes:
        boxes: float32 [n, 4], XYXY, absolute pixels of the original image.
        scores: float32 [n], in [0, 1].
        classes: int64 [n], contiguous class ids 0..C-1.
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray

    _COLUMNS: ClassVar[dict[str, tuple[tuple[int, ...], type]]] = {
        "boxes": ((4,), np.float32),
        "scores": ((), np.float32),
        "classes": ((), np.int64),
    }

    def __post_init__(self) -> None:
        for name, (sides, dtype) in self._COLUMNS.items():
            if not isinstance(getattr(self, name), np.ndarray):
                given = type(getattr(self, name)).__name__
                raise TypeError(f"{name} must be a NumPy array, got a {given}")
            array, shape = getattr(self, name), (len(self.scores), *sides)
            if array.shape != shape or array.dtype != dtype:
                raise ValueError(
                    f"{name} must be {np.dtype(dtype)} of shape {shape}, "
                    f"got {array.dtype} of shape {array.shape}"
                )

    def __len__(self) -> int:
        return len(self.scores)

    def select(self, index: np.ndarray | slice) -> Detections:
        """Select the detections at ``index``: int [k], in that order, a bool mask [n], a slice."""
        return type(self)(**{name: getattr(self, name)[index] for name in self._COLUMNS})

    @classmethod
    def empty(cls) -> Detections:
        """Give no detection at all."""
        columns = cls._COLUMNS.items()
        return cls(**{name: np.zeros((0, *sides), dtype) for name, (sides, dtype) in columns})


@dataclass(frozen=True)
class TieredDetections(Detections):
    """Fused boxes of several models in one image, in two tiers.

    Attributes:
        votes: int64 [n], how many models see the object.
        spread: float32 [n, 2], how much the models differ in the left and right edges, relative to
            the width, and in the top and bottom ones, relative to the height; NaN if only one box
            was fused.
        certain: bool [n], whether it is of the tier ``CERTAIN`` or ``UNCERTAIN``.
    """

    votes: np.ndarray
    spread: np.ndarray
    certain: np.ndarray

    _COLUMNS: ClassVar[dict[str, tuple[tuple[int, ...], type]]] = {
        **Detections._COLUMNS,
        "votes": ((), np.int64),
        "spread": ((2,), np.float32),
        "certain": ((), np.bool_),
    }


# The detections in every image of a data set, in the order of the data set; an image in which
# nothing was found has an empty entry.
Predictions = dict[ImageId, Detections]


def concatenate(detections: Sequence[Detections]) -> Detections:
    """Put all detections one after another, without what tiers add."""
    if not detections:
        return Detections.empty()
    return Detections(
        np.concatenate([d.boxes for d in detections]),
        np.concatenate([d.scores for d in detections]),
        np.concatenate([d.classes for d in detections]),
    )


def from_instances(instances: Instances) -> Detections:
    """Read a Detectron2 model's output (``pred_boxes``, ``scores``, ``pred_classes``).

    Args:
        instances: on any device.
    """
    return Detections(
        instances.pred_boxes.tensor.detach().to("cpu", torch.float32).numpy(),
        instances.scores.detach().to("cpu", torch.float32).numpy(),
        instances.pred_classes.detach().cpu().numpy().astype(np.int64, copy=False),
    )


def to_instances(detections: Detections, image_size: tuple[int, int]) -> Instances:
    """Make the ``Instances`` that Detectron2's evaluators and visualizer take; on the CPU.

    Args:
        detections: the boxes of one image.
        image_size: (height, width) of the original image in pixels.
    """
    return Instances(
        image_size,
        pred_boxes=Boxes(torch.from_numpy(detections.boxes.copy())),
        scores=torch.from_numpy(detections.scores.copy()),
        pred_classes=torch.from_numpy(detections.classes.copy()),
    )
