"""Proposal Learning (Tang et al., WACV 2021) on Faster R-CNN, from its description.

Unlabeled images have no objects to learn, but proposals. Noise is put on the features of each;
what the head makes of the noisy copies is to tell where the proposal is, to be alike for the copies
of one proposal and unlike for those of others (both without labels), and to give the classes and
boxes of the clean features. Which constants the paper has is not known to us: all are our own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, GeneralizedRCNN
from detectron2.modeling.roi_heads import FastRCNNOutputLayers
from detectron2.structures import ImageList, Instances
from torch import Tensor, nn
from torch.nn import functional as F

from d2_ssod.errors import ConfigError

from .consistency import one_sided_consistency

_PROJECTED = 128  # numbers by which proposals are compared


@dataclass(frozen=True)
class Noise:
    """How features are made noisy: whole channels are left out (spatial dropout)."""

    copies: int = 4
    drop: float = 1 / 64

    def __call__(self, pooled: Tensor) -> Tensor:
        """Make the copies, Tensor[K R, C, h, w], of features Tensor[R, C, h, w]."""
        return F.dropout2d(pooled.repeat(self.copies, 1, 1, 1), self.drop)


@dataclass(frozen=True)
class Weights:
    """How much each loss counts."""

    location: float = 0.25
    contrast: float = 1.0
    classes: float = 1.0
    boxes: float = 0.5


class ProposalLearner(nn.Module):
    """The losses of proposals without labels."""

    def __init__(
        self, features: int, *, noise: Noise, weights: Weights, temperature: float = 0.1
    ) -> None:
        """Make the layers that only these losses use.

        Args:
            features: numbers that the box head gives for a RoI.
            noise: of the copies.
            weights: of the losses.
            temperature: of the comparison of proposals.
        """
        super().__init__()
        self.noise, self.weights, self.temperature = noise, weights, temperature
        self.locate = nn.Sequential(
            nn.Linear(features, features), nn.ReLU(inplace=True), nn.Linear(features, 4)
        )
        self.project = nn.Linear(features, _PROJECTED)

    def forward(
        self,
        pooled: Tensor,
        places: Tensor,
        images: Tensor,
        head: nn.Module,
        predictor: FastRCNNOutputLayers,
    ) -> dict[str, Tensor]:
        """Compute ``loss_location``, ``loss_contrast``, ``loss_noisy_cls``, ``loss_noisy_box``.

        Args:
            pooled: Tensor[R, C, h, w], features of proposals.
            places: Tensor[R, 4], (cx, cy, w, h) in parts of the image.
            images: int64 Tensor[R], the image of each.
            head: the box head.
            predictor: the detector's own.
        """
        with torch.no_grad():
            clean = head(pooled)
            probabilities = predictor.cls_score(clean).softmax(dim=1)
            deltas = predictor.bbox_pred(clean)
        noisy = head(self.noise(pooled))
        copies = self.noise.copies
        noisy_probabilities = predictor.cls_score(noisy).softmax(dim=1)
        noisy_deltas = predictor.bbox_pred(noisy)
        own = torch.arange(len(pooled), device=pooled.device)
        weights = self.weights
        return {
            "loss_location": weights.location
            * F.mse_loss(self.locate(noisy), places.repeat(copies, 1), reduction="sum")
            / max(4 * len(noisy), 1),
            "loss_contrast": weights.contrast
            * contrast(
                self.project(noisy), own.repeat(copies), images.repeat(copies), self.temperature
            ),
            "loss_noisy_cls": weights.classes
            * one_sided_consistency(probabilities.repeat(copies, 1), noisy_probabilities),
            "loss_noisy_box": weights.boxes
            * box_loss(noisy_deltas, deltas.repeat(copies, 1), probabilities.repeat(copies, 1)),
        }


def contrast(features: Tensor, proposals: Tensor, images: Tensor, temperature: float) -> Tensor:
    """Compute InfoNCE: copies of one proposal are alike, those of others in the image are not.

    The mean over all ordered pairs (i, j) of two copies of one proposal of
    -log(exp(z_i z_j / t) / sum_k exp(z_i z_k / t)), where z are unit vectors and k runs over all
    other copies in the image.

    Args:
        features: Tensor[n, D].
        proposals: int64 Tensor[n], the proposal of each copy.
        images: int64 Tensor[n], the image of each.
        temperature: t.
    """
    # In half precision logits up to 1 / t would be steps.
    with torch.autocast(features.device.type, enabled=False):
        unit = F.normalize(features.float(), dim=1)
        similarity = unit @ unit.T / temperature
    itself = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    elsewhere = images[:, None] != images[None, :]
    similarity = similarity.masked_fill(itself | elsewhere, -torch.inf)
    alike = (proposals[:, None] == proposals[None, :]) & ~itself
    if not alike.any():
        return features.sum() * 0
    return -(similarity - similarity.logsumexp(dim=1, keepdim=True))[alike].mean()


def box_loss(deltas: Tensor, goal: Tensor, probabilities: Tensor) -> Tensor:
    """Compute the smooth L1 loss of the offsets of each RoI's likeliest class, weighted by it.

    Args:
        deltas: Tensor[n, 4 C], or Tensor[n, 4] if they are the same for all classes.
        goal: the same, of clean features.
        probabilities: of clean features, Tensor[n, C + 1], background last.
    """
    weight, likeliest = probabilities[:, :-1].max(dim=1)
    place = likeliest if deltas.shape[1] > 4 else torch.zeros_like(likeliest)
    rows = torch.arange(len(deltas), device=deltas.device)
    chosen, wanted = (each.unflatten(1, (-1, 4))[rows, place] for each in (deltas, goal))
    loss = F.smooth_l1_loss(chosen, wanted, reduction="none").sum(dim=1)
    return (loss * weight).sum() / max(len(deltas), 1)


@META_ARCH_REGISTRY.register()
class ProposalLearningRCNN(GeneralizedRCNN):
    """Faster R-CNN that learns from the proposals of images without ``instances``, too."""

    @configurable
    def __init__(self, *, learner: ProposalLearner, proposals: int, **kwargs) -> None:
        """Build the detector.

        Args:
            learner: the losses of proposals.
            proposals: of each unlabeled image, the best so many.
            **kwargs: of :class:`GeneralizedRCNN`.
        """
        super().__init__(**kwargs)
        self.learner, self.proposals = learner, proposals

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        """Arguments of ``__init__`` from the config.

        Raises:
            ConfigError: the heads have more than one predictor, or none, or are not on a pyramid.
        """
        arguments, own = super().from_config(cfg), cfg.MODEL.PROPOSAL_LEARNING
        heads = arguments["roi_heads"]
        has_one = isinstance(getattr(heads, "box_predictor", None), FastRCNNOutputLayers)
        if not (has_one and hasattr(heads, "box_pooler")):  # which the last block of C4 is not
            raise ConfigError(
                f"MODEL.ROI_HEADS.NAME is {cfg.MODEL.ROI_HEADS.NAME!r}; Proposal Learning is for "
                "heads with one box predictor: choose StandardROIHeads or UncertaintyROIHeads"
            )
        learner = ProposalLearner(
            heads.box_predictor.cls_score.in_features,
            noise=Noise(own.COPIES, own.DROP),
            weights=Weights(
                own.LOCATION_WEIGHT, own.CONTRAST_WEIGHT, own.CLASS_WEIGHT, own.BOX_WEIGHT
            ),
            temperature=own.TEMPERATURE,
        )
        return {**arguments, "learner": learner, "proposals": own.PROPOSALS}

    def forward(self, batched_inputs: list[dict]) -> dict[str, Tensor] | list[dict]:
        """Compute the losses in training, detections otherwise.

        Raises:
            ConfigError: a batch lacks labeled images, or unlabeled ones.
        """
        if not self.training:
            return self.inference(batched_inputs)
        ordered = sorted(batched_inputs, key=lambda image: "instances" not in image)
        targets = [i["instances"].to(self.device) for i in ordered if "instances" in i]
        if len(targets) in (0, len(ordered)):
            raise ConfigError(
                "Proposal Learning needs labeled and unlabeled images in every batch: set "
                "SSOD.SAMPLING to balanced, SOLVER.IMS_PER_BATCH to two or more for each process "
                "and DATALOADER.ASPECT_RATIO_GROUPING to False"
            )
        images = self.preprocess_image(ordered)
        features = self.backbone(images.tensor)
        labeled, rest = _split(images, features, len(targets))
        proposals, losses = self.proposal_generator(*labeled, targets)
        _, of_heads = self.roi_heads(*labeled, proposals, targets)
        return {**losses, **of_heads, **self._learn_from_proposals(*rest)}

    def _learn_from_proposals(
        self, images: ImageList, features: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Compute the losses of images without labels."""
        with torch.no_grad(), _in_evaluation(self.proposal_generator):
            found, _ = self.proposal_generator(images, features, None)
        found = [of_image[: self.proposals] for of_image in found]
        heads = self.roi_heads
        pooled = heads.box_pooler(
            [features[name] for name in heads.box_in_features], [f.proposal_boxes for f in found]
        )
        places = torch.cat([_places(of_image) for of_image in found])
        counts = torch.tensor([len(of_image) for of_image in found], device=self.device)
        numbers = torch.arange(len(found), device=self.device).repeat_interleave(counts)
        return self.learner(pooled, places, numbers, heads.box_head, heads.box_predictor)


def _split(
    images: ImageList, features: dict[str, Tensor], first: int
) -> tuple[tuple[ImageList, dict[str, Tensor]], tuple[ImageList, dict[str, Tensor]]]:
    """Split a batch and its feature maps into the first images and the others."""

    def part(chosen: slice) -> tuple[ImageList, dict[str, Tensor]]:
        own = ImageList(images.tensor[chosen], images.image_sizes[chosen])
        return own, {name: of_level[chosen] for name, of_level in features.items()}

    return part(slice(None, first)), part(slice(first, None))


def _places(proposals: Instances) -> Tensor:
    """Give (cx, cy, w, h) of proposals in parts of the image, Tensor[R, 4]."""
    boxes = proposals.proposal_boxes.tensor
    height, width = proposals.image_size
    x0, y0, x1, y1 = (boxes / boxes.new_tensor([width, height, width, height])).unbind(dim=1)
    return torch.stack([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0], dim=1)


@contextmanager
def _in_evaluation(module: nn.Module) -> Iterator[None]:
    """Have a module that is in training propose as in evaluation, where it asks for no targets."""
    module.training = False
    try:
        yield
    finally:
        module.training = True
