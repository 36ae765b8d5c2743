"""Which dtype an operator computes in."""

from __future__ import annotations

import torch
from torch import Tensor


def computed_in(*tensors: Tensor) -> torch.dtype:
    """float64 if one of ``tensors`` is, otherwise float32."""
    return torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32


def with_boxes(boxes: Tensor, embeddings: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes in the dtype computed in; embeddings as they are, unless that is float64."""
    dtype = computed_in(boxes, embeddings)
    return boxes.to(dtype), embeddings.to(dtype) if dtype == torch.float64 else embeddings
