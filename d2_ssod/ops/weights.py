"""RoI weights for pseudo-labelled images: the overlap and the dissimilarity with the foreground."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from . import reference


class UncertaintyTerms(NamedTuple):
    """The weights, and what they were made from; each ``Tensor[R]``."""

    weights: Tensor
    max_iou: Tensor
    dissimilarity: Tensor


def gompertz(x: Tensor, a: float, b: float, c: float) -> Tensor:
    """Gompertz curve ``a + (1 - a) exp(-b exp(-c x))``: about ``a`` at 0, rising to 1; differentiable."""
    return a + (1 - a) * torch.exp(-b * torch.exp(-c * x))


def overlap_weights(
    boxes: Tensor,
    is_foreground: Tensor,
    rois_per_image: Sequence[int],
    *,
    a: float = 0.25,
    b: float = 50.0,
    c: float = 20.0,
    gt_boxes: Tensor | None = None,
    gts_per_image: Sequence[int] | None = None,
) -> Tensor:
    """Weight ``g(IoU_i)`` of every RoI."""
    return reference.overlap_weights(
        boxes,
        is_foreground,
        rois_per_image,
        a=a,
        b=b,
        c=c,
        gt_boxes=gt_boxes,
        gts_per_image=gts_per_image,
    ).float()


def uncertainty_terms(
    boxes: Tensor,
    embeddings: Tensor,
    is_foreground: Tensor,
    rois_per_image: Sequence[int],
    *,
    a: float = 0.25,
    b: float = 50.0,
    c_iou: float = 15.0,
    c_sim: float = 10.0,
    variant: Literal["paper", "released"] = "paper",
    gt_boxes: Tensor | None = None,
    gts_per_image: Sequence[int] | None = None,
) -> UncertaintyTerms:
    """Weights, largest IoU and dissimilarity of every RoI."""
    with torch.no_grad():
        return UncertaintyTerms(
            *reference.uncertainty_terms(
                boxes.float(),
                embeddings.float(),
                is_foreground,
                rois_per_image,
                a=a,
                b=b,
                c_iou=c_iou,
                c_sim=c_sim,
                gt_boxes=gt_boxes,
                gts_per_image=gts_per_image,
            )
        )


def uncertainty_weights(
    boxes: Tensor,
    embeddings: Tensor,
    is_foreground: Tensor,
    rois_per_image: Sequence[int],
    *,
    a: float = 0.25,
    b: float = 50.0,
    c_iou: float = 15.0,
    c_sim: float = 10.0,
    variant: Literal["paper", "released"] = "paper",
    gt_boxes: Tensor | None = None,
    gts_per_image: Sequence[int] | None = None,
) -> Tensor:
    """Weight ``w_i`` of every RoI."""
    return uncertainty_terms(
        boxes,
        embeddings,
        is_foreground,
        rois_per_image,
        a=a,
        b=b,
        c_iou=c_iou,
        c_sim=c_sim,
        variant=variant,
        gt_boxes=gt_boxes,
        gts_per_image=gts_per_image,
    ).weights
