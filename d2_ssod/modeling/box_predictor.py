"""Fast R-CNN's output layers with an embedding, its similarity loss, and weighted RoIs.

Everything that re-weighting adds to a head lies in its box predictor, which every R-CNN head of
Detectron2 calls in the same two steps, ``forward`` and ``losses``. So one class serves them all.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec, ciou_loss, diou_loss
from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers
from detectron2.structures import Instances
from detectron2.utils.events import get_event_storage
from fvcore.nn import giou_loss, smooth_l1_loss
from torch import Tensor, nn
from torch.nn import functional as F

from d2_ssod import ops

from .certainty import box_gate_of, certainty_of, has_certainty
from .roi_weighting import (
    RoIBatch,
    RoIWeighting,
    RoIWeights,
    build_roi_weighting,
    check_roi_weights,
    check_weighting,
)
from .sampled_rois import SampledRoIs

_IOU_LOSSES = {"giou": giou_loss, "diou": diou_loss, "ciou": ciou_loss}


class BoxPredictions(NamedTuple):
    """What ``forward`` returns in training; the first two are Detectron2's."""

    scores: Tensor  # Tensor[R, K + 1]
    deltas: Tensor  # Tensor[R, 4 K] or Tensor[R, 4]
    embeddings: Tensor  # Tensor[R, E]; E is 0 where nothing reads them


class UncertaintyOutputLayers(FastRCNNOutputLayers):
    """:class:`FastRCNNOutputLayers` that weighs RoIs and learns what makes them alike.

    * Classification loss: sum_i(w_i CE_i) / R over all R sampled RoIs of the batch.
    * Embedding: one linear layer on the detached box feature, trained by the similarity loss
      (Eq. 6-7) on the images of the whole batch, in every phase. It is not computed where nothing
      reads it: neither that loss, if its weight is 0, nor a weighting.
    * Weights: those of ``weighting`` on the images it applies to, 1 elsewhere.
    """

    @configurable
    def __init__(
        self,
        input_shape: ShapeSpec,
        *,
        weighting: RoIWeighting | None,
        weigh_all_images: bool = False,
        embed_dim: int = 0,
        similarity_iof_thresh: float = 0.7,
        similarity_loss_weight: float = 1.0,
        similarity_same_class: bool = False,
        **kwargs,
    ) -> None:
        """Take arguments beyond those of :class:`FastRCNNOutputLayers`.

        Args:
            input_shape: shape of the box feature of one RoI.
            weighting: weighs the RoIs; None: every RoI counts 1.
            weigh_all_images: weigh the RoIs of labeled images too, not of pseudo-labeled only.
            embed_dim: size of the embedding; 0: that of the box feature.
            similarity_iof_thresh: t of Eq. 6.
            similarity_loss_weight: factor of the similarity loss.
            similarity_same_class: count foreground RoIs of one class as alike, too.
            **kwargs: passed on to :class:`FastRCNNOutputLayers`.

        Raises:
            ValueError: ``use_sigmoid_ce``; weights are of the softmax cross-entropy.
            TypeError: ``weighting`` is none.
        """
        super().__init__(input_shape, **kwargs)
        if kwargs.get("use_sigmoid_ce"):
            raise ValueError(
                "use_sigmoid_ce must be False (MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE): the weights are "
                "those of RoIs in the softmax cross-entropy"
            )
        if weighting is not None:
            check_weighting(weighting, "weighting")
        feature_dim = self.cls_score.in_features
        self.embedding = nn.Linear(feature_dim, embed_dim or feature_dim)
        self.weighting = weighting
        self.weigh_all_images = weigh_all_images
        self.similarity_iof_thresh = similarity_iof_thresh
        self.similarity_loss_weight = similarity_loss_weight
        self.similarity_same_class = similarity_same_class

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict:
        """Read the arguments of ``__init__`` from the config."""
        return {
            **super().from_config(cfg, input_shape),
            "weighting": build_roi_weighting(cfg),
            "weigh_all_images": cfg.SSOD.ROI_WEIGHTING.APPLY_TO == "all",
            "embed_dim": cfg.SSOD.SIMILARITY.EMBED_DIM,
            "similarity_iof_thresh": cfg.SSOD.SIMILARITY.IOF_THRESH,
            "similarity_loss_weight": cfg.SSOD.SIMILARITY.LOSS_WEIGHT,
            "similarity_same_class": cfg.SSOD.SIMILARITY.SAME_CLASS,
        }

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor] | BoxPredictions:
        """Compute scores and deltas of each RoI; in training also its embedding.

        Args:
            x: Tensor[R, ...], box features.
        """
        x = x.flatten(start_dim=1)
        scores, deltas = super().forward(x)
        if not self.training:
            return scores, deltas
        if self.weighting is None and self.similarity_loss_weight == 0:
            return BoxPredictions(scores, deltas, x.new_zeros((len(x), 0)))
        # Detached: the similarity loss must train this layer only, never the detector.
        return BoxPredictions(scores, deltas, self.embedding(x.detach()))

    def losses(
        self, predictions: BoxPredictions, proposals: list[SampledRoIs]
    ) -> dict[str, Tensor]:
        """Compute the weighted Fast R-CNN losses and the similarity loss of a batch."""
        losses = super().losses(predictions[:2], proposals)
        rois = collect_rois(proposals, predictions.embeddings, self.num_classes)
        classes = torch.cat([p.gt_classes for p in proposals])
        weights = self._weigh(rois)
        certainties = _certainties(proposals)
        if weights is not None or certainties is not None:
            losses["loss_cls"] = self._weighted_classification_loss(
                predictions.scores, classes, weights, certainties
            )
        weighs_boxes = weights is not None and self.weighting.weights_box_loss
        if weighs_boxes or certainties is not None:
            losses["loss_box_reg"] = self._weighted_box_loss(
                predictions.deltas, proposals, classes, weights if weighs_boxes else None
            )
        losses["loss_similarity"] = self._similarity_loss(rois, classes)
        return losses

    def predict_boxes(self, predictions, proposals):
        """Do as :class:`FastRCNNOutputLayers`; cascades call it in training, too."""
        return super().predict_boxes(predictions[:2], proposals)

    def predict_probs(self, predictions, proposals):
        """Do as :class:`FastRCNNOutputLayers`."""
        return super().predict_probs(predictions[:2], proposals)

    def predict_boxes_for_gt_classes(self, predictions, proposals):
        """Do as :class:`FastRCNNOutputLayers`; used where heads train on predicted boxes."""
        return super().predict_boxes_for_gt_classes(predictions[:2], proposals)

    @torch.no_grad()
    def _weigh(self, rois: RoIBatch) -> Tensor | None:
        """Weigh all RoIs, Tensor[R]; None if no image of the batch is re-weighted."""
        if self.weighting is None:
            return None
        chosen = [self.weigh_all_images or is_pseudo(target) for target in rois.targets]
        if not any(chosen):
            return None
        weighed = _select_images(rois, chosen)
        result = self.weighting(weighed)
        check_roi_weights(result, len(weighed.boxes), self.weighting)
        rows = torch.repeat_interleave(torch.tensor(chosen), torch.tensor(rois.rois_per_image)).to(
            rois.boxes.device
        )
        _log_weights(result, rois.is_foreground[rows])
        weights = torch.ones(len(rois.boxes), device=rois.boxes.device)
        weights[rows] = result.weights.to(weights.dtype)
        return weights

    def _weighted_classification_loss(
        self, scores: Tensor, classes: Tensor, weights: Tensor | None, certainties: Tensor | None
    ) -> Tensor:
        """Compute sum_i(w_i CE_i) / R: divided by the number of RoIs, not by the sum of weights.

        The label of a foreground RoI of certainty q is q its class and 1 - q background:
        CE = -q log p_class - (1 - q) log p_background.
        """
        loss = F.cross_entropy(scores, classes, reduction="none")
        if certainties is not None:
            as_background = F.cross_entropy(
                scores, torch.full_like(classes, self.num_classes), reduction="none"
            )
            loss = torch.lerp(as_background, loss, certainties.to(loss.dtype))
        if weights is not None:
            loss = weights * loss
        return loss.sum() / max(len(classes), 1) * self.loss_weight.get("loss_cls", 1.0)

    def _weighted_box_loss(
        self,
        deltas: Tensor,
        proposals: list[SampledRoIs],
        classes: Tensor,
        weights: Tensor | None,
    ) -> Tensor:
        """Do as ``FastRCNNOutputLayers.box_reg_loss``, weighted and with the gates of the labels.

        Smooth L1 leaves out the deltas of edges whose gate is closed; a loss of whole boxes counts
        those of which both gates are open.
        """
        foreground = (classes < self.num_classes).nonzero()[:, 0]
        boxes = torch.cat([p.proposal_boxes.tensor for p in proposals])[foreground]
        references = torch.cat([_references(p) for p in proposals])[foreground]
        gates = torch.cat([box_gate_of(_references(p), p.target) for p in proposals])[foreground]
        if deltas.shape[1] == boxes.shape[1]:
            deltas = deltas[foreground]
        else:
            per_class = deltas.view(-1, self.num_classes, 4)
            deltas = per_class[foreground, classes[foreground]]
        loss = self._box_loss_per_roi(deltas, boxes, references, gates)
        if weights is not None:
            loss = loss * weights[foreground]
        return loss.sum() / max(len(classes), 1) * self.loss_weight.get("loss_box_reg", 1.0)

    def _box_loss_per_roi(
        self, deltas: Tensor, boxes: Tensor, references: Tensor, gates: Tensor
    ) -> Tensor:
        """Compute the box-regression loss of each RoI, Tensor[F]; ``gates``: Tensor[F, 4]."""
        if self.box_reg_loss_type == "smooth_l1":
            goal = self.box2box_transform.get_deltas(boxes, references)
            loss = smooth_l1_loss(deltas, goal, self.smooth_l1_beta, reduction="none")
            return (loss * gates).sum(dim=1)
        predicted = self.box2box_transform.apply_deltas(deltas, boxes)
        loss = _IOU_LOSSES[self.box_reg_loss_type](predicted, references, reduction="none")
        return loss * gates.amin(dim=1)

    def _similarity_loss(self, rois: RoIBatch, classes: Tensor) -> Tensor:
        """Compute Eq. 6-7; in every step, so that the embedding always has a gradient."""
        if self.similarity_loss_weight == 0:
            return sum(weights.sum() for weights in self.embedding.parameters()) * 0
        alike = None
        if self.similarity_same_class:
            alike = torch.where(rois.is_foreground, classes, -1)
        loss = ops.similarity_loss(
            rois.boxes,
            rois.embeddings,
            rois.rois_per_image,
            iof_threshold=self.similarity_iof_thresh,
            classes=alike,
        )
        return loss * self.similarity_loss_weight


def _references(rois: SampledRoIs) -> Tensor:
    """Give the box that each RoI is to be regressed to, Tensor[R, 4]; its own if there is none."""
    return (rois.gt_boxes if rois.has("gt_boxes") else rois.proposal_boxes).tensor


def _certainties(proposals: list[SampledRoIs]) -> Tensor | None:
    """Look up the certainty q of each foreground RoI's label, Tensor[R]; None if all are certain.

    Of a background RoI it makes no difference: both parts of its loss are those of background.
    """
    if not any(has_certainty(p.target) for p in proposals):
        return None
    return torch.cat([certainty_of(_references(p), p.target) for p in proposals])


def is_pseudo(target: Instances) -> bool:
    """Tell whether an image's boxes are pseudo-labels (all of them are, or none is).

    One without boxes is, where a mean teacher has found nothing, whose labels have a certainty; the
    mapper gives no pseudo-labeled image without boxes.

    Raises:
        ValueError: some boxes of the image are, and others are not.
    """
    if not target.has("gt_is_pseudo"):
        return False
    flags = set(map(bool, target.gt_is_pseudo.tolist()))  # one transfer from the device
    if len(flags) > 1:
        raise ValueError(
            "gt_is_pseudo must be the same for all boxes of an image, got True and False in one; "
            "RoIs are weighted by image: set it to True if its boxes are pseudo-labels, or to False"
        )
    return flags.pop() if flags else target.has("gt_certainty")


def collect_rois(proposals: list[SampledRoIs], embeddings: Tensor, num_classes: int) -> RoIBatch:
    """Collect the sampled RoIs of a batch as weightings take them.

    Args:
        proposals: one entry per image, with ``proposal_boxes`` and ``gt_classes``.
        embeddings: Tensor[R, E], of all RoIs.
        num_classes: K; class K is background.

    Raises:
        TypeError: they were sampled by other heads than this project's, which forget the targets.
    """
    if not all(isinstance(p, SampledRoIs) for p in proposals):
        raise TypeError(
            f"proposals must be SampledRoIs, got {sorted({type(p).__name__ for p in proposals})}; "
            "UncertaintyOutputLayers needs one of the heads UncertaintyROIHeads, "
            "UncertaintyCascadeROIHeads and UncertaintyRes5ROIHeads (MODEL.ROI_HEADS.NAME)"
        )
    return RoIBatch(
        boxes=torch.cat([p.proposal_boxes.tensor for p in proposals]),
        embeddings=embeddings,
        is_foreground=torch.cat([p.gt_classes for p in proposals]) < num_classes,
        rois_per_image=[len(p) for p in proposals],
        targets=[p.target for p in proposals],
    )


def _select_images(rois: RoIBatch, chosen: list[bool]) -> RoIBatch:
    """Give the RoIs of the chosen images."""
    if all(chosen):
        return rois

    def select(values: Tensor) -> Tensor:
        parts = values.split(rois.rois_per_image)
        return torch.cat([part for part, keep in zip(parts, chosen, strict=True) if keep])

    return RoIBatch(
        boxes=select(rois.boxes),
        embeddings=select(rois.embeddings),
        is_foreground=select(rois.is_foreground),
        rois_per_image=[n for n, keep in zip(rois.rois_per_image, chosen, strict=True) if keep],
        targets=[t for t, keep in zip(rois.targets, chosen, strict=True) if keep],
    )


def _log_weights(result: RoIWeights, is_foreground: Tensor) -> None:
    """Log mean and quantiles of the background RoIs' weights and their ingredients."""
    found = {name: values for name, values in result._asdict().items() if values is not None}
    background = torch.stack(list(found.values())).float()[:, ~is_foreground]
    if background.shape[1] == 0:
        return
    quantiles = background.quantile(background.new_tensor((0.1, 0.5, 0.9)), dim=1)
    # One transfer from the device for all of them.
    statistics = torch.cat([background.mean(dim=1)[None], quantiles]).tolist()
    storage = get_event_storage()
    for label, of_label in zip(("mean", "q10", "q50", "q90"), statistics, strict=True):
        for name, number in zip(found, of_label, strict=True):
            storage.put_scalar(f"roi_weighting/{name}_{label}", number)
