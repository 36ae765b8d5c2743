"""One pass over the test images: every phase's model alone, and the ensembles 1~N and 0~N."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from torch import nn

from d2_ssod.artifacts import ensembles_of
from d2_ssod.heartbeat import Heartbeat, Ranks
from d2_ssod.inference import evaluation_mode
from d2_ssod.progress import progress_bar
from d2_ssod.structures import ImageId

from .coco_metrics import Metrics
from .ensemble import EnsembleRCNN, Outputs, fuse_outputs
from .fusion import Fusion


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
    fusion: Fusion = Fusion(),
    subsets: Mapping[str, Sequence[ImageId]] | None = None,
) -> PhaseResults | None:
    """Evaluate each phase's model, their ensemble without phase 0 and that of all.

    With N = 1, ``1~N`` is phase 1 alone; with phase 0 only there are no ensembles. Arguments and
    errors are those of :func:`evaluate_rows`.

    Args:
        models: the models of phases 0..N.
        data_loader: see there.
        make_evaluator: for ``phase_0``, ..., ``1~N``, ``0~N``.
        fusion: see there.
        subsets: see there.

    Returns:
        On the main process the metrics as the evaluators name them; None on the others.
    """
    # Which models a row fuses; a row of one model is that model's own output.
    alone = {f"phase_{number}": [number] for number in range(len(models))}
    together = ensembles_of(len(models) - 1)
    metrics = evaluate_rows(
        models,
        data_loader,
        make_evaluator,
        rows=alone | together,
        fusion=fusion,
        subsets=subsets,
    )
    if metrics is None:
        return None
    phases = [metrics[row] for row in alone]
    ensembles = {row: metrics[row] for row in together}
    if len(models) == 2:
        ensembles = {"1~N": dict(phases[1]), **ensembles}
    return PhaseResults(phases=phases, ensembles=ensembles)


def evaluate_rows(
    models: Sequence[nn.Module],
    data_loader: Iterable[list[dict]],
    make_evaluator: Callable[[str], DatasetEvaluator],
    *,
    rows: Mapping[str, Sequence[int]],
    fusion: Fusion = Fusion(),
    subsets: Mapping[str, Sequence[ImageId]] | None = None,
) -> dict[str, Metrics] | None:
    """Evaluate models, alone and fused.

    Every image is read once and seen by every model once. Every process handles the images that its
    own loader gives; all must call this function.

    Args:
        models: called like ``GeneralizedRCNN``; their modes are as before afterwards.
        data_loader: gives lists of dicts with ``image_id``.
        make_evaluator: makes an evaluator for a row of the table, such as ``build_evaluator`` for
            the test set.
        rows: of each row the models that are fused, by their numbers; one alone is as it is.
        fusion: weights of all models and constants of the ensembles.
        subsets: image ids by name; each adds metrics such as ``AP50/easy``. Needs evaluators whose
            ``evaluate`` takes ``img_ids``.

    Returns:
        On the main process the metrics of each row; None on the others.

    Raises:
        ValueError: no models, another number of weights than models, or subsets with an evaluator
            that knows none.
        TimeoutError: another process makes no progress.
    """
    ensemble = EnsembleRCNN(models, fusion=fusion)
    evaluators = {row: make_evaluator(row) for row in rows}
    for evaluator in evaluators.values():
        if subsets and "img_ids" not in inspect.signature(evaluator.evaluate).parameters:
            raise ValueError(
                f"subsets need an evaluator whose evaluate() takes img_ids, "
                f"{type(evaluator).__name__} does not; pass subsets=None"
            )
        evaluator.reset()

    heartbeat = Heartbeat("evaluating", Ranks.of_run())
    with heartbeat, evaluation_mode(ensemble), torch.no_grad():
        for inputs in progress_bar(data_loader, description="Evaluating"):
            each = ensemble.forward_each(inputs)
            for row, numbers in rows.items():
                evaluators[row].process(inputs, _outputs_of_row(ensemble, each, numbers))
            heartbeat.beat()
        heartbeat.wait_for_others()

    metrics = {row: _metrics(evaluator, subsets or {}) for row, evaluator in evaluators.items()}
    return metrics if comm.is_main_process() else None


def _outputs_of_row(ensemble: EnsembleRCNN, each: list[Outputs], numbers: Sequence[int]) -> Outputs:
    if len(numbers) == 1:
        return each[numbers[0]]
    fusion = ensemble.fusion.among(numbers, of=len(each))
    return fuse_outputs([each[number] for number in numbers], fusion)


def _metrics(evaluator: DatasetEvaluator, subsets: Mapping[str, Sequence[ImageId]]) -> Metrics:
    """Collect all images' metrics, then those of the subsets, as plain floats in one flat dict."""
    metrics = _plain_floats(evaluator.evaluate())
    for name, image_ids in subsets.items():
        of_subset = _plain_floats(evaluator.evaluate(img_ids=list(image_ids)))
        metrics.update({f"{key}/{name}": value for key, value in of_subset.items()})
    return metrics


def _plain_floats(results: dict[str, Any] | None) -> Metrics:
    return {key: float(value) for key, value in (results or {}).get("bbox", {}).items()}
