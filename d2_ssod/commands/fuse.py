"""How good the models of several runs are together, on the test images of the first one.

    python train_net.py --config-file mine.yaml SEED 2 OUTPUT_DIR output/mine_2
    python -m d2_ssod fuse output/mine output/mine_2
    python -m d2_ssod predict output/mine pictures/ --with output/mine_2

Of each run it takes the model of the last phase, or the one that --phase names. What is evaluated
is each alone, and all fused with equal weights (weighted boxes fusion, with the first run's
SSOD.ENSEMBLE), as predict --with fuses them. Models that were trained alike but with other random
numbers make other mistakes, so fused they are mostly better than each, and than the phases of one
run.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence

from detectron2.config import CfgNode

from d2_ssod.artifacts import RunFolder, load_classes, load_phase_model
from d2_ssod.data import read_data_set, register_from_config
from d2_ssod.data.checks import check_disjoint
from d2_ssod.data.findings import Findings
from d2_ssod.engine import check_test_sets
from d2_ssod.errors import ConfigError
from d2_ssod.evaluation import Fusion, evaluate_rows, format_metrics, judged_on
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
    tests = _test_sets(configs[0])
    for cfg in configs[1:]:  # the first run was trained beside its own
        _warn_of_trained_on(cfg, tests)
    phases = [choose_phase(cfg, arguments.phase) for cfg in configs]
    models = [load_phase_model(cfg, phase) for cfg, phase in zip(configs, phases, strict=True)]
    rows: dict[str, Sequence[int]] = {
        f"{cfg.OUTPUT_DIR}, phase {phase}": [number]
        for number, (cfg, phase) in enumerate(zip(configs, phases, strict=True))
    }
    rows["all, fused"] = range(len(models))
    fusion = Fusion.from_config(configs[0]).of_equals()
    found = {}
    for name, images in tests.items():
        how = judged_on(configs[0], name, images)
        found[name] = evaluate_rows(models, **how, rows=rows, fusion=fusion)
        print(format_metrics(name, found[name]))
    if arguments.json:
        write_json(arguments.json, found)
    return 0


def _test_sets(cfg: CfgNode) -> dict[str, list[dict]]:
    """Read the images of a run's test sets."""
    if not cfg.DATASETS.TEST:
        raise ConfigError(
            f"{cfg.OUTPUT_DIR}: DATASETS.TEST names no data set to judge by; name first a run "
            "that has one"
        )
    own = [entry for entry in cfg.SSOD.REGISTER if entry["NAME"] in cfg.DATASETS.TEST]
    register_from_config(own, f"{RunFolder(cfg.OUTPUT_DIR).config}: SSOD.REGISTER of DATASETS.TEST")
    return check_test_sets(cfg, load_classes(RunFolder(cfg.OUTPUT_DIR)))


def _warn_of_trained_on(cfg: CfgNode, tests: Mapping[str, list[dict]]) -> None:
    """Say which test images a run learned the labels of."""
    findings = Findings()
    try:
        labeled = _labeled_images(cfg)
    except ConfigError as error:
        line = f"{cfg.OUTPUT_DIR}: whether it has learned test images is not known: {error}"
        print(line, file=sys.stderr)
        return
    words = ("test", f"labeled (of {cfg.OUTPUT_DIR})", "results on them mean nothing")
    for name, images in tests.items():
        check_disjoint(labeled, images, words, f"DATASETS.TEST ({name})", findings)
    for finding in findings:
        print(finding, file=sys.stderr)


def _labeled_images(cfg: CfgNode) -> list[dict]:
    """Read a run's labeled images, whose names may be those of another run's."""
    entries = {entry["NAME"]: entry for entry in cfg.SSOD.REGISTER}
    images: list[dict] = []
    for name in cfg.DATASETS.TRAIN:
        own = name
        if name in entries:
            own = f"{cfg.OUTPUT_DIR}: {name}"
            register_from_config([{**entries[name], "NAME": own}], f"SSOD.REGISTER ({own})")
        images += read_data_set(own).images
    return images
