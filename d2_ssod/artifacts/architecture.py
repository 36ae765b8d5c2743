"""Whether a model is the one that a config describes, also where the shapes of all weights fit."""

from __future__ import annotations

from detectron2.config import CfgNode

from d2_ssod.config import value_of
from d2_ssod.modeling import detector_of

from .differences import differences_between, refuse
from .layout import PhaseFolder, RunFolder
from .settings import is_below, training_settings
from .trained_with import read_training

# What any model depends on that the shapes of its weights do not show.
_UNSEEN = (
    *("INPUT.FORMAT", "MODEL.PIXEL_MEAN", "MODEL.PIXEL_STD", "MODEL.ANCHOR_GENERATOR"),
    *("MODEL.RPN.BBOX_REG_WEIGHTS", "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS"),
)
# ... where the name of a part has a word.
_UNSEEN_OF = (
    ("MODEL.BACKBONE.NAME", "fpn", ("MODEL.FPN.FUSE_TYPE",)),
    (
        "MODEL.BACKBONE.NAME",
        "resnet",
        ("MODEL.RESNETS.STRIDE_IN_1X1", "MODEL.RESNETS.RES5_DILATION"),
    ),
    ("MODEL.ROI_HEADS.NAME", "Cascade", ("MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS",)),
)


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
    settings = (
        read_training(files.trained_with, "restore it")["settings"],
        training_settings(cfg, 0),
    )
    unseen = [*_UNSEEN, *detector_of(cfg).unseen_keys]
    for part, word, keys in _UNSEEN_OF:
        if word in value_of(cfg, part):
            unseen += keys
    parts = [{k: v for k, v in own.items() if is_below(k, unseen)} for own in settings]
    return differences_between(*parts)
