"""Losses that have the same last bits after an interruption as without one."""

from __future__ import annotations

from detectron2.modeling.meta_arch import fcos, retinanet
from fvcore.nn import sigmoid_focal_loss


def avoid_compiled_losses() -> None:
    """Have Detectron2's one-stage detectors call their focal loss as it is written.

    They take the one that TorchScript has compiled, whose gradients differ by some 1e-8 between its
    first call in a process and the later ones, as it is optimized in between.
    """
    for module in (retinanet, fcos):
        module.sigmoid_focal_loss_jit = sigmoid_focal_loss
