"""The end of a run: every phase alone and the ensembles, into ``summary.json`` and a table."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.data.build import filter_images_with_only_crowd_annotations
from detectron2.utils import comm
from torch import nn

from d2_ssod.artifacts import RunFolder, best_phase, load_phase_model
from d2_ssod.data.checks import check_same_classes
from d2_ssod.data.datasets import read_data_set
from d2_ssod.data.findings import Findings, raise_first
from d2_ssod.data.loader import build_inference_loader
from d2_ssod.json_files import read_json, write_json

from .coco_metrics import Metrics
from .difficulty import difficulty_subsets
from .evaluate import evaluate_phases
from .evaluators import build_evaluator
from .fusion import Fusion
from .summary import format_table, summarize

logger = logging.getLogger(__name__)


def evaluate_run(cfg: CfgNode) -> dict | None:
    """Evaluate the models of all phases in ``OUTPUT_DIR`` on each data set of ``DATASETS.TEST``.

    Writes ``summary.json`` for the first data set and ``summary_<name>.json`` for any other, or if
    ``summary.json`` is of another data set already.

    Returns:
        The first summary on the main process; None on the others, and without a test set.

    Raises:
        ConfigError: a phase has not been trained to its end, or a test set has other classes.
    """
    if not cfg.DATASETS.TEST:
        logger.info("DATASETS.TEST names no data set: nothing is evaluated")
        return None
    _check_classes(cfg)
    models = [load_phase_model(cfg, phase) for phase in range(cfg.SSOD.NUM_PHASES + 1)]
    folder = RunFolder(cfg.OUTPUT_DIR)
    infos = _phase_infos(cfg, folder)
    summaries = []
    for number, name in enumerate(cfg.DATASETS.TEST):
        images = DatasetCatalog.get(name)
        results = evaluate_phases(
            models,
            build_inference_loader(cfg, images),
            lambda row, name=name: build_evaluator(name),
            fusion=Fusion.from_config(cfg),
            subsets=difficulty_subsets(images),
        )
        if comm.is_main_process():
            summary = summarize(name, infos, results)
            summary.update(_known_otherwise(cfg, folder))
            path = write_json(_summary_path(folder, name, is_first=number == 0), summary)
            logger.info("Results, also in %s:\n%s", path, format_table(summary))
            summaries.append(summary)
    comm.synchronize()
    return summaries[0] if summaries else None


def validate(cfg: CfgNode, dataset_name: str, model: nn.Module) -> Metrics:
    """Evaluate one model on a data set; on every rank.

    Returns:
        its metrics on the main process; none on the others.
    """
    results = evaluate_phases(
        [model],
        build_inference_loader(cfg, DatasetCatalog.get(dataset_name)),
        lambda row: build_evaluator(dataset_name),
    )
    return {} if results is None else results.phases[0]


def _summary_path(folder: RunFolder, name: str, *, is_first: bool) -> Path:
    """Name the file of the results on a data set; what another one has left stays."""
    path = folder.summary()
    if is_first and (not path.exists() or read_json(path).get("dataset") == name):
        return path
    if is_first:
        logger.info("%s is of another data set, and stays", path)
    return folder.summary(name)


def _check_classes(cfg: CfgNode) -> None:
    """Check that the test sets have the classes that the models were trained on."""
    sets = {
        f"DATASETS.{key} ({name})": read_data_set(name)
        for key in ("TRAIN", "TEST")
        for name in cfg.DATASETS[key]
    }
    findings = Findings(f for found in sets.values() for f in found.findings if f.level == "error")
    raise_first(findings)
    check_same_classes({place: found.thing_classes for place, found in sets.items()}, findings)
    raise_first(findings)


def _known_otherwise(cfg: CfgNode, folder: RunFolder) -> dict[str, Any]:
    """Add what the run knows of its phases besides these results."""
    last = cfg.SSOD.NUM_PHASES
    best = best_phase(folder, last)
    manifests = {phase: folder.phase(phase).manifest for phase in range(1, last + 1)}
    quality = {
        str(phase): read_json(path).get("quality", {}).get("selected")
        for phase, path in manifests.items()
        if path.exists()
    }
    known = {phase: of_phase for phase, of_phase in quality.items() if of_phase}
    return {
        **({} if best is None else {"best_phase_by_validation": best}),
        **({"label_quality": known} if known else {}),
    }


def _phase_infos(cfg: CfgNode, folder: RunFolder) -> list[dict[str, int]]:
    """Count how many images and pseudo-boxes each phase was trained on."""
    labeled = [image for name in cfg.DATASETS.TRAIN for image in DatasetCatalog.get(name)]
    if cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS:
        labeled = filter_images_with_only_crowd_annotations(labeled)
    infos = [{"labeled_images": len(labeled), "pseudo_images": 0, "pseudo_boxes": 0}]
    for phase in range(1, cfg.SSOD.NUM_PHASES + 1):
        content = read_json(folder.phase(phase).pseudo_labels)
        boxes = Counter(annotation["image_id"] for annotation in content["annotations"])
        infos.append(
            {
                "labeled_images": len(labeled),
                "pseudo_images": len(boxes),
                "pseudo_boxes": boxes.total(),
            }
        )
    return infos
