"""Find objects in pictures with a trained model, or with several together, of one run or more.

    python -m d2_ssod predict output/mine pictures/ more/*.jpg --json found.json --draw drawn/
    python -m d2_ssod predict output/mine one.jpg --ensemble --score 0.5
    python -m d2_ssod predict output/mine one.jpg --phase best --with output/other_seed

Takes pictures, folders and patterns. Writes a COCO instances file whose annotations have a score
(--json), text files as YOLO's with the score at the end of a line (--yolo), pictures with boxes
(--draw), in sub-folders as the pictures' where names repeat; without any of them, a line for each
picture. Pictures that cannot be read, and arguments that name none, are left out, named at the end,
and make it exit with 1. What --draw has drawn is left out, too. What was found before an
interruption is kept in the user's cache folder, and not looked for again.
"""

from __future__ import annotations

import argparse
import glob
import itertools
import math
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
    is_of_models,
    labels_of_a_person,
    load_classes,
    load_partial_predictions,
    load_phase_model,
    save_pseudo_labels,
    save_yolo,
    unique_stems,
)
from d2_ssod.data.checks import check_resizable
from d2_ssod.data.datasets import ImageFolders
from d2_ssod.data.findings import Findings
from d2_ssod.data.images import ImageError, map_threaded
from d2_ssod.data.loader import build_inference_loader
from d2_ssod.data.picture_files import PictureFiles
from d2_ssod.drawing import draw_detections
from d2_ssod.errors import ConfigError
from d2_ssod.evaluation import EnsembleRCNN, Fusion
from d2_ssod.inference import predict
from d2_ssod.structures import Detections, Predictions

from .arguments import score
from .kept_predictions import discard, discard_old, folder_of, keeping
from .targets import check_folder_target, check_json_target
from .trained_models import add_phase_argument, choose_phases, open_runs

_OURS = b"drawn by d2_ssod"  # the comment in pictures that may be drawn again
_DRAWN = ".jpg"


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
    parser.add_argument("--score", type=score, default=0.3, help="least score of a box (0.3)")
    parser.add_argument("--json", metavar="FILE", help="write a COCO instances file")
    parser.add_argument("--yolo", metavar="DIR", help="write a text file for each picture")
    parser.add_argument("--draw", metavar="DIR", help="write the pictures with the boxes")


def run(arguments: argparse.Namespace) -> int:
    """Predict and write; 1 if a picture could not be read, else 0."""
    configs = open_runs([arguments.output_dir, *arguments.others])
    cfg, classes = configs[0], load_classes(RunFolder(arguments.output_dir))
    chosen = _chosen(configs, arguments)
    model = _model(chosen, configs)
    files, problems = _expand(arguments.images)
    images, unreadable = _readable(files, cfg)
    problems += unreadable
    _check_targets(arguments, files, images)
    targets = _targets(arguments)
    if images and targets:
        discard_old()
        kept = folder_of(images, chosen)
        found = _predict_on(model, cfg, images, kept)
        _say_if_none_is_above(found, arguments.score)
        _write(arguments, images, _above(found, arguments.score), classes)
        discard(kept)
    elif images:
        found = predict(model, build_inference_loader(cfg, images), description="Predicting")
        _say_if_none_is_above(found, arguments.score)
        _say(images, _above(found, arguments.score), classes)
    for problem in problems:
        print(f"left out: {problem}", file=sys.stderr)
    return 1 if problems else 0


def _targets(arguments: argparse.Namespace) -> list[str]:
    """List what is to be written."""
    return [target for target in (arguments.json, arguments.yolo, arguments.draw) if target]


def _predict_on(model: nn.Module, cfg: CfgNode, images: Sequence[dict], kept: Path) -> Predictions:
    """Predict what this folder has not, and keep it there until it is written."""
    done = load_partial_predictions(kept)
    if done:
        print(f"{len(done)} of {len(images)} pictures were predicted before", file=sys.stderr)
    loader = build_inference_loader(cfg, images, done=done)
    with keeping(kept) as keep:
        found = done | predict(model, loader, description="Predicting", on_batch=keep)
    return {image["image_id"]: found[image["image_id"]] for image in images}


def _above(found: Predictions, score: float) -> Predictions:
    return {i: of_image.select(of_image.scores >= score) for i, of_image in found.items()}


def _say_if_none_is_above(found: Predictions, score: float) -> None:
    best = max((float(of_image.scores.max(initial=0)) for of_image in found.values()), default=0)
    if best >= score:
        return
    said = f"the best has {math.floor(best * 1000) / 1000:g}" if best else "there is none at all"
    print(f"no box has a score of {score:g} or more (--score): {said}", file=sys.stderr)


def _chosen(configs: Sequence[CfgNode], arguments: argparse.Namespace) -> list[tuple[CfgNode, int]]:
    """List the models that the arguments ask for, by run and phase."""
    return [
        (cfg, phase)
        for cfg in configs
        for phase in (
            range(cfg.SSOD.NUM_PHASES + 1)
            if arguments.ensemble
            else choose_phases(cfg, arguments.phase)
        )
    ]


def _model(chosen: Sequence[tuple[CfgNode, int]], configs: Sequence[CfgNode]) -> nn.Module:
    """Load a model, or several as one."""
    models = [load_phase_model(cfg, phase) for cfg, phase in chosen]
    if len(models) == 1:
        return models[0]
    fusion = Fusion.from_config(configs[0])
    if len(configs) == 1:
        phases = [phase for _, phase in chosen]
        fusion = fusion.among(phases, of=configs[0].SSOD.NUM_PHASES + 1)
    else:
        fusion = fusion.of_equals()
    return EnsembleRCNN(models, fusion=fusion).eval()


def _expand(places: Sequence[str]) -> tuple[list[str], list[str]]:
    """List the pictures that the names, folders and patterns stand for, each once.

    Returns:
        the files, and what is said of those that are not read.
    """
    files: dict[str, str] = {}
    findings, empty = Findings(), []
    for place in places:
        found = _files_of(place, findings)
        empty += [] if found else [place]
        for file in found:
            folder, name = os.path.split(file)
            files.setdefault(os.path.join(os.path.realpath(folder), name), file)
    problems = [str(finding) for finding in findings]
    if empty:
        problems.insert(0, f"{', '.join(empty)}: no pictures there")
    pictures, are_drawn = _without_drawings(list(files.values()))
    if are_drawn and not pictures:
        problems.append(f"{are_drawn}, and there are no others")
    elif are_drawn:
        print(are_drawn, file=sys.stderr)
    if not pictures:
        raise ConfigError("; ".join([*problems, "name pictures or folders"]))
    return pictures, problems


def _files_of(place: str, findings: Findings) -> list[str]:
    if os.path.isdir(place):
        return ImageFolders((place,), place).files(findings)
    if os.path.exists(place) or not glob.has_magic(place):
        return [place]
    return sorted(glob.glob(place, recursive=True))


def _without_drawings(files: Sequence[str]) -> tuple[list[str], str]:
    """Leave out what :func:`_draw` has written, which may lie among the pictures, and say so."""
    are_drawn = list(map_threaded(_is_drawing, files, description="Looking at pictures"))
    drawn, said = list(itertools.compress(files, are_drawn)), ""
    if drawn:
        more = f" and {len(drawn) - 1} more" if len(drawn) > 1 else ""
        said = f"left out, as --draw has drawn them: {drawn[0]}{more}"
    return [file for file, is_drawn in zip(files, are_drawn, strict=True) if not is_drawn], said


def _readable(files: Sequence[str], cfg: CfgNode) -> tuple[list[dict], list[str]]:
    """Make the dicts of the pictures that can be read, and say what is wrong with the others."""
    resizing = ("INPUT.MIN_SIZE_TEST", cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)
    images, problems = [], []
    sizes = PictureFiles().sizes(files, "Checking pictures")
    for number, (file, size) in enumerate(zip(files, sizes, strict=True), start=1):
        if isinstance(size, ImageError):
            problems.append(f"{file} {size}")
            continue
        height, width = size
        image = {"file_name": file, "image_id": number, "height": height, "width": width}
        check_resizable([image], [resizing], "", too_long := Findings())
        problems += map(str, too_long)
        if not too_long:
            images.append(image)
    return images, problems


def _check_targets(
    arguments: argparse.Namespace, files: Sequence[str], images: Sequence[dict]
) -> None:
    """Check what is to be written before anything is predicted.

    Raises:
        ConfigError: it is something else, or would overwrite a picture or a person's labels.
    """
    if arguments.json:
        check_json_target(arguments.json, is_of_models)
    for option in ("yolo", "draw"):
        if folder := getattr(arguments, option):
            check_folder_target(option, folder)
    given = set(map(os.path.realpath, files))  # also those that are left out
    names = unique_stems(images)
    for name in names:
        drawing = _drawing(arguments.draw, name) if arguments.draw else None
        if drawing and (os.path.realpath(drawing) in given or _is_of_others(drawing)):
            raise ConfigError(
                f"--draw {arguments.draw} would overwrite the picture {name}.jpg; name another "
                "folder"
            )
    if arguments.yolo:
        labels = labels_of_a_person(Path(arguments.yolo), names)
        if labels is not None:
            raise ConfigError(
                f"--yolo {arguments.yolo} would overwrite {labels.name}, which may be a person's "
                "labels, as it has no scores; name another folder"
            )


def _drawing(folder: str, name: str) -> Path:
    return Path(folder) / f"{name}{_DRAWN}"


def _is_of_others(path: Path) -> bool:
    return path.exists() and not _is_drawing(path)


def _is_drawing(path: str | Path) -> bool:
    """Tell whether :func:`_draw` has written a file."""
    if os.path.splitext(path)[1] != _DRAWN:
        return False
    try:
        with Image.open(path) as image:
            return image.info.get("comment") == _OURS
    except (OSError, Image.DecompressionBombError):  # no picture, or one of another kind
        return False


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
    if arguments.draw:
        for image, name in zip(images, unique_stems(images), strict=True):
            _draw(_drawing(arguments.draw, name), image, found[image["image_id"]], classes)
    boxes = sum(map(len, found.values()))
    print(f"{len(images)} pictures, {boxes} boxes: {', '.join(_targets(arguments))}")


def _say(images: list[dict], found: Predictions, classes: list[str]) -> None:
    for image in images:
        print(f"{image['file_name']}: {_describe(found[image['image_id']], classes)}")


def _draw(path: Path, image: dict, found: Detections, classes: list[str]) -> None:
    """Save the picture with boxes."""
    drawn = draw_detections(read_image(image["file_name"], "RGB"), found, classes)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(drawn.permute(1, 2, 0).numpy()).save(path, comment=_OURS)


def _describe(found: Detections, classes: list[str]) -> str:
    """Say in a line what was found in a picture."""
    rows = zip(found.classes, found.scores, found.boxes.tolist(), strict=True)
    objects = [
        f"{classes[number]} {score:.0%} [{', '.join(f'{v:.0f}' for v in box)}]"
        for number, score, box in rows
    ]
    return "; ".join(objects) or "nothing"
