"""The end of a run: every phase alone and the ensembles, into ``summary.json`` and a table."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, get_detection_dataset_dicts
from detectron2.utils import comm

from d2_ssod.data.loader import build_inference_loader
from d2_ssod.evaluation import (
    build_evaluator,
    difficulty_subsets,
    evaluate_phases,
    format_table,
    summarize,
)
from d2_ssod.files import read_json, write_json

from .phases import phase_files
from .pseudo_labeling import load_phase_model

logger = logging.getLogger(__name__)


def evaluate_run(cfg: CfgNode) -> dict | None:
    """Evaluate the models of all phases in ``OUTPUT_DIR`` on each data set of ``DATASETS.TEST``.

    Writes ``summary.json`` for the first data set and ``summary_<name>.json`` for any other.

    Returns:
        The first summary on the main process; None on the others.

    Raises:
        ConfigError: a phase has not been trained to its end.
    """
    models = [load_phase_model(cfg, phase) for phase in range(cfg.SSOD.NUM_PHASES + 1)]
    infos = _phase_infos(cfg)
    limit = cfg.TEST.DETECTIONS_PER_IMAGE
    summaries = []
    for number, name in enumerate(cfg.DATASETS.TEST):
        images = DatasetCatalog.get(name)
        results = evaluate_phases(
            models,
            build_inference_loader(cfg, images),
            lambda row, name=name: build_evaluator(name),
            weights=list(cfg.SSOD.ENSEMBLE.WEIGHTS) or None,
            iou_thresh=cfg.SSOD.ENSEMBLE.IOU_THRESH,
            skip_box_thresh=cfg.SSOD.ENSEMBLE.SKIP_BOX_THRESH,
            max_detections=limit if limit >= 0 else None,
            subsets=difficulty_subsets(images),
        )
        if comm.is_main_process():
            summary = summarize(name, infos, results)
            file_name = "summary.json" if number == 0 else f"summary_{name}.json"
            path = write_json(Path(cfg.OUTPUT_DIR) / file_name, summary)
            logger.info("Results, also in %s:\n%s", path, format_table(summary))
            summaries.append(summary)
    comm.synchronize()
    return summaries[0] if summaries else None


def _phase_infos(cfg: CfgNode) -> list[dict[str, int]]:
    """How many images and pseudo-boxes each phase was trained on."""
    labeled = get_detection_dataset_dicts(
        list(cfg.DATASETS.TRAIN), filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS
    )
    infos = [{"labeled_images": len(labeled), "pseudo_images": 0, "pseudo_boxes": 0}]
    for phase in range(1, cfg.SSOD.NUM_PHASES + 1):
        content = read_json(phase_files(cfg.OUTPUT_DIR, phase).pseudo_labels)
        boxes = Counter(annotation["image_id"] for annotation in content["annotations"])
        infos.append(
            {
                "labeled_images": len(labeled),
                "pseudo_images": len(boxes),
                "pseudo_boxes": boxes.total(),
            }
        )
    return infos
