"""The pictures of a run, and what its models find in them, as far as they are there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from detectron2.data import DatasetCatalog
from detectron2.data.build import filter_images_with_only_crowd_annotations

from d2_ssod.artifacts import load_labels, load_predictions
from d2_ssod.data.datasets import category_ids_of, read_data_set, with_unique_ids
from d2_ssod.data.findings import raise_first
from d2_ssod.data.objects import detections_of
from d2_ssod.errors import ConfigError
from d2_ssod.evaluation import load_truth
from d2_ssod.pseudo_label import TrueObjects
from d2_ssod.structures import Detections, ImageId, Predictions

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
        """Dicts of the labeled images."""
        return self._read_sets(self.run.cfg.DATASETS.TRAIN)

    @cached_property
    def unlabeled(self) -> dict[ImageId, dict]:
        """Dicts of the unlabeled images."""
        images = with_unique_ids(self._read_sets(self.run.cfg.DATASETS.UNLABELED))
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
        """The raw detections on the unlabeled images, by phase."""
        found = {}
        for phase in self.run.phases:
            if phase.files.predictions.exists() and self.unlabeled:
                predictions = self._load(phase.files.predictions, list(self.unlabeled))
                if predictions:
                    found[phase.number] = predictions
        return found

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
        path = self.run.phases[-1].files.labeled_predictions
        if not (path.exists() and self.labeled):
            return {}
        trained = self.labeled
        if self.run.cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS:
            trained = filter_images_with_only_crowd_annotations(trained)
        images = {image["image_id"]: image for image in with_unique_ids(trained)}
        found = self._load(path, list(images))
        return {image_id: (images[image_id], of_image) for image_id, of_image in found.items()}

    def _labels(self, phase: Phase) -> Predictions:
        unlabeled = list(self.unlabeled.values())
        images = load_labels(phase.files.pseudo_labels, unlabeled, self.run.classes)
        return {image["image_id"]: detections_of(image["annotations"]) for image in images}

    def _load(self, path: Path, image_ids: Sequence[ImageId]) -> Predictions:
        if not self.labeled:  # which knows the ids of the classes
            return {}
        category_ids = category_ids_of(self.run.cfg.DATASETS.TRAIN[0])
        return self.run.read(lambda: load_predictions(path, image_ids, category_ids), {})

    def _read_sets(self, names: Sequence[str]) -> list[dict]:
        return self.run.read(lambda: _read_sets(names), [])


def _read_sets(names: Sequence[str]) -> list[dict]:
    images: list[dict] = []
    for name in names:
        if name not in DatasetCatalog:
            raise ConfigError(f"no data set is registered as {name!r}, so its images are not shown")
        found = read_data_set(name)
        raise_first(found.findings)
        images += found.images
    return images
