"""Train and evaluate: ``train_net.py``, where the package is installed without its repository.

    python -m d2_ssod train --config-file mine.yaml --num-gpus 8

Takes Detectron2's own flags (``--resume``, ``--eval-only``, ``--num-machines``, ... and
``KEY VALUE`` overrides at the end) and also runs under ``torchrun -m``.
"""

from __future__ import annotations

import argparse

from d2_ssod.engine import (
    as_it_was_trained,
    default_argument_parser,
    launch,
    load_run_data,
    setup,
    train_phases,
)
from d2_ssod.evaluation import evaluate_run
from d2_ssod.report import report_run

PARENTS = [default_argument_parser()]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add none to Detectron2's."""


def run(arguments: argparse.Namespace) -> int:
    """Start the processes that the arguments ask for."""
    launch(main, arguments)
    return 0


def main(arguments: argparse.Namespace) -> None:
    """Do what every process of the run does."""
    cfg = setup(arguments)
    if arguments.eval_only or train_phases(cfg, load_run_data(cfg)):
        evaluate_run(cfg)
    report_run(cfg, as_it_was_trained if arguments.eval_only else None)
