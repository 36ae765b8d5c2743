"""Detectron2's RetinaNet for labels that are not all certain."""

from __future__ import annotations

import torch
from detectron2.modeling import META_ARCH_REGISTRY, RetinaNet
from detectron2.structures import Boxes, Instances
from torch import Tensor

from d2_ssod.modeling.certainty import certainty_of, has_certainty, with_gate


@META_ARCH_REGISTRY.register()
class UncertaintyRetinaNet(RetinaNet):
    """:class:`RetinaNet` that neither learns what an uncertain label is, nor that it is background.

    Anchors on uncertain labels are ignored; of those on certain ones, deltas are learned whose
    edges the label's gate opens (``modeling/certainty.py``).
    """

    @torch.no_grad()
    def label_anchors(
        self, anchors: list[Boxes], gt_instances: list[Instances]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Do as :class:`RetinaNet`, with gates beside the matched boxes if any label has one.

        Returns:
            The labels, and for each image Tensor[R, 4] of boxes or Tensor[R, 8] of boxes and gates
            (defined for foreground anchors).
        """
        labels, matched = super().label_anchors(anchors, gt_instances)
        if not any(map(has_certainty, gt_instances)):
            return labels, matched
        gated = []
        for of_image, boxes, target in zip(labels, matched, gt_instances, strict=True):
            positive = (of_image >= 0) & (of_image < self.num_classes)
            gated.append(with_gate(boxes, positive, target))
            seen = positive.nonzero()[:, 0]
            of_image[seen[certainty_of(boxes[seen], target) < 1]] = -1
        return labels, gated

    def losses(
        self,
        anchors: list[Boxes],
        pred_logits: list[Tensor],
        gt_labels: list[Tensor],
        pred_anchor_deltas: list[Tensor],
        gt_boxes: list[Tensor],
    ) -> dict[str, Tensor]:
        """Do as :class:`RetinaNet`; deltas that are not to be learned are given as right."""
        if gt_boxes[0].shape[1] == 8:
            places = Boxes.cat(anchors).tensor
            gates = torch.stack([of_image[:, 4:] for of_image in gt_boxes])
            gt_boxes = [of_image[:, :4] for of_image in gt_boxes]
            right = [self.box2box_transform.get_deltas(places, boxes) for boxes in gt_boxes]
            deltas = torch.cat(pred_anchor_deltas, dim=1)
            pred_anchor_deltas = [torch.where(gates > 0, deltas, torch.stack(right))]
        return super().losses(anchors, pred_logits, gt_labels, pred_anchor_deltas, gt_boxes)
