"""How good the models of several runs are together, on the test images of the first one.

    python train_net.py --config-file mine.yaml SEED 2 OUTPUT_DIR output/mine_2
    python -m d2_ssod fuse output/mine output/mine_2
    python -m d2_ssod predict output/mine pictures/ --with output/mine_2

Of each run it takes the model of the last phase, or the one that --phase names. What is evaluated
is each alone, and all fused with equal weights (weighted boxes fusion), as predict --with fuses
them. Models that were trained alike but with other random numbers make other mistakes, so fused
they are better than each, and mostly than the phases of one run.
"""

from __future__ import annotations

import argparse

from d2_ssod.artifacts import load_phase_model
from d2_ssod.data import register_from_config
from d2_ssod.errors import ConfigError
from d2_ssod.evaluation import Fusion, evaluate_models, format_metrics
from d2_ssod.json_files import write_json

from .trained_models import add_phase_argument, choose_phase, open_runs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("output_dirs", nargs="+", metavar="OUTPUT_DIR", help="of runs, two or more")
    add_phase_argument(parser)
    parser.add_argument("--json", metavar="FILE", help="write all metrics")


def run(arguments: argparse.Namespace) -> int:
    """Evaluate on each data set of DATASETS.TEST, and print a table of each."""
    if len(arguments.output_dirs) < 2:
        raise ConfigError("one OUTPUT_DIR is given; name two or more runs to be fused")
    configs = open_runs(arguments.output_dirs)
    first = configs[0]
    register_from_config(first.SSOD.REGISTER, "SSOD.REGISTER")
    if not first.DATASETS.TEST:
        raise ConfigError(
            f"{first.OUTPUT_DIR}: DATASETS.TEST names no data set to judge by; name first a run "
            "that has one"
        )
    phases = [choose_phase(cfg, arguments.phase) for cfg in configs]
    models = [load_phase_model(cfg, phase) for cfg, phase in zip(configs, phases, strict=True)]
    names = [f"{cfg.OUTPUT_DIR}, phase {p}" for cfg, p in zip(configs, phases, strict=True)]
    found = {}
    for dataset in first.DATASETS.TEST:
        results = evaluate_models(first, models, dataset, Fusion.from_config(first).of_equals())
        found[dataset] = dict(zip(names, results.phases, strict=True))
        found[dataset]["all, fused"] = results.ensembles["0~N"]
        print(format_metrics(dataset, found[dataset]))
    if arguments.json:
        write_json(arguments.json, found)
    return 0
