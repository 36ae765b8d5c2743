"""Weights of RoIs by their overlap with, and dissimilarity from, the foreground of their image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ._dtypes import check_floating, computed_in, references_in, with_boxes

Variant = Literal["paper", "released"]


class UncertaintyTerms(NamedTuple):
    """The weights, and what they were made from; each ``Tensor[R]``, and without gradient."""

    weights: Tensor
    max_iou: Tensor
    dissimilarity: Tensor


def gompertz(x: Tensor, a: float, b: float, c: float) -> Tensor:
    """Gompertz curve ``a + (1 - a) exp(-b exp(-c x))``.

    Rises from about ``a`` at 0 to 1. Composed from PyTorch's own operators: differentiable, any
    shape and floating dtype, NaN in gives NaN out.

    Args:
        x: Overlap or dissimilarity, usually in 0..1.
        a: Floor.
        b: Displacement: the larger, the later the rise.
        c: Steepness.

    Returns:
        Tensor of the shape and dtype of ``x``.
    """
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
    """Weight ``g(IoU_i; a, b, c)`` of every RoI (Eq. 2; Soft Sampling).

    ``IoU_i`` is the RoI's largest IoU with its image's foreground RoIs, which have weight 1
    themselves; or, with ``gt_boxes``, with those of its image, for foreground RoIs too. Without a
    reference box in the image: ``g(0)``, or 1 with ``gt_boxes``.

    Args:
        boxes: ``Tensor[R, 4]`` of (x1, y1, x2, y2), any unit: the RoIs of all images, one after
            another.
        is_foreground: ``Tensor[R]``, bool.
        rois_per_image: RoIs of each image; they add up to R.
        a: Weight of a RoI far from everything.
        b: Displacement of the curve.
        c: Steepness of the curve.
        gt_boxes: ``Tensor[G, 4]``, the reference boxes of all images, one after another.
        gts_per_image: Reference boxes of each image; goes with ``gt_boxes``.

    Returns:
        ``Tensor[R]``, float32 (float64 if the boxes are), without gradient. NaN where the RoI's box
        has a NaN; reference boxes with a NaN overlap nothing.

    Raises:
        TypeError: boxes are no tensor.
        ValueError: if a shape, dtype, device or count does not fit.
    """
    check_floating(boxes=boxes)
    dtype = computed_in(boxes)
    return torch.ops.d2_ssod.overlap_weights.default(
        boxes.to(dtype),
        is_foreground,
        rois_per_image,
        a,
        b,
        c,
        references_in(dtype, gt_boxes),
        gts_per_image,
    )


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
    variant: Variant = "paper",
    gt_boxes: Tensor | None = None,
    gts_per_image: Sequence[int] | None = None,
) -> UncertaintyTerms:
    """:func:`uncertainty_weights` together with the IoU and the dissimilarity behind them.

    ``max_iou`` is ``IoU_i``; in variant "paper" that of a foreground RoI is 1, with its own box (0
    if that is degenerate). ``dissimilarity`` is ``D_i``, 1 for foreground RoIs. Arguments and
    errors: see there.
    """
    if variant not in ("paper", "released"):
        raise ValueError(f'variant must be "paper" or "released", got {variant!r}')
    given = [
        name
        for name, x in (("gt_boxes", gt_boxes), ("gts_per_image", gts_per_image))
        if x is not None
    ]
    if len(given) != (2 if variant == "released" else 0):
        raise ValueError(
            'variant "released" needs gt_boxes and gts_per_image, and "paper" takes neither: '
            f'got variant "{variant}" with {" and ".join(given) or "neither"}'
        )
    boxes, embeddings = with_boxes(boxes, embeddings)
    return UncertaintyTerms(
        *torch.ops.d2_ssod.uncertainty_weights.default(
            boxes,
            embeddings,
            is_foreground,
            rois_per_image,
            a,
            b,
            c_iou,
            c_sim,
            references_in(boxes.dtype, gt_boxes),
            gts_per_image,
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
    variant: Variant = "paper",
    gt_boxes: Tensor | None = None,
    gts_per_image: Sequence[int] | None = None,
) -> Tensor:
    """Weight ``w_i = g(IoU_i; a, b, c_iou) g(D_i; 0, b, c_sim)`` of every RoI (Eq. 2-5).

    Variant "paper": foreground RoIs have weight 1. For a background RoI i and its image's
    foreground RoIs j, ``IoU_i = max_j IoU_ij``, ``D_i = 1 - max_j s_ij (1 - IoF_ij)`` with ``s_ij =
    |f_i . f_j| / (|f_i| |f_j|)``; without foreground ``IoU_i = 0`` and ``D_i = 1``.

    Variant "released": ``IoU_i`` is the largest IoU with the image's ``gt_boxes``, for foreground
    RoIs too (factor 1 in images without); ``D_i = 1 - (max_j s_ij) (1 - max_g IoF_ig)``, for
    background RoIs alone.

    Pairs never cross images; no matrix of pairs is stored; weights have no gradient, so that
    ``(weights * losses).sum()`` trains through the losses only, and asking the weights for one
    raises.

    Args:
        boxes: ``Tensor[R, 4]`` of (x1, y1, x2, y2), any unit: the RoIs of all images, one after
            another.
        embeddings: ``Tensor[R, D]``, float32, float64, or half/bfloat16 (accumulated in float32).
        is_foreground: ``Tensor[R]``, bool.
        rois_per_image: RoIs of each image; they add up to R.
        a: Overlap factor of a RoI far from everything.
        b: Displacement of both curves.
        c_iou: Steepness of the overlap's curve.
        c_sim: Steepness of the dissimilarity's curve.
        variant: See above.
        gt_boxes: ``Tensor[G, 4]``, pseudo-ground-truth boxes of all images, one after another; with
            "released" only.
        gts_per_image: Boxes of each image; with "released" only.

    Returns:
        ``Tensor[R]`` in 0..1, float32 (float64 if an input is). NaN where the RoI's own box or
        embedding has a NaN; its neighbours' maxima pass over the pairs that are NaN because of it.

    Raises:
        TypeError: boxes are no tensor.
        ValueError: if a shape, dtype, device, count or the variant does not fit.
    """
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
