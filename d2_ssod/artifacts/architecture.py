"""Whether a model is the one that a config describes, also where the shapes of all weights fit."""

from __future__ import annotations

from collections.abc import Iterator

from detectron2.config import CfgNode
from detectron2.modeling import ROI_HEADS_REGISTRY
from detectron2.modeling.roi_heads import CascadeROIHeads

from d2_ssod.modeling import TIMM_BACKBONES, detector_of

from .differences import differences_between, refuse
from .layout import PhaseFolder, RunFolder
from .settings import is_below, training_settings
from .trained_with import read_training

# What any model depends on that the shapes of its weights do not show.
_UNSEEN = ("INPUT.FORMAT", "MODEL.PIXEL_MEAN", "MODEL.PIXEL_STD")
_ANCHORS = "MODEL.ANCHOR_GENERATOR"
_OF_CASCADES = "MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS"
_OF_RESNETS = ("MODEL.RESNETS.STRIDE_IN_1X1", "MODEL.RESNETS.RES5_DILATION")
_OF_PYRAMIDS = ("MODEL.FPN.FUSE_TYPE",)
# Backbones that do not read all of these; one's own may.
_OF_BACKBONES = {
    "build_resnet_backbone": _OF_RESNETS,
    "build_small_fpn_backbone": (),
    "build_ssd_vgg16_backbone": (),
    **dict.fromkeys(TIMM_BACKBONES, _OF_PYRAMIDS),
}


def check_architecture(cfg: CfgNode, phase: int, folder: RunFolder) -> None:
    """Check that a phase's model is the one that the config describes, also where all shapes fit.

    Args:
        cfg: of the run.
        phase: 0..N.
        folder: of the run.

    Raises:
        ConfigError: naming the first three settings of ``MODEL`` that differ.
    """
    path = folder.phase(phase).trained_with
    if path.exists():
        parts = [
            {k: v for k, v in settings.items() if k.startswith("MODEL.") or k == "INPUT.FORMAT"}
            for settings in (read_training(path)["settings"], training_settings(cfg, phase))
        ]
        model = folder.phase(phase).model
        refuse(cfg, f"{model} does not fit the config's model", differences_between(*parts))


def differences_unseen(cfg: CfgNode, files: PhaseFolder) -> list[str]:
    """Tell in what a model that lies elsewhere is not the config's, though its weights fit."""
    if not files.trained_with.exists():
        return []
    made = read_training(files.trained_with, "restore it")["settings"]
    unseen = list(_unseen_keys(cfg))
    parts = [
        {key: value for key, value in settings.items() if is_below(key, unseen)}
        for settings in (made, training_settings(cfg, 0))
    ]
    return differences_between(*parts)


def _unseen_keys(cfg: CfgNode) -> Iterator[str]:
    """Yield the keys, or sections, that the weights of the config's model do not show."""
    detector = detector_of(cfg)
    yield from _UNSEEN
    yield from detector.unseen_keys
    yield from _OF_BACKBONES.get(cfg.MODEL.BACKBONE.NAME, _OF_RESNETS + _OF_PYRAMIDS)
    if detector.has_anchors:
        yield _ANCHORS
    if detector.has_roi_heads:
        heads = ROI_HEADS_REGISTRY.get(cfg.MODEL.ROI_HEADS.NAME)
        if isinstance(heads, type) and issubclass(heads, CascadeROIHeads):
            yield _OF_CASCADES
