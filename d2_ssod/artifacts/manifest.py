"""``manifest.json``: how the pseudo-labels of a phase came about."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from d2_ssod.json_files import write_json
from d2_ssod.pseudo_label import PseudoLabels

MANIFEST_VERSION = 1


def write_manifest(
    path: str | os.PathLike,
    labels: PseudoLabels,
    *,
    models: Sequence[str],
    thing_classes: Sequence[str],
    settings: dict[str, Any] | None = None,
    quality: dict[str, Any] | None = None,
) -> Path:
    """Write how the pseudo-labels of a phase came about.

    Args:
        path: the file to write.
        labels: the pseudo-labels with the numbers of every step.
        models: the source models (checkpoint paths), oldest first.
        thing_classes: class names.
        settings: further values to keep, such as the consensus' thresholds.
        quality: precision and recall after each step, where the truth is known.
    """
    kept_boxes = labels.boxes_per_class
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
                "kept_per_class": dict(zip(thing_classes, kept_boxes.tolist(), strict=True)),
            },
            "settings": settings or {},
            **({"quality": quality} if quality else {}),
        },
    )
