"""Overlaps of all pairs of boxes."""

from __future__ import annotations

import torch
from torch import Tensor

from ._dtypes import check_floating, computed_in


def pairwise_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Intersection over union of every box of ``boxes1`` with every box of ``boxes2``.

    ``area(1 ∩ 2) / area(1 ∪ 2)``, 0 where the intersection is empty: so for degenerate (no width or
    height) and inverted boxes, even with themselves. NaN where either box has a NaN. Not
    differentiable: the result requires no gradient.

    Args:
        boxes1: ``Tensor[N, 4]`` of (x1, y1, x2, y2), in any unit, finite.
        boxes2: ``Tensor[M, 4]`` on the same device.

    Returns:
        ``Tensor[N, M]`` in 0..1, of the dtype of the inputs (half and bfloat16 are computed in
        float32); empty if N or M is 0.

    Raises:
        TypeError: boxes are no tensor.
        ValueError: if a shape, dtype or device does not fit.
    """
    return _pairwise(torch.ops.d2_ssod.pairwise_iou.default, boxes1, boxes2)


def pairwise_iof(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Intersection over foreground: the part of every box of ``boxes1`` that a box of ``boxes2``
    covers.

    ``area(1 ∩ 2) / area(1)``: 1 for a small box inside a big one, and not symmetric. This is
    Detectron2's ``pairwise_ioa(boxes2, boxes1).T``. Otherwise as :func:`pairwise_iou`.

    Args:
        boxes1: ``Tensor[N, 4]`` of (x1, y1, x2, y2), in any unit, finite.
        boxes2: ``Tensor[M, 4]`` on the same device.

    Returns:
        ``Tensor[N, M]`` in 0..1, of the dtype of the inputs (half and bfloat16 are computed in
        float32).

    Raises:
        TypeError: boxes are no tensor.
        ValueError: if a shape, dtype or device does not fit.
    """
    return _pairwise(torch.ops.d2_ssod.pairwise_iof.default, boxes1, boxes2)


def _pairwise(operator: torch._ops.OpOverload, boxes1: Tensor, boxes2: Tensor) -> Tensor:
    check_floating(boxes1=boxes1, boxes2=boxes2)
    dtype = computed_in(boxes1, boxes2)
    overlaps = operator(boxes1.to(dtype), boxes2.to(dtype))
    return overlaps.to(torch.promote_types(boxes1.dtype, boxes2.dtype))
