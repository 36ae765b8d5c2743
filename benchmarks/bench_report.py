"""How long the report of a large run takes, and how much memory and space.

Pictures (one, under many names), predictions and pseudo-labels of a run of two phases are generated
in a temporary folder, as a run would leave them; ``python -m d2_ssod report`` is then run on it.

    python benchmarks/bench_report.py [--images 50000] [--boxes 20] [--classes 80] [--labeled 5000]
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import d2_ssod.quiet  # noqa: F401

import numpy as np
from bench_pseudo_labels import SIZE, generate
from detectron2.config import CfgNode, get_cfg
from PIL import Image

from d2_ssod.artifacts import (
    RunFolder,
    save_classes,
    save_predictions,
    save_pseudo_labels,
    write_manifest,
)
from d2_ssod.config import add_ssod_config
from d2_ssod.json_files import write_json
from d2_ssod.pseudo_label import build_pseudo_labels
from d2_ssod.structures import Predictions

_SIDE = int(SIZE)


def make_run(folder: Path, args: argparse.Namespace) -> RunFolder:
    """Leave what a run of two phases leaves, but its models."""
    classes = [f"class {number}" for number in range(args.classes)]
    unlabeled = _link_pictures(folder / "unlabeled", args.images)
    labeled = _link_pictures(folder / "labeled", args.labeled)
    write_json(folder / "labeled.json", _coco(labeled, classes, args.boxes))
    run = RunFolder(folder / "run")
    run.root.mkdir()
    run.config.write_text(_config(folder, run, args).dump())
    save_classes(run, classes)
    sources = generate(argparse.Namespace(**{**vars(args), "models": 2}))
    ids = list(range(1, args.classes + 1))
    target = np.full(args.classes, args.boxes / args.classes / 2)
    for phase in (1, 2):
        save_predictions(run.phase(phase - 1).predictions, sources[phase - 1], ids)
        labels = build_pseudo_labels(sources[:phase], target, fraction=phase / 2)
        models = [f"phase_{number}/model_final.pth" for number in range(phase)]
        write_manifest(run.phase(phase).manifest, labels, models=models, thing_classes=classes)
        path = run.phase(phase).pseudo_labels
        save_pseudo_labels(path, labels.selected, unlabeled, classes, ids)
    on_labeled: Predictions = {i + 1: sources[0][i + 1] for i in range(args.labeled)}
    save_predictions(run.phase(2).labeled_predictions, on_labeled, ids)
    return run


def _link_pictures(folder: Path, count: int) -> list[dict]:
    folder.mkdir()
    first = folder / "000001.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (_SIDE // 8, _SIDE // 8, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((_SIDE, _SIDE)).save(first)
    for number in range(2, count + 1):
        os.link(first, folder / f"{number:06d}.jpg")
    return [
        {
            "image_id": number,
            "file_name": str(folder / f"{number:06d}.jpg"),
            "width": _SIDE,
            "height": _SIDE,
        }
        for number in range(1, count + 1)
    ]


def _coco(images: list[dict], classes: list[str], boxes: int) -> dict:
    rng = np.random.default_rng(1)
    corners = rng.uniform(0, _SIDE - 100, (len(images), boxes // 2, 2)).round(1).tolist()
    numbers = rng.integers(1, len(classes) + 1, (len(images), boxes // 2)).tolist()
    return {
        "images": [
            {**image, "id": image["image_id"], "file_name": Path(image["file_name"]).name}
            for image in images
        ],
        "categories": [{"id": n, "name": name} for n, name in enumerate(classes, start=1)],
        "annotations": [
            {
                "id": image["image_id"] * boxes + n,
                "image_id": image["image_id"],
                "category_id": category,
                "bbox": [*corner, 90.0, 90.0],
                "area": 8100.0,
                "iscrowd": 0,
            }
            for image, of_image, of_number in zip(images, corners, numbers, strict=True)
            for n, (corner, category) in enumerate(zip(of_image, of_number, strict=True))
        ],
    }


def _config(folder: Path, run: RunFolder, args: argparse.Namespace) -> CfgNode:
    cfg = get_cfg()
    add_ssod_config(cfg)
    cfg.OUTPUT_DIR = str(run.root)
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = args.classes
    cfg.SSOD.NUM_PHASES = 2
    cfg.DATASETS.TRAIN, cfg.DATASETS.UNLABELED = ("bench_labeled",), ("bench_unlabeled",)
    json_file, pictures = str(folder / "labeled.json"), str(folder / "labeled")
    cfg.SSOD.REGISTER = [
        {"NAME": "bench_labeled", "JSON": json_file, "IMAGES": pictures},
        {"NAME": "bench_unlabeled", "IMAGES": str(folder / "unlabeled")},
    ]
    return cfg


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=50_000, help="unlabeled ones")
    parser.add_argument("--labeled", type=int, default=5_000)
    parser.add_argument("--boxes", type=int, default=20, help="of each model in each image")
    parser.add_argument("--classes", type=int, default=80)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = make_run(Path(folder), args)
        command = [sys.executable, "-m", "d2_ssod", "report", str(run.root)]
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024**2
        size = run.report.stat().st_size / 1024**2
    print(f"{seconds:.1f} s; peak memory {peak:.2f} GB; page {size:.1f} MB")


if __name__ == "__main__":
    main()
