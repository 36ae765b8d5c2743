"""Which dtype an operator computes in."""

from __future__ import annotations

import torch
from torch import Tensor


def computed_in(*tensors: Tensor) -> torch.dtype:
    """float64 if one of ``tensors`` is, otherwise float32."""
    return torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32


def references_in(dtype: torch.dtype, boxes: Tensor | None) -> Tensor | None:
    """Reference boxes, if there are any, in the dtype computed in."""
    if boxes is None:
        return None
    check_boxes(boxes)
    return boxes.to(dtype)


def check_boxes(*boxes: Tensor) -> None:
    """Boxes of integers are refused: an overlap has no value of their dtype but 0 and 1.

    Raises:
        ValueError: otherwise.
    """
    for tensor in boxes:
        if not tensor.is_floating_point():
            raise ValueError(
                f"boxes must be a floating-point tensor, got {tensor.dtype}; convert with .float()"
            )


def with_boxes(boxes: Tensor, embeddings: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes in the dtype computed in; embeddings as they are, unless that is float64."""
    check_boxes(boxes)
    dtype = computed_in(boxes, embeddings)
    return boxes.to(dtype), embeddings.to(dtype) if dtype == torch.float64 else embeddings
