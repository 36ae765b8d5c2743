"""All steps between raw detections and the pseudo-labels of a phase, in one pure function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from d2_ssod.structures import Predictions, TieredDetections

from .consensus import Consensus
from .rules import MakesLabels, check_made
from .select import Selection, select_easiest
from .sources import Sources
from .threshold import Thresholds


@dataclass(frozen=True)
class PseudoLabels:
    """The pseudo-labels of a phase, and the numbers that say how they came about.

    Attributes:
        selected: the pseudo-labels of the selected images, easiest first.
        selection: which images were kept, left out and empty.
        fraction: the fraction k that was asked for.
        thresholds: the class thresholds of each source model.
        thresholded: int64 [M, C], boxes of each source model and class, after ``keep_best``.
        agreed: int64 [C], boxes of each class that the models agree on, in all images.
    """

    selected: Predictions
    selection: Selection
    fraction: float
    thresholds: tuple[Thresholds, ...]
    thresholded: np.ndarray
    agreed: np.ndarray

    @property
    def num_unlabeled(self) -> int:
        """Number of all unlabeled images."""
        parts = self.selection
        return len(parts.kept) + len(parts.left_out) + len(parts.empty)

    @property
    def num_boxes(self) -> int:
        """Number of boxes on the selected images."""
        return int(self.boxes_per_class.sum())

    @property
    def boxes_per_class(self) -> np.ndarray:
        """int64 [C]: number of boxes of each class on the selected images."""
        return count_boxes(self.selected, len(self.agreed))

    @property
    def has_tiers(self) -> bool:
        """Whether some of the selected labels are of tiers."""
        return any(isinstance(found, TieredDetections) for found in self.selected.values())

    @property
    def boxes_after_threshold(self) -> tuple[int, ...]:
        """Number of boxes of each source model, after ``keep_best``."""
        return tuple(self.thresholded.sum(axis=1).tolist())

    @property
    def boxes_after_consensus(self) -> int:
        """Number of boxes that the models agree on, in all images."""
        return int(self.agreed.sum())

    @property
    def score_of_last_kept(self) -> float | None:
        """s_m of the least certain selected image; None if no image is selected."""
        kept = self.selection.kept
        return self.selection.scores[kept[-1]] if kept else None

    def describe(self, thing_classes: Sequence[str]) -> list[str]:
        """Tell what was chosen, in a few lines for the log."""
        lines = []
        for number, thresholds in enumerate(self.thresholds):
            chosen = _describe_thresholds(thresholds.values, thing_classes)
            lines.append(f"Model {number}: score thresholds {chosen}")
            lines.append(
                f"Model {number}: {thresholds.achieved.sum():.2f} boxes per unlabeled image above "
                f"them, {thresholds.target.sum():.2f} objects per labeled image; "
                f"{self.boxes_after_threshold[number]} boxes"
            )
        if self.has_tiers:
            certain = sum(map(len, _certain(self.selected).values()))
            lines.append(
                f"Fused boxes of {len(self.thresholds)} models: {self.boxes_after_consensus}, of "
                f"those selected {certain} certain"
            )
        elif len(self.thresholds) > 1:
            lines.append(
                f"Consensus of {len(self.thresholds)} models: {self.boxes_after_consensus} boxes"
            )
        parts = self.selection
        lines.append(
            f"Selected the easiest {len(parts.kept)} of {self.num_unlabeled} images with "
            f"{self.num_boxes} boxes (fraction {self.fraction:.3g}); {len(parts.left_out)} are "
            f"left for later, {len(parts.empty)} have no pseudo-label"
        )
        if parts.kept:
            lines.append(f"Score of the last image selected: {self.score_of_last_kept:.3f}")
        return lines


def build_pseudo_labels(
    sources: Sequence[Predictions],
    target: np.ndarray,
    *,
    fraction: float,
    rule: MakesLabels = Consensus(),
    keep_fraction: float = 1.0,
    selection_rule: str = "mean_score",
    observe: Callable[[str, Predictions], None] = lambda step, labels: None,
) -> PseudoLabels:
    """Apply threshold (per model), rule, selection: Algorithm 1 between two trainings.

    Args:
        sources: raw detections of each model on all unlabeled images, oldest model first.
        target: float64 [C], objects of each class per labeled image (``objects_per_image``).
        fraction: k, of the images with pseudo-labels (``easy_fraction``).
        rule: makes labels of what all models found: the boxes that they agree on, or another one
            of ``LABEL_RULES``.
        keep_fraction: of each model's boxes above the thresholds (``keep_best``).
        selection_rule: what makes an image easy (``select_easiest``).
        observe: called with the labels after each step: ``model 0``, ..., ``consensus``,
            ``selected``; of labels in tiers also ``certain``, after the consensus.

    Raises:
        TypeError: ``sources`` or ``rule`` is something else.
        ConfigError: what the rule, or that of the selection, gives cannot be used.
    """
    if isinstance(sources, dict):
        raise TypeError("sources must be a list of the predictions of each model, got those of one")
    if not callable(rule):
        raise TypeError(f"rule must be a rule with its settings, as Consensus() is, got {rule!r}")
    found = Sources.of(sources, target, keep_fraction)
    agreed = rule(found)
    check_made(agreed, found, rule)
    selection = select_easiest(agreed, fraction, selection_rule)
    selected = {image_id: agreed[image_id] for image_id in selection.kept}
    for number, labels in enumerate(found.thresholded):
        observe(f"model {number}", labels)
    observe("consensus", agreed)
    if certain := _certain(agreed):
        observe("certain", certain)
    observe("selected", selected)
    return PseudoLabels(
        selected=selected,
        selection=selection,
        fraction=fraction,
        thresholds=found.thresholds,
        thresholded=np.stack([count_boxes(source, len(target)) for source in found.thresholded]),
        agreed=count_boxes(agreed, len(target)),
    )


def _certain(labels: Predictions) -> Predictions:
    """Give the certain ones of labels in tiers."""
    return {
        image_id: found.select(found.certain)
        for image_id, found in labels.items()
        if isinstance(found, TieredDetections)
    }


def _describe_thresholds(values: np.ndarray, thing_classes: Sequence[str]) -> str:
    if len(values) > 20:
        low, middle, high = np.quantile(values, [0, 0.5, 1])
        return f"of {len(values)} classes {low:.2f} to {high:.2f}, median {middle:.2f}"
    return ", ".join(
        f"{name} {value:.2f}" for name, value in zip(thing_classes, values, strict=True)
    )


def count_boxes(predictions: Predictions, num_classes: int) -> np.ndarray:
    """Count the boxes of each class in all images; int64 [C]."""
    classes = [found.classes for found in predictions.values()]
    return np.bincount(np.concatenate([np.zeros(0, np.int64), *classes]), minlength=num_classes)
