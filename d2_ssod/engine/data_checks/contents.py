"""What the data sets say, without looking at pictures."""

from __future__ import annotations

from collections import Counter

import numpy as np
from detectron2.config import CfgNode

from d2_ssod.data import checks, statistics
from d2_ssod.data.box_checks import check_boxes
from d2_ssod.data.datasets.named import JUDGING, KEYS, LABELED, NamedDataSets
from d2_ssod.data.findings import Findings
from d2_ssod.data.objects import trained_on
from d2_ssod.modeling import detector_of, num_classes

from .judging import check_truth_files


def check_contents(cfg: CfgNode, sets: NamedDataSets) -> Findings:
    """Check what the data sets say, without looking at pictures."""
    findings = Findings()
    for place, found in sets.placed(*KEYS):
        findings.extend(found.findings)
        if not found.findings.has_errors:
            checks.check_not_empty(found.images, place, findings)
    with_classes = {
        place: found.thing_classes
        for place, found in sets.placed(*LABELED)
        if not found.findings.has_errors
    }
    checks.check_same_classes(with_classes, findings)
    if sets.thing_classes is not None:
        _check_labeled(cfg, sets, sets.thing_classes, findings)
    for place, found in sets.placed("UNLABELED"):
        checks.check_sizes(found.images, place, findings)
    for place, found in sets.placed("UNLABELED", *JUDGING):
        _check_ids(found.images, place, findings)
    for place, found in sets.placed(*JUDGING):
        checks.check_difficulties(found.images, place, findings)
    check_truth_files(sets, findings)
    return findings


def _check_labeled(
    cfg: CfgNode, sets: NamedDataSets, classes: list[str], findings: Findings
) -> None:
    if num_classes(cfg) != len(classes):
        findings.error(
            "",
            "another number of classes",
            f"{detector_of(cfg).num_classes_key} is {num_classes(cfg)}, but {sets.first_labeled} "
            f"(DATASETS.TRAIN) has {len(classes)} classes",
            "set it to that",
        )
    for place, found in sets.placed(*LABELED):
        if found.thing_classes is None or found.findings.has_errors:
            continue
        before = len(findings)
        checks.check_annotations(found.images, len(classes), place, findings)
        checks.check_has_objects(found.images, place, findings)
        if len(findings) == before:
            check_boxes(found.images, place, findings)
    labeled = sets.of_key("TRAIN")
    if not findings.has_errors:
        resizing, place = (cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST), "DATASETS.TRAIN"
        checks.check_trained_on(labeled, len(trained_on(cfg, labeled)), place, findings)
        statistics.check_crowds(labeled, place, findings)
        statistics.check_balance(labeled, classes, place, findings)
        statistics.check_visible(labeled, resizing, place, findings)
        statistics.check_number_of_objects(labeled, cfg.TEST.DETECTIONS_PER_IMAGE, place, findings)
    if not findings.has_errors and detector_of(cfg).has_anchors:
        statistics.check_anchors(
            labeled,
            # of each level, or, as one list, of all
            np.hstack(cfg.MODEL.ANCHOR_GENERATOR.SIZES).tolist(),
            np.hstack(cfg.MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS).tolist(),
            resizing,
            place,
            findings,
        )


def _check_ids(images: list[dict], place: str, findings: Findings) -> None:
    """Predictions, pseudo-labels and results are kept by image id."""
    for image_id, count in Counter(image["image_id"] for image in images).items():
        if count > 1:
            findings.error(
                place,
                "repeated image ids",
                f"image_id {image_id!r} occurs {count} times",
                "give each image its own id",
            )
