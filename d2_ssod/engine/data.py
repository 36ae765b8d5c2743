"""The data sets of a run, loaded and checked once, before training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog, get_detection_dataset_dicts
from detectron2.utils import comm

from d2_ssod.data import validation
from d2_ssod.errors import ConfigError


@dataclass(frozen=True)
class RunData:
    """Images of a run, and the classes they are labeled with."""

    labeled: list[dict]
    unlabeled: list[dict]
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
    for key, values in names.items():
        check_registered(values, f"DATASETS.{key}")
    labeled = get_detection_dataset_dicts(
        names["TRAIN"], filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS
    )
    unlabeled = [image for name in names["UNLABELED"] for image in DatasetCatalog.get(name)]
    validation.check_not_empty(labeled, "DATASETS.TRAIN", names["TRAIN"])
    validation.check_not_empty(unlabeled, "DATASETS.UNLABELED", names["UNLABELED"])
    metadata = MetadataCatalog.get(names["TRAIN"][0])
    classes = list(metadata.thing_classes)
    num_classes = cfg.MODEL.ROI_HEADS.NUM_CLASSES
    if num_classes != len(classes):
        raise ConfigError(
            f"MODEL.ROI_HEADS.NUM_CLASSES is {num_classes}, but "
            f"{names['TRAIN'][0]} (DATASETS.TRAIN) has {len(classes)} classes: set it to that"
        )
    validation.check_same_classes(names["TRAIN"], names["TEST"])
    if comm.is_main_process():
        validation.check_images(labeled, "DATASETS.TRAIN")
        validation.check_images(unlabeled, "DATASETS.UNLABELED")
    to_contiguous = getattr(metadata, "thing_dataset_id_to_contiguous_id", None)
    if to_contiguous is None:
        category_ids = list(range(len(classes)))
    else:
        category_ids = sorted(to_contiguous, key=to_contiguous.__getitem__)
    return RunData(labeled, unlabeled, classes, category_ids)


def check_registered(names: list[str], key: str) -> None:
    """Every name of ``key`` is a registered data set, and there is at least one.

    Raises:
        ConfigError: otherwise.
    """
    if not names:
        raise ConfigError(f"{key} is empty: name at least one registered data set")
    for name in names:
        if name not in DatasetCatalog:
            raise ConfigError(
                f"{key}: no data set is registered as {name!r}: correct the name, or register "
                "yours in SSOD.REGISTER"
            )


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
