"""What one may choose to begin with: detectors and methods."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Model:
    """A detector to begin with, and what is to be chosen for it."""

    base: str
    """Its config, in ``configs/``."""
    what: str
    levels: int
    """Feature maps with anchors: one size on each, or all on the only one."""
    num_sizes: int
    num_ratios: int
    short: tuple[int, int]
    """Limits of the short edge of pictures, in pixels."""
    most: float
    """Limit of the long edge, in short ones."""
    iterations: dict[int, tuple[int, ...]] | None
    """Of each phase, by how many follow phase 0; where one does, of both together. None: epochs."""


MODELS = {
    "r50": Model(
        "Base-SSOD-FPN.yaml",
        "Faster R-CNN, ResNet-50 FPN pretrained on ImageNet",
        levels=5,
        num_sizes=5,
        num_ratios=3,
        short=(320, 800),
        most=1.667,
        iterations=None,
    ),
    "small": Model(
        "Base-SSOD-Small.yaml",
        "a small Faster R-CNN from scratch, for trials on a CPU",
        levels=1,
        num_sizes=3,
        num_ratios=3,
        short=(96, 160),
        most=2.0,
        iterations={2: (1500, 1200, 1200), 1: (8000,)},
    ),
}
_SELF_TRAINING = """\
  # Phase 0 learns the labeled pictures alone. From its model, phase 1 learns its labels of the
  # others, too. Tried with small models, from scratch and pretrained.
  NUM_PHASES: 1
  PHASE_INIT: previous
  AVERAGE: {DECAY: 0.999, RAMP: False}  # a phase ends with it, phase 1's begins with phase 0
  SAMPLING: balanced  # half of each batch is labeled
  # All pictures are changed a little, unlabeled ones strongly: other colors, erased parts.
  AUG: {COLOR: 0.2, SCALE: [0.8, 1.2], SHIFT: 0.1, STRONG: pseudo}
  ROI_WEIGHTING: {NAME: none}
  SIMILARITY: {LOSS_WEIGHT: 0.0}""".splitlines()
_TEACHER = """\
  # The average of the weights labels each batch of phase 1 anew.
  TEACHER: {ENABLED: True}""".splitlines()
# Lines below SSOD.
METHODS = {
    "self-training": _SELF_TRAINING,
    "teacher": [*_SELF_TRAINING, *_TEACHER],
    "paper": ["  NUM_PHASES: 2"],
}
