"""Write a config that fits a user's data, with every line explained.

    python -m d2_ssod init --labeled train.json --images train/ --unlabeled pictures/ \\
        --val val.json --val-images val/ -o mine.yaml

``--labeled``, ``--val`` and ``--test`` take COCO instances files, folders of Pascal VOC's XML
files, and Ultralytics' data.yaml, of which they take train, val, and test or else val. ``--val``
chooses between the models of a run, ``--test`` only judges. The method is one phase of
self-training (what it is worth: docs/real_images.md), the same with a mean teacher, or the paper's
two phases. Check the data, then train:

    python -m d2_ssod check --config-file mine.yaml
    python -m d2_ssod train --config-file mine.yaml --num-gpus 8

A short trial first: see docs/own_data.md. The run's folder has the name of the file: output/mine.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import Any

from d2_ssod.data import read_data_set
from d2_ssod.data.datasets import DataSet, register_entry
from d2_ssod.data.datasets.folder import UNREADABLE
from d2_ssod.data.findings import Finding, Findings, raise_first
from d2_ssod.data.images import read_size, size_or_error
from d2_ssod.data.objects import has_objects
from d2_ssod.data.picture_files import PictureFiles
from d2_ssod.data.presence import check_present
from d2_ssod.errors import ConfigError, escaped
from d2_ssod.json_files import atomic_open

from ..arguments import count
from .choices import METHODS, MODELS
from .data_sets import OPTIONS, entries_of, naming_of, option_of
from .lines import lines_of
from .unlabeled_list import find_others, write_list

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--labeled", required=True, metavar="FILE", help="with annotations")
    parser.add_argument("--images", metavar="DIR", help="folder of the labeled pictures")
    parser.add_argument(
        "--unlabeled",
        required=True,
        nargs="+",
        metavar="DIR",
        help="folders, or lists, of pictures, or these; or a COCO file of some in --images",
    )
    parser.add_argument(
        "--val",
        metavar="FILE",
        help="with annotations; to choose the best model (of a VOC folder or a data.yaml: val)",
    )
    parser.add_argument(
        "--val-images", metavar="DIR", help="folder of the validation pictures (--images)"
    )
    parser.add_argument(
        "--test",
        metavar="FILE",
        help="with annotations; for the results (of a VOC folder or data.yaml: test, or else val)",
    )
    parser.add_argument(
        "--test-images", metavar="DIR", help="folder of the test pictures (--images)"
    )
    parser.add_argument(
        "--method",
        choices=sorted(METHODS),
        default="self-training",
        help="labels alone, then one phase of self-training (default), or with a mean teacher; or "
        "two phases as published",
    )
    parser.add_argument(
        "--model",
        choices=sorted(MODELS),
        default="r50",
        help="r50 (default): Faster R-CNN, ResNet-50 with FPN, pretrained on ImageNet; small: from "
        "scratch, for trials and machines without a GPU",
    )
    parser.add_argument(
        "--num-gpus", type=count, default=8, help="sets batch and learning rate of r50 (8)"
    )
    parser.add_argument("--name", default="mine", help="begins the names of the data sets (mine)")
    parser.add_argument(
        "-o",
        "--output",
        default="mine.yaml",
        metavar="FILE",
        help="where to write it (mine.yaml); the run's folder has its name: output/mine",
    )


def run(arguments: argparse.Namespace) -> int:
    """Look at the data and write the config; 0."""
    path = Path(arguments.output)
    if path.exists():
        raise ConfigError(f"{path}: is there already; remove it, or choose another with -o")
    entries = entries_of(arguments)
    names = {k: register_entry(e, naming_of(k, arguments)) for k, e in entries.items()}
    sets = {key: read_data_set(name) for key, name in names.items()}
    unreadable = _unreadable(sets["UNLABELED"])
    for key, data_set in sets.items():
        left_out = UNREADABLE if unreadable and key == "UNLABELED" else None
        findings = [finding for finding in data_set.findings if finding.kind != left_out]
        _check_usable(findings, data_set, option_of(OPTIONS[key][1]))
    if not sets["UNLABELED"].images:
        raise ConfigError(f"--unlabeled {arguments.unlabeled[0]}: has no pictures; name others")
    files = PictureFiles()
    _check_some_are_not_trained_on(sets, files, arguments)
    labeled = sets["TRAIN"]
    for entry in entries.values():
        if "VOC" in entry:  # whose own are those that it has objects of
            entry["CLASSES"] = labeled.thing_classes
    if not labeled.thing_classes or not any(i.get("annotations") for i in labeled.images):
        raise ConfigError(f"{arguments.labeled}: has no annotations; name a file that has")
    _check_learnable(labeled.images, arguments.labeled)
    for key in ("VAL", "TEST"):
        if key in sets:
            _check_judges(sets[key].images, key, arguments)
    unlabeled = _unlabeled_images(arguments, entries, sets, files)
    known = len(sets["UNLABELED"].images) - len(unlabeled)
    listed = Path(os.path.abspath(path.with_name(f"{path.stem}_unlabeled.txt")))
    if known or unreadable:
        if listed.exists():
            raise ConfigError(f"{listed}: is there already; remove it, or choose another -o")
        entries["UNLABELED"]["IMAGES"] = str(listed)
    lines = lines_of(arguments, entries, labeled.images, labeled.thing_classes, len(unlabeled))
    path.parent.mkdir(parents=True, exist_ok=True)
    if known or unreadable:
        write_list(unlabeled, listed)
        _say_what_is_listed(len(unlabeled), known, unreadable, listed)
    with atomic_open(path, encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    print("\n".join(lines))
    print(f"\nWritten to {path}. Next: python -m d2_ssod check --config-file {quote(str(path))}")
    return 0


def _unlabeled_images(
    arguments: argparse.Namespace,
    entries: dict[str, dict[str, Any]],
    sets: dict[str, DataSet],
    files: PictureFiles,
) -> list[dict]:
    """Give the unlabeled images without the labeled ones that lie among them."""
    images = sets["UNLABELED"].images
    if "JSON" in entries["UNLABELED"]:  # which is a list itself
        return images
    known = [i for key, data_set in sets.items() if key != "UNLABELED" for i in data_set.images]
    return find_others(images, known, files, arguments.unlabeled)


def _check_some_are_not_trained_on(
    sets: dict[str, DataSet], files: PictureFiles, arguments: argparse.Namespace
) -> None:
    """Stop where all pictures that models would be judged by are trained on."""
    paths = {
        key: {state.path for state in files.states([i["file_name"] for i in found.images])}
        for key, found in sets.items()
        if key != "UNLABELED"
    }
    for key in ("VAL", "TEST"):
        if paths.get(key) and paths[key] <= paths["TRAIN"]:
            given, images = OPTIONS[key]
            raise ConfigError(
                f"{option_of(given)} {getattr(arguments, given)}: all of its {len(paths[key])} "
                "pictures are among those of --labeled; name some that are kept out of training, "
                f"or, if they lie in a folder of their own, that ({option_of(images)})"
            )


def _say_what_is_listed(count: int, known: int, unreadable: Sequence[str], path: Path) -> None:
    if known:
        print(
            f"{known} of {known + count + len(unreadable)} pictures of --unlabeled are labeled, "
            "validation or test ones, or copies"
        )
    if unreadable:
        print(f"{len(unreadable)} pictures of --unlabeled cannot be read, and are left out:")
        print(*(f"    {escaped(case)}" for case in unreadable), sep="\n")
    print(f"the other {count} are listed in {path}\n")


def _unreadable(unlabeled: DataSet) -> list[str]:
    """List what is wrong with unlabeled pictures that cannot be read, which are left out then."""
    found = [f for f in unlabeled.findings if f.kind == UNREADABLE]
    return [case for finding in found for case in finding.cases] if unlabeled.images else []


def _check_usable(found: Sequence[Finding], data_set: DataSet, images_option: str) -> None:
    """Stop at what cannot be read, and at pictures that are in another folder."""
    findings = Findings(found)
    paths = [record["file_name"] for record in data_set.images]
    check_present(paths, len(paths), images_option, "name the folder that has them", findings)
    raise_first(findings)


def _check_judges(images: Sequence[dict], key: str, arguments: argparse.Namespace) -> None:
    """Stop where a model has nothing to find."""
    if not any(map(has_objects, images)):
        given = OPTIONS[key][0]
        raise ConfigError(
            f"{option_of(given)} {getattr(arguments, given)}: no image there has an object; name "
            "labeled images that are kept out of training"
        )


def _check_learnable(images: Sequence[dict], file: str) -> None:
    """Stop where there is nothing to choose sizes and anchors by."""
    useful = list(filter(has_objects, images))
    if not useful:
        raise ConfigError(
            f"{file}: has no object that can be learned, as all are crowds (iscrowd) or difficult; "
            "correct the annotations, or name others"
        )
    if not any(image.get("height") and image.get("width") for image in useful):
        first = useful[0]["file_name"]
        problem = size_or_error(read_size, first)
        raise ConfigError(
            f"{file}: no labeled picture can be read, such as {first}, which {problem}; correct "
            "the files, or name the folder of the pictures with --images"
        )
