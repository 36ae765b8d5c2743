"""Algorithm 1: uncertainty-guided multi-phase learning."""

from __future__ import annotations

import functools
import logging

from detectron2.config import CfgNode
from detectron2.utils import comm

from d2_ssod.artifacts import RunFolder, record_training

from .configs.schedule import WARM_UP_REMEDY, describe_schedule, phase_config, warm_up_problem
from .hooks import PseudoLabelHook, RecordTraining, ShowPseudoLabels
from .labeling.next_phase import label_next_phase, read_pseudo_labels
from .labeling.predicting import predict_labeled
from .pausing import pauses_before
from .processes.agreement import on_main_process
from .resuming import said_of_model
from .run_data import RunData, learned_without_labels
from .starting import begin, check_trained, warn_of_what_is_not_called
from .training.phase_trainer import PhaseTrainer
from .validation import (
    discard_other_validations,
    keep_best,
    validate_ensembles,
    validate_phase,
    yardstick_of_phases,
)

logger = logging.getLogger(__name__)


def train_phases(
    cfg: CfgNode, data: RunData, trainer_class: type[PhaseTrainer] = PhaseTrainer
) -> bool:
    """Train the phases 0..N one after another, from the first one that is not finished.

    Phase 0 trains on the labeled images. After each phase but the last, its hook labels the
    unlabeled images with the models of all phases so far; the next phase trains on the labeled and
    on the selected pseudo-labeled images.

    Args:
        cfg: the run's config. What its ``OUTPUT_DIR`` holds of the run is gone on with.
        data: the data sets of the run.
        trainer_class: of one's own for something that a phase does in another way.

    Returns:
        whether all are trained; False where it ends with new labels (``SSOD.PSEUDO_LABEL.PAUSE``).

    Raises:
        ConfigError: what is in ``OUTPUT_DIR`` was made with other images or settings.
    """
    warn_of_what_is_not_called(trainer_class)
    begin(cfg, data)
    folder, last = RunFolder(cfg.OUTPUT_DIR), cfg.SSOD.NUM_PHASES
    judged_by = yardstick_of_phases(cfg)
    discard_other_validations(cfg, judged_by)
    for phase in range(last + 1):
        if not on_main_process(folder.phase(phase).model.exists):
            _train_phase(cfg, phase, data, trainer_class)
        elif phase < last:
            label_next_phase(cfg, phase, data)  # Interrupted before, or the labels were deleted.
            # If that one is trained already, it must have learned from these very labels.
            on_main_process(lambda phase=phase: check_trained(cfg, phase + 1, data))
        validate_phase(cfg, phase, judged_by)
        if phase < last and on_main_process(functools.partial(pauses_before, cfg, phase + 1)):
            return False
    validate_ensembles(cfg, judged_by)
    keep_best(cfg)
    predict_labeled(cfg, data)
    return True


def _train_phase(
    cfg: CfgNode, phase: int, data: RunData, trainer_class: type[PhaseTrainer]
) -> None:
    """Train a phase on what it is trained on; its hook labels for the next one."""
    last = cfg.SSOD.NUM_PHASES
    others = (
        read_pseudo_labels(cfg, phase, data)
        if phase > 0
        else learned_without_labels(cfg, phase, data)
    )
    own = phase_config(cfg, phase, len(data.labeled), len(others))
    schedule = describe_schedule(
        own, len(data.labeled), len(others), "pseudo-labeled" if phase > 0 else "unlabeled"
    )
    then = f"it labels {len(data.unlabeled)} images" if phase < last else "all phases are evaluated"
    logger.info("Phase %d of 0..%d: %s; then %s", phase, last, schedule, then)
    if problem := warm_up_problem(own, phase):
        logger.warning("%s; %s", problem, WARM_UP_REMEDY)
    trainer = trainer_class(own, phase, data.labeled, others)
    if own.SSOD.TEACHER.ENABLED:
        logger.info(
            "Phase %d: the mean teacher labels every batch anew; %s only says which images there "
            "are; what a person has labeled stays: SSOD.PSEUDO_LABEL.CORRECTED",
            phase,
            RunFolder(cfg.OUTPUT_DIR).phase(phase).pseudo_labels,
        )
        # Its images are those in which a model found something.
        trainer.learn_from_teacher(data.objects_per_image_with_objects)
    folder = RunFolder(cfg.OUTPUT_DIR)
    trainer.register_first(RecordTraining(folder, phase, own.SOLVER.IMS_PER_BATCH))
    if phase > 0 and comm.is_main_process():
        trainer.register_hooks([ShowPseudoLabels(others, data)])
    del others  # of which the trainer has its own, smaller form
    if phase < last:
        trainer.register_hooks([PseudoLabelHook(cfg, phase, data)])
    trainer.resume_or_load(resume=True)
    on_main_process(lambda: _record(cfg, own, phase, data))
    trainer.train()


def _record(cfg: CfgNode, own: CfgNode, phase: int, data: RunData) -> None:
    """Write what a phase is trained with, and forget what is known of an earlier model."""
    folder = RunFolder(cfg.OUTPUT_DIR)
    record_training(own, phase, data.labeled, folder, learned_without_labels(cfg, phase, data))
    for path in said_of_model(folder, phase):
        path.unlink(missing_ok=True)
