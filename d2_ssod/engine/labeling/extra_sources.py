"""Predictions of other models, which vote along with those of the phases."""

from __future__ import annotations

from pathlib import Path

from detectron2.config import CfgNode

from d2_ssod.artifacts import (
    PhaseFolder,
    RunFolder,
    class_differences,
    load_predictions,
    load_predictions_by_file,
    match_files,
    noted_files,
    read_source,
)
from d2_ssod.errors import ConfigError
from d2_ssod.structures import Predictions

from ..configs.named_files import check_is_file
from ..run_data import RunData

_KEY = "SSOD.CONSENSUS.EXTRA_SOURCES"


def labels_are_missing(cfg: CfgNode) -> bool:
    """Tell whether the labels of some phase are still to be made."""
    last = cfg.SSOD.NUM_PHASES
    return last > 0 and not RunFolder(cfg.OUTPUT_DIR).phase(last).pseudo_labels.exists()


def check_extra_sources(cfg: CfgNode, data: RunData) -> None:
    """Check the predictions of other models, if labels are still to be made of them.

    Raises:
        ConfigError: as :func:`load_extra_sources` does.
    """
    if labels_are_missing(cfg):
        load_extra_sources(cfg, data)


def load_extra_sources(cfg: CfgNode, data: RunData) -> list[Predictions]:
    """Load the predictions of other models that join those of the phases.

    Those of another run are matched by the names of the files, which it has noted; others by the
    ids of the images, as long as these mean the same files as when phase 0 labeled them.

    Raises:
        ConfigError: one is no COCO results file, or does not fit the unlabeled images.
    """
    paths = cfg.SSOD.CONSENSUS.EXTRA_SOURCES
    for path in paths:
        check_is_file(_KEY, path)
    return [_load(cfg, Path(path), data) for path in paths]


def _load(cfg: CfgNode, path: Path, data: RunData) -> Predictions:
    made, remedy = PhaseFolder(path.parent), f"correct the file, or take {path} out of {_KEY}"
    if path.name == made.predictions.name and made.predictions_source.exists():
        _check_classes(path, data)
        found = load_predictions_by_file(
            made, data.unlabeled, data.category_ids, remedy=remedy, of_others=True
        )
        _check_are_all_known(path, found, data)
        return found
    _check_ids_mean_the_same(cfg, path, data)
    ids = [image["image_id"] for image in data.unlabeled]
    return load_predictions(path, ids, data.category_ids, remedy=remedy)


def _check_classes(path: Path, data: RunData) -> None:
    """Refuse predictions of a run whose classes have other names, or another order."""
    differences = class_differences(RunFolder(path.parent.parent), data.thing_classes)
    if differences:
        raise ConfigError(
            f"{_KEY}: {path} is of a run with other classes ({differences[0]}), whose numbers mean "
            "others here; take the file out, or train that run with the classes of this one"
        )


def _check_are_all_known(path: Path, found: Predictions, data: RunData) -> None:
    """Refuse predictions of a run that has not been over all the images."""
    unknown = [i["file_name"] for i in data.unlabeled if i["image_id"] not in found]
    if unknown:
        raise ConfigError(
            f"{_KEY}: {path} has nothing on {len(unknown)} of the {len(data.unlabeled)} unlabeled "
            f"images, such as {unknown[0]}, as they were not its run's: take these out again, or "
            "have that run label them, with a phase more (SSOD.NUM_PHASES)"
        )


def _check_ids_mean_the_same(cfg: CfgNode, path: Path, data: RunData) -> None:
    """Refuse a file whose ids mean other images since some were added to a folder."""
    files = RunFolder(cfg.OUTPUT_DIR).phase(0)
    if not files.predictions_source.exists():
        return
    was = noted_files(read_source(files))
    now = match_files(list(was.values()), data.unlabeled) or {}
    moved = [image_id for image_id, file in was.items() if now.get(file, image_id) != image_id]
    if moved:
        raise ConfigError(
            f"{_KEY}: {path} names images by ids, of which {len(moved)} mean others since images "
            f"were added, such as {moved[0]}, which was {was[moved[0]]}; make it again, or take it "
            "out (predictions.json of a run, with what lies beside it, is read by file names)"
        )
