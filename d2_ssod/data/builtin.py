"""The data sets that can be named in a config without more ado; loaded when first asked for.

They lie under `$DETECTRON2_DATASETS` (default `datasets`), laid out as Detectron2 documents it:
`VOC2007/`, `VOC2012/`, `coco/`; `digit_scenes/` is generated there.
"""

from __future__ import annotations

import functools
import os
from typing import Any

import detectron2.data.datasets  # noqa: F401  registers Detectron2's own data sets
from detectron2.data import DatasetCatalog, MetadataCatalog

from . import digit_scenes
from .coco import load_coco

DIGIT_SCENES = {
    "digit_scenes_labeled": ("labeled", "labeled"),
    "digit_scenes_unlabeled": ("unlabeled", "unlabeled"),
    "digit_scenes_test": ("test", "test"),
    "digit_scenes_val": ("val", "val"),
    # For upper bounds and diagnostics only: the objects of the unlabelled images.
    "digit_scenes_unlabeled_truth": ("unlabeled", digit_scenes.HIDDEN_TRUTH),
}


def datasets_root() -> str:
    """The folder that Detectron2 looks for data sets in."""
    return os.path.expanduser(os.getenv("DETECTRON2_DATASETS", "datasets"))


def register_builtin(root: str) -> None:
    """Register all of this module's data sets under `root`; a second call changes nothing."""
    _register_digit_scenes(os.path.join(root, "digit_scenes"))


def _register(name: str, load: Any, **metadata: Any) -> None:
    if name not in DatasetCatalog:
        DatasetCatalog.register(name, load)
        MetadataCatalog.get(name).set(**metadata)


def _register_digit_scenes(folder: str) -> None:
    for name, (split, truth) in DIGIT_SCENES.items():
        json_file = str(digit_scenes.annotation_file(folder, truth))
        image_root = str(digit_scenes.image_folder(folder, split))
        _register(
            name,
            functools.partial(_load_digit_scenes, folder, json_file, image_root, name),
            thing_classes=[str(digit) for digit in digit_scenes.CLASSES],
            thing_dataset_id_to_contiguous_id={
                digit + 1: index for index, digit in enumerate(digit_scenes.CLASSES)
            },
            json_file=json_file,
            image_root=image_root,
            evaluator_type="coco",
        )


def _load_digit_scenes(
    folder: str, json_file: str, image_root: str, name: str
) -> list[dict[str, Any]]:
    digit_scenes.generate(folder)
    return load_coco(json_file, image_root, name)
