"""``classes.json``: the classes that a run's models find, known so without its data."""

from __future__ import annotations

from collections.abc import Sequence

from detectron2.config import CfgNode

from d2_ssod.class_lists import describe_difference
from d2_ssod.errors import ConfigError
from d2_ssod.json_files import read_record, write_json

from .differences import refuse
from .layout import RunFolder


def save_classes(folder: RunFolder, thing_classes: Sequence[str]) -> None:
    """Write the names of the classes, in the order of the models'."""
    write_json(folder.classes, {"thing_classes": list(thing_classes)})


def check_classes(cfg: CfgNode, thing_classes: Sequence[str]) -> None:
    """Check that the models that exist were trained to find these classes, in this order.

    Args:
        cfg: the run's config.
        thing_classes: of its data sets.

    Raises:
        ConfigError: they were trained on others.
    """
    folder, now = RunFolder(cfg.OUTPUT_DIR), list(thing_classes)
    files = folder.phase(0)
    if not folder.classes.exists() or not (files.model.exists() or files.trained_with.exists()):
        return
    made = load_classes(folder)
    refuse(cfg, f"{folder.classes} has other classes than the data sets", _differ(made, now))


def class_differences(folder: RunFolder, thing_classes: Sequence[str]) -> list[str] | None:
    """Tell in what the classes of a run are others; None of a folder that tells none."""
    if not folder.classes.exists():
        return None
    return _differ(load_classes(folder, "restore it"), list(thing_classes))


def _differ(made: Sequence[str], now: Sequence[str]) -> list[str]:
    return [] if made == now else [describe_difference(made, now)]


def load_classes(folder: RunFolder, remedy: str = "correct the file or delete it") -> list[str]:
    """Read the names of the classes.

    Args:
        folder: of the run.
        remedy: what to do if the file is damaged.

    Raises:
        ConfigError: the folder holds no run, or none that has come so far.
    """
    if not folder.classes.exists():
        raise ConfigError(
            f"{folder.root}: has no {folder.classes.name}, so it is no folder of a run; correct "
            "the path"
        )
    names = read_record(folder.classes, {"thing_classes": list}, remedy=remedy)["thing_classes"]
    if not all(isinstance(name, str) for name in names):
        raise ConfigError(
            f"{folder.classes}: thing_classes is {names!r}; expected a list of names: {remedy}"
        )
    return names
