"""What the models see on the images, into files: raw detections, which labels are made of.

A pass over the images that was interrupted goes on where it was; where images were added since, it
is over these alone.
"""

from __future__ import annotations

import logging

from detectron2.config import CfgNode
from detectron2.modeling import GeneralizedRCNNWithTTA
from detectron2.utils import comm
from torch import nn

from d2_ssod.artifacts import (
    PhaseFolder,
    RunFolder,
    check_predictions,
    discard_partial_predictions,
    keep_partial_predictions,
    load_earlier_predictions,
    load_partial_predictions,
    load_phase_model,
    prediction_source,
    read_source,
    save_predictions,
    set_aside_predictions,
    timed_event,
)
from d2_ssod.data.datasets import with_unique_ids
from d2_ssod.data.loader import build_inference_loader
from d2_ssod.errors import ConfigError
from d2_ssod.inference import predict
from d2_ssod.json_files import write_json
from d2_ssod.structures import ImageId, Predictions

from ..processes.agreement import on_main_process
from ..run_data import RunData
from .extra_sources import labels_are_missing

logger = logging.getLogger(__name__)


def predict_unlabeled(
    cfg: CfgNode, phase: int, data: RunData, model: nn.Module | None = None
) -> None:
    """Write the raw detections of a phase's model on the unlabeled images, unless they exist.

    A pass over them that was interrupted goes on where it was; where images were added since, it is
    over these alone; where their ids are others, they get these.

    Args:
        cfg: the run's config.
        phase: of the model.
        data: the data sets of the run.
        model: None to load it from ``OUTPUT_DIR``.

    Raises:
        ConfigError: predictions that exist are of other images, or made with other settings.
    """
    files = RunFolder(cfg.OUTPUT_DIR).phase(phase)
    if not on_main_process(lambda: check_predictions(cfg, phase, data.unlabeled)):
        on_main_process(lambda: set_aside_predictions(files, data.category_ids))
    if not on_main_process(files.predictions.exists):
        model = load_phase_model(cfg, phase) if model is None else model
        with timed_event(RunFolder(cfg.OUTPUT_DIR), "predicted", phase=phase, data="unlabeled"):
            _predict_remaining(cfg, phase, data, model)
    else:  # a kill may have left them
        on_main_process(lambda: discard_partial_predictions(files.partial_predictions))


def predict_labeled(cfg: CfgNode, data: RunData) -> None:
    """Write the raw detections of the last phase's model on the labeled images, unless they exist.

    Where they contradict the labels, a person may look (the report lists it). Nothing is trained on
    them.

    Args:
        cfg: the run's config; nothing is done if ``SSOD.CHECK_LABELED`` is False.
        data: the data sets of the run.
    """
    folder, phase = RunFolder(cfg.OUTPUT_DIR), cfg.SSOD.NUM_PHASES
    path = folder.phase(phase).labeled_predictions
    if not cfg.SSOD.CHECK_LABELED or on_main_process(path.exists):
        return
    images = with_unique_ids(data.labeled)
    with timed_event(folder, "predicted", phase=phase, data="labeled"):
        found = predict(
            load_phase_model(cfg, phase),
            build_inference_loader(cfg, images),
            description=f"Phase {phase}'s model on the labeled images",
            image_ids=[image["image_id"] for image in images],
        )
        on_main_process(lambda: save_predictions(path, found, data.category_ids))


def check_existing_predictions(cfg: CfgNode, data: RunData) -> None:
    """Check the predictions that labels are still to be made of; on the main process.

    Raises:
        ConfigError: they are of other images, or made with other settings.
    """
    if labels_are_missing(cfg):
        for phase in range(cfg.SSOD.NUM_PHASES):
            check_predictions(cfg, phase, data.unlabeled)


def unused_images(cfg: CfgNode, data: RunData) -> str | None:
    """Say of images that were added after all labels were made that nothing learns from them."""
    files = RunFolder(cfg.OUTPUT_DIR).phase(0)
    if cfg.SSOD.NUM_PHASES == 0 or labels_are_missing(cfg) or not files.predictions_source.exists():
        return None
    try:
        added = len(data.unlabeled) - len(read_source(files)["files"])
    except ConfigError as error:  # which ends no run that makes no labels of them any more
        return str(error)
    return (
        f"{added} unlabeled images were added, but all phases have their labels: they are used in "
        "further phases only (SSOD.NUM_PHASES)"
        if added > 0
        else None
    )


def _predict_remaining(cfg: CfgNode, phase: int, data: RunData, model: nn.Module) -> None:
    """Run a model over the unlabeled images that it has not been over.

    Images that were predicted before others were added are not loaded again; of an interrupted
    pass, batches of which some images are missing are predicted whole.
    """
    files, tta = RunFolder(cfg.OUTPUT_DIR).phase(phase), cfg.SSOD.TTA.ENABLED
    found: Predictions = {}  # before, on the main process, which alone reads what others wrote
    earlier, done = on_main_process(lambda: _restore(cfg, files, data, found))
    images = [image for image in data.unlabeled if image["image_id"] not in earlier]
    if earlier and images:
        logger.info("Phase %d: %d unlabeled images are new to its model", phase, len(images))
    if done:
        logger.info("%d of %d images were predicted before", len(done), len(images))
    with keep_partial_predictions(files.partial_predictions) as keep:
        predictions = predict(
            GeneralizedRCNNWithTTA(cfg, model) if tta else model,
            build_inference_loader(cfg, images, original_size=tta, done=done),
            description=f"Phase {phase}'s model on the unlabeled images",
            on_batch=keep,
        )
    comm.synchronize()  # All have closed their files before one deletes them.
    on_main_process(lambda: _write(phase, files, data, found | predictions))


def _restore(
    cfg: CfgNode, files: PhaseFolder, data: RunData, found: Predictions
) -> tuple[set[ImageId], set[ImageId]]:
    """Read what was found before, and note what is to be predicted with which settings.

    Args:
        cfg: of the run.
        files: of the phase.
        data: of the run.
        found: gets what was found.

    Returns:
        the images of predictions that are set aside, as others were added since, and those of an
        interrupted pass.
    """
    if not files.predictions_source.exists():  # nothing tells what these are of
        discard_partial_predictions(files.partial_predictions)
    earlier = load_earlier_predictions(files.partial_predictions, data.unlabeled)
    done = load_partial_predictions(files.partial_predictions)
    found.update(earlier | done)
    write_json(files.predictions_source, prediction_source(cfg, data.unlabeled))
    return set(earlier), set(done)


def _write(phase: int, files: PhaseFolder, data: RunData, found: Predictions) -> None:
    in_order = {image["image_id"]: found[image["image_id"]] for image in data.unlabeled}
    logger.info("Phase %d: writing %d boxes", phase, sum(map(len, in_order.values())))
    save_predictions(files.predictions, in_order, data.category_ids)
    discard_partial_predictions(files.partial_predictions)
