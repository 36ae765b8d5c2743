"""What the method adds to a detector; importing this registers it with Detectron2.

detectors.py       what differs between families of detectors (``DETECTORS``)
roi_heads.py       Detectron2's ROI heads with ...
box_predictor.py   ... a box predictor that weighs its loss and learns an embedding (Eq. 5-7)
proposals.py       Detectron2's RPN for labels that are not all certain
certainty.py       how certain the labels are that RoIs and anchors were matched with
roi_weighting.py   how much each RoI counts (Eq. 2-5): ``ROI_WEIGHTINGS``
sampled_rois.py    sampled RoIs that know the targets of their image
one_stage/         SSD, and RetinaNet for labels that are not all certain
baselines/         other systems, to compare with: CSD, ISD, Proposal Learning
wrappers.py        torch.compile's and data-parallel modules around a detector
timm_backbone/     any backbone of timm's as a feature pyramid (``MODEL.TIMM``)
"""

from .baselines import CSD, ISD, ProposalLearningRCNN
from .box_predictor import UncertaintyOutputLayers, collect_rois, is_pseudo
from .detectors import (
    DETECTORS,
    Detector,
    detector_of,
    known_detectors,
    num_classes,
    running_attributes,
)
from .one_stage import SSD, UncertaintyRetinaNet
from .proposals import UncertaintyRPN
from .roi_heads import UncertaintyCascadeROIHeads, UncertaintyRes5ROIHeads, UncertaintyROIHeads
from .roi_weighting import (
    ROI_WEIGHTINGS,
    ConstantWeighting,
    RoIBatch,
    RoIWeighting,
    RoIWeights,
    SoftSamplingWeighting,
    UncertaintyWeighting,
    build_roi_weighting,
)
from .sampled_rois import SampledRoIs
from .timm_backbone import (
    TIMM_BACKBONES,
    TimmFeatures,
    build_retinanet_timm_fpn_backbone,
    build_timm_features,
    build_timm_fpn_backbone,
    check_timm_backbone,
    describe_timm_backbone,
    with_timm_pixels,
)
from .wrappers import named_as, unwrapped

__all__ = [
    "CSD",
    "DETECTORS",
    "ISD",
    "ROI_WEIGHTINGS",
    "SSD",
    "TIMM_BACKBONES",
    "ConstantWeighting",
    "Detector",
    "ProposalLearningRCNN",
    "RoIBatch",
    "RoIWeighting",
    "RoIWeights",
    "SampledRoIs",
    "SoftSamplingWeighting",
    "TimmFeatures",
    "UncertaintyCascadeROIHeads",
    "UncertaintyOutputLayers",
    "UncertaintyROIHeads",
    "UncertaintyRPN",
    "UncertaintyRes5ROIHeads",
    "UncertaintyRetinaNet",
    "UncertaintyWeighting",
    "build_retinanet_timm_fpn_backbone",
    "build_roi_weighting",
    "build_timm_features",
    "build_timm_fpn_backbone",
    "check_timm_backbone",
    "collect_rois",
    "describe_timm_backbone",
    "detector_of",
    "is_pseudo",
    "known_detectors",
    "named_as",
    "num_classes",
    "running_attributes",
    "unwrapped",
    "with_timm_pixels",
]
