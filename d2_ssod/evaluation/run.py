"""The end of a run: every phase alone and the ensembles, into ``summary.json`` and a table."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.utils import comm
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from d2_ssod.artifacts import (
    RunFolder,
    best_phase,
    best_phases,
    check_classes,
    counts_of_training,
    load_phase_model,
    load_validated,
    load_validated_ensembles,
    summary_path,
    timed_event,
    title_of_ensemble,
)
from d2_ssod.data.checks import check_same_classes
from d2_ssod.data.datasets import NamedDataSets, read_data_set
from d2_ssod.data.findings import Findings, raise_first
from d2_ssod.data.loader import build_inference_loader
from d2_ssod.data.objects import trained_on
from d2_ssod.json_files import read_record, write_json

from .coco_metrics import Metrics
from .difficulty import difficulty_subsets
from .evaluate import evaluate_phases
from .evaluators import build_evaluator
from .fusion import Fusion
from .summary import format_metrics, format_table, summarize
from .yardstick import yardstick

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
        logger.info("DATASETS.TEST names no data set: nothing is tested")
        if comm.is_main_process() and (table := _validated(cfg)):
            logger.info("Results on the validation images:\n%s", table)
        return None
    sets = _read_data_sets(cfg)
    check_classes(cfg, sets.thing_classes)
    models = [load_phase_model(cfg, phase) for phase in range(cfg.SSOD.NUM_PHASES + 1)]
    folder = RunFolder(cfg.OUTPUT_DIR)
    # Before hours of evaluation, what files of the run may be damaged.
    infos, known = _phase_infos(cfg, folder, sets), _known_otherwise(cfg, folder)
    paths = _summary_paths(cfg, folder)
    summaries = []
    for name, path in paths.items():
        images = sets.named["TEST", name].images
        judged_by = yardstick(cfg, [images])
        with timed_event(folder, "evaluated", data=name, judged_by=judged_by):
            how = judged_on(cfg, name, images)
            results = evaluate_phases(models, **how, fusion=Fusion.from_config(cfg))
        if comm.is_main_process():
            summary = summarize(name, infos, results) | known
            write_json(path, summary)
            logger.info("Results, also in %s:\n%s", path, format_table(summary))
            _show(folder, name, summary)
            summaries.append(summary)
    comm.synchronize()
    return summaries[0] if summaries else None


def judged_on(cfg: CfgNode, dataset_name: str, images: Sequence[dict]) -> dict[str, Any]:
    """Give the arguments of ``evaluate_phases`` and ``evaluate_rows`` that a test set decides.

    Args:
        cfg: sizes of the images, batch size.
        dataset_name: of the registered test set.
        images: its images.
    """
    evaluator = build_evaluator(dataset_name)
    return {
        "data_loader": build_inference_loader(cfg, images),
        # Each row collects of its own; the ground truth is read once for all.
        "make_evaluator": lambda row: copy.copy(evaluator),
        "subsets": difficulty_subsets(images),
    }


def _show(folder: RunFolder, name: str, summary: dict[str, Any]) -> None:
    """Write the results to TensorBoard: the table as text, the phases' metrics as curves."""
    with SummaryWriter(str(folder.root)) as writer:
        writer.add_text(f"results/{name}", f"```\n{format_table(summary)}\n```")
        for phase in summary["phases"]:
            for metric in ("AP", "AP50"):
                value = phase["metrics"].get(metric)
                if value is not None:
                    writer.add_scalar(f"{name}/{metric}", value, phase["phase"])


def validate(cfg: CfgNode, dataset_name: str, model: nn.Module) -> Metrics:
    """Evaluate one model on a data set; on every rank.

    Returns:
        its metrics on the main process; none on the others.
    """
    results = evaluate_phases(
        [model],
        build_inference_loader(cfg, read_data_set(dataset_name).usable_images()),
        lambda row: build_evaluator(dataset_name),
    )
    return {} if results is None else results.phases[0]


def _summary_paths(cfg: CfgNode, folder: RunFolder) -> dict[str, Path]:
    """Name the file of the results on each test set."""
    first, *others = cfg.DATASETS.TEST
    # One file for each data set, also where it was the first one at another time.
    paths = {name: summary_path(folder, name) for name in cfg.DATASETS.TEST}
    if paths[first] == folder.summary():  # about to be written
        paths |= {name: folder.summary(name) for name in others}
    if folder.summary() not in paths.values():
        logger.info("%s is of another data set, and stays", folder.summary())
    return paths


def _validated(cfg: CfgNode) -> str | None:
    """Format what the validation images say of the models; None if they say nothing."""
    folder, last = RunFolder(cfg.OUTPUT_DIR), cfg.SSOD.NUM_PHASES
    found = {f"phase {n}": load_validated(folder, n) for n in range(last + 1)}
    for name, metrics in (load_validated_ensembles(folder, last) or {}).items():
        found[f"ensemble {title_of_ensemble(name, last)}"] = metrics
    known = {name: metrics for name, metrics in found.items() if metrics}
    # Not by their names in the config, which may have changed since.
    return format_metrics("while training", known) if known else None


def _read_data_sets(cfg: CfgNode) -> NamedDataSets:
    """Read the labeled and the test sets, and check that they have the same classes."""
    keys, findings = ("TRAIN", "TEST"), Findings()
    sets = NamedDataSets.read(cfg, keys).usable()
    check_same_classes({at: found.thing_classes for at, found in sets.placed(*keys)}, findings)
    raise_first(findings)
    return sets


def _known_otherwise(cfg: CfgNode, folder: RunFolder) -> dict[str, Any]:
    """Add what the run knows of its phases besides these results."""
    last = cfg.SSOD.NUM_PHASES
    known: dict[str, Any] = {}
    best, together = best_phase(folder, last), best_phases(folder, last)
    if best is not None:
        known["best_phase_by_validation"] = best
        known["best_phases_by_validation"] = together
    for phase in range(1, last + 1):
        path = folder.phase(phase).manifest
        made = read_record(path, {}, {"quality": dict}) if path.exists() else {}
        if selected := made.get("quality", {}).get("selected"):
            known.setdefault("label_quality", {})[str(phase)] = selected
    return known


def _phase_infos(cfg: CfgNode, folder: RunFolder, sets: NamedDataSets) -> list[dict[str, int]]:
    """Count how many images and pseudo-boxes each phase was trained on, or would be now."""
    labeled = trained_on(cfg, sets.of_key("TRAIN"))
    phases = range(cfg.SSOD.NUM_PHASES + 1)
    return [counts_of_training(cfg, phase, folder, len(labeled)) for phase in phases]
