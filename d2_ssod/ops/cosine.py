"""Cosine similarity of all pairs: a matrix product of normalized rows."""

from __future__ import annotations

import torch
from torch import Tensor


def pairwise_cosine_similarity(x1: Tensor, x2: Tensor, eps: float = 1e-8) -> Tensor:
    """Signed cosine similarity of every row of ``x1`` with every row of ``x2``.

    ``x1_i . x2_j / (max(|x1_i|, eps) max(|x2_j|, eps))``: 0 for zero vectors. Composed from
    PyTorch's own operators, since all of the work is one matrix product; differentiable in both
    arguments. Half and bfloat16 rows are normalized in float32, and multiplied in their own dtype
    with float32 accumulation.

    Args:
        x1: ``Tensor[N, D]``.
        x2: ``Tensor[M, D]`` of the same dtype and device.
        eps: Norms below it count as it.

    Returns:
        ``Tensor[N, M]`` in -1..1, of the dtype of the inputs (of autocast's where that is on); NaN
        for rows that have a NaN, or whose squared norm overflows.

    Raises:
        ValueError: if the shapes do not fit.
        RuntimeError: if the dtypes or devices differ.
    """
    if x1.dim() != 2 or x2.dim() != 2 or x1.shape[1] != x2.shape[1]:
        raise ValueError(
            "x1 and x2 must be Tensor[N, D] and Tensor[M, D], "
            f"got shapes {list(x1.shape)} and {list(x2.shape)}"
        )
    return _normalize(x1, eps) @ _normalize(x2, eps).T


def _normalize(x: Tensor, eps: float) -> Tensor:
    norm = torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=_accumulator(x.dtype))
    norm = norm + (norm - norm)  # NaN instead of infinity: 0 would look like an answer
    return (x / norm.clamp(min=eps)).to(x.dtype)


def _accumulator(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype
