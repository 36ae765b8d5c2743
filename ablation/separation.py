"""How well RoI weights tell objects that the pseudo-labels miss from true background."""

from __future__ import annotations

import torch
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from detectron2.utils.events import EventStorage
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from d2_ssod import ops
from d2_ssod.artifacts import RunFolder, load_phase_model, load_pseudo_labels
from d2_ssod.data.mapper import PseudoLabelMapper
from d2_ssod.engine import RunData
from d2_ssod.modeling import SampledRoIs, collect_rois, num_classes

from .oracle import SAME_OBJECT, boxes_of, missed_boxes, true_boxes

_BACKGROUND = 0.3  # a RoI with less IoU than this with every object is true background
_BATCH = 8


@torch.no_grad()
def separation(cfg: CfgNode, phase: int, data: RunData) -> dict[str, float] | None:
    """AUC of low weight as a sign of a missed object, over the background RoIs of a phase.

    RoIs are sampled as in training, from the phase's final model, on its pseudo-labeled images
    without augmentation. 0.5 is chance. RoIs that partly overlap an object are left out.

    Returns:
        ``auc``, the numbers of RoIs of both kinds and their mean weights; None without weighting.
    """
    model = load_phase_model(cfg, phase)
    weighting = model.roi_heads.box_predictor.weighting
    if weighting is None or cfg.SSOD.ROI_WEIGHTING.NAME == "oracle":
        return None
    mapper = mapper_without_augmentation(cfg)
    images = load_pseudo_labels(
        RunFolder(cfg.OUTPUT_DIR).phase(phase).pseudo_labels,
        data.unlabeled,
        thing_classes=data.thing_classes,
    )
    weights, kinds = [], []
    for start in range(0, len(images), _BATCH):
        batch = images[start : start + _BATCH]
        sampled, embeddings = sample_rois(model, [mapper(image) for image in batch])
        rois = collect_rois(sampled, embeddings, num_classes(cfg))
        weights.append(weighting(rois).weights)
        kinds.append(
            torch.cat([_kind(p, image) for p, image in zip(sampled, batch, strict=True)])
            * ~rois.is_foreground
        )
    return _compare(torch.cat(weights), torch.cat(kinds))


def mapper_without_augmentation(cfg: CfgNode) -> PseudoLabelMapper:
    """Map images as for training, but at test size and unchanged."""
    return PseudoLabelMapper(
        is_train=True,
        augmentations=[T.ResizeShortestEdge(cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)],
        image_format=cfg.INPUT.FORMAT,
    )


def sample_rois(model: nn.Module, inputs: list[dict]) -> tuple[list[SampledRoIs], Tensor]:
    """RoIs as training samples them, and their embeddings, without touching batch statistics."""
    heads = model.roi_heads
    images = model.preprocess_image(inputs)
    features = model.backbone(images.tensor)
    proposals, _ = model.proposal_generator(images, features, None)
    targets = [image["instances"].to(model.device) for image in inputs]
    with EventStorage():
        sampled = heads.label_and_sample_proposals(proposals, targets)
    pooled = heads.box_pooler(
        [features[name] for name in heads.box_in_features], [p.proposal_boxes for p in sampled]
    )
    return sampled, heads.box_predictor.embedding(heads.box_head(pooled))


def _kind(sampled: SampledRoIs, image: dict) -> Tensor:
    """1 for RoIs on a missed object, -1 for true background, 0 for neither; Tensor[R].

    The images are not resized, so that the boxes of the data set fit those of the network.
    """
    boxes = sampled.proposal_boxes.tensor.cpu()
    truth = true_boxes()[image["image_id"]]
    missed = missed_boxes(truth, boxes_of(image["annotations"]))
    on_missed = _largest_iou(boxes, missed) >= SAME_OBJECT
    background = _largest_iou(boxes, truth) < _BACKGROUND
    return on_missed.int() - background.int()


def _largest_iou(boxes: Tensor, others: Tensor) -> Tensor:
    return ops.pairwise_iou(boxes, others).amax(dim=1) if len(others) else torch.zeros(len(boxes))


def _compare(weights: Tensor, kinds: Tensor) -> dict[str, float] | None:
    missed, background = weights[kinds == 1], weights[kinds == -1]
    if len(missed) == 0 or len(background) == 0:
        return None
    labels = torch.cat([torch.ones(len(missed)), torch.zeros(len(background))])
    return {
        "auc": float(roc_auc_score(labels, -torch.cat([missed, background]))),
        "missed_rois": len(missed),
        "background_rois": len(background),
        "mean_weight_missed": float(missed.mean()),
        "mean_weight_background": float(background.mean()),
    }
