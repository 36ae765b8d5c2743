"""From the command line to a checked config."""

from __future__ import annotations

import argparse
import logging

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm

from d2_ssod.artifacts import RunFolder
from d2_ssod.config import with_values
from d2_ssod.data import register_from_config
from d2_ssod.modeling import describe_timm_backbone, with_timm_pixels
from d2_ssod.randomness import seed_generators, with_drawn_seed

from .configs.checks import check_config
from .configs.files import read_config, read_kept_seed, save_run_config
from .configs.odd_keys import odd_keys
from .data_checks import check_data_sets
from .output_folder import check_is_there, check_output_dir, take_folder
from .processes.agreement import agree_on_config, agree_on_folder, on_main_process
from .processes.logs import log_start, setup_logs
from .resuming import say_what_is_left_out, say_what_judges_otherwise


def build_config(args: argparse.Namespace, world_size: int) -> CfgNode:
    """Build the config that ``--config-file`` and the ``KEY VALUE`` pairs ask for.

    Raises:
        ConfigError: one line that names the key or file and what to do.
    """
    cfg = read_config(args.config_file, args.opts, on_cpu=args.num_gpus == 0)
    cfg.freeze()
    check_output_dir(cfg.OUTPUT_DIR)
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
    if args.eval_only:  # it reads finished phases, also beside a training run
        on_main_process(lambda: check_is_there(cfg.OUTPUT_DIR))
    else:
        on_main_process(lambda: take_folder(cfg, resume=args.resume))
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
    if args.eval_only:
        on_main_process(lambda: say_what_judges_otherwise(cfg))
    else:
        on_main_process(lambda: say_what_is_left_out(cfg, resume=args.resume))
    for line in odd_keys(cfg):
        logging.getLogger(__name__).warning("%s", line)
    # Where there is one, the new one may yet be refused.
    if not args.eval_only and not RunFolder(cfg.OUTPUT_DIR).config.exists():
        save_run_config(cfg)
    seed_generators(cfg.SEED + comm.get_rank())
    return cfg


def _with_seed(cfg: CfgNode, go_on: bool) -> CfgNode:
    """Set a seed where ``SEED`` asks for a random one; a run keeps its."""
    drawn = with_drawn_seed(cfg)
    kept = on_main_process(lambda: read_kept_seed(RunFolder(cfg.OUTPUT_DIR))) if go_on else None
    return drawn if kept is None else with_values(cfg, {"SEED": kept})
