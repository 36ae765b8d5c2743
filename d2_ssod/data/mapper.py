"""From a data set dict to what the model trains on, keeping what is known of pseudo-labels."""

from __future__ import annotations

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetMapper
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T


class PseudoLabelMapper(DatasetMapper):
    """:class:`DatasetMapper` whose targets also carry ``gt_scores`` and ``gt_is_pseudo``.

    Annotations of pseudo-labels have a ``score`` and ``pseudo: True``; others count as certain,
    score 1. A pseudo-labeled image whose boxes the augmentation all removed returns None, for which
    Detectron2's loader draws another image: nothing would say that it is not a labeled image
    without objects.
    """

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict:
        """Arguments of ``__init__`` from the config."""
        arguments = super().from_config(cfg, is_train)
        if is_train:
            arguments["augmentations"] = build_augmentations(cfg) + arguments["augmentations"]
        return arguments

    def __call__(self, dataset_dict: dict) -> dict | None:
        """Load, augment and convert one image; None to draw another in its place."""
        mapped = super().__call__(dataset_dict)
        if mapped.get("is_pseudo", False) and "instances" in mapped and not mapped["instances"]:
            return None
        return mapped

    def _transform_annotations(self, dataset_dict: dict, transforms, image_shape) -> None:
        kept = [obj for obj in dataset_dict["annotations"] if obj.get("iscrowd", 0) == 0]
        scores = torch.tensor([float(obj.get("score", 1.0)) for obj in kept])
        pseudo = torch.tensor([bool(obj.get("pseudo", False)) for obj in kept], dtype=torch.bool)
        annotations = [
            utils.transform_instance_annotations(
                obj, transforms, image_shape, keypoint_hflip_indices=self.keypoint_hflip_indices
            )
            for obj in map(self._without_unused, kept)
        ]
        instances = utils.annotations_to_instances(
            annotations, image_shape, mask_format=self.instance_mask_format
        )
        instances.gt_scores = scores
        instances.gt_is_pseudo = pseudo
        if self.recompute_boxes:
            instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
        del dataset_dict["annotations"]
        dataset_dict["instances"] = utils.filter_empty_instances(instances)

    def _without_unused(self, annotation: dict) -> dict:
        """The annotation without the masks and keypoints that the model does not train on."""
        unused = set()
        if not self.use_instance_mask:
            unused.add("segmentation")
        if not self.use_keypoint:
            unused.add("keypoints")
        return {key: value for key, value in annotation.items() if key not in unused}


def build_augmentations(cfg: CfgNode) -> list[T.Augmentation]:
    """The augmentations of ``SSOD.AUG``, which come before Detectron2's own."""
    aug = cfg.SSOD.AUG
    augmentations: list[T.Augmentation] = []
    if aug.COLOR > 0:
        limits = (1.0 - aug.COLOR, 1.0 + aug.COLOR)
        augmentations += [
            T.RandomBrightness(*limits),
            T.RandomContrast(*limits),
            T.RandomSaturation(*limits),
        ]
    if tuple(aug.SCALE) != (1.0, 1.0) or aug.SHIFT > 0:
        # Detectron2 shifts by up to half of the range that it is given.
        augmentations.append(T.RandomExtent(tuple(aug.SCALE), (2 * aug.SHIFT, 2 * aug.SHIFT)))
    return augmentations
