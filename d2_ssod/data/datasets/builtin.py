"""The data sets that can be named in a config without more ado; loaded when first asked for.

They lie under `$DETECTRON2_DATASETS` (default `datasets`), laid out as Detectron2 documents it:
`VOC2007/`, `VOC2012/`, `coco/`.
"""

from __future__ import annotations

import os

import detectron2.data.datasets  # noqa: F401  registers Detectron2's own data sets
from detectron2.data import MetadataCatalog

from .catalog import is_of_detectron2, is_registered_otherwise, register_files
from .coco import CocoFile
from .voc import VocFolder

# Name: (image folder, annotation file, whether its annotations are used), below coco/.
COCO = {
    "coco_35_labeled": ("val2014", "instances_valminusminival2014.json", True),
    "coco_80_unlabeled": ("train2014", "instances_train2014.json", False),
    "coco_115_labeled": ("train2017", "instances_train2017.json", True),
    "coco_120_unlabeled": ("unlabeled2017", "image_info_unlabeled2017.json", False),
    # Made by `python -m d2_ssod split`.
    **{
        f"coco_{percent}_percent_{part}": (
            "train2017",
            f"instances_train2017_{percent}_percent_{part}.json",
            part == "labeled",
        )
        for percent in (1, 2, 5, 10)
        for part in ("labeled", "unlabeled")
    },
}
# Name: (year, split, whether its annotations are used).
VOC = {
    "voc_2007_trainval_labeled": (2007, "trainval", True),
    "voc_2012_trainval_labeled": (2012, "trainval", True),
    "voc_2012_trainval_unlabeled": (2012, "trainval", False),
}
_ADVICE = (
    "put PASCAL VOC there, or set the environment variable DETECTRON2_DATASETS to the folder that "
    "it is in"
)


def datasets_root() -> str:
    """Name the folder that Detectron2 looks for data sets in."""
    return os.path.expanduser(os.getenv("DETECTRON2_DATASETS", "datasets"))


def register_builtin(root: str) -> None:
    """Register all of this module's data sets under `root`; a second call changes nothing.

    A name that somebody has given to data sets of their own stays theirs.

    COCO's labeled and unlabeled splits are tested by Detectron2's ``coco_2014_minival`` (35, 80)
    and ``coco_2017_val``, VOC's by its ``voc_2007_test``.
    """
    _register_coco(os.path.join(root, "coco"))
    _register_voc(root)


def missing_paths(name: str) -> list[str]:
    """List what an official data set, Detectron2's own or one of these, needs and does not find."""
    metadata = MetadataCatalog.get(name)
    if name not in {*COCO, *VOC} and not is_of_detectron2(name):
        return []
    needed = [metadata.get("json_file"), metadata.get("image_root")]
    if metadata.get("dirname") and metadata.get("split"):
        parts = ["JPEGImages", os.path.join("ImageSets", "Main", f"{metadata.split}.txt")]
        if VOC.get(name, (0, "", True))[2]:
            parts.append("Annotations")
        needed = [os.path.join(metadata.dirname, part) for part in parts]
    return [path for path in needed if path and "://" not in path and not os.path.exists(path)]


def _register_coco(folder: str) -> None:
    classes = MetadataCatalog.get("coco_2017_val")
    for name, (images, file_name, annotated) in COCO.items():
        if is_registered_otherwise(name):
            continue
        json_file = os.path.join(folder, "annotations", file_name)
        image_root = os.path.join(folder, images)
        register_files(
            name,
            CocoFile(json_file, image_root, annotations=annotated),
            thing_classes=classes.thing_classes,
            thing_colors=classes.thing_colors,
            thing_dataset_id_to_contiguous_id=classes.thing_dataset_id_to_contiguous_id,
            json_file=json_file,
            image_root=image_root,
            evaluator_type="coco",
        )


def _register_voc(root: str) -> None:
    classes = MetadataCatalog.get("voc_2007_test").thing_classes
    for name, (year, split, annotated) in VOC.items():
        if is_registered_otherwise(name):
            continue
        folder = os.path.join(root, f"VOC{year}")
        files = VocFolder(
            folder,
            split,
            class_names=tuple(classes),
            annotations=annotated,
            advice=_ADVICE,
        )
        register_files(
            name,
            files,
            thing_classes=classes,
            dirname=folder,
            year=year,
            split=split,
            evaluator_type="pascal_voc",
        )
