"""What differs between families of Detectron2's detectors, as far as this project must know it.

Everything else treats a detector as Detectron2 does: built from the config, called with a list of
dicts. A detector of one's own is added to ``DETECTORS`` (docs/extending.md).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from detectron2.config import CfgNode
from detectron2.modeling import META_ARCH_REGISTRY, GeneralizedRCNN, RetinaNet
from torch import nn

from d2_ssod.config import value_of
from d2_ssod.errors import ConfigError

from .baselines import CSD, ProposalLearningRCNN
from .one_stage import SSD, UncertaintyRetinaNet


@dataclass(frozen=True)
class Detector:
    """A family of detectors.

    Attributes:
        num_classes_key: config key of the number of classes.
        inference_keys: config keys that its detections depend on, besides image sizes.
        unseen_keys: config keys, or sections, that a model depends on and that the shapes of its
            weights do not show, besides those of input, backbone, anchors and cascades.
        has_tta: Detectron2 has multi-transform inference for it.
        has_roi_heads: it samples RoIs, which can be re-weighted.
        has_anchors: it has those of ``MODEL.ANCHOR_GENERATOR``.
        learns_certainty: labels that are not all certain are learned as such; else what makes such
            labels is refused.
        learns_unlabeled: it trains on unlabeled images beside the labeled ones, in phase 0.
        needs_unlabeled: it cannot train without them, so that there is no phase after phase 0.
        running_attributes: plain numbers of the model that training changes and that no
            ``state_dict`` keeps, such as running means.
    """

    num_classes_key: str
    inference_keys: tuple[str, ...]
    has_tta: bool = False
    has_roi_heads: bool = False
    has_anchors: bool = True
    learns_certainty: bool = False
    learns_unlabeled: bool = False
    needs_unlabeled: bool = False
    running_attributes: tuple[str, ...] = ()
    unseen_keys: tuple[str, ...] = ()


_SSD = Detector(
    num_classes_key="MODEL.SSD.NUM_CLASSES",
    inference_keys=(
        "MODEL.SSD.SCORE_THRESH_TEST",
        "MODEL.SSD.TOPK_CANDIDATES_TEST",
        "MODEL.SSD.NMS_THRESH_TEST",
    ),
    has_anchors=False,
    learns_certainty=True,
    unseen_keys=(
        "MODEL.SSD.SIZE",
        "MODEL.SSD.SCALES",
        "MODEL.SSD.ASPECT_RATIOS",
        "MODEL.SSD.STEPS",
    ),
)

_RCNN = Detector(
    num_classes_key="MODEL.ROI_HEADS.NUM_CLASSES",
    inference_keys=(
        "MODEL.RPN.PRE_NMS_TOPK_TEST",
        "MODEL.RPN.POST_NMS_TOPK_TEST",
        "MODEL.RPN.NMS_THRESH",
        "MODEL.PROPOSAL_GENERATOR.MIN_SIZE",
        "MODEL.ROI_HEADS.SCORE_THRESH_TEST",
        "MODEL.ROI_HEADS.NMS_THRESH_TEST",
    ),
    has_tta=True,
    has_roi_heads=True,
    learns_certainty=True,
    unseen_keys=(
        "MODEL.RPN.IN_FEATURES",
        "MODEL.RPN.BBOX_REG_WEIGHTS",
        "MODEL.ROI_HEADS.IN_FEATURES",
        "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS",
        "MODEL.ROI_BOX_HEAD.POOLER_TYPE",
        "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION",
        "MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE",
    ),
)

_RETINANET = Detector(
    num_classes_key="MODEL.RETINANET.NUM_CLASSES",
    inference_keys=(
        "MODEL.RETINANET.SCORE_THRESH_TEST",
        "MODEL.RETINANET.TOPK_CANDIDATES_TEST",
        "MODEL.RETINANET.NMS_THRESH_TEST",
    ),
    running_attributes=("loss_normalizer",),
    unseen_keys=(
        "MODEL.RETINANET.IN_FEATURES",
        "MODEL.RETINANET.BBOX_REG_WEIGHTS",
    ),
)

# By meta-architecture; a subclass is of the family of its nearest ancestor.
DETECTORS: dict[type[nn.Module], Detector] = {
    GeneralizedRCNN: _RCNN,
    ProposalLearningRCNN: dataclasses.replace(_RCNN, learns_unlabeled=True, needs_unlabeled=True),
    RetinaNet: _RETINANET,
    UncertaintyRetinaNet: dataclasses.replace(_RETINANET, learns_certainty=True),
    SSD: _SSD,
    CSD: dataclasses.replace(_SSD, learns_unlabeled=True),
}


def detector_of(cfg: CfgNode) -> Detector:
    """Find the family of ``MODEL.META_ARCHITECTURE``.

    Raises:
        ConfigError: it is of none of those in ``DETECTORS``.
    """
    name = cfg.MODEL.META_ARCHITECTURE
    family = _family(META_ARCH_REGISTRY.get(name)) if name in META_ARCH_REGISTRY else None
    if family is not None:
        return family
    known = ", ".join(sorted(known.__name__ for known in DETECTORS))
    raise ConfigError(
        f"MODEL.META_ARCHITECTURE is {name!r}, which is none of {known} and no subclass of one; "
        "correct it, or describe it in d2_ssod.modeling.DETECTORS (docs/extending.md)"
    )


def known_detectors() -> list[str]:
    """List the values of ``MODEL.META_ARCHITECTURE`` that are of one of the families."""
    return sorted(name for name, built in META_ARCH_REGISTRY if _family(built) is not None)


def _family(registered: object) -> Detector | None:
    ancestors = getattr(registered, "__mro__", ())  # of a function, none
    return next((DETECTORS[each] for each in ancestors if each in DETECTORS), None)


def num_classes(cfg: CfgNode) -> int:
    """Look up the number of classes that the config's detector is built for."""
    return value_of(cfg, detector_of(cfg).num_classes_key)


def running_attributes(cfg: CfgNode, model: nn.Module) -> dict[str, float]:
    """Read the numbers to be kept with the model's ``state_dict``, as far as it has them yet."""
    return {
        name: float(getattr(model, name))
        for name in detector_of(cfg).running_attributes
        if hasattr(model, name)
    }
