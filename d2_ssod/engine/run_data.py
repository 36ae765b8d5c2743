"""The data sets of a run, loaded and checked once, before training."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import (
    DatasetCatalog,
    Metadata,
    MetadataCatalog,
    get_detection_dataset_dicts,
)
from detectron2.utils import comm

from d2_ssod.data import checks
from d2_ssod.errors import ConfigError
from d2_ssod.evaluation import evaluator_kind
from d2_ssod.modeling import detector_of, num_classes
from d2_ssod.pseudo_label import objects_per_image

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


def load_run_data(cfg: CfgNode) -> RunData:
    """Load ``DATASETS.TRAIN`` and ``DATASETS.UNLABELED`` and check all that training relies on.

    Raises:
        ConfigError: one line that names the key or file, on every rank alike.
    """
    return _on_all_ranks(lambda: _load(cfg))


def _load(cfg: CfgNode) -> RunData:
    names = {key: list(cfg.DATASETS[key]) for key in ("TRAIN", "UNLABELED", "TEST")}
    images = {key: _load_images(f"DATASETS.{key}", names[key]) for key in names}
    # The test sets are loaded as well: what is wrong with them must not show at the end only.
    checks.check_same_classes(names["TRAIN"], names["TEST"])
    metadata = MetadataCatalog.get(names["TRAIN"][0])
    classes = list(metadata.thing_classes)
    if num_classes(cfg) != len(classes):
        raise ConfigError(
            f"{detector_of(cfg).num_classes_key} is {num_classes(cfg)}, but {names['TRAIN'][0]} "
            f"(DATASETS.TRAIN) has {len(classes)} classes: set it to that"
        )
    checks.check_annotations(images["TRAIN"], "DATASETS.TRAIN", len(classes))
    for key in ("TRAIN", "TEST"):
        _check_has_objects(images[key], f"DATASETS.{key}", names[key])
    checks.check_sizes(images["UNLABELED"], "DATASETS.UNLABELED")
    checks.check_difficulties(images["TEST"], "DATASETS.TEST")
    if comm.is_main_process():
        for key, of_key in images.items():
            checks.check_images(of_key, f"DATASETS.{key}")
        checks.check_disjoint(images["TRAIN"], images["UNLABELED"], "DATASETS.UNLABELED")
    _check_unique_ids(images["UNLABELED"], names["UNLABELED"])
    labeled = get_detection_dataset_dicts(
        names["TRAIN"], filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS
    )
    _log_sizes(images, names, classes)
    return RunData(
        labeled,
        images["UNLABELED"],
        objects_per_image(images["TRAIN"], len(classes)),
        classes,
        _category_ids(metadata),
    )


def _log_sizes(images: dict[str, list], names: dict[str, list[str]], classes: list[str]) -> None:
    listed = ", ".join(classes[:10]) + (", ..." if len(classes) > 10 else "")
    logger.info("%d classes: %s", len(classes), listed)
    for key, title in (("TRAIN", "Labeled"), ("UNLABELED", "Unlabeled"), ("TEST", "Test")):
        objects = sum(len(image.get("annotations", ())) for image in images[key])
        logger.info(
            "%s: %d images%s (%s)",
            *(title, len(images[key]), f", {objects} objects" if key != "UNLABELED" else ""),
            ", ".join(names[key]),
        )


def _load_images(key: str, names: list[str]) -> list[dict]:
    """Load the images of all data sets of a key, each of which has at least one."""
    images = []
    for name in names:
        of_name = DatasetCatalog.get(name)
        checks.check_not_empty(of_name, key, [name])
        images += of_name
    return images


def _check_has_objects(images: list[dict], key: str, names: list[str]) -> None:
    """Crowds are neither trained on nor counted."""
    annotations = (o for image in images for o in image.get("annotations", ()))
    if next((o for o in annotations if o.get("iscrowd", 0) == 0), None) is None:
        raise ConfigError(
            f"{key}: no image of {', '.join(names)} has an object; name data sets with annotations "
            "other than crowds"
        )


def _check_unique_ids(images: list[dict], names: list[str]) -> None:
    """Predictions and pseudo-labels are kept by image id."""
    seen = set()
    for image in images:
        if image["image_id"] in seen:
            raise ConfigError(
                f"DATASETS.UNLABELED: image_id {image['image_id']!r} occurs more than once in "
                f"{', '.join(names)} (last in {image['file_name']}); give each image its own id, "
                "or put the images into one data set"
            )
        seen.add(image["image_id"])


def _category_ids(metadata: Metadata) -> list[int]:
    """List the category id of each class in the data set's own files."""
    to_contiguous = metadata.get("thing_dataset_id_to_contiguous_id")
    if to_contiguous is None:
        return list(range(len(metadata.thing_classes)))
    return sorted(to_contiguous, key=to_contiguous.__getitem__)


def check_data_sets(cfg: CfgNode) -> None:
    """Every data set that the config names is registered, and each kind is named and usable.

    Raises:
        ConfigError: otherwise.
    """
    for key in ("TRAIN", "UNLABELED", "TEST"):
        names = cfg.DATASETS[key]
        if not names:
            raise ConfigError(f"DATASETS.{key} is empty: name at least one registered data set")
        for name in names:
            if name not in DatasetCatalog:
                raise ConfigError(
                    f"DATASETS.{key}: no data set is registered as {name!r}: correct the name, or "
                    "register yours in SSOD.REGISTER"
                )
    for name in cfg.DATASETS.TEST:
        evaluator_kind(name)


def _on_all_ranks(load: Callable[[], RunData]) -> RunData:
    """Run ``load`` on every rank; where it fails on any, every rank raises the same error."""
    result, problem = None, None
    try:
        result = load()
    except ConfigError as error:
        problem = str(error)
    problems = [found for found in comm.all_gather(problem) if found is not None]
    if problems:
        raise ConfigError(problems[0])
    return result
