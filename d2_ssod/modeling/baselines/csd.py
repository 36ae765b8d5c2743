"""SSD that learns from unlabeled images, too, by what it says of two views of them: CSD and ISD."""

from __future__ import annotations

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.utils.events import get_event_storage
from torch import Tensor
from torchvision.models.detection.image_list import ImageList

from d2_ssod.modeling.one_stage import SSD
from d2_ssod.modeling.one_stage.ssd import Outputs, share_of_all_ranks

from .consistency import (
    Ramp,
    box_consistency,
    class_consistency,
    is_foreground,
    mirror,
    one_sided_consistency,
)


@META_ARCH_REGISTRY.register()
class CSD(SSD):
    """Consistency between an image and its mirror image, of priors on objects in the image.

    Jeong et al., NeurIPS 2019. The symmetric divergence of class probabilities, and squared
    differences of offsets, on all images of a batch, of which some have no ``instances``.
    """

    @configurable
    def __init__(self, *, ramp: Ramp, weight: float = 1.0, **kwargs) -> None:
        """Build the detector.

        Args:
            ramp: how much consistency counts in an iteration.
            weight: a factor of that.
            **kwargs: of :class:`SSD`.
        """
        super().__init__(**kwargs)
        self.ramp, self.weight = ramp, weight

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        """Arguments of ``__init__`` from the config."""
        own = cfg.MODEL.SSD.CONSISTENCY
        return {
            **super().from_config(cfg),
            "ramp": Ramp(cfg.SOLVER.MAX_ITER, own.RAMP_UP, own.RAMP_DOWN),
            "weight": own.WEIGHT,
        }

    def forward(self, batched_inputs: list[dict]) -> dict[str, Tensor] | list[dict]:
        """Compute the losses in training, detections otherwise."""
        if not self.training:
            return self.inference(batched_inputs)
        labeled_first = sorted(batched_inputs, key=lambda image: "instances" not in image)
        images, targets = self.prepare(labeled_first)
        outputs = self.outputs(images)
        weight = self.weight * self.ramp(get_event_storage().iter)
        consistency = self.consistency(images.tensors, outputs)
        return {
            **self.losses(outputs, targets),
            **{name: weight * loss for name, loss in consistency.items()},
        }

    def consistency(self, pixels: Tensor, outputs: Outputs) -> dict[str, Tensor]:
        """Compute the losses that need no labels, before they are weighted.

        Args:
            pixels: Tensor[B, 3, S, S], as the backbone sees them.
            outputs: of them.

        Returns:
            ``loss_consistency_cls`` and ``loss_consistency_box``.
        """
        return self.with_mirrored(outputs, self.outputs_of(pixels.flip(3)))

    def outputs_of(self, pixels: Tensor) -> Outputs:
        """Compute the outputs of another view of a batch."""
        return self.outputs(ImageList(pixels, [tuple(pixels.shape[-2:])] * len(pixels)))

    def with_mirrored(self, outputs: Outputs, mirrored: Outputs) -> dict[str, Tensor]:
        """Compute both losses from the outputs of images and of their mirror images."""
        shapes = self.ssd.anchor_generator.num_anchors_per_location()
        p = outputs.logits.softmax(-1)
        q = mirror(mirrored.logits.softmax(-1), outputs.grids, shapes)
        deltas = mirror(mirrored.deltas, outputs.grids, shapes)
        seen = is_foreground(p)
        part = share_of_all_ranks(seen.sum())
        boxes = box_consistency(outputs.deltas[seen], deltas[seen], mirrored=True)
        return {
            "loss_consistency_cls": part * class_consistency(p[seen], q[seen]),
            "loss_consistency_box": part * boxes,
        }


@META_ARCH_REGISTRY.register()
class ISD(CSD):
    """CSD, and consistency between two images and a mixture of them.

    Jeong et al., CVPR 2021. With m = lam x_i + (1 - lam) flip(x_j): a prior on objects of both
    (type I) is to say lam p_i + (1 - lam) p_j of m, one on an object of one image alone (type II)
    what it says of that, its box too. The authors' released code takes the offsets of the mirror
    image for those of the image itself; here it is as in the paper.
    """

    @configurable
    def __init__(self, *, mix: float = 100.0, both_weight: float = 0.1, **kwargs) -> None:
        """Build the detector.

        Args:
            mix: lam is drawn from Beta(mix, mix), once for a batch of a process.
            both_weight: of the loss of type I.
            **kwargs: of :class:`CSD`.
        """
        super().__init__(**kwargs)
        self.mix, self.both_weight = mix, both_weight

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        """Arguments of ``__init__`` from the config."""
        own = cfg.MODEL.SSD.CONSISTENCY
        return {**super().from_config(cfg), "mix": own.MIX, "both_weight": own.BOTH_WEIGHT}

    def consistency(self, pixels: Tensor, outputs: Outputs) -> dict[str, Tensor]:
        """Compute CSD's losses, ``loss_mixed_both`` and ``loss_mixed_one``."""
        flipped = pixels.flip(3)
        mirrored = self.outputs_of(flipped)
        share = float(torch.distributions.Beta(self.mix, self.mix).sample())
        other = torch.randperm(len(pixels)).to(pixels.device)
        mixed = self.outputs_of(share * pixels + (1 - share) * flipped[other])
        partner = mirrored._replace(logits=mirrored.logits[other], deltas=mirrored.deltas[other])
        return {
            **self.with_mirrored(outputs, mirrored),
            **self.with_mixture(outputs, partner, mixed, share),
        }

    def with_mixture(
        self, first: Outputs, second: Outputs, mixed: Outputs, share: float
    ) -> dict[str, Tensor]:
        """Compute both losses of type I and II.

        Args:
            first: outputs of the images.
            second: of what each was mixed with, prior by prior.
            mixed: of the mixtures.
            share: of the first in a mixture.
        """
        p, q, m = (each.logits.softmax(-1) for each in (first, second, mixed))
        in_first, in_second = is_foreground(p), is_foreground(q)
        both = in_first & in_second
        one = in_first ^ in_second
        of_first = in_first[one][:, None]
        target = torch.where(of_first, p[one], q[one])
        deltas = torch.where(of_first, first.deltas[one], second.deltas[one]).detach()
        expected = share * p[both] + (1 - share) * q[both]
        of_both = self.both_weight * class_consistency(expected, m[both])
        of_one = one_sided_consistency(target, m[one]) + box_consistency(mixed.deltas[one], deltas)
        return {
            "loss_mixed_both": share_of_all_ranks(both.sum()) * of_both,
            "loss_mixed_one": share_of_all_ranks(one.sum()) * of_one,
        }
