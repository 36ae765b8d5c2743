"""Labels of unlabeled images that a person has made: ``SSOD.PSEUDO_LABEL.CORRECTED``."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from detectron2.config import CfgNode

from d2_ssod.artifacts import (
    PhaseFolder,
    RunFolder,
    correction_files,
    load_labels,
    were_changed,
)
from d2_ssod.data.box_checks import check_boxes
from d2_ssod.data.findings import Findings, raise_first
from d2_ssod.data.objects import objects_and_crowds
from d2_ssod.data.statistics import check_crowds
from d2_ssod.errors import ConfigError
from d2_ssod.file_names import base_name
from d2_ssod.json_files import read_record
from d2_ssod.structures import Detections, ImageId, Predictions

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
    return surely(images)


def read_corrected(
    cfg: CfgNode, unlabeled: Sequence[dict], thing_classes: Sequence[str]
) -> tuple[list[dict], Findings]:
    """Read the images that a person has labeled, and find what is odd about their boxes.

    Raises:
        ConfigError: the file does not fit the unlabeled images.
    """
    named, findings = cfg.SSOD.PSEUDO_LABEL.CORRECTED, Findings()
    by_id: dict[ImageId, dict] = {}
    for path in _files(named) if named else ():
        images, place = load_labels(path, unlabeled, thing_classes), f"{_KEY} ({path})"
        check_boxes(images, place, findings)
        check_crowds(images, place, findings)
        _check_are_a_persons(images, place, findings)
        by_id |= {image["image_id"]: image for image in images}
    return list(by_id.values()), findings


def _files(named: str) -> list[str]:
    """List the files of corrections; of an image in several, the last one's labels count.

    Raises:
        ConfigError: there is none.
    """
    files = correction_files(named)
    if not files:
        raise ConfigError(f"{_KEY} is {named}, a folder without JSON files: correct the path")
    for path in files:
        check_is_file(_KEY, path)
    return files


def _check_are_a_persons(images: Sequence[dict], place: str, findings: Findings) -> None:
    """Find labels that nobody seems to have looked at: none, or models' alone."""
    scores = [own["score"] for image in images for own in image["annotations"]]
    if scores and max(scores) < 1:
        odd = f"all {len(scores)} boxes have a model's scores"
    elif not scores:
        odd = f"none of the {len(images)} images has an object"
    else:
        return
    remedy = "every image in the file counts as one that a person has looked at: leave others out"
    findings.warning(place, "labels that may be no person's", odd, remedy)


def surely(images: Sequence[dict]) -> Predictions:
    """Give the boxes with score 1: those that a model proposed have its score in the file."""
    objects = {i["image_id"]: objects_and_crowds(i["annotations"])[0] for i in images}
    return {n: replace(found, scores=np.ones_like(found.scores)) for n, found in objects.items()}


def describe_corrected(
    cfg: CfgNode, corrected: Predictions, data: RunData
) -> dict[str, Any] | None:
    """Say for the manifest how many labels are a person's, and from which file."""
    if not corrected:
        return None
    name_of = {image["image_id"]: base_name(image["file_name"]) for image in data.unlabeled}
    return {
        "file": cfg.SSOD.PSEUDO_LABEL.CORRECTED,
        "images": len(corrected),
        "boxes": sum(map(len, corrected.values())),
        "images_empty": sum(len(found) == 0 for found in corrected.values()),
        "sha256": _digest_of((n, *_columns(own)) for n, own in corrected.items()),
        # Whatever their ids and order; the former is that of earlier versions.
        "labels_sha256": _digest_of(
            sorted((name_of[n], *_columns(own)) for n, own in corrected.items())
        ),
    }


def _columns(found: Detections) -> tuple[list, list]:
    return found.boxes.tolist(), found.classes.tolist()


def _digest_of(rows: Iterable[tuple]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(repr(row).encode(errors="surrogateescape"))
    return digest.hexdigest()


def left_to_models(selected: Predictions, corrected: Predictions) -> Predictions:
    """Give the labels of models on images of which there are none of a person's."""
    return {image_id: found for image_id, found in selected.items() if image_id not in corrected}


def unused_corrections(cfg: CfgNode, corrected: Predictions, data: RunData) -> str | None:
    """Say if a person's labels came after the labels that they should have replaced were made."""
    folder, now = RunFolder(cfg.OUTPUT_DIR), describe_corrected(cfg, corrected, data)
    files = [folder.phase(phase) for phase in range(1, cfg.SSOD.NUM_PHASES + 1)]
    if now is None:
        return None
    made = [phase for phase in files if phase.pseudo_labels.exists()]
    learns_empty = not cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS
    with_empty = learns_empty and not all(map(len, corrected.values()))
    if not made or not _is_without(made[-1], now, with_empty=with_empty):
        return None
    labels, own = made[-1].pseudo_labels, f"{now['file']} ({_KEY})"
    if not made[-1].has_weights() and not made[-1].manifest.exists():
        return (
            f"{labels} is learned from as it was given (SSOD.PSEUDO_LABEL.FROM): the labels of "
            f"{own} join those that the run makes, for later phases"
        )
    if not made[-1].has_weights():
        return (
            f"{labels} was made without the labels of {own}, and its phase trains without them: "
            "delete it, unless you have corrected it, to have it made anew"
        )
    if made == files:
        return (
            f"The labels of all phases are made already, without those of {own}, which are not "
            f"used: add a phase (SSOD.NUM_PHASES {cfg.SSOD.NUM_PHASES + 1})"
        )
    return None


def say_corrected(cfg: CfgNode, phase: int, data: RunData, corrected: Predictions) -> None:
    """Say how many images of a phase have a person's labels, and which have them no more."""
    _warn_of_those_forgotten(cfg, phase, data, corrected)
    if corrected:
        logger.info(
            "Phase %d: %d images have the labels of %s, %d objects, as it has them, whether a "
            "person has looked at each or not",
            *(phase, len(corrected), cfg.SSOD.PSEUDO_LABEL.CORRECTED),
            sum(map(len, corrected.values())),
        )


def _warn_of_those_forgotten(
    cfg: CfgNode, phase: int, data: RunData, corrected: Predictions
) -> None:
    """Warn of a person's labels that the phase before had, and this one has not."""
    files, labels = (RunFolder(cfg.OUTPUT_DIR).phase(n) for n in (phase - 1, phase))
    if not files.pseudo_labels.exists():
        return
    try:
        were_edited = not corrected and were_changed(files)
        gone = [] if _is_of_models_alone(files) else _left_out(files, data, corrected)
    except ConfigError:  # damaged since it was learned from, which nothing depends on any more
        return
    if gone:
        logger.warning(
            "Phase %d: %d images of which phase %d had a person's labels, such as %s, are not in "
            "SSOD.PSEUDO_LABEL.CORRECTED, and have models' labels again, or none: name a folder "
            "with the files of all rounds there, and delete %s to have it made anew",
            *(phase, len(gone), phase - 1, gone[0]["file_name"], labels.pseudo_labels),
        )
    if were_edited:
        logger.warning(
            "Phase %d: %s was changed after it was made, which holds for its own phase alone: to "
            "have what a person has changed in this one, too, let SSOD.PSEUDO_LABEL.CORRECTED name "
            "a file with these images, and delete %s to have it made anew",
            *(phase, files.pseudo_labels, labels.pseudo_labels),
        )


def _left_out(files: PhaseFolder, data: RunData, corrected: Predictions) -> list[dict]:
    """List the images that a phase has a person's labels of, and that have none now."""
    images = load_labels(files.pseudo_labels, data.unlabeled, data.thing_classes)
    return [i for i in images if i["is_corrected"] and i["image_id"] not in corrected]


def _is_of_models_alone(files: PhaseFolder) -> bool:
    """Tell whether a phase's labels are known to have been made without any of a person's."""
    return files.manifest.exists() and "corrected" not in read_record(files.manifest, {})


def _is_without(files: PhaseFolder, corrected: dict[str, Any], *, with_empty: bool) -> bool:
    """Tell whether a phase's labels were made without these corrections, or images without any."""
    known = read_record(files.manifest, {}, {"corrected": dict}) if files.manifest.exists() else {}
    if with_empty and known.get("format_version") == 1:  # which had no such images
        return True
    of_labels = known.get("corrected", {})
    key = "labels_sha256" if "labels_sha256" in of_labels else "sha256"
    return of_labels.get(key) != corrected[key]
