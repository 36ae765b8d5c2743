"""Which rule makes labels of what all models found, picked by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from detectron2.config import CfgNode

from d2_ssod.errors import ConfigError
from d2_ssod.structures import Detections, Predictions, concatenate

from .consensus import Consensus
from .sources import Sources
from .tiers import Tiers


class MakesLabels(Protocol):
    """A rule with its settings."""

    def __call__(self, sources: Sources) -> Predictions:
        """Give the labels of every image of the sources, also of those that have none."""


@dataclass(frozen=True)
class LabelRule:
    """A rule, and what the rest of a run needs to know of it.

    Attributes:
        from_config: reads its settings.
        section: of the config, where these are: kept beside the labels, and not to be changed when
            a run goes on. Empty: it has none.
        has_tiers: it gives ``TieredDetections``, some of which are uncertain; detectors that would
            learn these as if they were certain are refused.
    """

    from_config: Callable[[CfgNode], MakesLabels]
    section: str = ""
    has_tiers: bool = False


# What SSOD.LABELS chooses from; add your own here.
LABEL_RULES: dict[str, LabelRule] = {
    "consensus": LabelRule(Consensus.from_config, "SSOD.CONSENSUS"),
    "tiers": LabelRule(Tiers.from_config, "SSOD.TIERS", has_tiers=True),
}


def check_made(labels: object, sources: Sources, rule: MakesLabels) -> None:
    """Check what a rule, which may be somebody's own, has made of the sources.

    Raises:
        ConfigError: it is no dict of ``Detections``, or of other images, or some boxes cannot be
            labels.
    """
    name = getattr(rule, "__name__", type(rule).__name__)
    if not isinstance(labels, dict) or not all(isinstance(d, Detections) for d in labels.values()):
        raise ConfigError(f"{name} must give a dict with the Detections of every image")
    images = sources.raw[0].keys()
    if labels.keys() != images:
        raise ConfigError(
            f"{name} must give the labels of each of {len(images)} images (Detections.empty() for "
            f"one without); it gave those of {len(labels.keys() & images)}, and of "
            f"{len(labels.keys() - images)} others"
        )
    found, last = concatenate(list(labels.values())), len(sources.objects_per_image) - 1
    for what, is_right in (
        (f"classes from 0 to {last}", (found.classes >= 0) & (found.classes <= last)),
        ("scores from 0 to 1", (found.scores >= 0) & (found.scores <= 1)),
        ("finite boxes", np.isfinite(found.boxes).all(axis=1)),
        ("boxes x1, y1, x2, y2", (found.boxes[:, 2:] >= found.boxes[:, :2]).all(axis=1)),
    ):
        if not is_right.all():
            raise ConfigError(f"{name} must give {what}; {(~is_right).sum()} boxes have others")
