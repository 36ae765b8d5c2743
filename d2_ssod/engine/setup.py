"""From the command line to a checked config."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.utils import comm
from yaml import YAMLError

from d2_ssod.artifacts import RunFolder, half_written_checkpoints, lock_folder, release_folder
from d2_ssod.config import add_ssod_config, nearest_key, shipped_configs
from d2_ssod.data import register_from_config
from d2_ssod.errors import ConfigError, correct_or_remove
from d2_ssod.json_files import atomic_open
from d2_ssod.modeling import describe_timm_backbone, with_timm_pixels
from d2_ssod.randomness import seed_generators, with_drawn_seed
from d2_ssod.yaml_files import check_repeated_keys

from .agreement import agree_on_config, agree_on_folder, on_main_process
from .config_checks import check_config
from .config_warnings import warn_of_odd_keys
from .data_checks import check_data_sets
from .logs import log_start, setup_logs


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
    cfg = get_cfg()
    add_ssod_config(cfg)
    if config_file:
        check_repeated_keys(config_file)
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


def save_run_config(cfg: CfgNode) -> None:
    """Write a run's config where :func:`read_run_config` finds it; on every rank."""
    if comm.is_main_process():
        with atomic_open(RunFolder(cfg.OUTPUT_DIR).config, encoding="utf-8") as file:
            file.write(cfg.dump())


def build_config(args: argparse.Namespace, world_size: int) -> CfgNode:
    """Build the config that ``--config-file`` and the ``KEY VALUE`` pairs ask for.

    Raises:
        ConfigError: one line that names the key or file and what to do.
    """
    cfg = read_config(args.config_file, args.opts, on_cpu=args.num_gpus == 0)
    cfg.freeze()
    check_config(cfg, world_size)
    cfg = with_timm_pixels(cfg)
    register_from_config(cfg.SSOD.REGISTER, "SSOD.REGISTER")
    check_data_sets(cfg)
    return cfg


def setup(args: argparse.Namespace) -> CfgNode:
    """Build the config, prepare the output folder, set up logging and seeds; on every rank."""
    cfg = build_config(args, comm.get_world_size())
    go_on = args.resume or args.eval_only
    agree_on_config(cfg, resume=args.resume, eval_only=args.eval_only)
    on_main_process(lambda: _take_folder(cfg.OUTPUT_DIR, args))
    agree_on_folder(cfg.OUTPUT_DIR)
    # Repeatable runs: no timing-dependent choice of algorithms.
    torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK and cfg.SEED < 0
    if cfg.SEED < 0:
        cfg = _with_seed(cfg, go_on)
    if cfg.MODEL.DEVICE == "cpu" and comm.get_world_size() > 1:
        torch.set_num_threads(1)  # The processes share the cores.
    setup_logs(cfg.OUTPUT_DIR)
    log_start(cfg, args)
    if backbone := describe_timm_backbone(cfg):
        logging.getLogger(__name__).info(backbone)
    warn_of_odd_keys(cfg)
    # Where there is one, the new one may yet be refused.
    if not args.eval_only and not RunFolder(cfg.OUTPUT_DIR).config.exists():
        save_run_config(cfg)
    seed_generators(cfg.SEED + comm.get_rank())
    return cfg


def _with_seed(cfg: CfgNode, go_on: bool) -> CfgNode:
    """Set a seed where ``SEED`` asks for a random one; a run keeps its."""
    own = with_drawn_seed(cfg)
    path = RunFolder(cfg.OUTPUT_DIR).config
    if go_on and path.exists():
        own.defrost()
        own.SEED = int(CfgNode.load_yaml_with_base(str(path)).get("SEED", own.SEED)) % 2**31
        own.freeze()
    return own


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
        raise ConfigError(f"config ({source}): {_one_line(error, cfg)}") from error


def _one_line(error: Exception, cfg: CfgNode) -> str:
    """Say on one line what yacs or YAML says, and what to do; a KeyError's text unquoted."""
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    line = " ".join(str(text).split())
    if line.startswith(("Non-existent config key", "Non-existent key")):
        remedy = correct_or_remove(nearest_key(cfg, line.split(": ", 1)[1]))
        line += f" (unknown: {remedy}; d2_ssod/config.py lists the keys under SSOD)"
    if line.startswith("Override list has odd length"):
        line += " (KEY VALUE, not KEY=VALUE; and lists in quotes, as '[250, 100]')"
    if line.startswith("Config file") and line.endswith("does not exist!"):
        ready = shipped_configs() / Path(line.split("'")[1]).name
        line += " Correct the path"
        line += f": that of the ready one is {ready}" if ready.is_file() else "."
    return line


def _take_folder(output_dir: str, args: argparse.Namespace) -> None:
    """Take the output folder for this run alone; a new run has an empty one."""
    if args.eval_only:  # beside a training run, it reads finished phases
        return
    lock_folder(output_dir)
    if not args.resume and _set_previous_run_aside(Path(output_dir)):
        release_folder(output_dir)
        lock_folder(output_dir)
    for path in half_written_checkpoints(output_dir):
        path.unlink(missing_ok=True)


def _set_previous_run_aside(output_dir: Path) -> bool:
    """Rename the folder of an earlier run, so that a new one neither reads nor overwrites it.

    Returns:
        whether there was one.
    """
    output_dir = Path(os.path.abspath(output_dir))
    traces = ("last_checkpoint", "phase_0", "phase_1", "summary.json")
    if not any((output_dir / name).exists() for name in traces):
        return False
    if Path.cwd().is_relative_to(output_dir):
        raise ConfigError(
            f"OUTPUT_DIR {output_dir} holds a run and is where this command is run, so that it "
            "cannot be set aside; choose another folder, or continue the run with --resume"
        )
    number = 1
    while (aside := output_dir.with_name(f"{output_dir.name}.previous_{number}")).exists():
        number += 1
    try:
        output_dir.rename(aside)
    except OSError as error:
        raise ConfigError(
            f"OUTPUT_DIR {output_dir} holds a run and cannot be renamed to {aside} "
            f"({error.strerror}); choose another folder, or continue the run with --resume"
        ) from error
    logging.getLogger(__name__).warning(
        "OUTPUT_DIR %s held a run; it is now %s. Use --resume to continue a run.",
        *(output_dir, aside),
    )
    return True
