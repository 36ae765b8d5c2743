"""From a data set dict to what the model trains on, keeping what is known of pseudo-labels."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import DatasetMapper
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T

from d2_ssod.config import value_of
from d2_ssod.errors import ConfigError
from d2_ssod.structures import UNCERTAIN

from .annotation_boxes import corners_of
from .augmentation import StrongAugmentation, build_augmentations, channels_first

# Detectron2's models that train on an image's sem_seg_file_name; others leave it alone.
_SEGMENTING = frozenset({"PanopticFPN", "SemanticSegmentor"})


class PseudoLabelMapper(DatasetMapper):
    """:class:`DatasetMapper` whose targets also carry ``gt_scores`` and ``gt_is_pseudo``.

    The dict of a pseudo-labeled image says ``is_pseudo: True`` (and ``is_corrected: True`` where a
    person has labeled it, whose labels are not pseudo), its annotations have a ``score``;
    annotations without one count as certain, score 1. Where annotations have a ``tier``, targets
    carry ``gt_certainty`` and ``gt_box_gate``, too (see ``modeling/certainty.py``).

    A pseudo-labeled image whose boxes the augmentation all removed returns None, for which the
    loader draws another image: nothing would say that it is not a labeled image without objects,
    as one is that a person has labeled.

    Precomputed proposals and semantic segmentations are not loaded.
    """

    @configurable
    def __init__(
        self,
        is_train: bool,
        *,
        strong: StrongAugmentation | None = None,
        strong_for_all: bool = False,
        keeps_weak: bool = True,
        soft: bool = True,
        max_spread: float = 0.05,
        **kwargs,
    ) -> None:
        """Take arguments beyond those of :class:`DatasetMapper`.

        Args:
            is_train: passed on.
            strong: changes pseudo-labeled images after all else.
            strong_for_all: it changes labeled images, too.
            keeps_weak: ``weak_image`` is then the image without it, which a mean teacher labels.
            soft: the certainty of an uncertain label is its score, not 1.
            max_spread: edges of a certain label are learned if the models differ by less, relative
                to its width or height, and several see it; from 1 on, all are.
            **kwargs: passed on to :class:`DatasetMapper`.
        """
        super().__init__(is_train, **kwargs)
        self.strong, self.strong_for_all, self.keeps_weak = strong, strong_for_all, keeps_weak
        self.soft, self.max_spread = soft, max_spread

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict:
        """Arguments of ``__init__`` from the config.

        Raises:
            ConfigError: the model needs more of an image than pixels and annotations.
        """
        _check_needs(cfg)
        arguments = super().from_config(cfg, is_train)
        if not is_train:
            return arguments
        chosen = cfg.SSOD.AUG.STRONG
        return {
            **arguments,
            "augmentations": build_augmentations(cfg) + arguments["augmentations"],
            "strong": None if chosen == "none" else StrongAugmentation(cfg.INPUT.FORMAT),
            "strong_for_all": chosen == "all",
            "keeps_weak": cfg.SSOD.TEACHER.ENABLED,
            "soft": cfg.SSOD.TIERS.UNCERTAIN == "soft",
            "max_spread": cfg.SSOD.TIERS.MAX_SPREAD,
        }

    def __call__(self, dataset_dict: dict) -> dict | None:
        """Load, augment and convert one image; None to draw another in its place."""
        mapped = self._mapped(dataset_dict)
        is_pseudo = mapped.get("is_pseudo", False)
        is_guessed = is_pseudo and not mapped.get("is_corrected", False)
        if is_guessed and "instances" in mapped and not mapped["instances"]:
            return None
        if self.strong is not None and (is_pseudo or self.strong_for_all):
            if self.keeps_weak:
                mapped["weak_image"] = mapped["image"]
            mapped["image"] = self.strong(mapped["image"])
        return mapped

    def _mapped(self, dataset_dict: dict) -> dict:
        """Do as :class:`DatasetMapper`, whose augmentations do not see the boxes, does."""
        mapped = copy.deepcopy(dataset_dict)
        image = utils.read_image(mapped["file_name"], format=self.image_format)
        utils.check_image_size(mapped, image)
        augmented = T.AugInput(image, boxes=_boxes_of(mapped))
        transforms = self.augmentations(augmented)
        image = augmented.image
        mapped["image"] = channels_first(image)
        if not self.is_train:
            mapped.pop("annotations", None)
        elif "annotations" in mapped:
            self._transform_annotations(mapped, transforms, image.shape[:2])
        return mapped

    def _check_has_all(self, file_name: str, annotations: Sequence[dict]) -> None:
        """Refuse boxes alone where masks or keypoints are learned.

        Raises:
            ConfigError: naming the picture.
        """
        wanted = {"segmentation": self.use_instance_mask, "keypoints": self.use_keypoint}
        for kind, is_wanted in wanted.items():
            if is_wanted and not all(kind in annotation for annotation in annotations):
                raise ConfigError(
                    f"{file_name}: its pseudo-labels are boxes without {kind}; set MODEL.MASK_ON "
                    "and MODEL.KEYPOINT_ON to False to train on boxes"
                )

    def _transform_annotations(self, dataset_dict: dict, transforms, image_shape) -> None:
        kept = [obj for obj in dataset_dict["annotations"] if obj.get("iscrowd", 0) == 0]
        if dataset_dict.get("is_pseudo", False):
            self._check_has_all(dataset_dict["file_name"], kept)
        annotations = [
            utils.transform_instance_annotations(
                obj, transforms, image_shape, keypoint_hflip_indices=self.keypoint_hflip_indices
            )
            for obj in map(self._without_unused, kept)
        ]
        instances = utils.annotations_to_instances(
            annotations, image_shape, mask_format=self.instance_mask_format
        )
        # What a person has labeled of the unlabeled images is labeled.
        is_pseudo = dataset_dict.get("is_pseudo", False) and not dataset_dict.get("is_corrected")
        instances.gt_scores = torch.tensor([_score_of(obj) for obj in kept])
        instances.gt_is_pseudo = torch.full((len(kept),), bool(is_pseudo))
        if any("tier" in obj for obj in kept):
            instances.gt_certainty = torch.tensor([self._certainty(obj) for obj in kept])
            instances.gt_box_gate = torch.tensor([self._box_gate(obj) for obj in kept])
        if self.recompute_boxes:
            instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
        del dataset_dict["annotations"]
        dataset_dict["instances"] = utils.filter_empty_instances(instances)

    def _certainty(self, annotation: dict) -> float:
        """Give q: the score of an uncertain label, 1 of others."""
        is_soft = self.soft and annotation.get("tier") == UNCERTAIN
        return _score_of(annotation) if is_soft else 1.0

    def _box_gate(self, annotation: dict) -> tuple[float, float]:
        """Tell whether left and right, top and bottom are learned; a person's are, always."""
        if "tier" not in annotation:
            return 1.0, 1.0
        if annotation["tier"] == UNCERTAIN:
            return 0.0, 0.0
        spread = annotation.get("spread")
        if self.max_spread >= 1:  # of all, also where one model alone sees it
            return 1.0, 1.0
        if spread is None:
            return 0.0, 0.0
        return float(spread[0] < self.max_spread), float(spread[1] < self.max_spread)

    def _without_unused(self, annotation: dict) -> dict:
        """Copy the annotation without the masks and keypoints that the model does not train on."""
        unused = set()
        if not self.use_instance_mask:
            unused.add("segmentation")
        if not self.use_keypoint:
            unused.add("keypoints")
        return {key: value for key, value in annotation.items() if key not in unused}


def _score_of(annotation: dict) -> float:
    """Give the score of a label; 1 where there is none, or null, as for a person's."""
    score = annotation.get("score")
    return 1.0 if score is None else float(score)


def _check_needs(cfg: CfgNode) -> None:
    """Refuse models that need what Detectron2's mapper loads, and this one does not."""
    if "SSOD" not in cfg:
        raise ConfigError("the config has no SSOD: call d2_ssod.config.add_ssod_config(cfg) first")
    for key, value, other in (
        ("LOAD_PROPOSALS", True, False),
        ("PROPOSAL_GENERATOR.NAME", "PrecomputedProposals", "RPN"),
    ):
        if value_of(cfg, f"MODEL.{key}") == value:
            raise ConfigError(
                f"MODEL.{key} is {value!r}, but PseudoLabelMapper loads no proposals; set it to "
                f"{other!r}, or map with Detectron2's DatasetMapper, which knows no pseudo-labels"
            )
    if cfg.MODEL.META_ARCHITECTURE in _SEGMENTING:
        raise ConfigError(
            f"MODEL.META_ARCHITECTURE is {cfg.MODEL.META_ARCHITECTURE!r}, but PseudoLabelMapper "
            "loads no sem_seg_file_name; name a detector, or map with Detectron2's DatasetMapper, "
            "which knows no pseudo-labels"
        )


def _boxes_of(dataset_dict: dict) -> np.ndarray:
    """List the boxes of an image's objects, float64 [n, 4], XYXY."""
    annotations = dataset_dict.get("annotations", ())
    boxes = [corners_of(a) for a in annotations if not a.get("iscrowd", 0)]
    return np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
