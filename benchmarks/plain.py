"""The operators as an able PyTorch user would write them: what ours are timed against.

Two ways, of which the faster one counts. *Loop*: image by image, only background x foreground.
*Padded*: all images at once, rows and columns padded to the largest counts; it needs these counts
as numbers, which the loop does not, and is the one that ``torch.compile`` gets (a loop over index
lists breaks its graph).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def box_area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def intersection(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """``[..., N, 4]`` and ``[..., M, 4]`` to ``[..., N, M]``, one coordinate at a time."""
    x1, y1, x2, y2 = boxes1[..., :, None, :].unbind(-1)
    u1, v1, u2, v2 = boxes2[..., None, :, :].unbind(-1)
    width = (torch.minimum(x2, u2) - torch.maximum(x1, u1)).clamp(min=0)
    return width * (torch.minimum(y2, v2) - torch.maximum(y1, v1)).clamp(min=0)


def pairwise_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    overlap = intersection(boxes1, boxes2)
    return overlap / (box_area(boxes1)[:, None] + box_area(boxes2) - overlap)


def pairwise_iof(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    return intersection(boxes1, boxes2) / box_area(boxes1)[:, None]


def gompertz(x: Tensor, a: float, b: float, c: float) -> Tensor:
    return a + (1 - a) * torch.exp(-b * torch.exp(-c * x))


def background_weights(
    boxes: Tensor, unit: Tensor, others: Tensor, other_units: Tensor, valid: Tensor | None
) -> Tensor:
    """Weights of rows against columns, ``[..., N]``; ``valid`` marks the columns that count."""
    overlap = intersection(boxes, others)
    area, other_area = box_area(boxes)[..., :, None], box_area(others)[..., None, :]
    similarity = (unit @ other_units.transpose(-1, -2)).abs() * (1 - overlap / area)
    iou = overlap / (area + other_area - overlap)
    if valid is not None:
        similarity, iou = similarity * valid[..., None, :], iou * valid[..., None, :]
    dissimilarity = 1 - similarity.amax(-1)
    return gompertz(iou.amax(-1), 0.25, 50, 15) * gompertz(dissimilarity, 0, 50, 10)


def uncertainty_loop(boxes: Tensor, embeddings: Tensor, foreground: Tensor, counts: list) -> Tensor:
    weights = []
    per_image = (x.split(counts) for x in (boxes, embeddings, foreground))
    for image_boxes, image_embeddings, flags in zip(*per_image, strict=True):
        background = ~flags
        weight = torch.ones(len(flags), device=boxes.device)
        weight[background] = background_weights(
            image_boxes[background],
            F.normalize(image_embeddings[background]),
            image_boxes[flags],
            F.normalize(image_embeddings[flags]),
            None,
        )
        weights.append(weight)
    return torch.cat(weights)


def uncertainty_padded(
    boxes: Tensor, embeddings: Tensor, foreground: Tensor, images: int, most: int, fewest: int
) -> Tensor:
    """Images of equal size; ``most`` and ``fewest`` foreground RoIs in an image."""
    boxes, flags = boxes.view(images, -1, 4), foreground.view(images, -1)
    unit = F.normalize(embeddings).view(images, boxes.shape[1], -1)
    # Foreground first: its columns are the first `most`, the background's rows lie after `fewest`.
    order = flags.to(torch.uint8).argsort(dim=1, descending=True)

    def take(x: Tensor, index: Tensor) -> Tensor:
        return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))

    rows, columns = order[:, fewest:], order[:, :most]
    valid = flags.gather(1, columns)
    background = background_weights(
        take(boxes, rows), take(unit, rows), take(boxes, columns), take(unit, columns), valid
    )
    weights = torch.ones_like(flags, dtype=boxes.dtype).scatter(1, rows, background)
    return torch.where(flags, 1.0, weights).flatten()


def _pair_losses(boxes: Tensor, unit: Tensor, threshold: float) -> Tensor:
    iof = intersection(boxes, boxes) / box_area(boxes)[..., :, None]
    inside = iof > threshold
    similarity = (unit @ unit.transpose(-1, -2)).abs()
    return torch.where(inside | inside.transpose(-1, -2), 1 - similarity, similarity).square()


def similarity_loop(boxes: Tensor, embeddings: Tensor, counts: list) -> Tensor:
    images = zip(boxes.split(counts), F.normalize(embeddings).split(counts), strict=True)
    return torch.stack([_pair_losses(b, unit, 0.7).mean() for b, unit in images]).mean()


def similarity_padded(boxes: Tensor, embeddings: Tensor, images: int) -> Tensor:
    """Images of equal size."""
    boxes = boxes.view(images, -1, 4)
    unit = F.normalize(embeddings).view(images, boxes.shape[1], -1)
    return _pair_losses(boxes, unit, 0.7).mean()
