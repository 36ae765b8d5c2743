"""Fig. 2b and Table 5: every phase's model, and ensembles, on easy and on difficult test images.

An image is easy if the recall of phase 0's pseudo-labels on it is more than 1 - precision.
"""

from __future__ import annotations

from pathlib import Path

from detectron2.data import DatasetCatalog

from d2_ssod.data.loader import build_inference_loader
from d2_ssod.evaluation import (
    Fusion,
    build_evaluator,
    easy_images,
    evaluate_phases,
    ground_truth,
)
from d2_ssod.inference import predict
from d2_ssod.modeling import num_classes
from d2_ssod.pseudo_label import match_counts, objects_per_image

from .finished import load_models, open_run
from .plots import bars

SUBSETS = ("all", "easy", "difficult")


def compute(output_dir: Path) -> dict:
    """Split the test images of a finished run, and evaluate all its models on both parts."""
    cfg = open_run(output_dir)
    name = cfg.DATASETS.TEST[0]
    images, models = ground_truth(name), load_models(cfg)
    labeled = [image for train in cfg.DATASETS.TRAIN for image in DatasetCatalog.get(train)]
    target = objects_per_image(labeled, num_classes(cfg))
    loader = build_inference_loader(cfg, images)
    ids = [image["image_id"] for image in images]
    found = predict(models[0], loader, description="Phase 0 on test images", image_ids=ids)
    easy = easy_images(match_counts(found, target).apply(found), images)
    subsets = {"easy": easy, "difficult": [i for i in ids if i not in set(easy)]}
    results = evaluate_phases(
        models,
        loader,
        lambda row: build_evaluator(name),
        fusion=Fusion.from_config(cfg),
        subsets={part: part_ids for part, part_ids in subsets.items() if part_ids},
    )
    rows = {f"phase {number}": metrics for number, metrics in enumerate(results.phases)}
    rows |= {f"ensemble {row}": metrics for row, metrics in results.ensembles.items()}
    return {
        "figure": "2b",
        "table": "5",
        "dataset": name,
        "images": {part: len(part_ids) for part, part_ids in subsets.items()},
        "AP50": {row: _by_subset(metrics, "AP50") for row, metrics in rows.items()},
        "AP": {row: _by_subset(metrics, "AP") for row, metrics in rows.items()},
    }


def draw(result: dict, path: Path) -> None:
    """Draw AP50 of each model on the easy and on the difficult images."""
    rows = result["AP50"]
    series = {part: [rows[row][part] or 0.0 for row in rows] for part in SUBSETS}
    labels = [row.replace("ensemble ", "") for row in rows]
    bars(path, labels, series, labels=("", "AP50"))


def _by_subset(metrics: dict[str, float], key: str) -> dict[str, float | None]:
    return {part: metrics.get(key if part == "all" else f"{key}/{part}") for part in SUBSETS}
