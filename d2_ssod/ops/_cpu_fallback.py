"""What computes on a GPU's tensors where the CUDA operators are not compiled: the CPU.

So for GPUs before compute capability 8.0 (T4, V100), which the kernels cannot use, and for builds
without a CUDA toolkit.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Results = Tensor | tuple[Tensor, ...]


def on_cpu(operator: torch._ops.OpOverload) -> Callable[..., Results]:
    """Make a kernel that has the CPU compute, with results on the device of the first argument.

    Args:
        operator: its arguments are those of the kernel, which raises ValueError unless all tensors
            among them are on one device.
    """

    def compute(*arguments: Any) -> Results:
        warnings.warn(
            "the CUDA operators of d2_ssod are not compiled: the CPU computes, which is slower. "
            "For GPUs of compute capability 8.0 or more compile them with a CUDA toolkit, `python "
            "setup.py build_ext --inplace`, which says what it lacks",
            stacklevel=1,  # said once
        )
        _check_one_device(arguments)
        results = operator(*(a.cpu() if isinstance(a, Tensor) else a for a in arguments))
        device = arguments[0].device
        if isinstance(results, Tensor):
            return results.to(device)
        return tuple(result.to(device) for result in results)

    return compute


def _check_one_device(arguments: Sequence[Any]) -> None:
    device = arguments[0].device
    for argument in arguments:
        if isinstance(argument, Tensor) and argument.device != device:
            raise ValueError(
                f"all tensors must be on {device} like the first, got one on {argument.device}"
            )
