"""The loss that trains the embedding."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ._dtypes import with_boxes


def similarity_loss(
    boxes: Tensor,
    embeddings: Tensor,
    rois_per_image: Sequence[int],
    *,
    iof_threshold: float = 0.7,
    classes: Tensor | None = None,
) -> Tensor:
    """Pull the embeddings of RoIs that lie in one another together, and push all others apart (Eq.
    6-7).

    With ``s_ij = |f_i . f_j| / (|f_i| |f_j|)``, norms below 1e-8 counting as it, and ``y_ij = 1``
    if ``IoF_ij > t`` or ``IoF_ji > t``, else 0: the mean over all ordered pairs of an image, i = j
    included, of ``y (1 - s)^2 + (1 - y) s^2``; then the mean over the images, those without RoIs
    counting as 0.

    Differentiable once, by ``backward`` (not in forward mode, nor by ``torch.func``), in
    ``embeddings`` alone, and that gradient in factors of the loss. It is made in the forward pass
    if it will be needed. On the CPU neither pass stores a matrix of pairs; on CUDA the gradient
    keeps that of some rows at a time, in some 256 MB unless an image has more than 8192 RoIs beside
    many others.

    Args:
        boxes: ``Tensor[R, 4]`` of (x1, y1, x2, y2), any unit: the RoIs of all images, one after
            another.
        embeddings: ``Tensor[R, D]``, float32, float64, or half/bfloat16 (accumulated in float32).
        rois_per_image: RoIs of each image; they add up to R. Pairs never cross images.
        iof_threshold: t, in 0..1.
        classes: ``Tensor[R]``, int64: pairs of one class >= 0 also count as y = 1.
            Classes below 0 never do (give background RoIs one of these).

    Returns:
        ``Tensor[]``, float32 (float64 if an input is): 0 without images. NaN if a box or an
        embedding has a NaN.

    Raises:
        TypeError: boxes or embeddings are no tensors.
        ValueError: if a shape, dtype, device, count or the threshold does not fit.
        RuntimeError: if a second derivative, or a forward-mode one, is asked for.
    """
    boxes, embeddings = with_boxes(boxes, embeddings)
    if forward_ad.unpack_dual(embeddings).tangent is not None:
        raise RuntimeError(
            "similarity_loss has no forward-mode derivative, got embeddings with a tangent; use "
            "backward(), or detach them"
        )
    with_grad = torch.is_grad_enabled() and embeddings.requires_grad
    loss, _ = torch.ops.d2_ssod.similarity_loss.default(
        boxes.detach(), embeddings, rois_per_image, iof_threshold, classes, with_grad
    )
    return loss
