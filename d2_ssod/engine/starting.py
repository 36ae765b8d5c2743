"""What a run does before its first phase: checks that show in minutes what would fail in hours."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from inspect import getattr_static

from detectron2.config import CfgNode

from d2_ssod.artifacts import (
    RunFolder,
    check_classes,
    check_label_settings,
    check_training,
    forget_lengths,
    had_teacher,
    save_classes,
)
from d2_ssod.config import with_values
from d2_ssod.evaluation import load_truth
from d2_ssod.structures import Predictions

from .adoption import adopt_phase_0, adopt_pseudo_labels
from .configs.files import save_run_config
from .configs.schedule import phase_config
from .labeling.corrections import load_corrected, unused_corrections
from .labeling.extra_sources import check_extra_sources
from .labeling.predicting import check_existing_predictions, unused_images
from .processes.agreement import on_main_process
from .resuming import check_models_are_there
from .run_data import RunData, learned_without_labels
from .training.phase_trainer import PhaseTrainer, check_weights

logger = logging.getLogger(__name__)

# Methods of Detectron2's trainers that a subclass may override, but that are never called here.
_NOT_CALLED = ("build_train_loader", "build_test_loader", "build_evaluator", "test")


def begin(cfg: CfgNode, data: RunData) -> None:
    """Check what ``OUTPUT_DIR`` holds of the run, take what is made elsewhere, keep the config."""
    folder = RunFolder(cfg.OUTPUT_DIR)
    forget_lengths()
    on_main_process(lambda: check_classes(cfg, data.thing_classes))
    on_main_process(lambda: save_classes(folder, data.thing_classes))
    # What users supply is read now, so that errors in it show before phase 0, not hours later.
    if cfg.SSOD.DIAGNOSTICS.UNLABELED_TRUTH:
        load_truth(cfg, data.unlabeled, data.thing_classes)
    adopt_phase_0(cfg, data.thing_classes)
    adopt_pseudo_labels(cfg, data)
    corrected = load_corrected(cfg, data)
    on_main_process(lambda: check_made(cfg, data))
    on_main_process(lambda: check_extra_sources(cfg, data))
    for line in on_main_process(lambda: list(given_in_vain(cfg, data, corrected))):
        logger.warning("%s", line)
    for phase in on_main_process(lambda: _phases_from_weights(cfg)):
        check_weights(cfg.MODEL.WEIGHTS, phase)
    save_run_config(cfg)  # Nothing refuses it any more.


def _phases_from_weights(cfg: CfgNode) -> list[int]:
    """List the phases that are still to begin, from ``MODEL.WEIGHTS``."""
    folder = RunFolder(cfg.OUTPUT_DIR)
    return [
        phase
        for phase in range(cfg.SSOD.NUM_PHASES + 1)
        if (phase == 0 or cfg.SSOD.PHASE_INIT == "pretrained")
        and not folder.phase(phase).has_weights()
    ]


def check_made(cfg: CfgNode, data: RunData) -> None:
    """Check that what exists of all phases was made with what it would be made with now.

    Raises:
        ConfigError: otherwise, naming the first three differences of a phase; or a model is gone of
            which others are there.
    """
    check_models_are_there(cfg)
    check_existing_predictions(cfg, data)
    for phase in range(cfg.SSOD.NUM_PHASES + 1):
        check_trained(cfg, phase, data)
        if phase > 0:
            check_label_settings(cfg, phase)


def given_in_vain(cfg: CfgNode, data: RunData, corrected: Predictions) -> Iterator[str]:
    """Say of images, or of a person's labels, that they come too late to be learned from."""
    lines = unused_corrections(cfg, corrected, data), unused_images(cfg, data)
    yield from (line for line in lines if line is not None)


def check_trained(cfg: CfgNode, phase: int, data: RunData) -> None:
    """Check that what exists of a phase was trained with what it would be trained with now."""
    # Of its length, which alone depends on the number of pseudo-labeled images, anything fits.
    own, folder = phase_config(cfg, phase, 1, 1), RunFolder(cfg.OUTPUT_DIR)
    if cfg.SSOD.TEACHER.ENABLED and had_teacher(folder, phase):  # it was the last phase then
        own = with_values(own, {"SSOD.TEACHER.ENABLED": True})
    check_training(own, phase, data.labeled, folder, learned_without_labels(cfg, phase, data))


def warn_of_what_is_not_called(trainer_class: type[PhaseTrainer]) -> None:
    """Say which methods of a trainer of one's own are not called, or not everywhere."""
    if unread := _overridden(trainer_class, PhaseTrainer, _NOT_CALLED):
        logger.warning(
            "%s of %s will not be called: images are read, labeled and judged in the same way in "
            "all phases and commands (docs/extending.md)",
            *(", ".join(unread), trainer_class.__name__),
        )
    if _overridden(trainer_class, PhaseTrainer, ["build_model"]):
        logger.warning(
            "build_model of %s is called in training alone: where models are loaded they are built "
            "by the config; register what it builds as a meta-architecture (docs/extending.md)",
            trainer_class.__name__,
        )


def _overridden(own: type, base: type, names: Sequence[str]) -> list[str]:
    """List the methods of these names that a subclass has replaced."""
    return [n for n in names if getattr_static(own, n) is not getattr_static(base, n)]
