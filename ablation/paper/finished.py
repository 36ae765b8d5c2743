"""A finished run: its config, data and models."""

from __future__ import annotations

from pathlib import Path

from detectron2.config import CfgNode
from torch import nn

from d2_ssod.artifacts import RunFolder, load_phase_model
from d2_ssod.data.datasets import register_from_config
from d2_ssod.engine import read_run_config
from d2_ssod.errors import ConfigError


def open_run(output_dir: Path) -> CfgNode:
    """Read the config of a run, and register its data sets.

    Raises:
        ConfigError: it has not come to its end.
    """
    folder = RunFolder(output_dir)
    cfg = read_run_config(folder)
    register_from_config(cfg.SSOD.REGISTER, "SSOD.REGISTER")
    if not folder.summary().exists():
        raise ConfigError(
            f"{folder.summary()}: no such file, the run has not come to its end; go on with "
            "train_net.py --resume"
        )
    return cfg


def load_models(cfg: CfgNode) -> list[nn.Module]:
    """Load the models of all phases."""
    return [load_phase_model(cfg, phase) for phase in range(cfg.SSOD.NUM_PHASES + 1)]
