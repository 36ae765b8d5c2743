"""What is said while the parts of a phase's training are built from a config."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from detectron2.config import CfgNode
from torch import nn

from d2_ssod.errors import ConfigError, one_line
from d2_ssod.modeling import SSD, UncertaintyOutputLayers, detector_of
from d2_ssod.modeling.one_stage.ssd import sides_of_maps

# What Detectron2 raises where keys do not go together, or need what is not installed.
_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)


@contextmanager
def said_in_one_line(part: str, keys: str) -> Iterator[None]:
    """Turn what Detectron2 raises while it builds a part of a config into a ``ConfigError``."""
    try:
        yield
    except ConfigError:
        raise
    except _ERRORS as error:
        what = one_line(error) or "an assertion"
        raise ConfigError(
            f"{part} cannot be built from {keys} ({type(error).__name__}: {what}); correct these "
            "keys"
        ) from error


def odd_parts(cfg: CfgNode, model: nn.Module) -> Iterator[str]:
    """Say, in a line each, what a model can be trained with, but is hardly meant."""
    yield from _unread_weighting(cfg, model)
    yield from _priors_elsewhere(cfg, model)


def _priors_elsewhere(cfg: CfgNode, model: nn.Module) -> Iterator[str]:
    """Say that the priors of an SSD lie beyond its images, or leave a part of them out."""
    size, steps = cfg.MODEL.SSD.SIZE, cfg.MODEL.SSD.STEPS
    if not isinstance(model, SSD) or not steps:
        return
    sides = sides_of_maps(model.ssd.backbone, size, len(cfg.MODEL.PIXEL_MEAN))
    for side, step in zip(sides, steps, strict=True):
        if abs(side * step - size) > step:  # the published ones reach 320 of 300 pixels
            yield (
                f"MODEL.SSD.STEPS is {list(steps)}: with {step}, the priors of the feature map of "
                f"{side} x {side} are laid over {side * step} pixels, but MODEL.SSD.SIZE is "
                f"{size}: set it to (), for steps that fit"
            )
            return


def _unread_weighting(cfg: CfgNode, model: nn.Module) -> Iterator[str]:
    """Say that RoIs are to be weighed by a model that weighs none."""
    weighs = any(isinstance(module, UncertaintyOutputLayers) for module in model.modules())
    if cfg.SSOD.ROI_WEIGHTING.NAME == "none" or weighs:
        return
    name = f"SSOD.ROI_WEIGHTING.NAME is {cfg.SSOD.ROI_WEIGHTING.NAME!r}"
    if detector_of(cfg).has_roi_heads:
        yield (
            f"{name}, but MODEL.ROI_HEADS.NAME {cfg.MODEL.ROI_HEADS.NAME!r} weighs no RoIs: choose "
            "heads whose name starts with Uncertainty, or set it to 'none'"
        )
    else:
        yield (
            f"{name}, but MODEL.META_ARCHITECTURE {cfg.MODEL.META_ARCHITECTURE!r} has no RoIs to "
            "be weighed, as in the paper, which re-weights two-stage detectors only: set it to "
            "'none'"
        )
