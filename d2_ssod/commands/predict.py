"""Find objects in pictures with a trained model, or with several together, of one run or more.

    python -m d2_ssod predict output/mine pictures/ more/*.jpg --json found.json --draw drawn/
    python -m d2_ssod predict output/mine one.jpg --ensemble --score 0.5
    python -m d2_ssod predict output/mine one.jpg --phase best --with output/other_seed

Takes pictures, folders and patterns. Writes a COCO instances file whose annotations have a score
(--json), text files as YOLO's with the score at the end of a line (--yolo), pictures with boxes
(--draw); without any of them, a line for each picture. Pictures that cannot be read are left out,
named at the end, and make it exit with 1.
"""

from __future__ import annotations

import argparse
import glob
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data.detection_utils import read_image
from PIL import Image
from torch import nn

from d2_ssod.artifacts import (
    RunFolder,
    load_classes,
    load_phase_model,
    save_pseudo_labels,
    save_yolo,
    unique_stems,
)
from d2_ssod.data.datasets import ImageFolders
from d2_ssod.data.images import ImageError, check_pictures
from d2_ssod.data.loader import build_inference_loader
from d2_ssod.drawing import draw_detections
from d2_ssod.errors import ConfigError
from d2_ssod.evaluation import EnsembleRCNN, Fusion
from d2_ssod.inference import predict
from d2_ssod.structures import Detections, Predictions

from .trained_models import add_phase_argument, choose_phases, open_runs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("output_dir", metavar="OUTPUT_DIR", help="of a run")
    parser.add_argument("images", nargs="+", metavar="IMAGES", help="pictures, folders, patterns")
    parser.add_argument(
        "--with",
        dest="others",
        action="append",
        default=[],
        metavar="OUTPUT_DIR",
        help="another run whose model is fused with it, such as one of another SEED; may be given "
        "several times",
    )
    which = parser.add_mutually_exclusive_group()
    add_phase_argument(which)
    which.add_argument("--ensemble", action="store_true", help="models of all phases, fused")
    parser.add_argument("--score", type=float, default=0.3, help="least score of a box (0.3)")
    parser.add_argument("--json", metavar="FILE", help="write a COCO instances file")
    parser.add_argument("--yolo", metavar="DIR", help="write a text file for each picture")
    parser.add_argument("--draw", metavar="DIR", help="write the pictures with the boxes")


def run(arguments: argparse.Namespace) -> int:
    """Predict and write; 1 if a picture could not be read, else 0."""
    configs = open_runs([arguments.output_dir, *arguments.others])
    cfg, classes = configs[0], load_classes(RunFolder(arguments.output_dir))
    model = _model(configs, arguments)
    images, problems = _readable(_expand(arguments.images))
    if images:
        found = predict(model, build_inference_loader(cfg, images), description="Predicting")
        found = {
            i: of_image.select(of_image.scores >= arguments.score) for i, of_image in found.items()
        }
        _write(arguments, images, found, classes)
    for problem in problems:
        print(f"left out: {problem}", file=sys.stderr)
    return 1 if problems else 0


def _model(configs: Sequence[CfgNode], arguments: argparse.Namespace) -> nn.Module:
    """Load the model that the arguments ask for, or several as one."""
    phases = [
        range(cfg.SSOD.NUM_PHASES + 1)
        if arguments.ensemble
        else choose_phases(cfg, arguments.phase)
        for cfg in configs
    ]
    models = [
        load_phase_model(cfg, phase)
        for cfg, of_run in zip(configs, phases, strict=True)
        for phase in of_run
    ]
    if len(models) == 1:
        return models[0]
    fusion = Fusion.from_config(configs[0])
    if len(configs) == 1:
        fusion = fusion.among(phases[0], of=configs[0].SSOD.NUM_PHASES + 1)
    else:
        fusion = fusion.of_equals()
    return EnsembleRCNN(models, fusion=fusion).eval()


def _expand(places: Sequence[str]) -> list[str]:
    """List the pictures that the names, folders and patterns stand for, each once."""
    files: list[str] = []
    for place in places:
        if os.path.isdir(place):
            files += ImageFolders((place,), place).files()
        elif os.path.exists(place) or not glob.has_magic(place):
            files.append(place)
        else:
            files += sorted(glob.glob(place, recursive=True))
    if not files:
        raise ConfigError(f"{', '.join(places)}: no pictures there; name pictures or folders")
    return list(dict.fromkeys(files))


def _readable(files: Sequence[str]) -> tuple[list[dict], list[str]]:
    """Make the dicts of the pictures that can be read, and say what is wrong with the others."""
    images, problems = [], []
    sizes = check_pictures(files, description="Checking pictures")
    for number, (file, size) in enumerate(zip(files, sizes, strict=True), start=1):
        if isinstance(size, ImageError):
            problems.append(f"{file} {size}")
            continue
        height, width = size
        images.append({"file_name": file, "image_id": number, "height": height, "width": width})
    return images, problems


def _write(
    arguments: argparse.Namespace,
    images: list[dict],
    found: Predictions,
    classes: list[str],
) -> None:
    if arguments.json:
        save_pseudo_labels(arguments.json, found, images, classes, range(1, len(classes) + 1))
    if arguments.yolo:
        save_yolo(Path(arguments.yolo), images, found, with_scores=True)
    for image, name in zip(images, unique_stems(images), strict=True):
        of_image = found[image["image_id"]]
        if arguments.draw:
            _draw(Path(arguments.draw) / f"{name}.jpg", image, of_image, classes)
        if not (arguments.json or arguments.yolo or arguments.draw):
            print(f"{image['file_name']}: {_describe(of_image, classes)}")
    places = [p for p in (arguments.json, arguments.yolo, arguments.draw) if p]
    if places:
        boxes = sum(map(len, found.values()))
        print(f"{len(images)} pictures, {boxes} boxes: {', '.join(places)}")


def _draw(path: Path, image: dict, found: Detections, classes: list[str]) -> None:
    """Save the picture with boxes."""
    drawn = draw_detections(read_image(image["file_name"], "RGB"), found, classes)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(drawn.permute(1, 2, 0).numpy()).save(path)


def _describe(found: Detections, classes: list[str]) -> str:
    """Say in a line what was found in a picture."""
    rows = zip(found.classes, found.scores, found.boxes.tolist(), strict=True)
    objects = [
        f"{classes[number]} {score:.0%} [{', '.join(f'{v:.0f}' for v in box)}]"
        for number, score, box in rows
    ]
    return "; ".join(objects) or "nothing"
