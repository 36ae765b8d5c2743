"""What lies of a run in its output folder, when it goes on."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from detectron2.config import CfgNode

from d2_ssod.artifacts import (
    PhaseFolder,
    RunFolder,
    differences_between,
    evaluation_settings,
    summaries_of_phase,
)
from d2_ssod.config import flat_keys, value_of, with_values
from d2_ssod.errors import ConfigError

from .configs.files import read_run_config

logger = logging.getLogger(__name__)

# What an evaluation alone goes by, besides what its results depend on.
_OF_EVALUATIONS = ("SSOD.NUM_PHASES", "SSOD.REGISTER")
_TRUTH = "SSOD.DIAGNOSTICS.UNLABELED_TRUTH"  # where it is given now, too


def check_models_are_there(cfg: CfgNode) -> None:
    """Check that the models of which the run has predictions, labels or others exist.

    Raises:
        ConfigError: one is gone; what it has made would be taken for what a new one makes.
    """
    folder, last = RunFolder(cfg.OUTPUT_DIR), cfg.SSOD.NUM_PHASES
    files = [folder.phase(phase) for phase in range(last + 1)]
    untrained = next((p for p in range(last + 1) if not files[p].model.exists()), last + 1)
    if left := _made_of_model_after(files[untrained:]):
        raise ConfigError(
            f"{', '.join(map(str, left))}: made with {files[untrained].model}, which does not "
            "exist: restore it; or delete all of these to train that phase and what follows again; "
            "or start anew without --resume, which sets the folder aside"
        )


def say_what_is_left_out(cfg: CfgNode, *, resume: bool) -> None:
    """Say that there is no run to go on with, or that it has had more phases than it would have."""
    folder, last = RunFolder(cfg.OUTPUT_DIR), cfg.SSOD.NUM_PHASES
    if resume and not folder.config.exists():
        logger.warning(
            "--resume: there is no run in %s yet, so that a new one begins there",
            os.path.abspath(cfg.OUTPUT_DIR),
        )
    beyond = [n for n in range(last + 1, last + 10) if folder.phase(n).model.exists()]
    if beyond:
        logger.warning(
            "%s is there, but SSOD.NUM_PHASES is %d: it is neither evaluated nor advised; to go on "
            "with it, set SSOD.NUM_PHASES to %d (and SSOD.SCHEDULE) as before, in the config file "
            "or behind it",
            *(folder.phase(beyond[-1]).model, last, beyond[-1]),
        )


def say_what_judges_otherwise(cfg: CfgNode) -> None:
    """Say of an evaluation alone that it is by other settings than those of the run."""
    folder = RunFolder(cfg.OUTPUT_DIR)
    if not folder.config.exists():
        return
    try:
        made = evaluation_settings(read_run_config(folder))
    except ConfigError as error:  # it may be of a detector that is not there any more
        logger.warning("Whether %s judges as this config is not known: %s", folder.config, error)
        return
    for difference in differences_between(made, evaluation_settings(cfg)):
        logger.warning(
            "%s: the results are of that, but %s stays, by which predict, fuse and report go "
            "(without --eval-only it is changed)",
            *(difference, folder.config),
        )


def as_it_was_trained(cfg: CfgNode) -> CfgNode:
    """Give the config of what an evaluation alone leaves: how the run was trained, and now judged.

    Where the run's own cannot be read, as that of a detector that is gone, it is the one of now.
    """
    folder = RunFolder(cfg.OUTPUT_DIR)
    try:
        made = read_run_config(folder)
    except ConfigError:  # which was said when the evaluation began
        return cfg
    known = dict(flat_keys(made))
    keys = [*_OF_EVALUATIONS, *evaluation_settings(cfg)]
    if value_of(cfg, _TRUTH):
        keys.append(_TRUTH)
    return with_values(made, {key: value_of(cfg, key) for key in keys if key in known})


def said_of_model(folder: RunFolder, phase: int) -> list[Path]:
    """List what is said of a phase's model, alone or with others, or of another in its place."""
    files = folder.phase(phase)
    of_phase = [files.taken_from, files.labeled_predictions, files.validation]
    return [*of_phase, folder.validation, *summaries_of_phase(folder, phase)]


def _made_of_model_after(files: Sequence[PhaseFolder]) -> list[Path]:
    """List what lies in the folders of a phase and of those after it that its model has made."""
    predictions = [phase.predictions for phase in files]
    # Labels without a manifest are somebody's own.
    labels = [phase.pseudo_labels for phase in files[1:] if phase.manifest.exists()]
    models = [path for phase in files[1:] for path in sorted(phase.folder.glob("model_*.pth"))]
    return [path for path in [*predictions, *labels, *models] if path.exists()]
