"""The data sets of a run, loaded and checked once, before training."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils import comm

from d2_ssod.data.datasets import NamedDataSets, category_ids_of, register_from_config
from d2_ssod.data.findings import Findings, raise_first
from d2_ssod.data.objects import has_objects, num_objects, trained_on
from d2_ssod.heartbeat import Heartbeat, Ranks
from d2_ssod.modeling import detector_of
from d2_ssod.pseudo_label import objects_per_image

from .data_checks import check_contents, check_pictures
from .processes.agreement import agree_on_images, on_all_ranks

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunData:
    """Images of a run, and the classes they are labeled with."""

    labeled: list[dict]
    unlabeled: list[dict]
    objects_per_image: np.ndarray
    """Objects of each class per labeled image, those without objects counted; float64 [C]."""
    thing_classes: list[str]
    category_ids: list[int]
    """Category id, in the labeled data set's own files, of each class."""

    @property
    def objects_per_image_with_objects(self) -> np.ndarray:
        """Objects of each class per labeled image that has any; float64 [C]."""
        classes = len(self.thing_classes)
        images = list(filter(has_objects, self.labeled))
        return objects_per_image(images, classes) if images else np.zeros(classes)


def learned_without_labels(cfg: CfgNode, phase: int, data: RunData) -> list[dict]:
    """List the images that a phase learns from without labels."""
    return data.unlabeled if phase == 0 and detector_of(cfg).learns_unlabeled else []


def load_run_data(cfg: CfgNode) -> RunData:
    """Load ``DATASETS.TRAIN`` and ``DATASETS.UNLABELED`` and check all that training relies on.

    The test sets are loaded as well: what is wrong with them must not show at the end only.

    Raises:
        ConfigError: the first error, in one line that names the key or file, on every rank alike.
    """
    sets = on_all_ranks(lambda: _read(cfg))
    agree_on_images({place: found.images for place, found in sets.placed(*_TITLES)})
    findings = _findings_in_pictures(cfg, sets)
    on_all_ranks(lambda: raise_first(findings))
    data = data_of_run(cfg, sets)
    _log_sizes(sets, data.thing_classes)
    return data


def _read(cfg: CfgNode) -> NamedDataSets:
    names = [name for key in _TITLES for name in cfg.DATASETS[key]]
    if cfg.SSOD.REGISTER and any(name not in DatasetCatalog for name in names):
        register_from_config(cfg.SSOD.REGISTER, "SSOD.REGISTER")  # as commands have done already
    sets = NamedDataSets.read(cfg)
    raise_first(check_contents(cfg, sets))
    return sets


def _findings_in_pictures(cfg: CfgNode, sets: NamedDataSets) -> Findings:
    """Have the main process look at the pictures; the others wait as long as it goes on."""
    findings = Findings()
    with Heartbeat("checking pictures", Ranks.of_run()) as heartbeat:
        if comm.is_main_process():
            findings = check_pictures(cfg, sets, heartbeat.beat)
        heartbeat.wait_for_others()
    return findings


def data_of_run(cfg: CfgNode, sets: NamedDataSets) -> RunData:
    """Give what a run trains on of data sets in which there are no errors."""
    labeled = sets.of_key("TRAIN")
    classes = list(MetadataCatalog.get(sets.first_labeled).thing_classes)
    return RunData(
        trained_on(cfg, labeled),
        list(map(_without_labels, sets.unlabeled)),
        objects_per_image(labeled, len(classes)),
        classes,
        category_ids_of(sets.first_labeled),
    )


def _without_labels(image: dict) -> dict:
    """Drop the objects of an image that is unlabeled here, if its data set has any."""
    return {key: value for key, value in image.items() if key != "annotations"}


_TITLES = {"TRAIN": "Labeled", "UNLABELED": "Unlabeled", "VAL": "Validation", "TEST": "Test"}


def _log_sizes(sets: NamedDataSets, classes: list[str]) -> None:
    listed = ", ".join(classes[:10]) + (", ..." if len(classes) > 10 else "")
    logger.info("%d classes: %s", len(classes), listed)
    for key, title in _TITLES.items():
        images = sets.of_key(key)
        if not images:
            continue
        objects = sum(map(num_objects, images))
        logger.info(
            "%s: %d images%s (%s)",
            *(title, len(images), f", {objects} objects" if key != "UNLABELED" else ""),
            ", ".join(sets.names(key)),
        )
