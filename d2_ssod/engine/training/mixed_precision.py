"""bfloat16 on the CPU, as Detectron2's own mixed precision is for GPUs."""

from __future__ import annotations

import torch
from torch import nn


def autocast_in_training(model: nn.Module) -> None:
    """Run the forward passes of training, and no others, under bfloat16 autocast on the CPU.

    Losses are not scaled: bfloat16 has the range of float32.

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
