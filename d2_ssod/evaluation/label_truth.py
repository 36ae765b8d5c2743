"""The objects of the unlabeled images, where they are known: for diagnostics only."""

from __future__ import annotations

import os
from collections.abc import Sequence

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog

from d2_ssod.class_lists import GIVE_THE_SAME, describe_difference
from d2_ssod.data.datasets import read_data_set
from d2_ssod.data.findings import raise_first
from d2_ssod.data.objects import objects_and_crowds
from d2_ssod.errors import ConfigError
from d2_ssod.pseudo_label import TrueObjects
from d2_ssod.structures import ImageId


def load_truth(
    cfg: CfgNode, unlabeled: Sequence[dict], thing_classes: Sequence[str]
) -> dict[ImageId, TrueObjects]:
    """Load the objects of the unlabeled images from ``SSOD.DIAGNOSTICS.UNLABELED_TRUTH``.

    Args:
        cfg: of the run.
        unlabeled: dicts of the unlabeled images.
        thing_classes: of the labeled ones.

    Raises:
        ConfigError: there is none of this name, it has other classes, or none of the images.
    """
    key, name = "SSOD.DIAGNOSTICS.UNLABELED_TRUTH", cfg.SSOD.DIAGNOSTICS.UNLABELED_TRUTH
    if name not in DatasetCatalog:
        raise ConfigError(f"{key}: no data set is registered as {name!r}; register it")
    found = read_data_set(name)
    raise_first(found.findings)
    if found.thing_classes != list(thing_classes):
        difference = describe_difference(found.thing_classes or [], thing_classes)
        raise ConfigError(
            f"{key}: {name} has other classes than DATASETS.TRAIN: {difference}; {GIVE_THE_SAME}"
        )
    ids = {_identity(image): image["image_id"] for image in unlabeled}
    truth = {
        ids[_identity(image)]: _true_objects(image)
        for image in found.images
        if _identity(image) in ids
    }
    if not truth:
        raise ConfigError(f"{key}: {name} has none of the unlabeled images; name one that has")
    return truth


def _identity(image: dict) -> str:
    return os.path.realpath(image["file_name"])


def _true_objects(image: dict) -> TrueObjects:
    return TrueObjects(*objects_and_crowds(image.get("annotations", ())))
