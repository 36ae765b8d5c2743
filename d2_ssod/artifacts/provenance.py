"""What predictions were made of, so that those of other images or settings are not taken for them.

Predictions name images by their ids. A folder of images numbers them in its order, so ids stay the
same while the images behind them change when files come or go between two starts of a run.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode

from d2_ssod.config import value_of
from d2_ssod.errors import ConfigError
from d2_ssod.json_files import read_json
from d2_ssod.modeling.detectors import detector_of

from .layout import RunFolder

# What inference with any detector reads, besides the model.
_KEYS = (
    "SSOD.TTA.ENABLED",
    "SSOD.INFERENCE_BATCH_SIZE",
    "INPUT.FORMAT",
    "TEST.DETECTIONS_PER_IMAGE",
)
_SIZES = ("INPUT.MIN_SIZE_TEST", "INPUT.MAX_SIZE_TEST")
_TTA_SIZES = ("TEST.AUG.MIN_SIZES", "TEST.AUG.MAX_SIZE", "TEST.AUG.FLIP")


def prediction_source(cfg: CfgNode, images: Sequence[dict]) -> dict[str, Any]:
    """Describe the images and the settings that predictions depend on, for a JSON file.

    Args:
        cfg: the run's config.
        images: dicts of all unlabeled images. Where their common folder lies does not count.
    """
    paths = [os.path.abspath(image["file_name"]) for image in images]
    root = os.path.commonpath([os.path.dirname(path) for path in paths])
    digest = hashlib.sha256()
    for image, path in zip(images, paths, strict=True):
        digest.update(f"{image['image_id']}\0{os.path.relpath(path, root)}\0".encode())
    return {"images": len(images), "images_sha256": digest.hexdigest(), "settings": _settings(cfg)}


def _settings(cfg: CfgNode) -> dict[str, Any]:
    """Collect the keys that inference with this config reads, and their values as in JSON."""
    sizes = _TTA_SIZES if cfg.SSOD.TTA.ENABLED else _SIZES
    values = {key: value_of(cfg, key) for key in _KEYS + sizes + detector_of(cfg).inference_keys}
    return {key: list(v) if isinstance(v, tuple) else v for key, v in values.items()}


def check_predictions(cfg: CfgNode, phase: int, images: Sequence[dict]) -> None:
    """Check that a phase's existing predictions are of these images, made with these settings.

    So are those that an interruption left incomplete, which are to be completed.
    Predictions that came without a note of their source are taken as they are.

    Raises:
        ConfigError: naming what differs.
    """
    files = RunFolder(cfg.OUTPUT_DIR).phase(phase)
    existing = [path for path in (files.predictions, files.partial_predictions) if path.exists()]
    if not (existing and files.predictions_source.exists()):
        return
    made, now = read_json(files.predictions_source), prediction_source(cfg, images)
    if made == now:
        return
    raise ConfigError(
        f"{existing[0]} was made {_difference(made, now)}; undo that change, or delete it to have "
        "it made again"
    )


def _difference(made: dict[str, Any], now: dict[str, Any]) -> str:
    """Name the first thing that differs."""
    if made.get("images_sha256") != now["images_sha256"]:
        return (
            f"of {made.get('images')} images that are not the {now['images']} that "
            "DATASETS.UNLABELED has now"
        )
    then = made.get("settings", {})
    key = next(k for k in {**then, **now["settings"]} if then.get(k) != now["settings"].get(k))
    return f"with {key} {then.get(key)}, which is {now['settings'].get(key)} now"
