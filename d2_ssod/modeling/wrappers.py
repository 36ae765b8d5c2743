"""Modules around a detector that are not of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

_COMPILED = "_orig_mod"  # torch.compile's name of what it has compiled
_T = TypeVar("_T")


def unwrapped(model: nn.Module) -> nn.Module:
    """Take ``torch.compile`` and data-parallel wrappers, in whatever order, off a model."""
    while True:
        if isinstance(model, (DataParallel, DistributedDataParallel)):
            model = model.module
        elif hasattr(model, _COMPILED):
            model = getattr(model, _COMPILED)
        else:
            return model


def named_as(weights: Mapping[str, _T], model: nn.Module) -> dict[str, _T]:
    """Rename weights of a model with other parts compiled, so that they are named as this one's."""
    own = {_without_wrappers(name): name for name in model.state_dict()}
    return {own.get(_without_wrappers(name), name): value for name, value in weights.items()}


def _without_wrappers(name: str) -> str:
    return name.replace(f"{_COMPILED}.", "")
