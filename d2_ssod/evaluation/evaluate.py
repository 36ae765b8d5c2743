"""One pass over the test images: every phase's model alone, and the ensembles 1~N and 0~N."""

import contextlib
import inspect
import io
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from detectron2.data import MetadataCatalog
from detectron2.evaluation import COCOEvaluator, DatasetEvaluator, PascalVOCDetectionEvaluator
from detectron2.utils import comm
from torch import nn

from d2_ssod.errors import ConfigError
from d2_ssod.progress import progress_bar
from d2_ssod.pseudo_label import ImageId, evaluation_mode

from .ensemble import EnsembleRCNN, Outputs, fuse_outputs

__all__ = [
    "BoxEvaluator",
    "PhaseResults",
    "build_evaluator",
    "difficulty_subsets",
    "evaluate_phases",
    "evaluator_kind",
]

Metrics = dict[str, float]


@dataclass(frozen=True)
class PhaseResults:
    """What an evaluation found, in percent.

    Attributes:
        phases: the metrics of each model alone, phase 0 first.
        ensembles: the metrics of the ensembles, keys ``1~N`` and ``0~N``.
    """

    phases: list[Metrics]
    ensembles: dict[str, Metrics]


def evaluate_phases(
    models: Sequence[nn.Module],
    data_loader: Iterable[list[dict]],
    make_evaluator: Callable[[str], DatasetEvaluator],
    *,
    weights: Sequence[float] | None = None,
    iou_thresh: float = 0.6,
    skip_box_thresh: float = 1e-4,
    max_detections: int | None = 100,
    subsets: Mapping[str, Sequence[ImageId]] | None = None,
) -> PhaseResults | None:
    """Evaluates each phase's model, their ensemble without phase 0 and that of all.

    Every image is read once and seen by every model once. Every process handles the images that its
    own loader gives; all must call this function. With N = 1, ``1~N`` is phase 1 alone; with
    phase 0 only there are no ensembles.

    Args:
        models: the models of phases 0..N, called like ``GeneralizedRCNN``; their modes are as
            before afterwards.
        data_loader: gives lists of dicts with ``image_id``.
        make_evaluator: makes an evaluator for a row of the table (``phase_0``, ..., ``1~N``,
            ``0~N``), such as ``build_evaluator`` for the test set.
        weights: of each model in the ensembles; 1 by default.
        iou_thresh: IoU above which boxes are fused.
        skip_box_thresh: boxes with a lower score are left out of the ensembles.
        max_detections: boxes per image of the ensembles; None: all.
        subsets: image ids by name; each adds metrics such as ``AP50/easy``. Needs evaluators whose
            ``evaluate`` takes ``img_ids``.

    Returns:
        On the main process the metrics as the evaluators name them; None on the others.

    Raises:
        ValueError: no models, another number of weights than models, or subsets with an evaluator
            that knows none (Pascal VOC's).
    """
    ensemble = EnsembleRCNN(
        models,
        weights=weights,
        iou_thresh=iou_thresh,
        skip_box_thresh=skip_box_thresh,
        max_detections=max_detections,
    )
    # Which models a row fuses; a row of one model is that model's own output.
    rows = {f"phase_{number}": [number] for number in range(len(models))}
    if len(models) > 2:
        rows["1~N"] = list(range(1, len(models)))
    if len(models) > 1:
        rows["0~N"] = list(range(len(models)))
    evaluators = {row: make_evaluator(row) for row in rows}
    for evaluator in evaluators.values():
        if subsets and "img_ids" not in inspect.signature(evaluator.evaluate).parameters:
            raise ValueError(
                f"subsets need an evaluator whose evaluate() takes img_ids, "
                f"{type(evaluator).__name__} does not; pass subsets=None"
            )
        evaluator.reset()

    with evaluation_mode(ensemble), torch.no_grad():
        for inputs in progress_bar(data_loader, description="Evaluating"):
            each = ensemble.forward_each(inputs)
            for row, numbers in rows.items():
                evaluators[row].process(inputs, _outputs_of_row(ensemble, each, numbers))

    metrics = {row: _metrics(evaluator, subsets or {}) for row, evaluator in evaluators.items()}
    if not comm.is_main_process():
        return None
    phases = [metrics[f"phase_{number}"] for number in range(len(models))]
    ensembles = {row: metrics[row] for row in ("1~N", "0~N") if row in metrics}
    if len(models) == 2:
        ensembles = {"1~N": dict(phases[1]), **ensembles}
    return PhaseResults(phases=phases, ensembles=ensembles)


def _outputs_of_row(ensemble: EnsembleRCNN, each: list[Outputs], numbers: list[int]) -> Outputs:
    if len(numbers) == 1:
        return each[numbers[0]]
    return fuse_outputs(
        [each[number] for number in numbers],
        weights=[ensemble.weights[number] for number in numbers],
        iou_thresh=ensemble.iou_thresh,
        skip_box_thresh=ensemble.skip_box_thresh,
        max_detections=ensemble.max_detections,
    )


def _metrics(evaluator: DatasetEvaluator, subsets: Mapping[str, Sequence[ImageId]]) -> Metrics:
    """All images' metrics, then those of the subsets, as plain floats in one flat dict."""
    metrics = _plain_floats(evaluator.evaluate())
    for name, image_ids in subsets.items():
        of_subset = _plain_floats(evaluator.evaluate(img_ids=list(image_ids)))
        metrics.update({f"{key}/{name}": value for key, value in of_subset.items()})
    return metrics


def _plain_floats(results: dict[str, Any] | None) -> Metrics:
    return {key: float(value) for key, value in (results or {}).get("bbox", {}).items()}


def difficulty_subsets(dataset_dicts: Sequence[dict]) -> dict[str, list[ImageId]]:
    """Easy (``difficulty`` < 0.5) and difficult test images; empty for data without difficulties.

    Args:
        dataset_dicts: the test images; a subset without an image is left out.
    """
    subsets: dict[str, list[ImageId]] = {"easy": [], "difficult": []}
    for record in dataset_dicts:
        if "difficulty" in record:
            subsets["easy" if record["difficulty"] < 0.5 else "difficult"].append(
                record["image_id"]
            )
    return {name: image_ids for name, image_ids in subsets.items() if image_ids}


def build_evaluator(
    dataset_name: str, output_dir: str | os.PathLike | None = None
) -> DatasetEvaluator:
    """The evaluator for a registered data set, by its metadata's ``evaluator_type``.

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
    """The ``evaluator_type`` in the metadata of a registered data set.

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
        """Loads the ground truth.

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
    """A detection outside its image: with it alone, every AP with ground truth is 0."""
    return {"image_id": image_id, "category_id": 0, "bbox": [-2.0, -2.0, 1.0, 1.0], "score": 0.0}


@contextlib.contextmanager
def _only_warnings(logger: logging.Logger) -> Iterator[None]:
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
