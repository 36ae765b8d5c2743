"""``manifest.json``: how the pseudo-labels of a phase came about."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.config import CfgNode

from d2_ssod.json_files import read_record, write_json
from d2_ssod.pseudo_label import PseudoLabels, easy_fraction

from .differences import differences_between, refuse
from .digests import digest_of_file
from .layout import PhaseFolder, RunFolder
from .settings import label_settings

logger = logging.getLogger(__name__)

MANIFEST_VERSION = 2  # 1 had settings by other names
_WRITTEN = "pseudo_labels_sha256"  # not of all versions


def write_manifest(
    path: str | os.PathLike,
    labels: PseudoLabels,
    *,
    models: Sequence[str],
    thing_classes: Sequence[str],
    settings: dict[str, Any] | None = None,
    quality: dict[str, Any] | None = None,
    corrected: dict[str, Any] | None = None,
    written: str | os.PathLike | None = None,
) -> Path:
    """Write how the pseudo-labels of a phase came about.

    Args:
        path: the file to write.
        labels: the pseudo-labels with the numbers of every step.
        models: the source models (checkpoint paths), oldest first.
        thing_classes: class names.
        settings: what the labels depend on, by config key.
        quality: precision and recall after each step, where the truth is known.
        corrected: how many images and boxes are a person's, and from which file.
        written: the file of the labels, of which it is noted what it is, so that a change is known.
    """

    def by_class(boxes: np.ndarray) -> dict[str, int]:
        return dict(zip(thing_classes, boxes.tolist(), strict=True))

    return write_json(
        path,
        {
            "format_version": MANIFEST_VERSION,
            "sources": {
                model: {
                    name: {
                        "threshold": thresholds.values[number],
                        "target_per_image": thresholds.target[number],
                        "achieved_per_image": thresholds.achieved[number],
                    }
                    for number, name in enumerate(thing_classes)
                }
                for model, thresholds in zip(models, labels.thresholds, strict=True)
            },
            "selection": {
                "fraction": labels.fraction,
                "images": labels.num_unlabeled,
                "images_kept": len(labels.selection.kept),
                "images_left_out": len(labels.selection.left_out),
                "images_empty": len(labels.selection.empty),
                "score_of_last_kept": labels.score_of_last_kept,
            },
            "boxes": {
                "after_threshold": dict(zip(models, labels.boxes_after_threshold, strict=True)),
                "after_consensus": labels.boxes_after_consensus,
                "kept": labels.num_boxes,
                "after_threshold_per_class": dict(
                    zip(models, map(by_class, labels.thresholded), strict=True)
                ),
                "after_consensus_per_class": by_class(labels.agreed),
                "kept_per_class": by_class(labels.boxes_per_class),
            },
            "settings": settings or {},
            **({"quality": quality} if quality else {}),
            **({"corrected": corrected} if corrected else {}),
            **({_WRITTEN: digest_of_file(written)} if written else {}),
        },
    )


def were_changed(files: PhaseFolder) -> bool | None:
    """Tell whether a phase's labels are others than the run has written; None if not known.

    Raises:
        ConfigError: the manifest is damaged.
    """
    if not (files.manifest.exists() and files.pseudo_labels.exists()):
        return None
    known = read_record(files.manifest, {}).get(_WRITTEN)
    return None if known is None else digest_of_file(files.pseudo_labels) != known


def check_label_settings(cfg: CfgNode, phase: int) -> None:
    """Check that the pseudo-labels that exist of a phase were made with these settings.

    Those that came without a manifest are taken as they are.

    Args:
        cfg: the run's config.
        phase: 1..N.

    Raises:
        ConfigError: naming the first three settings that differ.
    """
    files = RunFolder(cfg.OUTPUT_DIR).phase(phase)
    if not (files.pseudo_labels.exists() and files.manifest.exists()):
        return
    manifest = read_record(files.manifest, {"settings": dict}, {"selection": dict})
    if manifest.get("format_version") != MANIFEST_VERSION:
        logger.warning(
            "%s was written by another version: whether %s was made with these settings is not "
            "known",
            *(files.manifest, files.pseudo_labels),
        )
    differences = differences_between(manifest["settings"], label_settings(cfg))
    if given := cfg.SSOD.EASY_FRACTIONS:  # those by default depend on N, which may grow
        wanted = easy_fraction(phase, cfg.SSOD.NUM_PHASES, given)
        had = manifest.get("selection", {}).get("fraction", wanted)
        if had != wanted:
            differences.append(f"SSOD.EASY_FRACTIONS gave phase {phase} {had}, now {wanted}")
    refuse(cfg, f"{files.pseudo_labels} was made with other settings", differences)
