"""What training on the CPU has besides Detectron2's: bfloat16, and losses that can be repeated."""

from __future__ import annotations

import torch
from detectron2.modeling.meta_arch import fcos, retinanet
from fvcore.nn import sigmoid_focal_loss
from torch import nn


def autocast_in_training(model: nn.Module) -> None:
    """Run the forward passes of training, and no others, under bfloat16 autocast.

    As Detectron2's own mixed precision is for GPUs. Losses are not scaled: bfloat16 has the range
    of float32.

    Args:
        model: as it is called in training, with its distributed wrapper if it has one.
    """
    autocast = torch.autocast("cpu", torch.bfloat16)

    def enter(module: nn.Module, inputs: tuple) -> None:
        if module.training:
            autocast.__enter__()

    def leave(module: nn.Module, inputs: tuple, output: object) -> None:
        if module.training:
            autocast.__exit__(None, None, None)

    model.register_forward_pre_hook(enter)
    model.register_forward_hook(leave, always_call=True)


def avoid_compiled_losses() -> None:
    """Have Detectron2's one-stage detectors call their focal loss as it is written.

    They take the one that TorchScript has compiled, whose gradients differ by some 1e-8 between its
    first call in a process and the later ones, as it is optimized in between. So a run that goes on
    after an interruption would have other last bits than one without.
    """
    for module in (retinanet, fcos):
        module.sigmoid_focal_loss_jit = sigmoid_focal_loss
