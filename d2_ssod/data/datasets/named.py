"""The data sets that a config names, read once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from detectron2.config import CfgNode

from .catalog import DataSet, read_data_set, with_unique_ids

KEYS = ("TRAIN", "UNLABELED", "VAL", "TEST")  # below DATASETS
LABELED = ("TRAIN", "VAL", "TEST")
JUDGING = ("VAL", "TEST")


@dataclass(frozen=True)
class NamedDataSets:
    """The data sets that keys of ``DATASETS`` name, in the config's order.

    Attributes:
        named: each by the key, such as "TRAIN", and its name.
    """

    named: dict[tuple[str, str], DataSet]

    @classmethod
    def read(cls, cfg: CfgNode, keys: Sequence[str] = KEYS) -> NamedDataSets:
        """Read those of these keys; what is found in them is not raised."""
        named = [(key, name) for key in keys for name in cfg.DATASETS[key]]
        found = {name: read_data_set(name) for name in dict.fromkeys(name for _, name in named)}
        return cls({(key, name): found[name] for key, name in named})

    def usable(self) -> NamedDataSets:
        """Give the same, after the warnings.

        Raises:
            ConfigError: the first thing in the files that cannot be used.
        """
        for found in self.named.values():
            found.usable_images()
        return self

    def of_key(self, key: str) -> list[dict]:
        """Join the images of all data sets of a key."""
        return [i for (own, _), found in self.named.items() if own == key for i in found.images]

    @property
    def unlabeled(self) -> list[dict]:
        """The images of ``DATASETS.UNLABELED``, by the ids that files of a run know them by."""
        return with_unique_ids(self.of_key("UNLABELED"))

    def names(self, key: str) -> list[str]:
        """List the data sets of a key."""
        return [name for own, name in self.named if own == key]

    @property
    def first_labeled(self) -> str:
        """Name the data set whose classes are those of the run."""
        return self.names("TRAIN")[0]

    @property
    def thing_classes(self) -> list[str] | None:
        """Names of the run's classes; None if that data set names none."""
        return self.named["TRAIN", self.first_labeled].thing_classes

    def placed(self, *keys: str) -> Iterator[tuple[str, DataSet]]:
        """Yield the data sets of the keys, with where they are named."""
        for (key, name), found in self.named.items():
            if key in keys:
                yield place_of(key, name), found


def place_of(key: str, name: str) -> str:
    """Say where a data set is named, as lines about it begin."""
    return f"DATASETS.{key} ({name})"
