"""The data sets that can be named in a config without more ado; loaded when first asked for.

They lie under `$DETECTRON2_DATASETS` (default `datasets`), laid out as Detectron2 documents it:
`VOC2007/`, `VOC2012/`, `coco/`.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

import detectron2.data.datasets  # noqa: F401  registers Detectron2's own data sets
from detectron2.data import DatasetCatalog, MetadataCatalog

from .coco import load_coco
from .voc import load_voc_labeled, load_voc_unlabeled

# Name: (image folder, annotation file, whether its annotations are used), below coco/.
COCO = {
    "coco_35_labeled": ("val2014", "instances_valminusminival2014.json", True),
    "coco_80_unlabeled": ("train2014", "instances_train2014.json", False),
    "coco_115_labeled": ("train2017", "instances_train2017.json", True),
    "coco_120_unlabeled": ("unlabeled2017", "image_info_unlabeled2017.json", False),
}
# Name: (year, split), labeled without difficult objects.
VOC_LABELED = {
    "voc_2007_trainval_labeled": (2007, "trainval"),
    "voc_2012_trainval_labeled": (2012, "trainval"),
}
VOC_UNLABELED = {"voc_2012_trainval_unlabeled": (2012, "trainval")}


def datasets_root() -> str:
    """Name the folder that Detectron2 looks for data sets in."""
    return os.path.expanduser(os.getenv("DETECTRON2_DATASETS", "datasets"))


def register_builtin(root: str) -> None:
    """Register all of this module's data sets under `root`; a second call changes nothing."""
    _register_coco(os.path.join(root, "coco"))
    for name, (year, split) in VOC_LABELED.items():
        _register_voc(name, os.path.join(root, f"VOC{year}"), year, split, load_voc_labeled)
    for name, (year, split) in VOC_UNLABELED.items():
        _register_voc(name, os.path.join(root, f"VOC{year}"), year, split, _load_voc_unlabeled)


def register_lazily(name: str, load: Callable[[], list[dict[str, Any]]], **metadata: Any) -> None:
    """Register a data set that is loaded when first asked for, unless it is registered."""
    if name not in DatasetCatalog:
        DatasetCatalog.register(name, load)
        MetadataCatalog.get(name).set(**metadata)


def _register_coco(folder: str) -> None:
    """COCO's labeled / unlabeled splits; `coco_2014_minival` and `coco_2017_val` test them."""
    classes = MetadataCatalog.get("coco_2017_val")
    for name, (images, file_name, annotated) in COCO.items():
        json_file = os.path.join(folder, "annotations", file_name)
        image_root = os.path.join(folder, images)
        register_lazily(
            name,
            functools.partial(load_coco, json_file, image_root, name, annotations=annotated),
            thing_classes=classes.thing_classes,
            thing_colors=classes.thing_colors,
            thing_dataset_id_to_contiguous_id=classes.thing_dataset_id_to_contiguous_id,
            json_file=json_file,
            image_root=image_root,
            evaluator_type="coco",
        )


def _register_voc(
    name: str, folder: str, year: int, split: str, load: Callable[..., list[dict[str, Any]]]
) -> None:
    classes = MetadataCatalog.get("voc_2007_test").thing_classes
    register_lazily(
        name,
        functools.partial(load, folder, split, classes),
        thing_classes=classes,
        dirname=folder,
        year=year,
        split=split,
        evaluator_type="pascal_voc",
    )


def _load_voc_unlabeled(folder: str, split: str, classes: list[str]) -> list[dict[str, Any]]:
    return load_voc_unlabeled(folder, split)
