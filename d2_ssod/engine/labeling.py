"""Between two phases: predict, threshold, consensus, selection, and the files that they leave.

Whatever exists is used as it is. So a run that was interrupted at any point goes on from there,
and pseudo-labels that a person has corrected are what the phase trains on.
"""

from __future__ import annotations

import hashlib
import logging
from typing import Any

from detectron2.config import CfgNode
from detectron2.modeling import GeneralizedRCNNWithTTA
from detectron2.utils import comm
from torch import nn

from d2_ssod.artifacts import (
    RunFolder,
    check_predictions,
    discard_partial_predictions,
    keep_partial_predictions,
    label_settings,
    load_earlier_predictions,
    load_labels,
    load_partial_predictions,
    load_phase_model,
    load_predictions,
    load_pseudo_labels,
    prediction_source,
    read_source,
    save_predictions,
    save_pseudo_labels,
    set_aside_predictions,
    timed_event,
    write_manifest,
)
from d2_ssod.data.box_checks import check_boxes
from d2_ssod.data.datasets import with_unique_ids
from d2_ssod.data.findings import Findings, raise_first
from d2_ssod.data.loader import build_inference_loader
from d2_ssod.data.objects import objects_and_crowds
from d2_ssod.inference import predict
from d2_ssod.json_files import read_record, write_json
from d2_ssod.pseudo_label import (
    Consensus,
    PseudoLabels,
    Tiers,
    build_pseudo_labels,
    easy_fraction,
)
from d2_ssod.structures import ImageId, Predictions

from .agreement import on_main_process
from .diagnostics import LabelTruth, check_labels
from .named_files import check_is_file
from .run_data import RunData

logger = logging.getLogger(__name__)


def label_next_phase(
    cfg: CfgNode, phase: int, data: RunData, model: nn.Module | None = None
) -> None:
    """Make the pseudo-labels of phase i + 1 from the models of the phases 0..i; on every rank.

    Args:
        cfg: the run's config.
        phase: i, 0..N-1.
        data: the data sets of the run.
        model: of phase i, without a distributed wrapper; None to load it from ``OUTPUT_DIR``.
    """
    path = RunFolder(cfg.OUTPUT_DIR).phase(phase + 1).pseudo_labels
    if not on_main_process(path.exists):
        for source in range(phase):
            predict_unlabeled(cfg, source, data)
        predict_unlabeled(cfg, phase, data, model)
        if comm.is_main_process():
            with timed_event(RunFolder(cfg.OUTPUT_DIR), "labeled", phase=phase + 1):
                _make_pseudo_labels(cfg, phase + 1, data)
    comm.synchronize()


def read_pseudo_labels(cfg: CfgNode, phase: int, data: RunData) -> list[dict]:
    """Read the pseudo-labeled images that a phase trains on, as Detectron2 dicts.

    Args:
        cfg: the run's config.
        phase: 1..N.
        data: the data sets of the run.
    """
    path = RunFolder(cfg.OUTPUT_DIR).phase(phase).pseudo_labels
    logger.info("Phase %d: reading its labels", phase)
    images = load_pseudo_labels(path, data.unlabeled, thing_classes=data.thing_classes)
    if not images:
        logger.warning(
            "Phase %d: no unlabeled image has a pseudo-label that could be selected; it trains on "
            "the labeled images only",
            phase,
        )
    return images


def check_existing_predictions(cfg: CfgNode, data: RunData) -> None:
    """Check the predictions that labels are still to be made of, at the start and not hours later.

    Where all labels are made, images that were added since are said not to be used.

    Raises:
        ConfigError: they are of other images, or made with other settings.
    """
    folder, last = RunFolder(cfg.OUTPUT_DIR), cfg.SSOD.NUM_PHASES
    if last > 0 and not folder.phase(last).pseudo_labels.exists():
        for phase in range(last):
            check_predictions(cfg, phase, data.unlabeled)
        on_main_process(lambda: _check_extra_sources(cfg, data))
    elif last > 0 and folder.phase(0).predictions_source.exists():
        added = len(data.unlabeled) - read_source(folder.phase(0))["images"]
        if added > 0:
            logger.warning(
                "%d unlabeled images were added, but all phases have their labels: they are used "
                "in further phases only (SSOD.NUM_PHASES)",
                added,
            )


def predict_unlabeled(
    cfg: CfgNode, phase: int, data: RunData, model: nn.Module | None = None
) -> None:
    """Write the raw detections of a phase's model on the unlabeled images, unless they exist.

    A pass over them that was interrupted goes on where it was; where images were added since, it is
    over these alone.

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
        if comm.is_main_process():
            set_aside_predictions(files, data.category_ids)
        comm.synchronize()
    if not on_main_process(files.predictions.exists):
        model = load_phase_model(cfg, phase) if model is None else model
        with timed_event(RunFolder(cfg.OUTPUT_DIR), "predicted", phase=phase, data="unlabeled"):
            _predict_remaining(cfg, phase, data, model)
    comm.synchronize()


def predict_labeled(cfg: CfgNode, phase: int, data: RunData) -> None:
    """Write the raw detections of a phase's model on the labeled images, unless they exist.

    Where they contradict the labels, a person may look (the report lists it). Nothing is trained on
    them.

    Args:
        cfg: the run's config; nothing is done if ``SSOD.CHECK_LABELED`` is False.
        phase: of the model.
        data: the data sets of the run.
    """
    folder = RunFolder(cfg.OUTPUT_DIR)
    path = folder.phase(phase).labeled_predictions
    if not cfg.SSOD.CHECK_LABELED or on_main_process(path.exists):
        return
    images = with_unique_ids(data.labeled)
    with timed_event(folder, "predicted", phase=phase, data="labeled"):
        found = predict(
            load_phase_model(cfg, phase),
            build_inference_loader(cfg, images),
            description=f"Phase {phase}'s model on the labeled images",
        )
        if comm.is_main_process():
            in_order = {image["image_id"]: found[image["image_id"]] for image in images}
            save_predictions(path, in_order, data.category_ids)
    comm.synchronize()


def _predict_remaining(cfg: CfgNode, phase: int, data: RunData, model: nn.Module) -> None:
    """Run a model over the unlabeled images that no interrupted pass has been over."""
    files = RunFolder(cfg.OUTPUT_DIR).phase(phase)
    tta = cfg.SSOD.TTA.ENABLED
    found: Predictions = {}  # on the main process, which alone reads what others wrote

    def read() -> tuple[set[ImageId], set[ImageId]]:
        earlier = load_earlier_predictions(files.partial_predictions, data.unlabeled)
        done = load_partial_predictions(files.partial_predictions)
        found.update(earlier | done)
        write_json(files.predictions_source, prediction_source(cfg, data.unlabeled))
        return set(earlier), set(done)

    earlier, done = on_main_process(read)
    images = [image for image in data.unlabeled if image["image_id"] not in earlier]
    if earlier:
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
    if comm.is_main_process():
        found.update(predictions)
        in_order = {image["image_id"]: found[image["image_id"]] for image in data.unlabeled}
        logger.info("Phase %d: writing %d boxes", phase, sum(map(len, in_order.values())))
        save_predictions(files.predictions, in_order, data.category_ids)
        discard_partial_predictions(files.partial_predictions)


def _make_pseudo_labels(cfg: CfgNode, phase: int, data: RunData) -> None:
    """Threshold, consensus and selection of all models before ``phase``, into its two files."""
    logger.info(
        "Phase %d: making the labels, of the boxes of %d models",
        *(phase, phase + len(cfg.SSOD.CONSENSUS.EXTRA_SOURCES)),
    )
    folder, ssod = RunFolder(cfg.OUTPUT_DIR), cfg.SSOD
    image_ids = [image["image_id"] for image in data.unlabeled]
    truth = LabelTruth(cfg, phase, data)
    labels = build_pseudo_labels(
        [
            *(
                load_predictions(folder.phase(source).predictions, image_ids, data.category_ids)
                for source in range(phase)
            ),
            *_load_extra_sources(cfg, data),
        ],
        data.objects_per_image,
        fraction=easy_fraction(phase, ssod.NUM_PHASES, ssod.EASY_FRACTIONS),
        consensus=(Tiers if ssod.LABELS == "tiers" else Consensus).from_config(cfg),
        keep_fraction=ssod.PSEUDO_LABEL.KEEP_FRACTION,
        selection_rule=ssod.SELECTION,
        observe=truth.observe,
    )
    for line in labels.describe(data.thing_classes):
        logger.info("Phase %d: %s", phase, line)
    check_labels(cfg, phase, labels, data)
    _save(cfg, phase, data, labels, truth.found)


def _check_extra_sources(cfg: CfgNode, data: RunData) -> None:
    """Read them for their errors alone: what a main process returns is sent to all others."""
    _load_extra_sources(cfg, data)


def _load_extra_sources(cfg: CfgNode, data: RunData) -> list[Predictions]:
    """Load the predictions of other models that join those of the phases.

    Raises:
        ConfigError: one is no COCO results file, or does not fit the unlabeled images.
    """
    paths, key = cfg.SSOD.CONSENSUS.EXTRA_SOURCES, "SSOD.CONSENSUS.EXTRA_SOURCES"
    for path in paths:
        check_is_file(key, path)
    image_ids = [image["image_id"] for image in data.unlabeled]
    remedy = f"correct the file, or take it out of {key}"
    return [load_predictions(p, image_ids, data.category_ids, remedy=remedy) for p in paths]


def _save(
    cfg: CfgNode, phase: int, data: RunData, labels: PseudoLabels, quality: dict[str, Any]
) -> None:
    folder = RunFolder(cfg.OUTPUT_DIR)
    corrected = load_corrected(cfg, data)
    if corrected:
        logger.info(
            "Phase %d: %d images have the labels of %s, %d objects, as it has them, whether a "
            "person has looked at each or not",
            *(phase, len(corrected), cfg.SSOD.PSEUDO_LABEL.CORRECTED),
            sum(map(len, corrected.values())),
        )
    write_manifest(
        folder.phase(phase).manifest,
        labels,
        models=[
            *(folder.relative(folder.phase(source).model) for source in range(phase)),
            *cfg.SSOD.CONSENSUS.EXTRA_SOURCES,
        ],
        thing_classes=data.thing_classes,
        settings=label_settings(cfg),
        quality=quality,
        corrected=_describe_corrected(cfg, corrected),
    )
    # Last, as its existence says that the phase's labels are complete.
    save_pseudo_labels(
        folder.phase(phase).pseudo_labels,
        _with_corrected(labels.selected, corrected),
        data.unlabeled,
        thing_classes=data.thing_classes,
        category_ids=data.category_ids,
        corrected=corrected,
    )


def load_corrected(cfg: CfgNode, data: RunData) -> Predictions:
    """Load the labels of unlabeled images that a person has made: ``PSEUDO_LABEL.CORRECTED``.

    Returns:
        The boxes, with score 1, of every image in that file, also of those without an object;
        crowds are left out, as in labeled images.

    Raises:
        ConfigError: it does not fit the unlabeled images, or all boxes are of other units.
    """
    path = cfg.SSOD.PSEUDO_LABEL.CORRECTED
    if path:
        check_is_file("SSOD.PSEUDO_LABEL.CORRECTED", path)
    images = load_labels(path, data.unlabeled, data.thing_classes) if path else []
    check_boxes(images, f"SSOD.PSEUDO_LABEL.CORRECTED ({path})", findings := Findings())
    raise_first(findings)
    return {image["image_id"]: objects_and_crowds(image["annotations"])[0] for image in images}


def _describe_corrected(cfg: CfgNode, corrected: Predictions) -> dict[str, Any] | None:
    """Say for the manifest how many labels are a person's, and from which file."""
    if not corrected:
        return None
    digest = hashlib.sha256()
    for image_id, found in corrected.items():
        content = repr((image_id, found.boxes.tolist(), found.classes.tolist()))
        digest.update(content.encode(errors="surrogateescape"))
    return {
        "file": cfg.SSOD.PSEUDO_LABEL.CORRECTED,
        "images": len(corrected),
        "boxes": sum(map(len, corrected.values())),
        "sha256": digest.hexdigest(),
    }


def warn_of_unused_corrections(cfg: CfgNode, corrected: Predictions) -> None:
    """Say so if a person's labels came when those of all phases were made."""
    folder, now = RunFolder(cfg.OUTPUT_DIR), _describe_corrected(cfg, corrected)
    files = [folder.phase(phase) for phase in range(1, cfg.SSOD.NUM_PHASES + 1)]
    if now is None or not all(phase.pseudo_labels.exists() for phase in files):
        return
    last = files[-1].manifest
    made = read_record(last, {}, {"corrected": dict}).get("corrected", {}) if last.exists() else {}
    # Manifests of before lack the digest.
    known = [key for key in ("images", "boxes", "sha256") if key in made or key != "sha256"]
    if any(made.get(key) != now[key] for key in known):
        logger.warning(
            "The labels of all phases are made already, without those of %s "
            "(SSOD.PSEUDO_LABEL.CORRECTED), which are not used: add a phase (SSOD.NUM_PHASES %d)",
            *(now["file"], cfg.SSOD.NUM_PHASES + 1),
        )


def _with_corrected(selected: Predictions, corrected: Predictions) -> Predictions:
    """Put a person's labels first, in place of those that were made for the same images."""
    made = {image_id: found for image_id, found in selected.items() if image_id not in corrected}
    return {image_id: found for image_id, found in corrected.items() if len(found)} | made
