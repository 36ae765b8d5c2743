"""Files and folders outside a run that its config names."""

from __future__ import annotations

import os
from collections.abc import Iterator

from detectron2.config import CfgNode

from d2_ssod.config import flat_keys
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
        if path and os.path.exists(path) and _is_within(path, folder):
            yield key, text


def _named(cfg: CfgNode) -> Iterator[tuple[str, str]]:
    for key, value in flat_keys(cfg):
        # Of keys of one's own, what looks like a path.
        texts = [text for text in _texts(value) if key in _KEYS or os.sep in text]
        yield from ((key, text) for text in texts if key != "OUTPUT_DIR")
    for number, entry in enumerate(cfg.SSOD.REGISTER):
        for name in _KEYS_OF_ENTRIES:
            yield from ((f"SSOD.REGISTER[{number}].{name}", t) for t in _texts(entry.get(name)))


def _texts(value: object) -> list[str]:
    values = value if isinstance(value, (list, tuple)) else [value]
    return [text for text in values if isinstance(text, str)]


def _is_within(path: str, folder: str | os.PathLike) -> bool:
    """Tell whether a path leads into a folder: as it is written, or by the links in it."""
    real, (head, tail) = os.path.realpath(folder), os.path.split(os.path.abspath(path))
    ways = [
        (os.path.abspath(path), os.path.abspath(folder)),
        (os.path.realpath(path), real),
        (os.path.join(os.path.realpath(head), tail), real),
    ]
    return any(p == f or p.startswith(os.path.join(f, "")) for p, f in ways)
