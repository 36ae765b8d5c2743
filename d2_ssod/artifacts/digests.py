"""Hashes of images' objects and of files, which tell whether something is still what it was."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence

from d2_ssod.file_names import base_name


def digest_of(images: Sequence[dict], *, crowds: bool) -> str:
    """Hash images by their objects; where they lie does not count.

    Args:
        images: Detectron2 dicts.
        crowds: whether they count, as where images judge; nothing learns them.
    """
    digest = hashlib.sha256()
    for image in images:
        objects = [
            (
                [round(float(side), 2) for side in annotation["bbox"]],
                int(annotation["bbox_mode"]),
                annotation["category_id"],
                annotation.get("iscrowd", 0),
            )
            for annotation in image.get("annotations", ())
            if crowds or not annotation.get("iscrowd", 0)
        ]
        digest.update(
            repr((base_name(image["file_name"]), objects)).encode(errors="surrogateescape")
        )
    return digest.hexdigest()


def digest_of_file(path: str | os.PathLike) -> str:
    """Hash a file's content by SHA-256, in hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()
