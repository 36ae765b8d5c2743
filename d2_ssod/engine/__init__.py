"""The training run: phases, their hook and trainer, and what surrounds them."""

import d2_ssod.quiet  # noqa: F401

from detectron2.engine import default_argument_parser

from .checks import check_config
from .data import RunData, load_run_data
from .evaluation import evaluate_run
from .hooks import PhaseHook
from .launch import launch
from .phases import phase_at, phase_config, phase_files, phase_starts
from .setup import build_config, setup
from .trainer import MultiPhaseTrainer

__all__ = [
    "MultiPhaseTrainer",
    "PhaseHook",
    "RunData",
    "build_config",
    "check_config",
    "default_argument_parser",
    "evaluate_run",
    "launch",
    "load_run_data",
    "phase_at",
    "phase_config",
    "phase_files",
    "phase_starts",
    "setup",
]
