"""Write a config that fits a user's data, with every line explained.

    python -m d2_ssod init --labeled train.json --images train/ --unlabeled pictures/ \\
        --test val.json --test-images val/ -o mine.yaml

``--labeled``, ``--val`` and ``--test`` take COCO instances files, folders of Pascal VOC's XML
files, and Ultralytics' data.yaml, whose splits train and val are used. ``--val`` chooses between
the models of a run, ``--test`` only judges. The method is one phase of self-training, which has
done best on photographs (docs/real_images.md), the same with a mean teacher, or the paper's two
phases. Check the data, then train:

    python -m d2_ssod check --config-file mine.yaml
    python train_net.py --config-file mine.yaml --num-gpus 8

A short trial first: see docs/own_data.md. The run's folder has the name of the file: output/mine.
"""

from __future__ import annotations

import argparse
import math
import os
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
import yaml

from d2_ssod.config import shipped_configs
from d2_ssod.data import read_data_set, statistics
from d2_ssod.data.datasets import DataSet, Naming, YoloSplit, register_entry
from d2_ssod.data.findings import Findings, raise_first
from d2_ssod.data.images import read_size, size_or_error
from d2_ssod.data.objects import has_objects
from d2_ssod.data.presence import check_present
from d2_ssod.errors import ConfigError, escaped
from d2_ssod.json_files import atomic_open

from .unlabeled_list import list_others


@dataclass(frozen=True)
class _Model:
    """A detector to begin with, and what is to be chosen for it."""

    base: str
    """Its config, in ``configs/``."""
    what: str
    levels: int
    """Feature maps with anchors: one size on each, or all on the only one."""
    num_sizes: int
    num_ratios: int
    short: tuple[int, int]
    """Limits of the short edge of pictures, in pixels."""
    most: float
    """Limit of the long edge, in short ones."""
    iterations: dict[int, tuple[int, ...]] | None
    """Of the phases of methods with so many after phase 0; None: epochs by the pictures."""


_MODELS = {
    "r50": _Model(
        "Base-SSOD-FPN.yaml",
        "Faster R-CNN, ResNet-50 FPN pretrained on ImageNet",
        *(5, 5, 3, (320, 800), 1.667, None),
    ),
    "small": _Model(
        "Base-SSOD-Small.yaml",
        "a small Faster R-CNN from scratch, for trials on a CPU",
        *(1, 3, 3, (96, 160), 2.0, {2: (1500, 1200, 1200), 1: (3000, 5000)}),
    ),
}
# Of each data set, for its file and for its pictures.
_OPTIONS = {
    "TRAIN": ("labeled", "images"),
    "UNLABELED": ("unlabeled", "unlabeled"),
    "VAL": ("val", "val_images"),
    "TEST": ("test", "test_images"),
}
_DETECTIONS = 100  # Detectron2's TEST.DETECTIONS_PER_IMAGE
_OBJECT_SIDE = 24  # pixels that nine of ten objects should have at least, once resized
_ITERATIONS = 2000  # that a phase should have at least
_EPOCHS = (12, 120)  # limits
_WARM_UP = 1000  # Detectron2's SOLVER.WARMUP_ITERS
_SECONDS = (0.2, 1.0)  # that an iteration of the small model takes on a CPU, from idle to busy
# Of the labeled pictures, before the one other phase, but no more than this part of all iterations.
_SUPERVISED_EPOCHS, _SUPERVISED_PART = 48, 0.375
_SELF_TRAINING = """\
  # Phase 0 learns the labeled pictures alone. From its model, phase 1 learns its labels of the
  # others, too. Tried with the small model only.
  NUM_PHASES: 1
  PHASE_INIT: previous
  AVERAGE: {DECAY: 0.999, RAMP: False}  # a phase ends with it, phase 1's begins with phase 0
  SAMPLING: balanced  # half of each batch is labeled
  # All pictures are changed a little, unlabeled ones strongly: other colours, erased parts.
  AUG: {COLOR: 0.2, SCALE: [0.8, 1.2], SHIFT: 0.1, STRONG: pseudo}
  ROI_WEIGHTING: {NAME: none}
  SIMILARITY: {LOSS_WEIGHT: 0.0}""".splitlines()
_TEACHER = """\
  # The average of the weights labels each batch of phase 1 anew.
  TEACHER: {ENABLED: True}""".splitlines()
# Lines below SSOD.
_METHODS = {
    "self-training": _SELF_TRAINING,
    "teacher": [*_SELF_TRAINING, *_TEACHER],
    "paper": ["  NUM_PHASES: 2"],
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--labeled", required=True, metavar="FILE", help="with annotations")
    parser.add_argument("--images", metavar="DIR", help="folder of the labeled pictures")
    parser.add_argument(
        "--unlabeled",
        required=True,
        nargs="+",
        metavar="DIR",
        help="folders, or lists, of pictures; or a COCO file of some in --images",
    )
    parser.add_argument(
        "--val",
        metavar="FILE",
        help="with annotations; to choose the best model (of a VOC folder or a data.yaml: val)",
    )
    parser.add_argument("--val-images", metavar="DIR", help="folder of their pictures")
    parser.add_argument(
        "--test",
        metavar="FILE",
        help="with annotations; for the results (of a VOC folder or data.yaml: test, or else val)",
    )
    parser.add_argument("--test-images", metavar="DIR", help="folder of the test pictures")
    parser.add_argument(
        "--method",
        choices=sorted(_METHODS),
        default="self-training",
        help="labels alone, then one phase of self-training (default), or with a mean teacher; or "
        "two phases as published",
    )
    parser.add_argument("--model", choices=sorted(_MODELS), default="r50")
    parser.add_argument(
        "--num-gpus", type=_count, default=8, help="sets batch and learning rate (8)"
    )
    parser.add_argument("--name", default="mine", help="begins the names of the data sets (mine)")
    parser.add_argument(
        "-o",
        "--output",
        default="mine.yaml",
        metavar="FILE",
        help="where to write it (mine.yaml); the run's folder has its name: output/mine",
    )


def _count(text: str) -> int:
    if int(text) < 0:
        raise argparse.ArgumentTypeError(f"{text} is less than 0")
    return int(text)


def run(arguments: argparse.Namespace) -> int:
    """Look at the data and write the config; 0."""
    path = Path(arguments.output)
    if path.exists():
        raise ConfigError(f"{path}: is there already; remove it, or choose another with -o")
    entries = _entries(arguments)
    names = {k: register_entry(e, _option_naming(k, arguments)) for k, e in entries.items()}
    sets = {key: read_data_set(name) for key, name in names.items()}
    for key, data_set in sets.items():
        _check_usable(data_set, _option(_OPTIONS[key][1]))
    labeled = sets["TRAIN"]
    for entry in entries.values():
        if "VOC" in entry:  # whose own are those that it has objects of
            entry["CLASSES"] = labeled.thing_classes
    if not labeled.thing_classes or not any(i.get("annotations") for i in labeled.images):
        raise ConfigError(f"{arguments.labeled}: has no annotations; name a file that has")
    _check_learnable(labeled.images, arguments.labeled)
    unlabeled = _unlabeled_images(path, arguments, entries, sets)
    lines = _lines(arguments, entries, labeled.images, labeled.thing_classes, len(unlabeled))
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_open(path, encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    print("\n".join(lines))
    print(f"\nWritten to {path}. Next: python -m d2_ssod check --config-file {quote(str(path))}")
    return 0


def _unlabeled_images(
    path: Path,
    arguments: argparse.Namespace,
    entries: dict[str, dict[str, Any]],
    sets: dict[str, DataSet],
) -> list[dict]:
    """Give the unlabeled images; if labeled ones lie among them, by a list, which is written."""
    images = sets["UNLABELED"].images
    if "JSON" in entries["UNLABELED"]:  # which is a list itself
        return images
    known = [i for key, data_set in sets.items() if key != "UNLABELED" for i in data_set.images]
    target = Path(os.path.abspath(path.with_name(f"{path.stem}_unlabeled.txt")))
    others = list_others(images, known, target, arguments.unlabeled)
    if len(others) < len(images):
        entries["UNLABELED"]["IMAGES"] = str(target)
        print(
            f"{len(images) - len(others)} of {len(images)} pictures of --unlabeled are labeled, "
            f"validation or test ones; the others are listed in {target}\n"
        )
    return others


def _entries(arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Describe the data sets as ``SSOD.REGISTER`` does, by their key."""
    name = arguments.name
    places = [os.path.abspath(place) for place in arguments.unlabeled]
    entries = {
        "TRAIN": _annotated(f"{name}_labeled", arguments.labeled, arguments.images, ["train"]),
        "UNLABELED": _unlabeled(f"{name}_unlabeled", places, arguments.images),
    }
    for key, splits in (("val", ["val"]), ("test", ["test", "val"])):
        given, images = getattr(arguments, key), getattr(arguments, f"{key}_images")
        if given:
            images = images or arguments.images
            entries[key.upper()] = _annotated(f"{name}_{key}", given, images, splits)
        elif images:
            raise ConfigError(f"--{key}-images {images} is given without --{key}; name both")
    _check_images_taken(arguments, entries)
    return entries


def _check_images_taken(arguments: argparse.Namespace, entries: dict[str, dict[str, Any]]) -> None:
    """Stop at a folder of pictures that no file takes, as it says itself where they are."""
    for key in ("TRAIN", "VAL", "TEST"):
        file, folder = (getattr(arguments, argument) for argument in _OPTIONS[key])
        # Files without a folder of their own take that of the labeled pictures.
        takers = entries.values() if key == "TRAIN" else [entries.get(key, {})]
        taken = [entry.get("IMAGES") for entry in takers if "JSON" in entry or "VOC" in entry]
        if folder and os.path.abspath(folder) not in taken:
            option = _option(_OPTIONS[key][1])
            raise ConfigError(
                f"{option} {folder} is given, but {file} itself says where its pictures are; "
                f"leave {option} out, or correct that file"
            )


def _option_naming(key: str, arguments: argparse.Namespace) -> Naming:
    """Name the option that each key of a data set's entry is from."""
    given, images = _OPTIONS[key]
    images = images if getattr(arguments, images) else "images"
    options = {"NAME": "--name", "IMAGES": _option(images)}
    return lambda name: options.get(name, _option(given))


def _option(argument: str) -> str:
    return f"--{argument.replace('_', '-')}"


def _check_usable(data_set: DataSet, images_option: str) -> None:
    """Stop at what cannot be read, and at pictures that are in another folder."""
    findings = Findings(data_set.findings)
    paths = [record["file_name"] for record in data_set.images]
    check_present(paths, len(paths), images_option, "name the folder that has them", findings)
    raise_first(findings)


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


def _annotated(name: str, path: str, images: str | None, splits: Sequence[str]) -> dict[str, Any]:
    """Describe a data set with annotations, by what kind of file it is.

    Args:
        name: of the data set.
        path: of the file, or of a VOC folder.
        images: folder of the pictures.
        splits: the first of these that there is is taken, where the file has several.
    """
    entry: dict[str, Any] = {"NAME": name}
    place = os.path.abspath(path)
    if os.path.isdir(place):
        entry["VOC"] = place
        lists = os.path.join(place, "ImageSets", "Main")
        there = [split for split in splits if os.path.isfile(os.path.join(lists, f"{split}.txt"))]
        if there:
            entry["SPLIT"] = there[0]
    elif place.lower().endswith((".yaml", ".yml")):
        of_file = YoloSplit(place).splits() if os.path.isfile(place) else []
        there = [split for split in splits if split in of_file]
        return {**entry, "YOLO": place, "SPLIT": there[0] if there else splits[-1]}
    else:
        entry["JSON"] = place
        images = images or os.path.dirname(place)
    return {**entry, **({"IMAGES": os.path.abspath(images)} if images else {})}


def _unlabeled(name: str, places: list[str], images: str | None) -> dict[str, Any]:
    """Describe folders and lists of pictures, or one COCO file whose annotations do not count."""
    if len(places) == 1 and places[0].lower().endswith(".json"):
        return {**_annotated(name, places[0], images, []), "UNLABELED": True}
    return {"NAME": name, "IMAGES": places[0] if len(places) == 1 else places}


def _lines(
    arguments: argparse.Namespace,
    entries: dict[str, dict[str, Any]],
    images: list[dict],
    classes: list[str],
    num_unlabeled: int,
) -> list[str]:
    """Write the config, with a comment on every choice."""
    model = _MODELS[arguments.model]
    counts = statistics.objects_per_class(images, classes)
    listed = ", ".join(f"{escaped(name)} {count}" for name, count in list(counts.items())[:20])
    short, most = _resizing(images, model)
    base = shipped_configs() / model.base
    schedule = _EpochSchedule.of(arguments, len(images), num_unlabeled)
    nothing = ["  TEST: []  # nothing to judge by: name a data set to see AP"]
    return [
        *_comment(
            f"Made by `python -m d2_ssod init` from {len(images)} labeled and {num_unlabeled} "
            "unlabeled pictures. Everything may be changed; keys that are not here are in the base "
            "config and in d2_ssod/config.py."
        ),
        f"_BASE_: {_scalar(str(base))}  # {model.what}",
        "MODEL:",
        *_comment(
            "MODEL.WEIGHTS may be the path of a detector trained elsewhere, such as on COCO; here "
            "it is that of the base config.",
            indent=2,
        ),
        f"  ROI_HEADS: {{NUM_CLASSES: {len(classes)}}}  # objects: {listed}",
        *_anchor_lines(statistics.BoxShapes.of(images, short, most), model),
        *(
            ["  PROPOSAL_GENERATOR: {NAME: UncertaintyRPN}"]
            if arguments.method == "teacher"
            else []
        ),
        "DATASETS:",
        *(f"  {key}: [{_scalar(entry['NAME'])}]" for key, entry in entries.items()),
        *([] if "TEST" in entries else nothing),
        *_limit_lines(images),
        "INPUT:",
        *_comment(
            f"The median picture is {_median_size(images)}. With a short edge of {short}, nine of "
            f"ten objects have a side of {_OBJECT_SIDE} pixels, as far as {model.short[0]} to "
            f"{model.short[1]} allow that.",
            indent=2,
        ),
        f"  MIN_SIZE_TRAIN: [{short}]",
        f"  MAX_SIZE_TRAIN: {most}",
        f"  MIN_SIZE_TEST: {short}",
        f"  MAX_SIZE_TEST: {most}",
        *_solver_lines(arguments, schedule),
        "SSOD:",
        *_METHODS[arguments.method],
        *_schedule_lines(arguments, schedule),
        "  REGISTER:",
        *(f"    - {_flow(entry)}" for entry in entries.values()),
        f"OUTPUT_DIR: {_scalar(f'output/{Path(arguments.output).stem}')}",
    ]


def _limit_lines(images: Sequence[dict]) -> list[str]:
    """Have a model find as many objects as images have, where that is more than by default."""
    most = max(map(statistics.num_objects, images))
    if most <= _DETECTIONS:
        return []
    limit = math.ceil(1.5 * most / 100) * 100
    return [
        "TEST:",
        f"  DETECTIONS_PER_IMAGE: {limit}  # by default {_DETECTIONS}; labeled: up to {most}",
    ]


def _comment(text: str, indent: int = 0) -> list[str]:
    """Write a comment over as many lines as it takes."""
    margin = " " * indent + "# "
    return textwrap.wrap(text, 100, initial_indent=margin, subsequent_indent=margin)


def _resizing(images: Sequence[dict], model: _Model) -> tuple[int, int]:
    """Choose the short edge, so that small objects are large enough, and the most long one."""
    own = float(np.median(_picture_sizes(images).min(axis=1)))
    sides = statistics.BoxShapes.of(images, 0, 0).side
    wanted = own * max(1.0, _OBJECT_SIDE / float(np.quantile(sides, 0.1)))
    short = int(np.clip(round(wanted / 32) * 32, *model.short))
    return short, round(short * model.most)


def _picture_sizes(images: Sequence[dict]) -> np.ndarray:
    """Collect widths and heights; int [n, 2]."""
    return np.array(
        [(i["width"], i["height"]) for i in images if i.get("height") and i.get("width")]
    )


def _median_size(images: Sequence[dict]) -> str:
    width, height = np.median(_picture_sizes(images), axis=0)
    return f"{width:.0f} x {height:.0f}"


def _anchor_lines(shapes: statistics.BoxShapes, model: _Model) -> Iterator[str]:
    sizes, ratios = statistics.fit_anchors(shapes, model.num_sizes, model.num_ratios)
    while len(sizes) < model.levels:  # one on each level
        sizes.append(sizes[-1] * 1.5)
    per_level = [[size] for size in sizes] if model.levels > 1 else [sizes]
    low, middle, high = np.quantile(shapes.side, [0.05, 0.5, 0.95])
    iou = shapes.best_iou(sizes, ratios).mean()
    usual = shapes.best_iou([32, 64, 128, 256, 512], [0.5, 1, 2]).mean()
    yield "  ANCHOR_GENERATOR:"
    yield from _comment(
        f"Objects have sides of {low:.0f} to {high:.0f} pixels (5 % to 95 %, median {middle:.0f}) "
        "once pictures are resized. k-means of them gives these sizes and ratios (height / width); "
        f"the mean best IoU of an object with an anchor is {iou:.2f} (with the usual 32 to 512: "
        f"{usual:.2f}).",
        indent=4,
    )
    yield f"    SIZES: {_flow(per_level)}"
    yield f"    ASPECT_RATIOS: {_flow([ratios])}"


def _phases(arguments: argparse.Namespace) -> int:
    """Count the phases after phase 0."""
    return 2 if arguments.method == "paper" else 1


def _batch(arguments: argparse.Namespace) -> int:
    return 2 * max(arguments.num_gpus, 1)


@dataclass(frozen=True)
class _EpochSchedule:
    """Epochs of each phase: why so many, of how many pictures, and how many iterations that is."""

    text: str
    epochs: list[float]
    iterations: list[int]

    @classmethod
    def of(
        cls, arguments: argparse.Namespace, num_labeled: int, num_unlabeled: int
    ) -> _EpochSchedule:
        batch = _batch(arguments)
        pictures = [num_labeled, num_labeled + num_unlabeled // 2, num_labeled + num_unlabeled]
        epochs: list[float] = [_epochs(count, batch) for count in pictures]
        text = (
            f"Of phases 0, 1, 2 with at most {pictures[0]}, {pictures[1]}, {pictures[2]} pictures: "
            f"{_EPOCHS[0]} epochs, up to {_EPOCHS[1]} where that is less than {_ITERATIONS} "
            "iterations"
        )
        if _phases(arguments) == 1:
            passes = sum(e * count for e, count in zip(epochs, pictures, strict=True))
            first = max(_SUPERVISED_EPOCHS * num_labeled, _ITERATIONS * batch)
            first = min(first, _SUPERVISED_PART * passes)
            pictures = [num_labeled, pictures[2]]
            epochs = [
                math.ceil(first / max(pictures[0], 1)),
                round((passes - first) / max(pictures[1], 1), 1),
            ]
            text = (
                f"Of phase 0 with {pictures[0]} pictures and phase 1 with {pictures[1]}: as many "
                "pictures in all as two phases as published would take"
            )
        counts = zip(epochs, pictures, strict=True)
        return cls(text, epochs, [max(1, round(e * count / batch)) for e, count in counts])


def _solver_lines(arguments: argparse.Namespace, schedule: _EpochSchedule) -> Iterator[str]:
    if _MODELS[arguments.model].iterations is not None:
        return
    batch, shortest = _batch(arguments), min(schedule.iterations)
    yield "SOLVER:"
    yield f"  IMS_PER_BATCH: {batch}  # two per GPU"
    yield f"  BASE_LR: {0.02 * batch / 16:g}  # 0.02 for a batch of 16, in proportion"
    if shortest < 10 * _WARM_UP:
        yield f"  WARMUP_ITERS: {shortest // 10}  # a tenth of the shortest phase"


def _schedule_lines(arguments: argparse.Namespace, schedule: _EpochSchedule) -> Iterator[str]:
    iterations = _MODELS[arguments.model].iterations
    if iterations is not None:
        of_phases = list(iterations[_phases(arguments)])
        low, high = (sum(of_phases) * seconds / 3600 for seconds in _SECONDS)
        yield from _comment(
            "Iterations of each phase. Phase 0 should go on until more of it gains nothing: its "
            "model makes the first labels. "
            f"An iteration takes {_SECONDS[0]:g} to {_SECONDS[1]:g} s on two cores, by what else "
            "they do and by the size of the pictures, whose loading takes a good part: "
            f"{low:.1f} to {high:.1f} hours for all. For a short trial see docs/own_data.md.",
            indent=2,
        )
        yield f"  SCHEDULE: {{MAX_ITER: {of_phases}}}"
        return
    yield "  SCHEDULE:"
    yield from _comment(f"{schedule.text}; the learning rate drops after three quarters.", indent=4)
    yield f"    EPOCHS: {_flow(schedule.epochs)}"
    yield f"    STEP_EPOCHS: {_flow([round(0.75 * e, 1) for e in schedule.epochs])}"


def _epochs(images: int, batch: int) -> int:
    return int(np.clip(math.ceil(_ITERATIONS * batch / max(images, 1)), *_EPOCHS))


def _scalar(text: str) -> str:
    return yaml.safe_dump(text, allow_unicode=True, width=10**6).splitlines()[0]


def _flow(value: Any) -> str:
    """Write a value on one line."""
    return yaml.safe_dump(
        value, default_flow_style=True, allow_unicode=True, sort_keys=False, width=10**6
    ).strip()
