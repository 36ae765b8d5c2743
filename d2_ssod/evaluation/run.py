"""The end of a run: every phase alone and the ensembles, into ``summary.json`` and a table."""

from __future__ import annotations

import logging
from collections import Counter

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, get_detection_dataset_dicts
from detectron2.utils import comm

from d2_ssod.artifacts import RunFolder, load_phase_model
from d2_ssod.data.checks import check_same_classes
from d2_ssod.data.datasets import read_data_set
from d2_ssod.data.findings import Findings, raise_first
from d2_ssod.data.loader import build_inference_loader
from d2_ssod.json_files import read_json, write_json

from .difficulty import difficulty_subsets
from .evaluate import evaluate_phases
from .evaluators import build_evaluator
from .fusion import Fusion
from .summary import format_table, summarize

logger = logging.getLogger(__name__)


def evaluate_run(cfg: CfgNode) -> dict | None:
    """Evaluate the models of all phases in ``OUTPUT_DIR`` on each data set of ``DATASETS.TEST``.

    Writes ``summary.json`` for the first data set and ``summary_<name>.json`` for any other.

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
            path = write_json(folder.summary(name if number > 0 else None), summary)
            logger.info("Results, also in %s:\n%s", path, format_table(summary))
            summaries.append(summary)
    comm.synchronize()
    return summaries[0] if summaries else None


def _check_classes(cfg: CfgNode) -> None:
    """Check that the test sets have the classes that the models were trained on."""
    findings = Findings()
    keys = ("TRAIN", "TEST")
    sets = {f"DATASETS.{key} ({name})": name for key in keys for name in cfg.DATASETS[key]}
    check_same_classes({p: read_data_set(n).thing_classes for p, n in sets.items()}, findings)
    raise_first(findings)


def _phase_infos(cfg: CfgNode, folder: RunFolder) -> list[dict[str, int]]:
    """Count how many images and pseudo-boxes each phase was trained on."""
    labeled = get_detection_dataset_dicts(
        list(cfg.DATASETS.TRAIN), filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS
    )
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
