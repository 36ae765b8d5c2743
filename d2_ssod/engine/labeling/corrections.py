"""Labels of unlabeled images that a person has made: ``SSOD.PSEUDO_LABEL.CORRECTED``."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from detectron2.config import CfgNode

from d2_ssod.artifacts import PhaseFolder, RunFolder, load_labels
from d2_ssod.data.box_checks import check_boxes
from d2_ssod.data.findings import Findings, raise_first
from d2_ssod.data.objects import objects_and_crowds
from d2_ssod.data.statistics import check_crowds
from d2_ssod.errors import ConfigError
from d2_ssod.json_files import read_record
from d2_ssod.structures import Detections, Predictions

from ..configs.named_files import check_is_file
from ..run_data import RunData

logger = logging.getLogger(__name__)

_KEY = "SSOD.PSEUDO_LABEL.CORRECTED"


def load_corrected(cfg: CfgNode, data: RunData) -> Predictions:
    """Load the labels of unlabeled images that a person has made: ``PSEUDO_LABEL.CORRECTED``.

    Returns:
        The boxes, with score 1, of every image in that file, also of those without an object;
        crowds are left out, as in labeled images.

    Raises:
        ConfigError: it does not fit the unlabeled images, or all boxes are of other units.
    """
    images, findings = read_corrected(cfg, data.unlabeled, data.thing_classes)
    raise_first(findings)
    return {image["image_id"]: _surely(image["annotations"]) for image in images}


def read_corrected(
    cfg: CfgNode, unlabeled: Sequence[dict], thing_classes: Sequence[str]
) -> tuple[list[dict], Findings]:
    """Read the images that a person has labeled, and find what is odd about their boxes.

    Raises:
        ConfigError: the file does not fit the unlabeled images.
    """
    path, findings = cfg.SSOD.PSEUDO_LABEL.CORRECTED, Findings()
    if not path:
        return [], findings
    check_is_file(_KEY, path)
    images, place = load_labels(path, unlabeled, thing_classes), f"{_KEY} ({path})"
    check_boxes(images, place, findings)
    check_crowds(images, place, findings)
    return images, findings


def _surely(annotations: Sequence[dict]) -> Detections:
    """Give the boxes with score 1: those that a model proposed have its score in the file."""
    found = objects_and_crowds(annotations)[0]
    return replace(found, scores=np.ones_like(found.scores))


def describe_corrected(cfg: CfgNode, corrected: Predictions) -> dict[str, Any] | None:
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
        "images_empty": sum(len(found) == 0 for found in corrected.values()),
        "sha256": digest.hexdigest(),
    }


def left_to_models(selected: Predictions, corrected: Predictions) -> Predictions:
    """Give the labels of models on images of which there are none of a person's."""
    return {image_id: found for image_id, found in selected.items() if image_id not in corrected}


def warn_of_unused_corrections(cfg: CfgNode, corrected: Predictions) -> None:
    """Warn if a person's labels came after the labels that they should have replaced were made."""
    folder, now = RunFolder(cfg.OUTPUT_DIR), describe_corrected(cfg, corrected)
    files = [folder.phase(phase) for phase in range(1, cfg.SSOD.NUM_PHASES + 1)]
    if now is None:
        return
    made = [phase for phase in files if phase.pseudo_labels.exists()]
    learns_empty = not cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS
    with_empty = learns_empty and not all(map(len, corrected.values()))
    if not made or not _is_without(made[-1], now, with_empty=with_empty):
        return
    if not made[-1].has_weights() and not made[-1].manifest.exists():
        logger.warning(
            "%s is learned from as it was given (SSOD.PSEUDO_LABEL.FROM): the labels of %s "
            "(SSOD.PSEUDO_LABEL.CORRECTED) join those that the run makes, for later phases",
            *(made[-1].pseudo_labels, now["file"]),
        )
    elif not made[-1].has_weights():
        logger.warning(
            "%s was made without the labels of %s (SSOD.PSEUDO_LABEL.CORRECTED), and its phase "
            "trains without them: delete it, unless you have corrected it, to have it made anew",
            *(made[-1].pseudo_labels, now["file"]),
        )
    elif made == files:
        logger.warning(
            "The labels of all phases are made already, without those of %s "
            "(SSOD.PSEUDO_LABEL.CORRECTED), which are not used: add a phase (SSOD.NUM_PHASES %d)",
            *(now["file"], cfg.SSOD.NUM_PHASES + 1),
        )


def say_corrected(cfg: CfgNode, phase: int, data: RunData, corrected: Predictions) -> None:
    """Say how many images of a phase have a person's labels, and which have them no more."""
    _warn_of_those_left_out(cfg, phase, data, corrected)
    if corrected:
        logger.info(
            "Phase %d: %d images have the labels of %s, %d objects, as it has them, whether a "
            "person has looked at each or not",
            *(phase, len(corrected), cfg.SSOD.PSEUDO_LABEL.CORRECTED),
            sum(map(len, corrected.values())),
        )


def _warn_of_those_left_out(
    cfg: CfgNode, phase: int, data: RunData, corrected: Predictions
) -> None:
    """Warn of images that the phase before had a person's labels of, and this one has not."""
    files = RunFolder(cfg.OUTPUT_DIR).phase(phase - 1)
    if not files.pseudo_labels.exists():
        return
    try:
        if _is_of_models_alone(files):
            return
        before = load_labels(files.pseudo_labels, data.unlabeled, data.thing_classes)
    except ConfigError:  # damaged since it was learned from, which nothing depends on any more
        return
    gone = [i for i in before if i["is_corrected"] and i["image_id"] not in corrected]
    if gone:
        logger.warning(
            "Phase %d: %d images of which phase %d had a person's labels, such as %s, are not in "
            "SSOD.PSEUDO_LABEL.CORRECTED, and have models' labels again, or none: put those of all "
            "rounds into one file, and delete %s to have it made anew",
            *(phase, len(gone), phase - 1, gone[0]["file_name"]),
            RunFolder(cfg.OUTPUT_DIR).phase(phase).pseudo_labels,
        )


def _is_of_models_alone(files: PhaseFolder) -> bool:
    """Tell whether a phase's labels are known to have been made without any of a person's."""
    return files.manifest.exists() and "corrected" not in read_record(files.manifest, {})


def _is_without(files: PhaseFolder, corrected: dict[str, Any], *, with_empty: bool) -> bool:
    """Tell whether a phase's labels were made without these corrections, or images without any."""
    known = read_record(files.manifest, {}, {"corrected": dict}) if files.manifest.exists() else {}
    left_out = with_empty and known.get("format_version") == 1  # which had no such images
    return left_out or known.get("corrected", {}).get("sha256") != corrected["sha256"]
