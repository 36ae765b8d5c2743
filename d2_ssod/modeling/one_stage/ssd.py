"""SSD (Liu et al., ECCV 2016): torchvision's, as a Detectron2 meta-architecture."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, Backbone, build_backbone
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, Instances
from detectron2.utils import comm
from torch import Tensor, nn
from torchvision.models.detection import ssd as torchvision_ssd
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_iou

from d2_ssod.errors import ConfigError, one_line
from d2_ssod.modeling.certainty import gates_of, has_certainty

_SURE = 50.0  # a logit, beside which all others count nothing

Targets = list[dict[str, Tensor]]  # of torchvision: "boxes" and "labels", from 1


class Outputs(NamedTuple):
    """What the head says of P priors.

    Priors are ordered by feature map, row, column, and last by their shape.
    """

    logits: Tensor
    """Tensor[B, P, C + 1]; class 0 is the background."""
    deltas: Tensor
    """Tensor[B, P, 4]: (dx, dy) in prior sizes times 10, (dw, dh) logarithms times 5."""
    priors: Tensor
    """Tensor[P, 4], XYXY in pixels of the resized image."""
    grids: list[tuple[int, int]]
    """Height and width of each feature map."""


@META_ARCH_REGISTRY.register()
class SSD(nn.Module):
    """torchvision's SSD, on any backbone, called like Detectron2's detectors.

    It makes every image ``size`` x ``size`` itself, whatever its aspect, so that a config leaves
    pictures as they are (``INPUT.MIN_SIZE_TRAIN`` and ``_TEST`` 0). The losses are SSD's: the sums
    of the cross-entropy, of positive priors and of the three times as many negative ones that have
    the largest, and of the smooth L1 loss, both divided by the positives of the batch. Priors on
    uncertain labels are ignored, and offsets are learned whose edges the label's gate opens
    (``modeling/certainty.py``).
    """

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        num_classes: int,
        size: int,
        priors: DefaultBoxGenerator,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        input_format: str | None = None,
        **thresholds: float,
    ) -> None:
        """Build the detector.

        Args:
            backbone: all of its feature maps have priors.
            num_classes: without background.
            size: of the images that the backbone sees, in pixels.
            priors: the default boxes.
            pixel_mean: subtracted from the images.
            pixel_std: they are then divided by it.
            input_format: what the channels of images are.
            **thresholds: of torchvision's ``SSD``, by its names.
        """
        super().__init__()
        # By Detectron2's names, as ensembles ask for them.
        self.num_classes, self.input_format = num_classes, input_format
        channels = [shape.channels for shape in backbone.output_shape().values()]
        anchors = priors.num_anchors_per_location()
        self.ssd = torchvision_ssd.SSD(
            backbone,
            priors,
            (size, size),
            num_classes + 1,  # torchvision's class 0 is the background
            image_mean=list(pixel_mean),
            image_std=list(pixel_std),
            head=torchvision_ssd.SSDHead(channels, anchors, num_classes + 1),
            **thresholds,
        )
        if hasattr(backbone, "own_names"):
            self.register_load_state_dict_pre_hook(_rename_foreign)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        """Arguments of ``__init__`` from the config.

        Raises:
            ConfigError: the priors of ``MODEL.SSD`` are not those of the backbone's feature maps,
                or it has none of images of ``MODEL.SSD.SIZE``.
        """
        own, backbone = cfg.MODEL.SSD, build_backbone(cfg)
        _check_priors(own, len(backbone.output_shape()))
        _check_size(cfg, backbone)
        return {
            "backbone": backbone,
            "num_classes": own.NUM_CLASSES,
            "size": own.SIZE,
            "priors": DefaultBoxGenerator(
                [list(ratios) for ratios in own.ASPECT_RATIOS],
                scales=list(own.SCALES),
                steps=list(own.STEPS) or None,
            ),
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "input_format": cfg.INPUT.FORMAT,
            "score_thresh": own.SCORE_THRESH_TEST,
            "nms_thresh": own.NMS_THRESH_TEST,
            "topk_candidates": own.TOPK_CANDIDATES_TEST,
            "detections_per_img": cfg.TEST.DETECTIONS_PER_IMAGE,
            "iou_thresh": own.IOU_THRESH,
            "positive_fraction": own.POSITIVE_FRACTION,
        }

    def forward(self, batched_inputs: list[dict]) -> dict[str, Tensor] | list[dict]:
        """Compute the losses in training, detections otherwise, as ``GeneralizedRCNN`` does."""
        if not self.training:
            return self.inference(batched_inputs)
        images, targets = self.prepare(batched_inputs)
        return self.losses(self.outputs(images), targets)

    def inference(self, batched_inputs: list[dict]) -> list[dict]:
        """Detect objects, in coordinates of the original images."""
        pictures = [self._pixels(image) for image in batched_inputs]
        sizes = [tuple(picture.shape[-2:]) for picture in pictures]
        images, _ = self.ssd.transform(pictures)
        outputs = self.outputs(images)
        of_head = {"cls_logits": outputs.logits, "bbox_regression": outputs.deltas}
        priors = [outputs.priors] * len(pictures)
        detected = self.ssd.postprocess_detections(of_head, priors, images.image_sizes)
        detected = self.ssd.transform.postprocess(detected, images.image_sizes, sizes)
        results = []
        for image, size, found in zip(batched_inputs, sizes, detected, strict=True):
            instances = Instances(size)
            instances.pred_boxes = Boxes(found["boxes"])
            instances.scores = found["scores"]
            instances.pred_classes = found["labels"] - 1
            height, width = image.get("height", size[0]), image.get("width", size[1])
            results.append({"instances": detector_postprocess(instances, height, width)})
        return results

    def prepare(self, batched_inputs: list[dict]) -> tuple[ImageList, Targets]:
        """Normalize and resize images, and the targets of those that have some.

        Args:
            batched_inputs: of the mapper, labeled images first, with ``instances``, then those
                without.

        Returns:
            The images, and as many targets as there are labeled ones.
        """
        labeled = [image for image in batched_inputs if "instances" in image]
        targets = [self._target(image["instances"]) for image in labeled]
        nothing = {"boxes": torch.zeros(0, 4, device=self.device)}
        padded = targets + [nothing] * (len(batched_inputs) - len(labeled))
        images, resized = self.ssd.transform([self._pixels(i) for i in batched_inputs], padded)
        return images, resized[: len(labeled)]

    def outputs(self, images: ImageList) -> Outputs:
        """Compute what the head says of each prior."""
        maps = list(self.ssd.backbone(images.tensors).values())
        of_head = self.ssd.head(maps)
        # Not in half precision, which autocast may have all in: priors are pixels, losses are sums.
        # Those of one image, as they are the same for all.
        one = ImageList(images.tensors[:1], images.image_sizes[:1])
        priors = self.ssd.anchor_generator(one, [each[:1].float() for each in maps])[0]
        grids = [(each.shape[2], each.shape[3]) for each in maps]
        logits, deltas = of_head["cls_logits"].float(), of_head["bbox_regression"].float()
        return Outputs(logits, deltas, priors, grids)

    def losses(self, outputs: Outputs, targets: Targets) -> dict[str, Tensor]:
        """Compute SSD's losses of the first ``len(targets)`` images; 0 if there are none.

        They are sums over the batch of all ranks, divided by its positive priors, so that it does
        not matter how images, labeled or not, are shared out.
        """
        if not targets:
            nothing = outputs.logits.new_zeros(())
            share_of_all_ranks(nothing)  # which others wait for
            return {"loss_cls": nothing, "loss_box_reg": nothing}
        taught = [self._teach(outputs, number, target) for number, target in enumerate(targets)]
        matched, logits, deltas = zip(*taught, strict=True)
        of_head = {"cls_logits": torch.stack(logits), "bbox_regression": torch.stack(deltas)}
        priors = [outputs.priors] * len(targets)
        losses = self.ssd.compute_loss(targets, of_head, priors, list(matched))
        share = share_of_all_ranks(torch.stack([(m >= 0).sum() for m in matched]).sum())
        return {
            "loss_cls": share * losses["classification"],
            "loss_box_reg": share * losses["bbox_regression"],
        }

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.parameters()).device

    def _teach(
        self, outputs: Outputs, number: int, target: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Match an image's priors; outputs that must not be learned become their own targets.

        Returns:
            What each prior is to find, Tensor[P], and its logits and deltas.
        """
        logits, deltas = outputs.logits[number], outputs.deltas[number]
        matched = self._match(target["boxes"], outputs.priors)
        if "certainty" not in target:
            return matched, logits, deltas
        seen = (matched >= 0).nonzero()[:, 0]
        objects = matched[seen]
        right = self.ssd.box_coder.encode_single(target["boxes"][objects], outputs.priors[seen])
        learned = target["gate"].repeat(1, 2)[objects] > 0
        deltas = deltas.index_put((seen,), torch.where(learned, deltas[seen], right.to(deltas)))
        ignored = seen[target["certainty"][objects] < 1]
        background = logits.new_full(logits.shape[-1:], -_SURE)
        background[0] = _SURE
        return (
            matched.index_fill(0, ignored, -1),
            logits.index_put((ignored,), background),
            deltas,
        )

    def _match(self, boxes: Tensor, priors: Tensor) -> Tensor:
        """Find the object that each prior is to find, < 0 for none; int64 Tensor[P]."""
        if len(boxes) == 0:
            return torch.full((len(priors),), -1, dtype=torch.int64, device=priors.device)
        return self.ssd.proposal_matcher(box_iou(boxes, priors))

    def _pixels(self, image: dict) -> Tensor:
        return image["image"].to(self.device).float()

    def _target(self, instances: Instances) -> dict[str, Tensor]:
        instances = instances.to(self.device)
        target = {"boxes": instances.gt_boxes.tensor, "labels": instances.gt_classes + 1}
        if has_certainty(instances):
            target |= {"certainty": instances.gt_certainty, "gate": gates_of(instances)}
        return target


def _check_priors(own: CfgNode, maps: int) -> None:
    expected = {"ASPECT_RATIOS": maps, "SCALES": maps + 1, "STEPS": maps}
    for key, count in expected.items():
        if len(own[key]) != count and (own[key] or key != "STEPS"):
            raise ConfigError(
                f"MODEL.SSD.{key} has {len(own[key])} values; the backbone has {maps} feature "
                f"maps, for which it needs {count}"
            )


def _check_size(cfg: CfgNode, backbone: Backbone) -> None:
    """Compute the feature maps, but for their values."""
    size, channels = cfg.MODEL.SSD.SIZE, len(cfg.MODEL.PIXEL_MEAN)
    try:
        sides_of_maps(backbone, size, channels)
    except RuntimeError as error:
        raise ConfigError(
            f"MODEL.SSD.SIZE is {size}, and MODEL.BACKBONE.NAME {cfg.MODEL.BACKBONE.NAME!r} has no "
            f"feature maps of images {size} x {size} with {channels} channels "
            f"({one_line(error)[:200]}); correct one of them"
        ) from error


@torch.no_grad()
def sides_of_maps(backbone: Backbone, size: int, channels: int) -> list[int]:
    """Compute the sides of the feature maps of an image ``size`` x ``size``, finest first."""
    pixels = torch.zeros(1, channels, size, size, device="meta")
    maps = copy.deepcopy(backbone).to("meta").eval()(pixels)
    return [each.shape[-1] for each in maps.values()]


def _rename_foreign(model: SSD, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Give the tensors of a file of the backbone alone the names that they have in the model."""
    for name, own in model.ssd.backbone.own_names(state).items():
        state[f"{prefix}ssd.backbone.{own}"] = state.pop(name)


def share_of_all_ranks(positives: Tensor) -> Tensor | float:
    """Give the factor of losses that are divided by a rank's own positives, at least 1.

    With it, the mean over ranks, which their gradients are, is the sum divided by the positives of
    all. To be called on every rank.
    """
    ranks = comm.get_world_size()
    if ranks == 1:
        return 1.0
    of_all = positives.detach().float().clone()
    torch.distributed.all_reduce(of_all)
    return ranks * positives.clamp(min=1) / of_all.clamp(min=1)
