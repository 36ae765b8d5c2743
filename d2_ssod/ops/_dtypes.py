"""Which dtype an operator computes in."""

from __future__ import annotations

import torch
from torch import Tensor


def computed_in(*tensors: Tensor) -> torch.dtype:
    """float64 if one of ``tensors`` is, otherwise float32."""
    return torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32


def references_in(dtype: torch.dtype, gt_boxes: Tensor | None) -> Tensor | None:
    """Convert reference boxes, if there are any, to the dtype computed in."""
    if gt_boxes is None:
        return None
    check_floating(gt_boxes=gt_boxes)
    return gt_boxes.to(dtype)


def check_floating(**boxes: Tensor) -> None:
    """Refuses what is no tensor, and integers, of which ``pairwise_iou`` makes only 0 and 1.

    Args:
        boxes: by the name of the argument.

    Raises:
        TypeError: naming the argument and what it is, such as Detectron2's ``Boxes``.
        ValueError: naming the argument and its dtype.
    """
    for name, tensor in boxes.items():
        _check_is_tensor(name, tensor, "Tensor[N, 4]", "; of Detectron2's Boxes give .tensor")
        if not tensor.is_floating_point():
            raise ValueError(
                f"{name} must be a floating-point tensor, got {tensor.dtype}; convert it with "
                ".float()"
            )


def _check_is_tensor(name: str, value: object, shape: str, remedy: str = "") -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a {shape}, got {type(value).__name__}{remedy}")


def with_boxes(boxes: Tensor, embeddings: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes in the dtype computed in; embeddings as they are, unless that is float64."""
    check_floating(boxes=boxes)
    _check_is_tensor("embeddings", embeddings, "Tensor[R, D]")
    dtype = computed_in(boxes, embeddings)
    return boxes.to(dtype), embeddings.to(dtype) if dtype == torch.float64 else embeddings
