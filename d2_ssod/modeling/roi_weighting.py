"""How much each sampled RoI counts in the classification loss (Eq. 2-5), picked by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import torch
from detectron2.config import CfgNode, configurable
from torch import Tensor

from d2_ssod import ops
from d2_ssod.errors import ConfigError


@dataclass(frozen=True)
class RoIBatch:
    """The sampled RoIs of several images, one image after another, and the images' targets.

    Attributes:
        boxes: Tensor[R, 4], XYXY, pixels of the network's input.
        embeddings: Tensor[R, E].
        is_foreground: Tensor[R], bool.
        rois_per_image: R = sum(rois_per_image).
        targets: the ground truth (or pseudo-labels) of each image, with ``gt_boxes``.
    """

    boxes: Tensor
    embeddings: Tensor
    is_foreground: Tensor
    rois_per_image: list[int]
    targets: list

    @property
    def gt_boxes(self) -> Tensor:
        """The boxes of all targets, Tensor[G, 4], image after image."""
        return torch.cat([target.gt_boxes.tensor for target in self.targets])

    @property
    def gts_per_image(self) -> list[int]:
        """How many of ``gt_boxes`` belong to each image."""
        return [len(target) for target in self.targets]


class RoIWeights(NamedTuple):
    """Weights, and what they were computed from where the weighting has it, each Tensor[R]."""

    weights: Tensor
    max_iou: Tensor | None = None
    dissimilarity: Tensor | None = None


class RoIWeighting(Protocol):
    """What the output layers ask of a weighting."""

    weights_box_loss: bool
    """Whether the weights also multiply the box-regression loss."""

    def __call__(self, rois: RoIBatch) -> RoIWeights:
        """Weigh every RoI; no gradient passes through the weights."""


class UncertaintyWeighting:
    """Eq. 5: low weight for background that is far from, yet looks like, the foreground."""

    @configurable
    def __init__(
        self,
        *,
        variant: Literal["paper", "released"],
        a: float,
        b: float,
        c_iou: float,
        c_sim: float,
    ) -> None:
        self.constants = {"variant": variant, "a": a, "b": b, "c_iou": c_iou, "c_sim": c_sim}
        self.weights_box_loss = variant == "released"

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        """Read the arguments of ``__init__`` from ``SSOD.ROI_WEIGHTING``."""
        keys = cfg.SSOD.ROI_WEIGHTING
        return {
            "variant": keys.VARIANT,
            "a": keys.A,
            "b": keys.B,
            "c_iou": keys.C_IOU,
            "c_sim": keys.C_SIM,
        }

    def __call__(self, rois: RoIBatch) -> RoIWeights:
        """Give weight, largest IoU and dissimilarity of every RoI."""
        references = {}
        if self.constants["variant"] == "released":
            references = {"gt_boxes": rois.gt_boxes, "gts_per_image": rois.gts_per_image}
        terms = ops.uncertainty_terms(
            rois.boxes,
            rois.embeddings.detach(),
            rois.is_foreground,
            rois.rois_per_image,
            **self.constants,
            **references,
        )
        return RoIWeights(*terms)


class SoftSamplingWeighting:
    """Soft Sampling: Eq. 2 alone, which trusts background near the foreground more."""

    weights_box_loss = False

    @configurable
    def __init__(self, *, a: float, b: float, c: float) -> None:
        self.constants = {"a": a, "b": b, "c": c}

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        """Read the arguments of ``__init__`` from ``SSOD.ROI_WEIGHTING``."""
        keys = cfg.SSOD.ROI_WEIGHTING
        return {"a": keys.A, "b": keys.B, "c": keys.C_SOFT_SAMPLING}

    def __call__(self, rois: RoIBatch) -> RoIWeights:
        """Weigh background by its largest IoU with a foreground RoI; foreground counts 1."""
        return RoIWeights(
            ops.overlap_weights(
                rois.boxes, rois.is_foreground, rois.rois_per_image, **self.constants
            )
        )


class ConstantWeighting:
    """One weight for all background: the control for "it is only fewer background gradients"."""

    weights_box_loss = False

    @configurable
    def __init__(self, *, background_weight: float) -> None:
        self.background_weight = background_weight

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        """Read the arguments of ``__init__`` from ``SSOD.ROI_WEIGHTING``."""
        return {"background_weight": cfg.SSOD.ROI_WEIGHTING.CONSTANT}

    def __call__(self, rois: RoIBatch) -> RoIWeights:
        """Give ``background_weight`` to background, 1 to foreground."""
        weights = torch.ones(len(rois.boxes), device=rois.boxes.device)
        return RoIWeights(weights.masked_fill(~rois.is_foreground, self.background_weight))


# What SSOD.ROI_WEIGHTING.NAME chooses from, next to "none"; add your own here.
ROI_WEIGHTINGS: dict[str, Callable[[CfgNode], RoIWeighting]] = {
    "uncertainty": UncertaintyWeighting,
    "soft_sampling": SoftSamplingWeighting,
    "constant": ConstantWeighting,
}


def build_roi_weighting(cfg: CfgNode) -> RoIWeighting | None:
    """Build the weighting that ``SSOD.ROI_WEIGHTING.NAME`` asks for; None for "none"."""
    name = cfg.SSOD.ROI_WEIGHTING.NAME
    if name == "none":
        return None
    if name not in ROI_WEIGHTINGS:
        raise ConfigError(
            f"SSOD.ROI_WEIGHTING.NAME is {name!r}; it must be none, {', '.join(ROI_WEIGHTINGS)}"
        )
    weighting = ROI_WEIGHTINGS[name](cfg)
    check_weighting(weighting, f"SSOD.ROI_WEIGHTING.NAME {name!r}")
    return weighting


def check_weighting(weighting: object, name: str) -> None:
    """Check that this, which may be somebody's own, is a weighting.

    Raises:
        TypeError: it lacks something; begins with ``name``.
    """
    if not callable(weighting) or not hasattr(weighting, "weights_box_loss"):
        raise TypeError(
            f"{name} is a {type(weighting).__name__}; it must be callable and have "
            "weights_box_loss (see RoIWeighting)"
        )


def check_roi_weights(result: object, count: int, weighting: RoIWeighting) -> None:
    """Check what a weighting, which may be somebody's own, has given for so many RoIs.

    Raises:
        TypeError: it is no ``RoIWeights``.
        ValueError: something in it is not one number for each RoI.
    """
    name = type(weighting).__name__
    if not isinstance(result, RoIWeights):
        raise TypeError(f"{name} must give RoIWeights, got {type(result).__name__}")
    for field, values in result._asdict().items():
        if values is not None and values.shape != (count,):
            raise ValueError(
                f"{name} must give {field} of shape ({count},), one for each RoI, got "
                f"{tuple(values.shape)}"
            )
