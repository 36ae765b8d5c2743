"""The upper bound of re-weighting: background RoIs on objects without pseudo-label weigh nothing.

It sees the ground truth of the unlabeled images, which nothing else in training does.
"""

from __future__ import annotations

import functools

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.structures import BoxMode
from torch import Tensor

from d2_ssod import ops
from d2_ssod.data.mapper import PseudoLabelMapper
from d2_ssod.engine import PhaseTrainer
from d2_ssod.modeling.roi_weighting import ROI_WEIGHTINGS, RoIBatch, RoIWeights

SAME_OBJECT = 0.5  # IoU from which a box is on an object, as RoIs are matched in training


@functools.cache
def true_boxes() -> dict[int, Tensor]:
    """The boxes of the classes' objects in every unlabeled image, XYXY, Tensor[n, 4]."""
    return {
        image["image_id"]: boxes_of(image["annotations"])
        for image in DatasetCatalog.get("digit_scenes_unlabeled_truth")
    }


def boxes_of(annotations: list[dict]) -> Tensor:
    """Boxes of Detectron2 annotations, XYXY, Tensor[n, 4]."""
    boxes = [BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) for a in annotations]
    return torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)


def missed_boxes(truth: Tensor, pseudo: Tensor) -> Tensor:
    """The objects of ``truth`` that no box of ``pseudo`` is on."""
    if len(pseudo) == 0 or len(truth) == 0:
        return truth
    return truth[ops.pairwise_iou(truth, pseudo).amax(dim=1) < SAME_OBJECT]


class OracleMapper(PseudoLabelMapper):
    """Adds ``missed_boxes``, the objects without pseudo-label, to the targets of an image.

    A field of ``Instances`` has one entry per target; each entry holds all missed boxes.
    """

    def _transform_annotations(self, dataset_dict: dict, transforms, image_shape) -> None:
        missed = torch.zeros(0, 4)
        if dataset_dict.get("is_pseudo", False):
            truth = true_boxes()[dataset_dict["image_id"]]
            missed = missed_boxes(truth, boxes_of(dataset_dict["annotations"]))
        missed = torch.as_tensor(transforms.apply_box(missed.numpy()), dtype=torch.float32)
        super()._transform_annotations(dataset_dict, transforms, image_shape)
        instances = dataset_dict["instances"]
        instances.missed_boxes = missed.reshape(1, -1, 4).expand(len(instances), -1, -1)


class OracleTrainer(PhaseTrainer):
    """:class:`PhaseTrainer` whose targets say what the pseudo-labels miss."""

    @classmethod
    def build_mapper(cls, cfg: CfgNode) -> OracleMapper:
        """See :class:`OracleMapper`."""
        return OracleMapper(cfg, is_train=True)


class OracleWeighting:
    """Weight 0 for background RoIs on a missed object, 1 for all others."""

    weights_box_loss = False

    def __init__(self, cfg: CfgNode) -> None:
        pass

    def __call__(self, rois: RoIBatch) -> RoIWeights:
        """Weights of RoIs whose targets have ``missed_boxes``."""
        on_missed = [
            _overlaps(boxes, target.missed_boxes[0])
            for boxes, target in zip(
                rois.boxes.split(rois.rois_per_image), rois.targets, strict=True
            )
        ]
        return RoIWeights((rois.is_foreground | ~torch.cat(on_missed)).float())


def _overlaps(boxes: Tensor, others: Tensor) -> Tensor:
    """Whether each box is on one of the other boxes, Tensor[R], bool."""
    if len(others) == 0:
        return torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    return ops.pairwise_iou(boxes, others).amax(dim=1) >= SAME_OBJECT


ROI_WEIGHTINGS["oracle"] = OracleWeighting
