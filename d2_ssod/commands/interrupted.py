"""What a prediction that was interrupted has found, beside what it was to write."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from detectron2.config import CfgNode

from d2_ssod.artifacts import RunFolder


def partial_folder(
    target: str | os.PathLike, images: Sequence[dict], models: Sequence[tuple[CfgNode, int]]
) -> Path:
    """Name the folder that keeps what is found until the target is written.

    It is another one for other pictures, models or settings. Those of earlier ones are deleted, as
    nothing would use them any more.

    Args:
        target: the file or folder to be written.
        images: dicts of the pictures.
        models: config and phase of each, in their order.
    """
    path = Path(os.path.abspath(target))
    start = f".{path.name}.partial-"
    folder = path.parent / f"{start}{_digest(images, models)[:16]}"
    if path.parent.is_dir():
        for other in path.parent.iterdir():
            if other.name.startswith(start) and other != folder:
                shutil.rmtree(other)
    return folder


def _digest(images: Sequence[dict], models: Sequence[tuple[CfgNode, int]]) -> str:
    """Hash what predictions depend on; of pictures and models when they were last changed."""
    digest = hashlib.sha256()
    for cfg, phase in models:
        model = RunFolder(cfg.OUTPUT_DIR).phase(phase).model
        digest.update(f"{_state(model)}\0{cfg.dump()}\0".encode(errors="surrogateescape"))
    for image in images:
        line = f"{image['image_id']}\0{_state(image['file_name'])}\0"
        digest.update(line.encode(errors="surrogateescape"))
    return digest.hexdigest()


def _state(path: str | os.PathLike) -> str:
    status = os.stat(path)
    return f"{os.path.abspath(path)}\0{status.st_size}\0{status.st_mtime_ns}"
