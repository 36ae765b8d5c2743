"""Which evaluator judges a data set, by its metadata."""

from __future__ import annotations

import contextlib
import io
import logging
import os
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from detectron2.data import MetadataCatalog
from detectron2.evaluation import COCOEvaluator, DatasetEvaluator, PascalVOCDetectionEvaluator

from d2_ssod.errors import ConfigError
from d2_ssod.structures import ImageId

Metrics = dict[str, float]


def build_evaluator(
    dataset_name: str, output_dir: str | os.PathLike | None = None
) -> DatasetEvaluator:
    """Build the evaluator for a registered data set, by its metadata's ``evaluator_type``.

    Args:
        dataset_name: of the test set.
        output_dir: where a COCO evaluator writes the results it was given; None: nowhere.

    Raises:
        ConfigError: another ``evaluator_type`` than ``coco`` and ``pascal_voc``.
    """
    if evaluator_kind(dataset_name) == "coco":
        return BoxEvaluator(dataset_name, output_dir)
    return PascalVOCDetectionEvaluator(dataset_name)


def evaluator_kind(dataset_name: str) -> Literal["coco", "pascal_voc"]:
    """Read the ``evaluator_type`` in the metadata of a registered data set.

    Raises:
        ConfigError: it is another, or missing.
    """
    kind = MetadataCatalog.get(dataset_name).get("evaluator_type")
    if kind not in ("coco", "pascal_voc"):
        raise ConfigError(
            f"DATASETS.TEST: the data set {dataset_name!r} has evaluator_type {kind!r}; set it to "
            "'coco' or 'pascal_voc' in its metadata"
        )
    return kind


class BoxEvaluator(COCOEvaluator):
    """COCO's box metrics, also for subsets of the images and for models that find nothing.

    Detectron2's evaluator can be asked only once, because it changes the collected results; gives
    NaN instead of 0 if there is no detection; and names the APs of the classes wrongly if category
    ids and classes are not in the same order. This one also keeps the COCO API's tables off stdout.
    """

    def __init__(self, dataset_name: str, output_dir: str | os.PathLike | None = None) -> None:
        """Load the ground truth.

        Args:
            dataset_name: a registered data set with a COCO file.
            output_dir: where to write the results; None: nowhere.
        """
        super().__init__(
            dataset_name,
            tasks=("bbox",),
            output_dir=None if output_dir is None else os.fspath(output_dir),
            use_fast_impl=False,
            allow_cached_coco=False,
        )

    def _eval_predictions(
        self, predictions: list[dict], img_ids: Sequence[ImageId] | None = None
    ) -> None:
        copies = [
            {**of_image, "instances": [dict(result) for result in of_image["instances"]]}
            for of_image in predictions
        ]
        if not any(of_image["instances"] for of_image in copies):
            copies[0]["instances"] = [_miss(copies[0]["image_id"])]
        with contextlib.redirect_stdout(io.StringIO()), _only_warnings(self._logger):
            super()._eval_predictions(copies, img_ids=img_ids)

    def _derive_coco_results(
        self, coco_eval: Any, iou_type: str, class_names: Sequence[str] | None = None
    ) -> Metrics:
        # The COCO API's results are in the order of the category ids, whatever that of the classes.
        class_of = self._metadata.get("thing_dataset_id_to_contiguous_id")
        if class_names and class_of:
            class_names = [class_names[class_of[category_id]] for category_id in sorted(class_of)]
        return super()._derive_coco_results(coco_eval, iou_type, class_names)


def _miss(image_id: ImageId) -> dict[str, Any]:
    """Give a detection outside its image: with it alone, every AP with ground truth is 0."""
    return {"image_id": image_id, "category_id": 0, "bbox": [-2.0, -2.0, 1.0, 1.0], "score": 0.0}


@contextlib.contextmanager
def _only_warnings(logger: logging.Logger) -> Iterator[None]:
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
