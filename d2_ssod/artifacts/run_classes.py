"""``classes.json``: the classes that a run's models find, known so without its data."""

from __future__ import annotations

from collections.abc import Sequence

from d2_ssod.errors import ConfigError
from d2_ssod.json_files import read_json, write_json

from .layout import RunFolder


def save_classes(folder: RunFolder, thing_classes: Sequence[str]) -> None:
    """Write the names of the classes, in the order of the models'."""
    write_json(folder.classes, {"thing_classes": list(thing_classes)})


def load_classes(folder: RunFolder) -> list[str]:
    """Read the names of the classes; of a run of an older version, from its pseudo-labels.

    Raises:
        ConfigError: the folder holds no run, or none that has come so far.
    """
    if folder.classes.exists():
        names = read_json(folder.classes).get("thing_classes")
    elif folder.phase(1).pseudo_labels.exists():
        names = [
            category["name"] for category in read_json(folder.phase(1).pseudo_labels)["categories"]
        ]
    else:
        raise ConfigError(
            f"{folder.root}: has neither {folder.classes.name} nor phase_1/pseudo_labels.json, so "
            "it is no folder of a run; correct the path"
        )
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"{folder.classes}: thing_classes is {names!r}; expected a list of names")
    return names
