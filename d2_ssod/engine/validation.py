"""What the validation images say of each phase's model, and which one is handed over."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Sequence
from hashlib import sha256

import numpy as np
from detectron2.config import CfgNode

from d2_ssod.artifacts import (
    RunFolder,
    best_phase,
    best_phases,
    discard_validations,
    ensembles_of,
    had_teacher,
    keep_best_model,
    load_phase_model,
    load_validated_ensembles,
    load_validation,
    save_ensemble_validation,
    save_validation,
    title_of_ensemble,
)
from d2_ssod.config import flat_keys
from d2_ssod.data.datasets import read_data_set
from d2_ssod.evaluation import (
    Fusion,
    Metrics,
    evaluate_rows,
    judged_on,
    validate,
    yardstick,
)
from d2_ssod.pseudo_label import easy_fraction

from .labeling.diagnostics import act_on
from .processes.agreement import on_main_process

logger = logging.getLogger(__name__)


def yardstick_of_phases(cfg: CfgNode) -> str:
    """Digest what phases are judged by: the images of ``DATASETS.VAL``, settings of inference."""
    return yardstick(cfg, [read_data_set(name).usable_images() for name in cfg.DATASETS.VAL])


def _of_ensembles(cfg: CfgNode, judged_by: str) -> str:
    settings = list(flat_keys(cfg.SSOD.ENSEMBLE))
    return sha256(repr((judged_by, settings)).encode()).hexdigest()


def discard_other_validations(cfg: CfgNode, judged_by: str) -> None:
    """Forget what was judged by another yardstick."""
    if not cfg.DATASETS.VAL:
        return
    for path in on_main_process(
        lambda: discard_validations(
            RunFolder(cfg.OUTPUT_DIR),
            cfg.SSOD.NUM_PHASES,
            phases_by=judged_by,
            ensembles_by=_of_ensembles(cfg, judged_by),
        )
    ):
        logger.info("%s was of other images or settings; it is made anew", path)


def validate_phase(cfg: CfgNode, phase: int, judged_by: str) -> None:
    """Evaluate the model of a finished phase on ``DATASETS.VAL``, once; on every rank.

    Args:
        cfg: of the run.
        phase: 0..N.
        judged_by: its :func:`yardstick_of_phases`.

    Raises:
        ConfigError: it is worse than its predecessor, and ``SSOD.GUARD.VALIDATION`` is "stop".
    """
    folder = RunFolder(cfg.OUTPUT_DIR)
    if not cfg.DATASETS.VAL:
        return
    if not on_main_process(folder.phase(phase).validation.exists):
        model = load_phase_model(cfg, phase)
        found = [validate(cfg, name, model) for name in cfg.DATASETS.VAL]
        on_main_process(lambda: _save(folder, phase, _mean(found), judged_by))
    on_main_process(lambda: _guard(cfg, folder, phase))


def validate_ensembles(cfg: CfgNode, judged_by: str) -> None:
    """Evaluate the ensembles of all phases as :func:`validate_phase` does a phase."""
    folder, last = RunFolder(cfg.OUTPUT_DIR), cfg.SSOD.NUM_PHASES
    rows = ensembles_of(last)
    known = on_main_process(lambda: load_validated_ensembles(folder, last) is not None)
    if not cfg.DATASETS.VAL or not rows or known:
        return
    models = [load_phase_model(cfg, phase) for phase in range(last + 1)]
    found = []
    for name in cfg.DATASETS.VAL:
        how = judged_on(cfg, name, read_data_set(name).usable_images())
        found.append(evaluate_rows(models, **how, rows=rows, fusion=Fusion.from_config(cfg)))
    on_main_process(lambda: _save_ensembles(cfg, found, _of_ensembles(cfg, judged_by)))


def _save(folder: RunFolder, phase: int, metrics: Metrics, judged_by: str) -> None:
    save_validation(folder, phase, metrics, judged_by)
    logger.info("Phase %d on the validation images: AP %.1f", phase, metrics["AP"])


def _save_ensembles(cfg: CfgNode, found: Sequence[dict[str, Metrics]], judged_by: str) -> None:
    """Write and tell the metrics of the ensembles, from those on each data set."""
    last = cfg.SSOD.NUM_PHASES
    ensembles = {row: _mean([metrics[row] for metrics in found]) for row in ensembles_of(last)}
    save_ensemble_validation(RunFolder(cfg.OUTPUT_DIR), last, ensembles, judged_by)
    for row, metrics in ensembles.items():
        title = title_of_ensemble(row, last)
        logger.info("Ensemble %s on the validation images: AP %.1f", title, metrics["AP"])


def _mean(found: Sequence[Metrics]) -> dict[str, float]:
    """Average metrics over data sets, those that all have."""
    common = [key for key in found[0] if all(key in metrics for metrics in found)]
    return {key: float(np.mean([metrics[key] for metrics in found])) for key in common}


def _guard(cfg: CfgNode, folder: RunFolder, phase: int) -> None:
    """Say, or stop, if the model is worse than that of the phase before."""
    if phase == 0:
        return
    before, now = load_validation(folder, phase - 1), load_validation(folder, phase)
    if before is None or now is None or now >= before - cfg.SSOD.GUARD.VALIDATION_DROP:
        return
    act_on(
        cfg,
        "VALIDATION",
        phase,
        f"AP {now:.1f} on the validation images, {before:.1f} before it: its "
        f"pseudo-labels do harm or the phase is too short; {_advice(cfg, folder, phase)}",
    )


def _advice(cfg: CfgNode, folder: RunFolder, phase: int) -> str:
    """Name what may make a phase better that has not been done yet."""
    steps = ["lengthen it (SSOD.SCHEDULE)"]
    if cfg.SSOD.PHASE_INIT != "previous":
        steps.append("set SSOD.PHASE_INIT to previous")
    steps.append("train phase 0 longer")
    ssod, selects = cfg.SSOD, easy_fraction(phase, cfg.SSOD.NUM_PHASES, cfg.SSOD.EASY_FRACTIONS) < 1
    if had_teacher(folder, phase):
        steps.append("do without SSOD.TEACHER")
    elif selects and ssod.SELECTION != "class_balanced":
        steps.append("take SSOD.SELECTION class_balanced")
    sources = phase + len(ssod.CONSENSUS.EXTRA_SOURCES)
    if ssod.LABELS == "consensus" and sources > 1 and ssod.CONSENSUS.MIN_VOTES != 1:
        steps.append("take SSOD.CONSENSUS.MIN_VOTES 1")
    return ", ".join(steps)


def keep_best(cfg: CfgNode) -> None:
    """Hand over the model that is best on the validation images (``SSOD.KEEP_BEST``).

    An ensemble cannot be copied as one model; if one is better, that is logged.
    """
    if cfg.SSOD.KEEP_BEST:
        on_main_process(lambda: _keep_best(cfg))


def _keep_best(cfg: CfgNode) -> None:
    folder, last = RunFolder(cfg.OUTPUT_DIR), cfg.SSOD.NUM_PHASES
    best = best_phase(folder, last)
    if best is None:
        return
    keep_best_model(folder, best)
    logger.info("Best on the validation images is phase %d: %s", best, folder.best)
    if len(together := best_phases(folder, last)) > 1:
        logger.info(
            "The ensemble of phases %d~%d is better still there: python -m d2_ssod predict %s "
            "... --phase best",
            *(together[0], together[-1], shlex.quote(cfg.OUTPUT_DIR)),
        )
