"""By what a data set is judged: what was read, not the file.

So an image, class or box counts in evaluation exactly if it does in training, whatever habits the
files have.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

from d2_ssod.data.datasets import (
    CocoFile,
    DataSet,
    DataSource,
    VocFolder,
    is_of_detectron2,
    read_data_set,
)
from d2_ssod.data.datasets.coco import category_id_of
from d2_ssod.errors import ConfigError

from .coco_metrics import Truth

_OF_VOC = ("dirname", "split", "year")


def evaluator_kind(dataset_name: str, key: str = "DATASETS.TEST") -> Literal["coco", "pascal_voc"]:
    """Read the ``evaluator_type`` in the metadata of a registered data set.

    Args:
        dataset_name: of the data set.
        key: which names it, for the error.

    Raises:
        ConfigError: it is another, or missing, or what it needs is.
    """
    if dataset_name not in DatasetCatalog and dataset_name not in MetadataCatalog:
        raise ConfigError(
            f"{key}: no data set is registered as {dataset_name!r}: correct the name, or register "
            "yours"
        )
    kind = MetadataCatalog.get(dataset_name).get("evaluator_type")
    if kind not in ("coco", "pascal_voc"):
        raise ConfigError(
            f"{key}: the data set {dataset_name!r} has evaluator_type {kind!r}; set it to "
            "'coco', which makes AP that of COCO, or 'pascal_voc' in its metadata"
        )
    if kind == "coco":
        return kind
    metadata = MetadataCatalog.get(dataset_name)
    missing = [k for k in _OF_VOC if metadata.get(k) is None]
    if missing:
        raise ConfigError(
            f"{key}: the data set {dataset_name!r} has evaluator_type 'pascal_voc', but no "
            f"{missing[0]} in its metadata; add it, as {', '.join(_OF_VOC)} name VOC's files, or "
            "set evaluator_type to 'coco'"
        )
    if metadata.year not in (2007, 2012):
        raise ConfigError(
            f"{key}: the data set {dataset_name!r} has year {metadata.year!r} in its metadata; set "
            "it to 2007, for AP at 11 recalls, or 2012, for the area under the curve"
        )
    return kind


def ground_truth(dataset_name: str) -> list[dict[str, Any]]:
    """Read the images by which a data set is judged, with objects that do not count as crowds.

    Args:
        dataset_name: a registered data set.

    Raises:
        ConfigError: it cannot be used.
    """
    if evaluator_kind(dataset_name) == "pascal_voc":
        return read_voc_truth(dataset_name).usable_images()
    return read_coco_truth(dataset_name)


def read_voc_truth(dataset_name: str) -> DataSet:
    """Read the VOC files by which a data set is judged, whatever function it is read by.

    Args:
        dataset_name: a registered data set whose metadata has ``dirname``, ``split``, ``year``.

    Raises:
        ConfigError: its list, or its folder, cannot be read.
    """
    metadata = MetadataCatalog.get(dataset_name)
    classes = tuple(metadata.thing_classes)
    return VocFolder(metadata.dirname, metadata.split, class_names=classes).read()


def read_coco_truth(name: str) -> list[dict[str, Any]]:
    """Read the labeled images of a data set; by our reader, where Detectron2's was registered.

    Detectron2's own loader leaves out objects' areas, and objects whose polygons are odd. So may a
    function of one's own, if it gives what the file has; if not, what it gives is the truth.
    """
    json_file = MetadataCatalog.get(name).get("json_file")
    if name in DatasetCatalog and not is_of_detectron2(name):
        own = read_data_set(name).usable_images()
        is_of_file = isinstance(DatasetCatalog[name], DataSource)  # by our reader
        return own if json_file is None or is_of_file else _of_file_if_same(name, own)
    return read_data_set(name).usable_images() if json_file is None else _of_file(name)


def objects_of(image: dict[str, Any]) -> Truth:
    """Collect the objects of an image, whose dict may be one of Detectron2's own."""
    found = image.get("annotations", ())
    boxes = [BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYWH_ABS) for a in found]
    array = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    areas = [a.get("area", w * h) for a, (_, _, w, h) in zip(found, array.tolist(), strict=True)]
    return Truth(
        array,
        np.array([a["category_id"] for a in found], dtype=np.int64),
        np.array([a.get("iscrowd", 0) for a in found], dtype=bool),
        np.array(areas, dtype=np.float64),
    )


def _of_file(name: str) -> list[dict[str, Any]]:
    metadata = MetadataCatalog.get(name)
    data_set = CocoFile(metadata.json_file, metadata.get("image_root", "")).read()
    numbers = metadata.get("thing_dataset_id_to_contiguous_id")
    return list(_renumbered(data_set, numbers, name) if numbers else data_set.usable_images())


def _of_file_if_same(name: str, own: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give the images as the file has them, if a function gives these, with these classes."""
    try:
        of_file = {image["image_id"]: image for image in _of_file(name)}
    except ConfigError:  # of another format, or with other categories
        return own
    if of_file.keys() != {image["image_id"] for image in own}:
        return own
    pairs = [(image, of_file[image["image_id"]]) for image in own]
    is_same = all(_classes_in(image) <= _classes_in(other) for image, other in pairs)
    return [other for _, other in pairs] if is_same else own


def _classes_in(image: dict[str, Any]) -> set[int]:
    return {annotation["category_id"] for annotation in image.get("annotations", ())}


def _renumbered(data_set: DataSet, numbers: dict, name: str) -> Iterator[dict[str, Any]]:
    """Yield the images with the classes numbered as the metadata says."""
    number_of = {category_id_of(category_id): number for category_id, number in numbers.items()}
    for image in data_set.usable_images():
        for annotation in image.get("annotations", ()):
            category_id = data_set.category_ids[annotation["category_id"]]
            if category_id not in number_of:
                raise ConfigError(
                    f"{name}: {MetadataCatalog.get(name).json_file} has objects of the category "
                    f"id {category_id!r}, which thing_dataset_id_to_contiguous_id in its metadata "
                    f"has not: {dict(numbers)}; add it, or remove its objects"
                )
            annotation["category_id"] = number_of[category_id]
        yield image
