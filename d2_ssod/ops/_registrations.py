"""What the dispatcher must know of the operators besides their kernels: autograd, autocast.

- CUDA, where nothing of it is compiled: the CPU computes.
- Autograd: overlaps and weights are constants, so their autograd key falls through and their
  results require no gradient, whatever the inputs do. The similarity loss makes its gradient in the
  forward pass.
- Autocast: box coordinates belong in float32. The operators that take embeddings have no rule: they
  take half embeddings as they are, accumulate in float32, and the public functions see to the
  boxes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ._cpu_fallback import on_cpu

_OVERLAPS = ("pairwise_iou", "pairwise_iof", "overlap_weights")
_CONSTANTS = (*_OVERLAPS, "uncertainty_weights")

# Registrations last as long as this object.
_library = torch.library.Library("d2_ssod", "IMPL")


class _MadeOf(torch.autograd.Function):
    """A gradient, whose derivative in ``embeddings`` exists but is not implemented."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, embeddings: Tensor) -> Tensor:
        return gradient.view_as(gradient)

    @staticmethod
    def backward(ctx: Any, *_: Any) -> tuple:
        raise RuntimeError("similarity_loss has no second derivative")


def _save_gradient(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    ctx.mark_non_differentiable(output[1])
    ctx.with_grad = inputs[-1]
    ctx.save_for_backward(output[1], inputs[1])


def _scale_gradient(ctx: Any, grad_loss: Tensor, _: Any) -> tuple:
    if not ctx.with_grad:
        raise RuntimeError(
            "d2_ssod::similarity_loss was called with with_grad=False, so there is no gradient; "
            "d2_ssod.ops.similarity_loss sets it as needed"
        )
    gradient, embeddings = ctx.saved_tensors
    if torch.is_grad_enabled():  # create_graph=True
        gradient = _MadeOf.apply(gradient, embeddings)
    scaled = grad_loss * gradient
    return None, scaled.to(embeddings.dtype), None, None, None, None


def register(*, with_cuda: bool) -> None:
    """Register everything; once, after the compiled module is loaded.

    Args:
        with_cuda: whether that has the CUDA operators.
    """
    if not with_cuda:
        for name in (*_CONSTANTS, "similarity_loss"):
            _library.impl(name, on_cpu(getattr(torch.ops.d2_ssod, name).default), "CUDA")
    for name in _CONSTANTS:
        _library.impl(name, torch.library.fallthrough_kernel, "Autograd")
    torch.library.register_autograd(
        "d2_ssod::similarity_loss", _scale_gradient, setup_context=_save_gradient
    )

    for name in _OVERLAPS:
        for device_type in ("cpu", "cuda"):
            torch.library.register_autocast(f"d2_ssod::{name}", device_type, torch.float32)
