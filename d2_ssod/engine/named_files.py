"""Files and folders outside a run that its config names."""

from __future__ import annotations

import os
from collections.abc import Iterator

from detectron2.config import CfgNode

from d2_ssod.config import value_of
from d2_ssod.errors import ConfigError

_KEYS = (
    *("MODEL.WEIGHTS", "MODEL.TIMM.WEIGHTS", "SSOD.START.PHASE_0", "SSOD.CONSENSUS.EXTRA_SOURCES"),
    *("SSOD.PSEUDO_LABEL.FROM", "SSOD.PSEUDO_LABEL.CORRECTED"),
)
_KEYS_OF_ENTRIES = ("IMAGES", "JSON", "VOC", "YOLO", "LIST")  # of SSOD.REGISTER


def check_is_file(key: str, path: str) -> None:
    """Check that a key names a file.

    Raises:
        ConfigError: otherwise.
    """
    if not os.path.isfile(path):
        raise ConfigError(f"{key} is {path}, which is not a file: correct the path")


def named_within(cfg: CfgNode, folder: str | os.PathLike) -> Iterator[tuple[str, str]]:
    """Yield the keys, and their values, that name what lies in a folder, or is linked there."""
    for key, text in _named(cfg):
        path = os.path.expanduser(text.split("?")[0])  # Detectron2's options of weights follow
        ways = (os.path.abspath, os.path.realpath)
        if path and os.path.exists(path) and any(_is_within(w(path), w(folder)) for w in ways):
            yield key, text


def _named(cfg: CfgNode) -> Iterator[tuple[str, str]]:
    for key in _KEYS:
        yield from ((key, text) for text in _texts(value_of(cfg, key)))
    for number, entry in enumerate(cfg.SSOD.REGISTER):
        for name in _KEYS_OF_ENTRIES:
            yield from ((f"SSOD.REGISTER[{number}].{name}", t) for t in _texts(entry.get(name)))


def _texts(value: object) -> list[str]:
    values = value if isinstance(value, (list, tuple)) else [value]
    return [text for text in values if isinstance(text, str)]


def _is_within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(os.path.join(folder, ""))
