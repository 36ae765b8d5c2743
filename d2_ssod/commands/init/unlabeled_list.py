"""Pictures of all kinds in one folder: a list of those that are unlabeled."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from d2_ssod.data.checks import shared_pictures
from d2_ssod.data.picture_files import PictureFiles
from d2_ssod.errors import ConfigError
from d2_ssod.json_files import atomic_open


def find_others(
    images: Sequence[dict], known: Iterable[dict], files: PictureFiles, names: Sequence[str]
) -> list[dict]:
    """Find the images of a folder that are none of those known, nor copies.

    Args:
        images: Detectron2 dicts of what is in the folder.
        known: of labeled, validation and test images.
        files: looks at them.
        names: the folders, as they were given.

    Returns:
        the images that are left; all of them if none is known.

    Raises:
        ConfigError: none is left.
    """
    of_known, of_images = ([image["file_name"] for image in each] for each in (known, images))
    taken = shared_pictures(of_known, of_images, files)
    others = [image for number, image in enumerate(images) if number not in taken]
    if images and not others:
        raise ConfigError(
            f"--unlabeled {' '.join(names)}: all {len(images)} pictures are labeled, validation or "
            "test ones; name others"
        )
    return others


def write_list(images: Sequence[dict], path: Path) -> None:
    """Write the names of the images' files, one in a line."""
    with atomic_open(path, "wb") as file:  # names may not be UTF-8
        file.writelines(os.fsencode(os.path.abspath(i["file_name"])) + b"\n" for i in images)
