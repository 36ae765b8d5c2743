"""A model of timm's as timm makes it: for images of any size, with weights and normalization.

timm is optional, and imported only where it is asked for.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from detectron2.config import CfgNode
from torch import nn

from d2_ssod.errors import ConfigError, one_line

PRETRAINED = "pretrained"
"""``MODEL.TIMM.WEIGHTS`` for the weights that timm itself knows and downloads."""

# What makes models that are built for one image size take others; most have nothing like it.
_ANY_SIZE = ({"strict_img_size": False}, {"dynamic_img_size": True}, {})


def import_timm(cfg: CfgNode) -> ModuleType:
    """Import timm, which the config's backbone needs.

    Raises:
        ConfigError: it cannot be imported.
    """
    try:
        import timm
    except ImportError as error:
        raise ConfigError(
            f"MODEL.BACKBONE.NAME is {cfg.MODEL.BACKBONE.NAME!r}, which needs timm, and that "
            f"cannot be imported ({error}): install it (pip install timm), or choose another "
            "backbone"
        ) from error
    return timm


def create_for_any_size(
    name: str, in_channels: int, **arguments: Any
) -> tuple[dict[str, Any], nn.Module]:
    """Make a model without weights that takes images of any size, if there is a way.

    Returns:
        the arguments which that took, and the model.
    """
    import timm

    refusal: Exception | None = None
    for options in _ANY_SIZE:
        try:
            return options, timm.create_model(
                name, in_chans=in_channels, features_only=True, **options, **arguments
            )
        except TypeError as error:  # it has no such argument
            refusal = error
        except Exception as error:
            refusal = error
            break
    others = [other for other in timm.list_models() if other != name]
    similar = difflib.get_close_matches(name, others, n=3)
    raise ConfigError(
        f"MODEL.TIMM.NAME is {name!r}, of which timm {timm.__version__} cannot make feature maps "
        f"({shortly(refusal)}); correct it"
        + (f", such as to {', '.join(similar)}" if similar else " to a name of timm.list_models()")
    ) from refusal


def build_net(name: str, weights: str, arguments: dict[str, Any]) -> nn.Module:
    """Make a model with random weights, timm's own or those of a file."""
    import timm

    if not weights:
        return timm.create_model(name, **arguments)
    if weights == PRETRAINED:
        try:
            return timm.create_model(name, pretrained=True, **arguments)
        except Exception as error:
            raise ConfigError(
                f"MODEL.TIMM.WEIGHTS is {weights!r}, but timm has no weights of {name} or cannot "
                f"download them ({shortly(error)}); give a file of them, or '' for random ones"
            ) from error
    check_weights_exist(weights)
    # What a file does not have stays as random as in a model without it, and is found by that.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        without = timm.create_model(name, **arguments)
        torch.manual_seed(0)
        overlay = {"file": weights}
        try:
            with _silent_timm():
                net = timm.create_model(
                    name, pretrained=True, pretrained_cfg_overlay=overlay, **arguments
                )
        except Exception as error:
            raise _misfit(name, weights, shortly(error)) from error
    found = dict(net.named_parameters())
    arrays = {n: p for n, p in without.named_parameters() if p.dim() > 1}
    missing = [n for n, p in arrays.items() if torch.equal(p, found[n])]
    if missing:
        counts = f"{len(missing)} of {len(arrays)} arrays are not in it, such as {missing[0]}"
        raise _misfit(name, weights, counts)
    return net


@contextmanager
def _silent_timm() -> Iterator[None]:
    """Leave out what timm says of arrays that are not needed."""
    logger = logging.getLogger("timm")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _misfit(name: str, weights: str, why: str) -> ConfigError:
    return ConfigError(
        f"MODEL.TIMM.WEIGHTS is {weights}, which does not fit {name} ({why}); give a file with the "
        f"state_dict of timm.create_model({name!r}), or '' for random weights"
    )


def check_weights_exist(weights: str) -> None:
    """Check that there is a file of weights.

    Raises:
        ConfigError: there is none.
    """
    if not Path(weights).is_file():
        raise ConfigError(
            f"MODEL.TIMM.WEIGHTS is {weights}, which is no file: correct the path, or set it to "
            f"{PRETRAINED!r} for timm's own, or to '' for none, also where MODEL.WEIGHTS has all"
        )


def with_norm(net: nn.Module, norm: str, trained: frozenset[str]) -> nn.Module:
    """Freeze batch normalization, all of it or where it is not trained, or synchronize it."""
    from timm.layers import convert_sync_batchnorm
    from timm.utils.model import freeze_batch_norm_2d

    for name, module in list(net.named_modules()):
        if isinstance(module, nn.BatchNorm2d) and (
            norm == "FrozenBN" or f"{name}.weight" not in trained
        ):
            parent, _, child = name.rpartition(".")
            setattr(net.get_submodule(parent), child, freeze_batch_norm_2d(module))
    return convert_sync_batchnorm(net) if norm == "SyncBN" else net


def shortly(error: Exception | None) -> str:
    """Say an error in one line that is not too long."""
    return one_line(error)[:200]
