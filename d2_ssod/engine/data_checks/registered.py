"""Which data sets a config may name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog

from d2_ssod.data import datasets_root
from d2_ssod.data.datasets import missing_paths
from d2_ssod.data.datasets.named import JUDGING, KEYS
from d2_ssod.errors import ConfigError
from d2_ssod.evaluation import evaluator_kind
from d2_ssod.modeling import detector_of


def check_data_sets(cfg: CfgNode) -> None:
    """Every data set that the config names is registered, and each kind is named and usable.

    Raises:
        ConfigError: otherwise.
    """
    for key in KEYS:
        if not cfg.DATASETS[key] and not _may_be_empty(cfg, key):
            raise ConfigError(f"DATASETS.{key} is empty: name at least one registered data set")
        for name, times in Counter(cfg.DATASETS[key]).items():
            if times > 1:
                raise ConfigError(
                    f"DATASETS.{key} names {name} {times} times; name it once (to train on labeled "
                    "images more often: SSOD.LABELED_REPEAT)"
                )
    check_registered(cfg, KEYS)


def check_registered(cfg: CfgNode, keys: Sequence[str]) -> None:
    """Every data set of these keys is registered, and has its files."""
    for key in keys:
        for name in cfg.DATASETS[key]:
            if name not in DatasetCatalog:
                raise ConfigError(
                    f"DATASETS.{key}: no data set is registered as {name!r}: correct the name, or "
                    "register yours in SSOD.REGISTER"
                )
            if key in JUDGING:
                evaluator_kind(name, f"DATASETS.{key}")
    _check_paths(cfg, keys)


def _check_paths(cfg: CfgNode, keys: Sequence[str]) -> None:
    """Name all that official data sets need and that is not there, in one message."""
    names = dict.fromkeys(name for key in keys for name in cfg.DATASETS[key])
    missing = list(dict.fromkeys(p for n in names for p in missing_paths(n)))
    if missing:
        raise ConfigError(
            f"DATASETS: of {', '.join(names)} these paths are not there: {', '.join(missing)}; "
            "expected below $DETECTRON2_DATASETS (now "
            f"{datasets_root()}): VOC2007/ and VOC2012/ with Annotations/, ImageSets/Main/ and "
            "JPEGImages/, coco/ with annotations/ and the folders of images (files of some percent "
            "are made by python -m d2_ssod split)"
        )


def _may_be_empty(cfg: CfgNode, key: str) -> bool:
    """Tell whether ``DATASETS.<key>`` may name nothing: unlabeled images if phase 0 alone runs."""
    phase_0_alone = cfg.SSOD.NUM_PHASES == 0 and not detector_of(cfg).learns_unlabeled
    return key in ("VAL", "TEST") or (key == "UNLABELED" and phase_0_alone)
