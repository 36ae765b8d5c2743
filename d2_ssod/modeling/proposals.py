"""Detectron2's RPN for labels that are not all certain; ``MODEL.PROPOSAL_GENERATOR.NAME``."""

from __future__ import annotations

import torch
from detectron2.modeling.proposal_generator import PROPOSAL_GENERATOR_REGISTRY, RPN
from detectron2.structures import Boxes, Instances
from fvcore.nn import smooth_l1_loss
from torch import Tensor

from .certainty import has_box_gate, with_gate


@PROPOSAL_GENERATOR_REGISTRY.register()
class UncertaintyRPN(RPN):
    """:class:`RPN` that learns boxes only from the edges of a label that are certain.

    What an uncertain label lies on is an object to it, as what a certain one lies on; only the box
    loss (smooth L1) of an anchor leaves out the deltas whose edges the label's gate closes.
    """

    @torch.no_grad()
    def label_and_sample_anchors(
        self, anchors: list[Boxes], gt_instances: list[Instances]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Do as :class:`RPN`, with the gate beside each matched box if any label has one.

        Returns:
            The labels, and for each image Tensor[A, 4] of boxes or Tensor[A, 8] of boxes and gates
            (defined for positive anchors).
        """
        labels, matched = super().label_and_sample_anchors(anchors, gt_instances)
        if any(map(has_box_gate, gt_instances)):
            triples = zip(labels, matched, gt_instances, strict=True)
            matched = [
                with_gate(boxes, of_image == 1, target) for of_image, boxes, target in triples
            ]
        return labels, matched

    def losses(
        self,
        anchors: list[Boxes],
        pred_objectness_logits: list[Tensor],
        gt_labels: list[Tensor],
        pred_anchor_deltas: list[Tensor],
        gt_boxes: list[Tensor],
    ) -> dict[str, Tensor]:
        """Do as :class:`RPN`, with a gated box loss if there are gates.

        Raises:
            ValueError: there are gates, and the box loss is not smooth L1.
        """
        boxes = [matched[:, :4] for matched in gt_boxes]
        losses = super().losses(
            anchors, pred_objectness_logits, gt_labels, pred_anchor_deltas, boxes
        )
        if gt_boxes[0].shape[1] == 8:
            self._check_box_loss()
            losses["loss_rpn_loc"] = self._gated_box_loss(
                Boxes.cat(anchors).tensor,
                torch.stack(gt_labels) == 1,
                torch.cat(pred_anchor_deltas, dim=1),
                torch.stack(gt_boxes),
            )
        return losses

    def _check_box_loss(self) -> None:
        """Refuse losses of whole boxes, which have no deltas to leave out."""
        if self.box_reg_loss_type != "smooth_l1":
            raise ValueError(
                "box_reg_loss_type must be 'smooth_l1' (MODEL.RPN.BBOX_REG_LOSS_TYPE) where labels "
                f"have gates of edges, got {self.box_reg_loss_type!r}; set that, or take "
                "MODEL.PROPOSAL_GENERATOR.NAME: RPN"
            )

    def _gated_box_loss(
        self, anchors: Tensor, positive: Tensor, deltas: Tensor, matched: Tensor
    ) -> Tensor:
        """Compute the smooth L1 loss of open deltas, normalized as :class:`RPN` does.

        Args:
            anchors: Tensor[A, 4].
            positive: bool Tensor[B, A].
            deltas: Tensor[B, A, 4].
            matched: Tensor[B, A, 8], boxes and gates.
        """
        image, anchor = positive.nonzero(as_tuple=True)
        box, gate = matched[image, anchor].split(4, dim=1)
        goal = self.box2box_transform.get_deltas(anchors[anchor], box)
        loss = smooth_l1_loss(deltas[image, anchor], goal, self.smooth_l1_beta, reduction="none")
        normalizer = self.batch_size_per_image * len(positive)
        return (loss * gate).sum() / normalizer * self.loss_weight.get("loss_rpn_loc", 1.0)
