"""Which weights from elsewhere a phase started from, as far as they can be known again."""

from __future__ import annotations

import functools
import os

from detectron2.config import CfgNode

from d2_ssod.config import value_of
from d2_ssod.modeling import TIMM_BACKBONES

from .digests import digest_of_file

_HASH = "sha256:"
_DETECTRON2 = "https://dl.fbaipublicfiles.com/detectron2/"  # detectron2:// is that


def describe_weights(own: CfgNode, phase: int) -> dict[str, str]:
    """Describe the weights from elsewhere that a phase starts from; those that are gone left out.

    They are "" (random ones), "pretrained" or an address, or of a file its hash.
    """
    if phase > 0 and own.SSOD.PHASE_INIT != "pretrained":
        return {}
    keys = ["MODEL.WEIGHTS"]
    if own.MODEL.BACKBONE.NAME in TIMM_BACKBONES:
        keys.append("MODEL.TIMM.WEIGHTS")
    described = {}
    for key in keys:
        name = value_of(own, key).split("?")[0]  # Detectron2's options follow
        if os.path.isfile(name):
            status = os.stat(name)
            described[key] = _HASH + _digest_of_weights(name, status.st_mtime_ns, status.st_size)
        elif name in ("", "pretrained") or "://" in name:
            described[key] = name.replace("detectron2://", _DETECTRON2)
    return described


@functools.lru_cache(maxsize=4)
def _digest_of_weights(path: str, changed: int, size: int) -> str:
    """Hash a large file once, as long as it does not change; it is asked for in each phase."""
    return digest_of_file(path)


def other_weights(made: dict[str, str], now: dict[str, str]) -> list[str]:
    """Tell of each key whether its weights are surely others; a file may be what is downloaded."""
    return [
        f"the weights that it started from are others ({key})"
        for key, was in made.items()
        if key in now
        and was != now[key]
        and ("" in (was, now[key]) or _is_hash(was) == _is_hash(now[key]))
    ]


def _is_hash(weights: str) -> bool:
    return str(weights).startswith(_HASH)
