"""From a data set dict to what the model trains on, keeping what is known of pseudo-labels."""

from __future__ import annotations

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetMapper
from detectron2.data import detection_utils as utils

from .augmentation import build_augmentations


class PseudoLabelMapper(DatasetMapper):
    """:class:`DatasetMapper` whose targets also carry ``gt_scores`` and ``gt_is_pseudo``.

    The dict of a pseudo-labeled image says ``is_pseudo: True``, its annotations have a ``score``;
    annotations without one count as certain, score 1. A pseudo-labeled image whose boxes the
    augmentation all removed returns None, for which the loader draws another image: nothing would
    say that it is not a labeled image without objects.
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
        is_pseudo = bool(dataset_dict.get("is_pseudo", False))
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
        instances.gt_is_pseudo = torch.full((len(kept),), is_pseudo)
        if self.recompute_boxes:
            instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
        del dataset_dict["annotations"]
        dataset_dict["instances"] = utils.filter_empty_instances(instances)

    def _without_unused(self, annotation: dict) -> dict:
        """Copy the annotation without the masks and keypoints that the model does not train on."""
        unused = set()
        if not self.use_instance_mask:
            unused.add("segmentation")
        if not self.use_keypoint:
            unused.add("keypoints")
        return {key: value for key, value in annotation.items() if key not in unused}
