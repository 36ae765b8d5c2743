"""Writing the data set: PNG images and COCO JSON, complete or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from d2_ssod.errors import ConfigError
from d2_ssod.json_files import write_json
from d2_ssod.progress import progress_bar

from .digits import CLASSES, CREDIT, DigitPool, split_scans
from .scene import SIDE, render_scene

logger = logging.getLogger(__name__)

VERSION = 1  # of the pictures: the same version and seed give the same pixels
HIDDEN_TRUTH = "unlabeled_hidden_truth"
MARKER = "data_set.json"


@dataclass(frozen=True)
class Split:
    """A part of the data set: how many images, and which percentage of the digit scans."""

    images: int
    scan_share: int
    number: int  # of its random streams and image ids


SPLITS = {
    "labeled": Split(images=100, scan_share=20, number=1),
    "unlabeled": Split(images=400, scan_share=40, number=2),
    "test": Split(images=1000, scan_share=30, number=3),
    "val": Split(images=200, scan_share=10, number=4),
}
DEFAULT_SIZES = {name: split.images for name, split in SPLITS.items()}
_IDS_PER_SPLIT = 100_000


def annotation_file(root: str | os.PathLike, name: str) -> Path:
    """Name the file of a split's annotations (or of ``HIDDEN_TRUTH``)."""
    return Path(root) / "annotations" / f"{name}.json"


def image_folder(root: str | os.PathLike, split: str) -> Path:
    """Name the folder of a split's images."""
    return Path(root) / split


def scene(
    seed: int, split: str, index: int, pool: DigitPool
) -> tuple[np.ndarray, dict, list[dict]]:
    """Draw image ``index`` of a split, whatever else has been drawn before.

    Args:
        seed: the data set's seed.
        split: a key of ``SPLITS``.
        index: 0-based number of the image in its split.
        pool: the split's digits.

    Returns:
        uint8 ``[128, 128, 3]`` RGB, its COCO image entry, its COCO annotations (without ``id``).
    """
    number = SPLITS[split].number
    stream = np.random.SeedSequence([seed, number, index])
    rng = np.random.RandomState(np.random.MT19937(stream))
    level = int(rng.randint(1001))
    pixels, objects = render_scene(rng, pool, level)
    image = {
        "id": number * _IDS_PER_SPLIT + index,
        "file_name": f"{index:05d}.png",
        "width": SIDE,
        "height": SIDE,
        "difficulty": level / 1000,
    }
    annotations = []
    for painted in objects:
        x0, y0, x1, y1 = painted.box()
        annotations.append(
            {
                "image_id": image["id"],
                "category_id": painted.digit + 1,
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "area": (x1 - x0) * (y1 - y0),
                "iscrowd": 0,
                "scan": painted.scan,
            }
        )
    return pixels, image, annotations


def generate(
    output: str | os.PathLike,
    *,
    seed: int = 0,
    sizes: dict[str, int] | None = None,
) -> Path:
    """Write the data set to ``output``, unless it is there already.

    The folder appears under its name when it is complete: everything is written to a sibling and
    renamed. Several processes may do this at once; one generates, the others wait for it.

    Args:
        output: the folder to be.
        seed: chooses the pictures.
        sizes: images of each split; default ``DEFAULT_SIZES``.

    Returns:
        ``output`` as a path.

    Raises:
        ConfigError: ``output`` holds something else, or cannot be written.
    """
    output = Path(output)
    sizes = dict(DEFAULT_SIZES if sizes is None else sizes)
    identity = {"name": "digit_scenes", "version": VERSION, "seed": seed, "sizes": sizes}
    if is_complete(output, identity):
        return output
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with _one_at_a_time(output):
            if not is_complete(output, identity):
                _generate_and_rename(output, identity)
    except OSError as error:
        raise ConfigError(
            f"{output}: the digit_scenes data set cannot be written there ({error}); set the "
            "environment variable DETECTRON2_DATASETS to a folder that can be written"
        ) from error
    return output


@contextlib.contextmanager
def _one_at_a_time(output: Path) -> Iterator[None]:
    """Let other processes wait instead of doing the same work.

    Where files cannot be locked they do the same work, which is safe: the first to rename wins.
    """
    with open(output.with_name(f".{output.name}.lock"), "w") as file:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def is_complete(output: Path, identity: dict) -> bool:
    """Tell whether ``output`` holds exactly this data set.

    Raises:
        ConfigError: the folder is there and holds something else.
    """
    if not output.exists():
        return False
    if output.is_dir() and not any(output.iterdir()):
        return False
    try:
        found = json.loads((output / MARKER).read_text())
    except (OSError, ValueError):
        found = None
    if found != identity:
        raise ConfigError(
            f"{output}: is not the digit_scenes data set of version {identity['version']}, seed "
            f"{identity['seed']} and these sizes; delete the folder, or choose another one"
        )
    return True


def _generate_and_rename(output: Path, identity: dict) -> None:
    building = Path(tempfile.mkdtemp(prefix=f"{output.name}.part-", dir=output.parent))
    try:
        building.chmod(0o755)  # mkdtemp's folders are for one user only
        _write_all(building, identity, shown_as=str(output))
        try:
            building.rename(output)
        except OSError:
            if not is_complete(output, identity):  # else another process was faster
                raise
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _write_all(folder: Path, identity: dict, shown_as: str) -> None:
    sizes, seed = identity["sizes"], identity["seed"]
    logger.info("Generating the digit_scenes data set in %s (once). %s.", shown_as, CREDIT)
    (folder / "annotations").mkdir()
    contents = {}
    for split in sizes:
        image_folder(folder, split).mkdir()
        contents[split] = _contents(split)
    for split, (pixels, image, objects) in progress_bar(
        _scenes(seed, sizes), description="Generating digit_scenes", total=sum(sizes.values())
    ):
        path = image_folder(folder, split) / image["file_name"]
        Image.fromarray(pixels).save(path, compress_level=1)
        contents[split]["images"].append(image)
        contents[split]["annotations"].extend(objects)
    for split in sizes:
        _write_annotations(folder, split, contents[split])
    (folder / "README.txt").write_text(_README)
    (folder / MARKER).write_text(json.dumps(identity))


def _scenes(
    seed: int, sizes: dict[str, int]
) -> Iterator[tuple[str, tuple[np.ndarray, dict, list[dict]]]]:
    """Draw all pictures of all splits, one after another."""
    pools = split_scans(seed, {name: split.scan_share for name, split in SPLITS.items()})
    for split, count in sizes.items():
        for index in range(count):
            yield split, scene(seed, split, index, pools[split])


def _contents(split: str) -> dict:
    """Begin a COCO instances file, without images yet."""
    return {
        "info": {"description": f"digit_scenes {split}", "version": str(VERSION), "credit": CREDIT},
        "licenses": [{"id": 1, "name": "CC BY 4.0 (the digit scans)"}],
        "categories": [{"id": c + 1, "name": str(c)} for c in CLASSES],
        "images": [],
        "annotations": [],
    }


def _write_annotations(folder: Path, split: str, contents: dict) -> None:
    """Write a split's JSON; the unlabeled split's objects go to a file of their own."""
    for number, annotation in enumerate(contents["annotations"], start=1):
        annotation["id"] = number
    if split == "unlabeled":
        write_json(annotation_file(folder, HIDDEN_TRUTH), contents)
        contents = {**contents, "annotations": []}
    write_json(annotation_file(folder, split), contents)


_README = f"""digit_scenes: generated pictures for semi-supervised object detection

Digits 0 to 4 are the classes; 5 to 9 appear too, as unannotated distractors. Each image has a
"difficulty" from 0 to 1 in its COCO entry. annotations/{HIDDEN_TRUTH}.json holds the objects of
the unlabeled images for diagnostics; training never reads it. No digit scan is in two splits.

{CREDIT}
"""
