"""The formulas in plain PyTorch, image by image: what the operators are tested and timed against.

Written to be read, not to be fast, and never used as a fall-back. The functions take the arguments
of the public ones and work in the dtype they are given (tests give them float64).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

EPS = 1e-8


def box_area(boxes: Tensor) -> Tensor:
    """Areas ``Tensor[N]`` of ``boxes`` ``Tensor[N, 4]``, 0 for degenerate and inverted ones."""
    return (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(dim=1)


def _intersection(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    top_left = torch.maximum(boxes1[:, None, :2], boxes2[None, :, :2])
    bottom_right = torch.minimum(boxes1[:, None, 2:], boxes2[None, :, 2:])
    return (bottom_right - top_left).clamp(min=0).prod(dim=2)


def _quotient(intersection: Tensor, area: Tensor) -> Tensor:
    """``intersection / area``, 0 where the area is 0."""
    return intersection / torch.where(area <= 0, torch.ones_like(area), area)


def pairwise_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Intersection over union, ``Tensor[N, M]``."""
    intersection = _intersection(boxes1, boxes2)
    union = box_area(boxes1)[:, None] + box_area(boxes2)[None, :] - intersection
    return _quotient(intersection, union)


def pairwise_iof(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Intersection over the area of the first box, ``Tensor[N, M]``."""
    return _quotient(_intersection(boxes1, boxes2), box_area(boxes1)[:, None])


def normalize(x: Tensor, eps: float = EPS) -> Tensor:
    """Rows of ``x`` divided by their norm, or by ``eps`` where that is larger."""
    squared = (x * x).sum(dim=1, keepdim=True)
    norm = torch.where(squared > 0, squared, torch.ones_like(squared)).sqrt() * (squared != 0)
    # An overflowing squared norm gives NaN, as a NaN does: there is no direction left to compare.
    return x / norm.clamp(min=eps) + (squared - squared).detach()


def pairwise_cosine_similarity(x1: Tensor, x2: Tensor, eps: float = EPS) -> Tensor:
    """Signed cosines, ``Tensor[N, M]``."""
    return normalize(x1, eps) @ normalize(x2, eps).T


def gompertz(x: Tensor, a: float, b: float, c: float) -> Tensor:
    """Compute ``a + (1 - a) exp(-b exp(-c x))``."""
    return a + (1 - a) * torch.exp(-b * torch.exp(-c * x))


def _row_max(values: Tensor, own: Tensor) -> Tensor:
    """Largest value of each row, or 0; ignores NaN; NaN where the row's ``own`` is."""
    largest = values.new_zeros(len(values))
    if values.shape[1] > 0:
        largest = values.nan_to_num(nan=0.0).amax(dim=1)
    return largest + (own - own)


def _split(values: Tensor | None, counts: Sequence[int] | None, images: int) -> list[Tensor | None]:
    if values is None or counts is None:
        return [None] * images
    return list(values.split(list(counts)))


def _overlaps(boxes: Tensor, foreground: Tensor, gt_boxes: Tensor | None) -> Tensor:
    others = boxes[foreground] if gt_boxes is None else gt_boxes
    return _row_max(pairwise_iou(boxes, others), box_area(boxes))


def _overlap_factor(
    max_iou: Tensor, foreground: Tensor, gt_boxes: Tensor | None, a: float, b: float, c: float
) -> Tensor:
    factor = gompertz(max_iou, a, b, c)
    if gt_boxes is None:
        return torch.where(foreground, 1 + (max_iou - max_iou), factor)
    return factor if len(gt_boxes) else 1 + (max_iou - max_iou)


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
    """Eq. 2 alone."""
    counts = list(rois_per_image)
    weights = [boxes.new_zeros(0)]
    for image_boxes, foreground, image_gts in zip(
        boxes.split(counts),
        is_foreground.split(counts),
        _split(gt_boxes, gts_per_image, len(counts)),
        strict=True,
    ):
        max_iou = _overlaps(image_boxes, foreground, image_gts)
        weights.append(_overlap_factor(max_iou, foreground, image_gts, a, b, c))
    return torch.cat(weights)


def _dissimilarity(
    boxes: Tensor, embeddings: Tensor, foreground: Tensor, gt_boxes: Tensor | None
) -> Tensor:
    """Eq. 4 of background rows (or its released form, with ``gt_boxes``); 1 of foreground rows."""
    own = box_area(boxes) + (embeddings * embeddings).sum(dim=1)
    similarity = pairwise_cosine_similarity(embeddings, embeddings[foreground]).abs()
    if gt_boxes is None:
        hidden = pairwise_iof(boxes, boxes[foreground])
        largest = _row_max(similarity * (1 - hidden), own)
    else:
        hidden = _row_max(pairwise_iof(boxes, gt_boxes), own)
        largest = _row_max(similarity, own) * (1 - hidden)
    return torch.where(foreground, 1 + (own - own), 1 - largest)


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
    gt_boxes: Tensor | None = None,
    gts_per_image: Sequence[int] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Eq. 2-5: weights, largest IoU, dissimilarity; of the released code if there are targets."""
    counts = list(rois_per_image)
    empty = boxes.new_zeros(0)
    weights, ious, dissimilarities = [empty], [empty], [empty]
    for image_boxes, image_embeddings, foreground, image_gts in zip(
        boxes.split(counts),
        embeddings.split(counts),
        is_foreground.split(counts),
        _split(gt_boxes, gts_per_image, len(counts)),
        strict=True,
    ):
        max_iou = _overlaps(image_boxes, foreground, image_gts)
        dissimilarity = _dissimilarity(image_boxes, image_embeddings, foreground, image_gts)
        overlap = _overlap_factor(max_iou, foreground, image_gts, a, b, c_iou)
        own = dissimilarity - dissimilarity
        factor = torch.where(foreground, 1 + own, gompertz(dissimilarity, 0.0, b, c_sim))
        weights.append(overlap * factor)
        ious.append(max_iou)
        dissimilarities.append(dissimilarity)
    return torch.cat(weights), torch.cat(ious), torch.cat(dissimilarities)


def uncertainty_weights(*args, **kwargs) -> Tensor:
    """Give the weights of :func:`uncertainty_terms`."""
    return uncertainty_terms(*args, **kwargs)[0]


def _similar(boxes: Tensor, threshold: float, classes: Tensor | None) -> Tensor:
    """``y_ij`` of Eq. 7, boolean ``Tensor[R, R]``."""
    inside = pairwise_iof(boxes, boxes) > threshold
    similar = inside | inside.T
    if classes is not None:
        similar |= (classes[:, None] == classes[None, :]) & (classes[:, None] >= 0)
    return similar


def similarity_loss(
    boxes: Tensor,
    embeddings: Tensor,
    rois_per_image: Sequence[int],
    *,
    iof_threshold: float = 0.7,
    classes: Tensor | None = None,
) -> Tensor:
    """Eq. 6-7; differentiable in ``embeddings`` by autograd."""
    counts = list(rois_per_image)
    total = embeddings.sum() * 0
    for image_boxes, image_embeddings, image_classes in zip(
        boxes.split(counts),
        embeddings.split(counts),
        _split(classes, counts, len(counts)),
        strict=True,
    ):
        if len(image_boxes) == 0:
            continue
        target = _similar(image_boxes, iof_threshold, image_classes).to(embeddings.dtype)
        s = pairwise_cosine_similarity(image_embeddings, image_embeddings).abs()
        # A NaN box has no target, so no loss.
        own = box_area(image_boxes)
        total = total + (target * (1 - s) ** 2 + (1 - target) * s**2 + (own - own)[:, None]).mean()
    return total / max(len(counts), 1)
