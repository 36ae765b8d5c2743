"""Fingerprint of the C++/CUDA sources: tells a compiled module that no longer fits them.

Loaded by ``setup.py`` as a file of its own, so it imports nothing of the package.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

SUFFIXES = {".h", ".cuh", ".cpp", ".cu"}


def source_files(csrc: Path, with_cuda: bool) -> list[Path]:
    """List sources and headers under ``csrc`` in a fixed order; ``cuda/`` only if compiled."""
    files = (path for path in csrc.rglob("*") if path.suffix in SUFFIXES)
    relative = sorted(path.relative_to(csrc) for path in files)
    return [csrc / path for path in relative if with_cuda or path.parts[0] != "cuda"]


def source_hash(csrc: Path, with_cuda: bool) -> str:
    """Hexadecimal digest of the names and contents of :func:`source_files`."""
    digest = hashlib.sha256()
    for path in source_files(csrc, with_cuda):
        digest.update(path.relative_to(csrc).as_posix().encode() + b"\0")
        digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]
