"""Where the tensors of an operator lie."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor


def check_one_device(arguments: Sequence[Any]) -> None:
    """Refuse tensors of several devices; the kernels of one device cannot read those of another.

    Args:
        arguments: of an operator; the first is a tensor.

    Raises:
        ValueError: a tensor among them is on another device than the first.
    """
    device = arguments[0].device
    for argument in arguments:
        if isinstance(argument, Tensor) and argument.device != device:
            raise ValueError(
                f"all tensors must be on {device} like the first, got one on {argument.device}"
            )
