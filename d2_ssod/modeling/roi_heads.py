"""Detectron2's ROI heads with uncertainty-weighted losses, picked by ``MODEL.ROI_HEADS.NAME``."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.layers import CNNBlockBase, ShapeSpec
from detectron2.modeling import ROI_HEADS_REGISTRY, StandardROIHeads
from detectron2.modeling.roi_heads import CascadeROIHeads, Res5ROIHeads
from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers
from detectron2.structures import Instances
from torch import nn

from d2_ssod.errors import ConfigError

from .box_predictor import UncertaintyOutputLayers
from .sampled_rois import SampledRoIs


class _RemembersTargets:
    """Mixin: the sampled RoIs keep their image's targets for the loss."""

    def __init__(self, *args, **kwargs) -> None:
        """Take what the heads of Detectron2 take.

        Raises:
            TypeError: a box predictor would learn without weights and certainties.
        """
        super().__init__(*args, **kwargs)
        own = self.box_predictor
        for predictor in own if isinstance(own, nn.ModuleList) else [own]:
            if not isinstance(predictor, UncertaintyOutputLayers):
                raise TypeError(
                    f"the box predictor of {type(self).__name__} is a {type(predictor).__name__}, "
                    "which knows no pseudo-labels; give it UncertaintyOutputLayers"
                )

    def label_and_sample_proposals(
        self, proposals: list[Instances], targets: list[Instances]
    ) -> list[SampledRoIs]:
        """Do as ``ROIHeads``, and attach the image's targets."""
        sampled = super().label_and_sample_proposals(proposals, targets)
        return [SampledRoIs.attach(*pair) for pair in zip(sampled, targets, strict=True)]


def _with_uncertainty(cfg: CfgNode, predictor: FastRCNNOutputLayers) -> UncertaintyOutputLayers:
    """Build uncertainty-weighted layers in place of ``predictor``, for the same features."""
    return UncertaintyOutputLayers(
        cfg,
        ShapeSpec(channels=predictor.cls_score.in_features),
        box2box_transform=predictor.box2box_transform,
    )


@ROI_HEADS_REGISTRY.register()
class UncertaintyROIHeads(_RemembersTargets, StandardROIHeads):
    """:class:`StandardROIHeads` with :class:`UncertaintyOutputLayers`."""

    @classmethod
    def _init_box_head(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict:
        arguments = super()._init_box_head(cfg, input_shape)
        arguments["box_predictor"] = _with_uncertainty(cfg, arguments["box_predictor"])
        return arguments


@ROI_HEADS_REGISTRY.register()
class UncertaintyCascadeROIHeads(_RemembersTargets, CascadeROIHeads):
    """:class:`CascadeROIHeads` with :class:`UncertaintyOutputLayers` in every stage."""

    @classmethod
    def _init_box_head(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict:
        arguments = super()._init_box_head(cfg, input_shape)
        arguments["box_predictors"] = [
            _with_uncertainty(cfg, predictor) for predictor in arguments["box_predictors"]
        ]
        return arguments

    def _match_and_label_boxes(
        self, proposals: list[Instances], stage: int, targets: list[Instances]
    ) -> list[SampledRoIs]:
        matched = super()._match_and_label_boxes(proposals, stage, targets)
        return [SampledRoIs.attach(*pair) for pair in zip(matched, targets, strict=True)]


@ROI_HEADS_REGISTRY.register()
class UncertaintyRes5ROIHeads(_RemembersTargets, Res5ROIHeads):
    """:class:`Res5ROIHeads` (C4 models) with :class:`UncertaintyOutputLayers`."""

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict:
        """Read the arguments of ``__init__`` from the config.

        Raises:
            ConfigError: its last stage does not take the backbone's features.
        """
        arguments = super().from_config(cfg, input_shape)
        given, res5 = input_shape[arguments["in_features"][0]].channels, arguments["res5"]
        is_detectron2s = isinstance(res5, nn.Sequential) and isinstance(res5[0], CNNBlockBase)
        if is_detectron2s and given != res5[0].in_channels:
            raise ConfigError(
                f"MODEL.ROI_HEADS.IN_FEATURES is {arguments['in_features']}, of {given} channels, "
                f"but {cls.__name__} goes on from the {res5[0].in_channels} of res4: set it, and "
                "MODEL.RESNETS.OUT_FEATURES, to ['res4']"
            )
        arguments["box_predictor"] = _with_uncertainty(cfg, arguments["box_predictor"])
        return arguments
