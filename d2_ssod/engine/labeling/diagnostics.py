"""What is said about pseudo-labels before they are trained on: guards, and known truth."""

from __future__ import annotations

import logging
from typing import Any

from detectron2.config import CfgNode

from d2_ssod.artifacts import RunFolder, record_event
from d2_ssod.errors import ConfigError
from d2_ssod.evaluation import load_truth
from d2_ssod.pseudo_label import Guard, PseudoLabels, measure_labels
from d2_ssod.structures import Predictions

from ..run_data import RunData

logger = logging.getLogger(__name__)

_LEAST_LEARNED = 0.1  # of the models' labels, for guards to judge them


def check_labels(
    cfg: CfgNode, phase: int, labels: PseudoLabels, learned: Predictions, data: RunData
) -> None:
    """Say, or stop at, what looks harmful about a phase's pseudo-labels (``SSOD.GUARD``).

    Args:
        cfg: of the run.
        phase: 1..N.
        labels: of the models.
        learned: those of these that are trained on, as no person has labeled their images; where
            they are of next to no image, others are not judged, either.
        data: the data sets of the run.

    Raises:
        ConfigError: a guard that is set to "stop".
    """
    keys = cfg.SSOD.GUARD
    guard = Guard(keys.CLASS_SHARE, keys.RATE_FACTOR, keys.CONSENSUS_KEPT)
    found = {}
    # Those of next to no image do no harm, whatever they are like.
    if len(learned) >= _LEAST_LEARNED * len(labels.selected):
        found["VANISHED_CLASS"] = guard.vanished_classes(
            labels.boxes_per_class, data.objects_per_image, data.thing_classes, labels.fraction
        )
        images = sum(len(of_image) > 0 for of_image in labels.selected.values())
        found["BOX_RATE"] = guard.box_rate(
            labels.num_boxes, images, float(data.objects_per_image_with_objects.sum())
        )
    found["CONSENSUS"] = guard.little_consensus(
        labels.boxes_after_consensus, labels.boxes_after_threshold
    )
    for name, problem in found.items():
        if problem is not None:
            act_on(cfg, name, phase, problem)


def act_on(cfg: CfgNode, name: str, phase: int, problem: str) -> None:
    """Do with what a guard has found of a phase what ``SSOD.GUARD.<name>`` asks for.

    Raises:
        ConfigError: it is "stop".
    """
    action, text = cfg.SSOD.GUARD[name], f"Phase {phase}: {problem}"
    line = f"{text} (SSOD.GUARD.{name})"
    if action != "off":
        record_event(RunFolder(cfg.OUTPUT_DIR), "guard", name=name, phase=phase, text=text)
    if action == "stop":
        raise ConfigError(f"{line}; to go on all the same set SSOD.GUARD.{name} to warn")
    if action == "warn":
        logger.warning("%s", line)


class LabelTruth:
    """Measures the labels after each step by ``SSOD.DIAGNOSTICS.UNLABELED_TRUTH``."""

    def __init__(self, cfg: CfgNode, phase: int, data: RunData) -> None:
        self._phase, self._classes = phase, data.thing_classes
        self.found: dict[str, Any] = {}
        """Quality by step, for the manifest; empty if no truth is known."""
        known = cfg.SSOD.DIAGNOSTICS.UNLABELED_TRUTH
        self._truth = load_truth(cfg, data.unlabeled, data.thing_classes) if known else {}

    def observe(self, step: str, labels: Predictions) -> None:
        """Measure the labels after a step, and say how right they are."""
        if not self._truth:
            return
        quality = measure_labels(labels, self._truth, len(self._classes))
        self.found[step] = quality.as_dict(self._classes)
        logger.info("Phase %d, true labels: %s: %s", self._phase, step, quality.describe())
