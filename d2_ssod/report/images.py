"""The pictures of a run, and what its models find in them, as far as they are there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog

from d2_ssod.artifacts import (
    has_learned,
    load_predictions,
    load_predictions_by_file,
    load_pseudo_labels,
)
from d2_ssod.class_lists import describe_difference
from d2_ssod.data.datasets import NamedDataSets, category_ids_of, with_unique_ids
from d2_ssod.data.objects import objects_and_crowds, trained_on
from d2_ssod.errors import ConfigError
from d2_ssod.evaluation import load_truth
from d2_ssod.pseudo_label import TrueObjects
from d2_ssod.structures import UNCERTAIN, Detections, ImageId, Predictions

from .collect import Phase, Run


@dataclass(frozen=True)
class RunImages:
    """The images of a run, read when first asked for; what cannot be read is said on the page.

    Attributes:
        run: the run.
    """

    run: Run

    @cached_property
    def labeled(self) -> list[dict]:
        """Dicts of the labeled images, whose classes are the run's."""
        return self.run.read(self._labeled, [])

    @cached_property
    def unlabeled(self) -> dict[ImageId, dict]:
        """Dicts of the unlabeled images."""
        images = self.run.read(lambda: _read_sets(self.run.cfg, "UNLABELED").unlabeled, [])
        return {image["image_id"]: image for image in images}

    @cached_property
    def truth(self) -> dict[ImageId, TrueObjects]:
        """The objects of the unlabeled images, where they are known."""
        if not (self.run.cfg.SSOD.DIAGNOSTICS.UNLABELED_TRUTH and self.unlabeled):
            return {}
        images = list(self.unlabeled.values())
        return self.run.read(lambda: load_truth(self.run.cfg, images, self.run.classes), {})

    @cached_property
    def predictions(self) -> dict[int, Predictions]:
        """The raw detections on the unlabeled images that all phases have seen, by phase."""
        found = {}
        for phase in self.run.phases:
            if phase.files.predictions.exists() and self.unlabeled and self.labeled:
                predictions = self.run.read(lambda phase=phase: self._predictions(phase), {})
                if predictions:
                    found[phase.number] = predictions
        # Images may have been added between two passes over them.
        seen_by_all = set(self.unlabeled).intersection(*found.values())
        return {
            number: {image_id: of[image_id] for image_id in of if image_id in seen_by_all}
            for number, of in found.items()
        }

    @cached_property
    def labels(self) -> dict[int, Predictions]:
        """The pseudo-labels of each phase; images in the order of their file, easiest first."""
        found = {}
        for phase in self.run.phases[1:]:
            if phase.files.pseudo_labels.exists() and self.unlabeled:
                found[phase.number] = self.run.read(lambda phase=phase: self._labels(phase), {})
        return found

    @cached_property
    def on_labeled(self) -> dict[ImageId, tuple[dict, Detections]]:
        """What the last model finds in the labeled images, beside their dicts."""
        last = self.run.phases[-1]
        if not (last.files.labeled_predictions.exists() and self.labeled):
            return {}
        trained = trained_on(self.run.cfg, self.labeled)
        return self.run.read(lambda: self._on_labeled(last, trained), {})

    def _labeled(self) -> list[dict]:
        sets = _read_sets(self.run.cfg, "TRAIN")
        classes = sets.thing_classes
        if not self.run.classes:
            raise ConfigError(
                f"{self.run.folder.classes} does not say which classes the run has, so that its "
                "labeled images are not shown, nor what is counted by them"
            )
        if classes != self.run.classes:
            raise ConfigError(
                f"{self.run.cfg.DATASETS.TRAIN[0]} (DATASETS.TRAIN) has other classes than the run "
                f"now: {describe_difference(classes or [], self.run.classes)}, so that its images "
                "are not shown, nor what is counted by them"
            )
        return sets.of_key("TRAIN")

    def certain_labels(self, phase: Phase) -> tuple[Predictions, int]:
        """Read the pseudo-labels of a phase without uncertain ones (``SSOD.LABELS: tiers``).

        Returns:
            those of images with certain ones, or in which a person has found none; and how many
            uncertain ones there are.
        """
        found, uncertain = {}, 0
        for image in self._read_labels(phase):
            certain = [a for a in image["annotations"] if a.get("tier") != UNCERTAIN]
            uncertain += len(image["annotations"]) - len(certain)
            if certain or not image["annotations"]:
                found[image["image_id"]] = objects_and_crowds(certain)[0]
        return found, uncertain

    def _labels(self, phase: Phase) -> Predictions:
        images = self._read_labels(phase)
        return {image["image_id"]: objects_and_crowds(image["annotations"])[0] for image in images}

    def _read_labels(self, phase: Phase) -> list[dict]:
        return load_pseudo_labels(
            phase.files.pseudo_labels,
            *(list(self.unlabeled.values()), self.run.classes),
            filter_empty=self.run.cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS,
        )

    def _predictions(self, phase: Phase) -> Predictions:
        unlabeled = list(self.unlabeled.values())
        return load_predictions_by_file(phase.files, unlabeled, self._category_ids())

    def _on_labeled(
        self, phase: Phase, trained: Sequence[dict]
    ) -> dict[ImageId, tuple[dict, Detections]]:
        path = phase.files.labeled_predictions
        if not has_learned(self.run.folder, phase.number, trained):
            raise ConfigError(
                f"{path}: the labeled images or their objects have changed since it was made, so "
                "that no labels are checked (what label_errors.csv has, if there is one, is of "
                "before); a new run checks those that there are now"
            )
        images = {image["image_id"]: image for image in with_unique_ids(trained)}
        found = load_predictions(path, list(images), self._category_ids())
        return {image_id: (images[image_id], of_image) for image_id, of_image in found.items()}

    def _category_ids(self) -> list[int]:
        return category_ids_of(self.run.cfg.DATASETS.TRAIN[0])


def _read_sets(cfg: CfgNode, key: str) -> NamedDataSets:
    for name in cfg.DATASETS[key]:
        if name not in DatasetCatalog:
            raise ConfigError(f"no data set is registered as {name!r}, so its images are not shown")
    return NamedDataSets.read(cfg, [key]).usable()
