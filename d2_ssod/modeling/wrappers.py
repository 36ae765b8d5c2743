"""Modules around a detector that are not of it."""

from __future__ import annotations

from collections import OrderedDict
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


def named_as(weights: Mapping[str, _T], model: nn.Module) -> Mapping[str, _T]:
    """Rename weights of a model with other parts compiled, so that they are named as this one's.

    Where none needs another name, or two would have the same one, they are returned as they are.
    """
    own = {_bare(name): name for name in model.state_dict()}
    names = {name: own.get(_bare(name), name) for name in weights}
    if all(new == name for name, new in names.items()) or len({*names.values()}) < len(names):
        return weights
    renamed = OrderedDict((names[name], value) for name, value in weights.items())
    if (versions := getattr(weights, "_metadata", None)) is not None:  # by the names of modules
        modules = {_bare(name): name for name, _ in model.named_modules()}
        renamed._metadata = {modules.get(_bare(k), k): version for k, version in versions.items()}
    return renamed


def _bare(name: str) -> str:
    """Name a weight, or a module, as if nothing were compiled or parallel."""
    return ".".join(part for part in name.split(".") if part != _COMPILED).removeprefix("module.")
