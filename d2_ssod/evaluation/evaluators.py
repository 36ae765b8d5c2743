"""The evaluators: COCO's metrics and Pascal VOC's, and which of them judges a data set."""

from __future__ import annotations

import os
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator, PascalVOCDetectionEvaluator
from detectron2.evaluation.pascal_voc_evaluation import parse_rec
from detectron2.utils import comm

from d2_ssod.structures import Detections, ImageId, Predictions, from_instances

from .coco_metrics import Metrics, box_metrics
from .ground_truth import evaluator_kind, objects_of, read_coco_truth, read_voc_truth


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
        images = read_coco_truth(dataset_name)
        self._truths = {image["image_id"]: objects_of(image) for image in images}
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
            [objects_of(image) for image in judged],
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
            parse_rec.cache_clear()  # of files that are gone, and never asked for again

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
