"""Configs as files and command lines give them, and as a run keeps its own."""

from __future__ import annotations

import ast
import contextlib
import importlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.utils import comm
from yaml import YAMLError

from d2_ssod import limits
from d2_ssod.artifacts import RunFolder
from d2_ssod.config import add_ssod_config, nearest_key, shipped_configs, value_of
from d2_ssod.errors import ConfigError, correct_or_remove, one_line
from d2_ssod.json_files import atomic_open
from d2_ssod.yaml_files import check_repeated_keys


def read_config(
    config_file: str, overrides: Sequence[str] = (), *, on_cpu: bool = False
) -> CfgNode:
    """Read a config for the devices of this machine; not frozen, and not checked.

    Args:
        config_file: empty for the defaults.
        overrides: keys and values.
        on_cpu: do not use a GPU.

    Raises:
        ConfigError: one line that names the key or file and what to do.
    """
    if config_file.endswith(".py"):
        raise ConfigError(f"{config_file}: LazyConfig files are not read; give a YAML file")
    if config_file:
        check_repeated_keys(config_file)
    _import_parts(config_file, overrides)
    cfg = get_cfg()
    add_ssod_config(cfg)
    if config_file:
        _merge(cfg, cfg.merge_from_file, config_file, config_file)
    _merge(cfg, cfg.merge_from_list, overrides, "the command line")
    if on_cpu or not torch.cuda.is_available():
        cfg.MODEL.DEVICE = "cpu"
    return cfg


def read_run_config(folder: RunFolder) -> CfgNode:
    """Read a run's config, for the devices of this machine and the folder where it lies now.

    Raises:
        ConfigError: it has none.
    """
    if not folder.config.is_file():
        raise ConfigError(f"{folder.config}: no such file, so {folder.root} is no folder of a run")
    cfg = read_config(str(folder.config))
    cfg.OUTPUT_DIR = str(folder.root)
    return cfg


def read_kept_seed(folder: RunFolder) -> int | None:
    """Read the seed that a run has, and no more of its config; None for a new run.

    Raises:
        ConfigError: its config is damaged.
    """
    if not folder.config.exists():
        return None
    try:
        seed = int(CfgNode.load_yaml_with_base(str(folder.config)).get("SEED", -1))
    except (AttributeError, OSError, RecursionError, TypeError, ValueError, YAMLError) as error:
        raise ConfigError(
            f"{folder.config}: its SEED cannot be read ({type(error).__name__}: "
            f"{one_line(error)}); restore the file, or give the run's SEED"
        ) from error
    return seed if seed >= 0 else None


def save_run_config(cfg: CfgNode) -> None:
    """Write a run's config where :func:`read_run_config` finds it; on every rank."""
    if comm.is_main_process():
        with atomic_open(RunFolder(cfg.OUTPUT_DIR).config, encoding="utf-8") as file:
            file.write(cfg.dump())


def _import_parts(config_file: str, overrides: Sequence[str]) -> None:
    """Import the modules of ``SSOD.IMPORTS``, which may add keys that the config has."""
    for name in _imports(config_file, overrides):
        try:
            importlib.import_module(name)
        except Exception as error:  # whatever is in it
            raise ConfigError(
                f"SSOD.IMPORTS: {name} cannot be imported ({type(error).__name__}: {error}); "
                "correct it, or name the folder that has it in PYTHONPATH"
            ) from error


def _imports(config_file: str, overrides: Sequence[str]) -> list[str]:
    """Read the names; what cannot be read is said when the config is."""
    pairs, given = dict(zip(overrides[::2], overrides[1::2], strict=False)), None
    with contextlib.suppress(Exception):
        if "SSOD.IMPORTS" in pairs:
            given = str(pairs["SSOD.IMPORTS"])  # as it is, if it is nothing of Python's
            given = ast.literal_eval(given)
        elif config_file:
            given = CfgNode.load_yaml_with_base(config_file)["SSOD"]["IMPORTS"]
    if given is not None and not limits.NAMES.holds(given):
        raise ConfigError(f"SSOD.IMPORTS is {given!r}; it must be {limits.NAMES.expected}")
    return list(given or ())


def _merge(cfg: CfgNode, merge: Callable[[Any], None], values: Any, source: str) -> None:
    """Call ``merge(values)`` of ``cfg``; say what goes wrong with its source, file or command."""
    try:
        merge(values)
    except OSError as error:
        raise ConfigError(
            f"config ({source}): {error.filename or source} cannot be read ({error.strerror}); "
            "correct the path"
        ) from error
    except (KeyError, ValueError, AttributeError, TypeError, AssertionError, YAMLError) as error:
        raise ConfigError(f"config ({source}): {_described(error, cfg)}") from error


def _described(error: Exception, cfg: CfgNode) -> str:
    """Say on one line what yacs or YAML says, and what to do; a KeyError's text unquoted."""
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    line = one_line(text)
    if line.startswith(("Non-existent config key", "Non-existent key")):
        remedy = correct_or_remove(nearest_key(cfg, line.split(": ", 1)[1]))
        line += f" (unknown: {remedy}; d2_ssod/config.py lists the keys under SSOD"
        line += "; a key of your own is added by a module that SSOD.IMPORTS names)"
    if line.startswith("Override list has odd length"):
        line += " (KEY VALUE, not KEY=VALUE; lists in quotes, as '[250, 100]'; options before keys)"
    if match := _OTHER_TYPE.fullmatch(line):
        line = _other_type(match["given"], match["key"], value_of(cfg, match["key"]))
    if line.startswith("Config file") and line.endswith("does not exist!"):
        ready = shipped_configs() / Path(line.split("'")[1]).name
        line += " Correct the path"
        line += f": that of the ready one is {ready}" if ready.is_file() else "."
    return line


_OTHER_TYPE = re.compile(
    r"Type mismatch \(.*?\) with values \(.* vs\. (?P<given>.*)\) for config key: (?P<key>[\w.]+)"
)
_TYPES = {
    bool: "True or False",
    float: "a number with a decimal point, such as 1.0",
    int: "a whole number",
    str: "a text, with quotes of its own if it looks like something else: \"'12'\"",
    list: "a list in brackets",
    tuple: "a list in brackets",
    CfgNode: "a section with keys",
}


def _other_type(given: str, key: str, now: Any) -> str:
    """Say that a key has a value of another type than its default."""
    return f"{key} is {given}; it must be {_TYPES.get(type(now), type(now).__name__)}"
