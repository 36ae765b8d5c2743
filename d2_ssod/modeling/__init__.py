"""ROI heads, output layers and weightings; importing this registers them with Detectron2."""

from .backbone import SmallFPN, build_small_fpn_backbone
from .output_layers import UncertaintyOutputLayers, collect_rois, is_pseudo
from .roi_heads import UncertaintyCascadeROIHeads, UncertaintyRes5ROIHeads, UncertaintyROIHeads
from .sampled_rois import SampledRoIs
from .weighting import ROI_WEIGHTINGS, RoIs, RoIWeighting, RoIWeights, build_roi_weighting

__all__ = [
    "ROI_WEIGHTINGS",
    "RoIWeighting",
    "RoIWeights",
    "RoIs",
    "SampledRoIs",
    "SmallFPN",
    "UncertaintyCascadeROIHeads",
    "UncertaintyOutputLayers",
    "UncertaintyROIHeads",
    "UncertaintyRes5ROIHeads",
    "build_roi_weighting",
    "build_small_fpn_backbone",
    "collect_rois",
    "is_pseudo",
]
