"""Between two phases: the files that the steps of ``d2_ssod.pseudo_label`` read and write.

Whatever exists is used as it is. So a run that was interrupted at any point goes on from there,
and pseudo-labels that a person has corrected are what the phase trains on.
"""

from __future__ import annotations

import logging
from pathlib import Path

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.modeling import GeneralizedRCNNWithTTA, build_model
from detectron2.utils import comm
from torch import nn

from d2_ssod.data.loader import build_inference_loader
from d2_ssod.errors import ConfigError
from d2_ssod.files import write_json
from d2_ssod.pseudo_label import (
    Predictions,
    build_pseudo_labels,
    easy_fraction,
    load_predictions,
    load_pseudo_labels,
    predict,
    save_predictions,
    save_pseudo_labels,
    write_manifest,
)

from .data import RunData
from .phases import phase_files
from .provenance import check_predictions, prediction_source
from .so_far import discard_so_far, keeping_so_far, load_so_far

logger = logging.getLogger(__name__)


def prepare_pseudo_labels(cfg: CfgNode, phase: int, data: RunData) -> list[dict]:
    """The pseudo-labeled images that a phase trains on, as Detectron2 dicts; on every rank.

    They are made from the models of all phases before, unless their file exists.

    Args:
        cfg: the run's config.
        phase: 1..N.
        data: the data sets of the run.
    """
    path = phase_files(cfg.OUTPUT_DIR, phase).pseudo_labels
    if path.exists():
        logger.info("Phase %d trains on the existing %s", phase, path)
    else:
        for source in range(phase):
            prepare_predictions(cfg, source, data)
        if comm.is_main_process():
            _make_pseudo_labels(cfg, phase, data)
    comm.synchronize()
    images = load_pseudo_labels(path, data.unlabeled, thing_classes=data.thing_classes)
    if not images:
        logger.warning(
            "Phase %d: no unlabeled image has a pseudo-label that could be selected; it trains on "
            "the labeled images only",
            phase,
        )
    return images


def prepare_predictions(cfg: CfgNode, phase: int, data: RunData) -> None:
    """Write the raw detections of a phase's model on the unlabeled images, unless they exist.

    A pass over them that was interrupted goes on where it was.

    Raises:
        ConfigError: those that exist are of other images, or made with other settings.
    """
    files = phase_files(cfg.OUTPUT_DIR, phase)
    check_predictions(cfg, phase, data.unlabeled)
    if not files.predictions.exists():
        _predict_unlabeled(cfg, phase, data)
    comm.synchronize()


def _predict_unlabeled(cfg: CfgNode, phase: int, data: RunData) -> None:
    """Run a phase's model over the unlabeled images that no interrupted pass has been over."""
    files = phase_files(cfg.OUTPUT_DIR, phase)
    model = load_phase_model(cfg, phase)
    if cfg.SSOD.TTA.ENABLED:
        model = GeneralizedRCNNWithTTA(cfg, model)
    done = load_so_far(files.predictions_so_far)
    if done:
        logger.info("%d of %d images were predicted before", len(done), len(data.unlabeled))
    if comm.is_main_process():
        write_json(files.predictions_source, prediction_source(cfg, data.unlabeled))
    comm.synchronize()  # All have read before one writes.
    image_ids = [image["image_id"] for image in data.unlabeled]
    with keeping_so_far(files.predictions_so_far) as keep:
        predictions = predict(
            model,
            build_inference_loader(
                cfg, data.unlabeled, original_size=cfg.SSOD.TTA.ENABLED, done=done
            ),
            description=f"Phase {phase}'s model on the unlabeled images",
            image_ids=[image_id for image_id in image_ids if image_id not in done],
            on_batch=keep,
        )
    comm.synchronize()  # All have closed their files before one deletes them.
    if comm.is_main_process():
        found = done | predictions
        in_order = {image_id: found[image_id] for image_id in image_ids}
        save_predictions(files.predictions, in_order, data.category_ids)
        discard_so_far(files.predictions_so_far)


def load_phase_model(cfg: CfgNode, phase: int) -> nn.Module:
    """The model at the end of a phase.

    Raises:
        ConfigError: the phase has not been trained to its end in ``OUTPUT_DIR``.
    """
    path = phase_files(cfg.OUTPUT_DIR, phase).model
    if not path.exists():
        raise ConfigError(
            f"{path}: no such file, phase {phase} has not been trained to its end there; train "
            "(with --resume to continue), or correct OUTPUT_DIR or SSOD.NUM_PHASES"
        )
    model = build_model(cfg)
    DetectionCheckpointer(model).load(str(path))
    return model.eval()


def _make_pseudo_labels(cfg: CfgNode, phase: int, data: RunData) -> None:
    """Threshold, consensus and selection of all models before ``phase``, into its two files."""
    sources = [_load_predictions(cfg, source, data) for source in range(phase)]
    ssod = cfg.SSOD
    labels = build_pseudo_labels(
        sources,
        data.objects_per_image,
        fraction=easy_fraction(phase, ssod.NUM_PHASES, ssod.EASY_FRACTIONS),
        iou_thresh=ssod.CONSENSUS.IOU_THRESH,
        nms_thresh=ssod.CONSENSUS.NMS_THRESH,
        min_votes=ssod.CONSENSUS.MIN_VOTES,
        keep_fraction=ssod.PSEUDO_LABEL.KEEP_FRACTION,
    )
    for line in labels.describe(data.thing_classes):
        logger.info("Phase %d: %s", phase, line)
    files = phase_files(cfg.OUTPUT_DIR, phase)
    write_manifest(
        files.manifest,
        labels,
        models=[_relative_model(cfg, source) for source in range(phase)],
        thing_classes=data.thing_classes,
        settings={
            "consensus": dict(ssod.CONSENSUS),
            "keep_fraction": ssod.PSEUDO_LABEL.KEEP_FRACTION,
            "tta": ssod.TTA.ENABLED,
        },
    )
    # Last, as its existence says that the phase's labels are complete.
    save_pseudo_labels(
        files.pseudo_labels,
        labels.selected,
        data.unlabeled,
        thing_classes=data.thing_classes,
        category_ids=data.category_ids,
    )


def _load_predictions(cfg: CfgNode, phase: int, data: RunData) -> Predictions:
    return load_predictions(
        phase_files(cfg.OUTPUT_DIR, phase).predictions,
        [image["image_id"] for image in data.unlabeled],
        data.category_ids,
    )


def _relative_model(cfg: CfgNode, phase: int) -> str:
    return str(phase_files(cfg.OUTPUT_DIR, phase).model.relative_to(Path(cfg.OUTPUT_DIR)))
