"""What a run begins with that was made elsewhere: the model of phase 0, the labels of phase 1."""

from __future__ import annotations

import filecmp
import logging
from collections.abc import Sequence
from pathlib import Path

from detectron2.config import CfgNode
from torch import nn

from d2_ssod.artifacts import (
    AtomicCheckpointer,
    PhaseFolder,
    RunFolder,
    TakenFrom,
    class_differences,
    differences_unseen,
    digest_of_file,
    discard_partial_predictions,
    has_learned_unlabeled,
    load_model,
    load_pseudo_labels,
    read_taken_from,
    refuse,
    write_taken_from,
)
from d2_ssod.data.objects import has_objects
from d2_ssod.errors import ConfigError
from d2_ssod.json_files import atomic_copy

from .configs.named_files import check_is_file
from .processes.agreement import on_main_process
from .resuming import check_models_are_there, said_of_model
from .run_data import RunData

logger = logging.getLogger(__name__)


def adopt_phase_0(cfg: CfgNode, thing_classes: Sequence[str]) -> None:
    """Take the model that ``SSOD.START.PHASE_0`` names for that of phase 0, unless there is one.

    Args:
        cfg: the run's config.
        thing_classes: of its data sets.

    Raises:
        ConfigError: there is no such file; it is of another model than the config's; it finds other
            classes, as far as that can be known; or phase 0 is, or what there is was made with,
            another.
    """
    path, files = cfg.SSOD.START.PHASE_0, RunFolder(cfg.OUTPUT_DIR).phase(0)
    model = load_given_model(cfg, thing_classes) if path else None
    if model is not None:
        on_main_process(lambda: _take(cfg, files, model))
        logger.info("Phase 0 is %s: nothing is trained in it", path)


def load_given_model(cfg: CfgNode, thing_classes: Sequence[str]) -> nn.Module | None:
    """Load the model that ``SSOD.START.PHASE_0`` names; None where phase 0 has that already.

    Raises:
        ConfigError: as :func:`adopt_phase_0` does.
    """
    path, files = cfg.SSOD.START.PHASE_0, RunFolder(cfg.OUTPUT_DIR).phase(0)
    if on_main_process(files.model.exists):
        on_main_process(lambda: _check_taken(cfg, files))
        return None
    check_is_file("SSOD.START.PHASE_0", path)
    on_main_process(lambda: _check_fits(cfg, Path(path), thing_classes))
    return load_model(cfg, path)


def _check_fits(cfg: CfgNode, path: Path, thing_classes: Sequence[str]) -> None:
    """Check what the weights do not tell, by the files of the run that the model is of."""
    folder = path.resolve().parent
    roots = [RunFolder(folder), RunFolder(folder.parent)]  # of model_best.pth; a phase's
    own = Path(cfg.OUTPUT_DIR).resolve()  # whose classes.json this run has just written
    runs = [root for root in roots if root.root != own and root.classes.exists()]
    # All phases have the same settings of these; the model's own may be missing, if adopted itself.
    phases = [PhaseFolder(each) for run in runs for each in sorted(run.root.glob("phase_*"))]
    noted = (p for p in [PhaseFolder(folder), *phases] if p.trained_with.exists())
    made = next(noted, PhaseFolder(folder))
    differences = class_differences(runs[0], thing_classes) if runs else None
    if differences is None:
        logger.warning(
            "%s lies in no run, which would tell its classes: they are taken to be %s, in this "
            "order",
            *(path, ", ".join(thing_classes)),
        )
    differences = [*(differences or ()), *differences_unseen(cfg, made)]
    refuse(
        cfg,
        f"SSOD.START.PHASE_0: {path} is of another model than the config's",
        differences,
        "give the config what the model has, or have phase 0 trained (without SSOD.START.PHASE_0)",
    )


def _phase_of(path: Path) -> PhaseFolder:
    """Find the folder of the phase whose model a file is; where that is not known, its own."""
    folder = path.resolve().parent
    phases = [PhaseFolder(each) for each in sorted(folder.glob("phase_*"))]  # of model_best.pth
    copied = (p for p in phases if p.model.is_file() and filecmp.cmp(p.model, path, shallow=False))
    return next(copied, PhaseFolder(folder))


def _take(cfg: CfgNode, files: PhaseFolder, model: nn.Module) -> None:
    """Write the model as phase 0's; what is of an earlier one goes, unless that was the same."""
    path = Path(cfg.SSOD.START.PHASE_0)
    learned_unlabeled = has_learned_unlabeled(_phase_of(path))
    source = TakenFrom(cfg.SSOD.START.PHASE_0, digest_of_file(path), learned_unlabeled)
    before = read_taken_from(files)
    if before is None or before.sha256 != source.sha256:
        check_models_are_there(cfg)
        said = said_of_model(RunFolder(cfg.OUTPUT_DIR), 0)
        for old in [*said, files.trained_with, files.predictions_source]:
            old.unlink(missing_ok=True)
        discard_partial_predictions(files.partial_predictions)
    write_taken_from(files, source)
    AtomicCheckpointer(model, str(files.folder)).save(files.model.stem)


def _check_taken(cfg: CfgNode, files: PhaseFolder) -> None:
    """Check that phase 0 is the model that is named for it, as far as both are known."""
    path = Path(cfg.SSOD.START.PHASE_0)
    if not path.is_file():
        return
    given, differences = digest_of_file(path), []
    taken = read_taken_from(files)
    if taken is not None:
        if given not in (taken.sha256, digest_of_file(files.model)):
            differences = [f"it was taken from {taken.path}, or that file has changed"]
    elif files.trained_with.exists() and given != digest_of_file(files.model):
        differences = ["it was trained in this run, with which SSOD.START.PHASE_0 '' goes on"]
    refuse(cfg, f"{files.model} is not that of SSOD.START.PHASE_0, {path}", differences)


def adopt_pseudo_labels(cfg: CfgNode, data: RunData) -> None:
    """Take the file that ``SSOD.PSEUDO_LABEL.FROM`` names for the labels of phase 1.

    Raises:
        ConfigError: there is no such file, it has no objects, or it does not fit the unlabeled
            images.
    """
    path, files = cfg.SSOD.PSEUDO_LABEL.FROM, RunFolder(cfg.OUTPUT_DIR).phase(1)
    if not (path and cfg.SSOD.NUM_PHASES > 0):
        return
    if on_main_process(files.pseudo_labels.exists):
        if on_main_process(lambda: _are_others(path, files.pseudo_labels)):
            logger.warning(
                "%s are the labels of phase 1; those of SSOD.PSEUDO_LABEL.FROM, %s, are others, "
                "which are not read: delete the first, and all that was made with them, to take "
                "the second",
                *(files.pseudo_labels, path),
            )
        return
    images = read_given_labels(cfg, data.unlabeled, data.thing_classes)
    on_main_process(lambda: _take_labels(path, files))
    logger.info("Phase 1 trains on the labels of %d images in %s", len(images), path)


def read_given_labels(
    cfg: CfgNode, unlabeled: Sequence[dict], thing_classes: Sequence[str]
) -> list[dict]:
    """Read the images that phase 1 would train on of ``SSOD.PSEUDO_LABEL.FROM``.

    Raises:
        ConfigError: there is no such file, it has no objects, or it does not fit the unlabeled
            images.
    """
    path, filter_empty = cfg.SSOD.PSEUDO_LABEL.FROM, cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS
    check_is_file("SSOD.PSEUDO_LABEL.FROM", path)
    images = load_pseudo_labels(path, unlabeled, thing_classes, filter_empty=filter_empty)
    if not any(map(has_objects, images)):
        raise ConfigError(
            f"SSOD.PSEUDO_LABEL.FROM: {path} has no objects on unlabeled images (crowds are none); "
            "name a file that has, or leave it empty to have labels made"
        )
    return images


def _take_labels(path: str, files: PhaseFolder) -> None:
    files.folder.mkdir(parents=True, exist_ok=True)
    files.manifest.unlink(missing_ok=True)  # of labels that were made there before
    atomic_copy(path, files.pseudo_labels)


def _are_others(path: str, labels: Path) -> bool:
    return Path(path).is_file() and digest_of_file(path) != digest_of_file(labels)
