"""Which evaluator judges a data set, by its metadata; ground truth is what was read, not the file.

So an image, class or box counts in evaluation exactly if it does in training, whatever habits the
files have.
"""

from __future__ import annotations

import os
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator, PascalVOCDetectionEvaluator
from detectron2.structures import BoxMode
from detectron2.utils import comm

from d2_ssod.data.datasets import (
    CocoFile,
    DataSet,
    DataSource,
    VocFolder,
    is_of_detectron2,
    read_data_set,
)
from d2_ssod.errors import ConfigError
from d2_ssod.structures import Detections, ImageId, Predictions, from_instances

from .coco_metrics import Metrics, Truth, box_metrics

_OF_VOC = ("dirname", "split", "year")


def build_evaluator(dataset_name: str) -> DatasetEvaluator:
    """Build the evaluator for a registered data set, by its metadata's ``evaluator_type``.

    Args:
        dataset_name: of the test set.

    Raises:
        ConfigError: another ``evaluator_type`` than ``coco`` and ``pascal_voc``.
    """
    if evaluator_kind(dataset_name) == "coco":
        return BoxEvaluator(dataset_name)
    return VocEvaluator(dataset_name)


def evaluator_kind(dataset_name: str, key: str = "DATASETS.TEST") -> Literal["coco", "pascal_voc"]:
    """Read the ``evaluator_type`` in the metadata of a registered data set.

    Args:
        dataset_name: of the data set.
        key: which names it, for the error.

    Raises:
        ConfigError: it is another, or missing, or what it needs is.
    """
    kind = MetadataCatalog.get(dataset_name).get("evaluator_type")
    if kind not in ("coco", "pascal_voc"):
        raise ConfigError(
            f"{key}: the data set {dataset_name!r} has evaluator_type {kind!r}; set it to "
            "'coco', which makes AP that of COCO, or 'pascal_voc' in its metadata"
        )
    missing = [k for k in _OF_VOC if MetadataCatalog.get(dataset_name).get(k) is None]
    if kind == "pascal_voc" and missing:
        raise ConfigError(
            f"{key}: the data set {dataset_name!r} has evaluator_type 'pascal_voc', but no "
            f"{missing[0]} in its metadata; add it, as {', '.join(_OF_VOC)} name VOC's files, or "
            "set evaluator_type to 'coco'"
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
    return _ground_truth(dataset_name)


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


class BoxEvaluator(DatasetEvaluator):
    """COCO's box metrics, named as by Detectron2, for subsets of the images, too.

    Where every class is found they are those of Detectron2's ``COCOEvaluator``. That one gives NaN
    for 0 if there is no detection at all, and can be asked only once.
    """

    def __init__(self, dataset_name: str) -> None:
        """Load the ground truth.

        Args:
            dataset_name: a registered data set.

        Raises:
            ConfigError: the ground truth cannot be used.
        """
        images = _ground_truth(dataset_name)
        self._truths = {image["image_id"]: _truth(image) for image in images}
        self._class_names = list(MetadataCatalog.get(dataset_name).thing_classes)
        self._found: Predictions = {}

    def reset(self) -> None:
        """Forget what was found."""
        self._found = {}

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Take what a model found in some images."""
        for given, output in zip(inputs, outputs, strict=True):
            self._found[given["image_id"]] = from_instances(output["instances"])

    def evaluate(self, img_ids: Sequence[ImageId] | None = None) -> dict[str, Metrics] | None:
        """Compute the metrics on all images or some; may be called again.

        Args:
            img_ids: images to judge; None: all of the data set.

        Returns:
            ``{"bbox": metrics}`` on the main process; None on the others.
        """
        found = _of_all_ranks(self._found)
        if found is None:
            return None
        judged = list(self._truths if img_ids is None else img_ids)
        truths = [self._truths[image_id] for image_id in judged]
        detections = [found.get(image_id, Detections.empty()) for image_id in judged]
        return {"bbox": box_metrics(truths, detections, self._class_names)}


class VocEvaluator(PascalVOCDetectionEvaluator):
    """Pascal VOC's AP by Detectron2, also for annotation files that lack what it expects.

    ``pose`` and ``truncated`` may be missing, and corners may be decimals (rounded here). Objects
    marked difficult count neither as found nor as missed, and classes without an object not at all.

    ``AP``, ``AP50`` and ``AP75`` are VOC's: for 2007 the mean of the precision at 11 recalls, for
    later years the area under the curve (Everingham et al., IJCV 2010). ``AP/coco``, ``AP50/coco``
    and ``AP75/coco`` are COCO's, at 101 recalls.
    """

    def __init__(self, dataset_name: str) -> None:
        """Load the ground truth.

        Args:
            dataset_name: a registered data set whose metadata has ``dirname``, ``split``, ``year``.

        Raises:
            ConfigError: the ground truth cannot be used.
        """
        super().__init__(dataset_name)
        self._images = read_voc_truth(dataset_name).usable_images()
        # Detectron2 takes names for paths, and splits lines at spaces: it knows images by numbers.
        self._numbers = {image["image_id"]: str(n) for n, image in enumerate(self._images)}
        self._found: Predictions = {}

    def reset(self) -> None:
        """Forget what was found."""
        super().reset()
        self._found = {}

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Take what a model found in some images of the data set."""
        names = [str(given["image_id"]) for given in inputs]
        super().process([{"image_id": self._numbers[name]} for name in names], outputs)
        for name, output in zip(names, outputs, strict=True):
            self._found[name] = from_instances(output["instances"])

    def evaluate(self, img_ids: Sequence[ImageId] | None = None) -> dict[str, Metrics] | None:
        """Compute both kinds of metrics, in percent.

        Args:
            img_ids: images to judge; None: all of the data set.

        Returns:
            ``{"bbox": metrics}`` on the main process; None on the others.
        """
        judged = self._images
        if img_ids is not None:
            chosen = {str(image_id) for image_id in img_ids}
            judged = [image for image in judged if image["image_id"] in chosen]
        found = _of_all_ranks(self._found)
        results = self._voc_metrics(judged)
        if results is None or found is None:
            return None
        of_coco = box_metrics(
            [_truth(image) for image in judged],
            [found.get(image["image_id"], Detections.empty()) for image in judged],
            list(self._class_names),
        )
        named = {f"{name}/coco": of_coco[name] for name in results["bbox"]}
        return {"bbox": {**results["bbox"], **named}}

    def _voc_metrics(self, judged: Sequence[dict]) -> dict[str, Metrics] | None:
        """Have Detectron2 judge these images, and classes of which there is an object."""
        kept = self._predictions, self._class_names
        asked_for = {self._numbers[image["image_id"]] for image in judged}
        there = _classes_to_find(judged)
        # Lines that begin with the image; Detectron2's evaluation asks for no others.
        self._predictions = {
            place: [line for line in kept[0].get(number, ()) if line.split()[0] in asked_for]
            for place, number in enumerate(there)
        }
        self._class_names = [kept[1][number] for number in there]
        try:
            with tempfile.TemporaryDirectory(prefix="voc_truth_") as folder:
                self._image_set_path = os.path.join(folder, "images.txt")
                self._anno_file_template = os.path.join(folder, "{}.xml")
                if comm.is_main_process():
                    self._write_truth(judged, kept[1])
                return super().evaluate()
        finally:
            self._predictions, self._class_names = kept

    def _write_truth(self, judged: Sequence[dict], class_names: Sequence[str]) -> None:
        numbers = [self._numbers[image["image_id"]] for image in judged]
        Path(self._image_set_path).write_text("\n".join(numbers), encoding="utf-8")
        for number, image in zip(numbers, judged, strict=True):
            root = ElementTree.Element("annotation")
            for annotation in image["annotations"]:
                root.append(_voc_object(class_names, annotation))
            path = self._anno_file_template.format(number)
            ElementTree.ElementTree(root).write(path, encoding="utf-8")


def _of_all_ranks(found: Predictions) -> Predictions | None:
    """Gather what every rank's model found; None on other processes than the main one."""
    gathered = comm.gather(found)
    if not comm.is_main_process():
        return None
    return {image_id: of_image for of_rank in gathered for image_id, of_image in of_rank.items()}


def _classes_to_find(images: Sequence[dict]) -> list[int]:
    """List the classes that have an object which is not difficult."""
    found = (a for image in images for a in image["annotations"] if not a["iscrowd"])
    return sorted({annotation["category_id"] for annotation in found})


def _voc_object(class_names: Sequence[str], annotation: dict) -> ElementTree.Element:
    """Write an object with all that Detectron2's reader looks for."""
    item = ElementTree.Element("object")
    flags = {"pose": "Unspecified", "truncated": "0", "difficult": str(annotation["iscrowd"])}
    for tag, text in {"name": class_names[annotation["category_id"]], **flags}.items():
        ElementTree.SubElement(item, tag).text = text
    x0, y0, x1, y1 = annotation["bbox"]
    corners = {"xmin": x0 + 1, "ymin": y0 + 1, "xmax": x1, "ymax": y1}
    box = ElementTree.SubElement(item, "bndbox")
    for tag, value in corners.items():
        ElementTree.SubElement(box, tag).text = str(round(value))
    return item


def _ground_truth(name: str) -> list[dict[str, Any]]:
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


def _of_file(name: str) -> list[dict[str, Any]]:
    metadata = MetadataCatalog.get(name)
    data_set = CocoFile(metadata.json_file, metadata.get("image_root", "")).read()
    return list(_renumbered(data_set, metadata.get("thing_dataset_id_to_contiguous_id")))


def _of_file_if_same(name: str, own: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give the images as the file has them, if a function gives these, with these classes."""
    try:
        of_file = {image["image_id"]: image for image in _of_file(name)}
    except (ConfigError, KeyError):  # of another format, or with other categories
        return own
    if of_file.keys() != {image["image_id"] for image in own}:
        return own
    pairs = [(image, of_file[image["image_id"]]) for image in own]
    is_same = all(_classes_in(image) <= _classes_in(other) for image, other in pairs)
    return [other for _, other in pairs] if is_same else own


def _classes_in(image: dict[str, Any]) -> set[int]:
    return {annotation["category_id"] for annotation in image.get("annotations", ())}


def _renumbered(data_set: DataSet, numbers: dict | None) -> Iterator[dict[str, Any]]:
    """Yield the images with the classes numbered as the metadata says, if it does."""
    for image in data_set.usable_images():
        for annotation in image.get("annotations", ()):
            if numbers:
                category_id = data_set.category_ids[annotation["category_id"]]
                annotation["category_id"] = numbers[category_id]
        yield image


def _truth(image: dict[str, Any]) -> Truth:
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
