"""Split a COCO file into a labeled part, drawn at random, and a rest without labels or to validate.

    python -m d2_ssod split datasets/coco/annotations/instances_train2017.json --percent 10 --seed 1
    python -m d2_ssod split data/all.json --percent 85 --val

Writes instances_train2017_10_percent_labeled.json and ..._unlabeled.json beside it, the latter
without annotations; with --val they keep them, and the file is all_85_percent_val.json. The same
seed gives the same split, whatever the order of the file.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from d2_ssod.errors import ConfigError
from d2_ssod.json_files import read_json, write_json
from d2_ssod.values import as_id, find_id


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("file", type=Path, metavar="COCO.json")
    parser.add_argument("--percent", type=float, required=True, help="of the images: labeled ones")
    parser.add_argument("--seed", type=int, default=1, help="of the drawing (1)")
    parser.add_argument(
        "--val", action="store_true", help="the others keep their annotations, to validate by"
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="by default, where the file is")


def run(arguments: argparse.Namespace) -> int:
    """Write both files, and say what is in them."""
    if arguments.file.is_dir() or arguments.file.suffix.lower() in (".yaml", ".yml", ".xml"):
        raise ConfigError(
            f"{arguments.file}: split takes a COCO file; of Pascal VOC list the images of each "
            "part yourself (ImageSets/Main/train.txt, val.txt), of YOLO in text files that "
            "data.yaml names (train: train.txt)"
        )
    given, percent = read_json(arguments.file), arguments.percent
    parts = split(given, percent, arguments.seed, arguments.file)
    if not arguments.val:
        parts[1]["annotations"] = []
    folder = arguments.output or arguments.file.parent
    stem = f"{arguments.file.stem}_{percent:g}_percent"
    names = ("labeled", "val" if arguments.val else "unlabeled")
    paths = [folder / f"{stem}_{name}.json" for name in names]
    for path in paths:
        if path.exists():
            raise ConfigError(f"{path} exists: delete it to make another split, or keep it")
    for path, part in zip(paths, parts, strict=True):
        write_json(path, part)
        print(f"{path}: {len(part['images'])} images")
    return 0


def split(
    contents: Any, percent: float, seed: int, path: Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Draw the labeled images.

    Args:
        contents: of the COCO file.
        percent: of the images, 0 < percent < 100, rounded to whole images.
        seed: of the drawing.
        path: for messages.

    Returns:
        Contents of the labeled images, and of the others, each with their annotations.

    Raises:
        ConfigError: no image would be labeled, or none unlabeled; the file has no images, or
            annotations of others.
    """
    images = _records(contents, "images", "id", path)
    annotations = _records(contents, "annotations", "image_id", path)
    times = Counter(as_id(image["id"]) for image in images)
    for image_id, count in times.items():
        if count > 1:
            raise ConfigError(
                f"{path}: {count} images have the id {image_id!r}; give each its own, and its "
                "annotations"
            )
    named = Counter(str(image.get("file_name")) for image in images)
    for file_name, count in named.items():
        if count > 1 and file_name != "None":
            raise ConfigError(
                f"{path}: {count} images are {file_name!r}, which would be labeled and not; take "
                "one out, and give its annotations to the other"
            )
    known = set(times)
    owners = [find_id(annotation["image_id"], known) for annotation in annotations]
    for annotation, owner in zip(annotations, owners, strict=True):
        if owner not in known:
            raise ConfigError(
                f"{path}: an annotation has image_id {annotation['image_id']!r}, which is no "
                "image's id; correct it, or take the annotation out"
            )
    count = round(len(images) * percent / 100) if math.isfinite(percent) else 0
    if seed < 0:
        raise ConfigError(f"--seed is {seed}; give a whole number from 0")
    if not 0 < count < len(images):
        raise ConfigError(
            f"--percent is {percent:g}, which makes {count} of {len(images)} images of {path} "
            "labeled; there must be labeled and other ones"
        )
    by_id = sorted(known, key=str)
    drawn = np.random.default_rng(seed).permutation(len(by_id))[:count]
    labeled = {by_id[number] for number in drawn}
    about = {"info": {"source": path.name, "percent": percent, "seed": seed}}
    owned = list(zip(annotations, owners, strict=True))

    def part(ids: set[int | str]) -> dict[str, Any]:
        return {
            **about,
            "categories": contents.get("categories", []),
            "images": [image for image in images if as_id(image["id"]) in ids],
            "annotations": [annotation for annotation, owner in owned if owner in ids],
        }

    return part(labeled), part(known - labeled)


def _records(contents: Any, key: str, needed: str, path: Path) -> list[dict[str, Any]]:
    """Look up a list of the file, each of whose records must have a key."""
    records = contents.get(key) if isinstance(contents, dict) else None
    if not isinstance(records, list) or not all(
        isinstance(record, dict) and as_id(record.get(needed)) is not None for record in records
    ):
        raise ConfigError(
            f"{path}: {key!r} must be a list of records with {needed!r}, a whole number or a text"
        )
    return records
