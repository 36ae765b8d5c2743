"""How certain the labels are that RoIs and anchors were matched with.

Targets may have two more fields: ``gt_certainty``, float32 [n], the probability q that a box is an
object of its class; and ``gt_box_gate``, float32 [n, 2], which of its two pairs of edges, left and
right, top and bottom, are to be learned (1) or not (0). Without them all labels are certain;
without the second alone, all edges are learned.
"""

from __future__ import annotations

import torch
from detectron2.structures import Instances
from torch import Tensor


def has_certainty(target: Instances) -> bool:
    """Tell whether the labels of an image say how certain they are."""
    return target.has("gt_certainty") and len(target) > 0


def has_box_gate(target: Instances) -> bool:
    """Tell whether the labels of an image say which of their edges are to be learned."""
    return has_certainty(target) and target.has("gt_box_gate")


def gates_of(target: Instances) -> Tensor:
    """Give the gates of an image's labels, Tensor[n, 2]; open where they do not say."""
    if has_box_gate(target):
        return target.gt_box_gate
    return target.gt_boxes.tensor.new_ones((len(target), 2))


def certainty_of(matched: Tensor, target: Instances) -> Tensor:
    """Look up q of the label that each RoI was matched with.

    Args:
        matched: Tensor[R, 4], for each RoI the box of its label, one of ``target.gt_boxes``.
        target: of the image.

    Returns:
        Tensor[R]; 1 where the image's labels are all certain.
    """
    if not has_certainty(target):
        return matched.new_ones(len(matched))
    return target.gt_certainty.to(matched.dtype)[_label_of(matched, target)]


def box_gate_of(matched: Tensor, target: Instances) -> Tensor:
    """Look up which deltas of each RoI are to be learned.

    Args:
        matched: Tensor[R, 4], for each RoI the box of its label, one of ``target.gt_boxes``.
        target: of the image.

    Returns:
        Tensor[R, 4], weights of (dx, dy, dw, dh): gx, gy, gx, gy.
    """
    if not has_box_gate(target):
        return torch.ones_like(matched)
    return target.gt_box_gate.to(matched.dtype)[_label_of(matched, target)].repeat(1, 2)


def with_gate(matched: Tensor, positive: Tensor, target: Instances) -> Tensor:
    """Put the gate of each positive anchor beside its matched box.

    Args:
        matched: Tensor[A, 4], the box that each anchor was matched with.
        positive: bool Tensor[A], which anchors are on a label.
        target: of the image.

    Returns:
        Tensor[A, 8], boxes and gates; 1 where the anchor is on none.
    """
    gate = torch.ones_like(matched)
    gate[positive] = box_gate_of(matched[positive], target)
    return torch.cat([matched, gate], dim=1)


def _label_of(matched: Tensor, target: Instances) -> Tensor:
    """Find the number of each label by its box, which matching has copied; int64 Tensor[R]."""
    same = (matched[:, None] == target.gt_boxes.tensor[None]).all(dim=2)
    return same.to(torch.uint8).argmax(dim=1)
