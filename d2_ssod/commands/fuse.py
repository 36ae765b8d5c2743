"""How good the models of several runs are together, on the images that the first one is judged by.

    python -m d2_ssod train --config-file mine.yaml SEED 2 OUTPUT_DIR output/mine_2
    python -m d2_ssod fuse output/mine output/mine_2
    python -m d2_ssod predict output/mine pictures/ --with output/mine_2

Of each run it takes the model of the last phase, or the one that --phase names. What is evaluated
is each alone, and all fused with equal weights (weighted boxes fusion, with the first run's
SSOD.ENSEMBLE), as predict --with fuses them; with --ensemble the models of all phases, too, as
predict --with --ensemble. Models that were trained alike but with other random numbers make other
mistakes, so fused they are mostly better than each. Choose by DATASETS.VAL, report DATASETS.TEST.
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
from d2_ssod.data.picture_files import PictureFiles
from d2_ssod.engine import check_judging_sets
from d2_ssod.errors import ConfigError
from d2_ssod.evaluation import Fusion, evaluate_rows, format_metrics, judged_on
from d2_ssod.json_files import write_json

from .targets import check_json_target, has_metrics
from .trained_models import add_phase_argument, choose_phases, open_runs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("output_dirs", nargs="+", metavar="OUTPUT_DIR", help="of runs, two or more")
    add_phase_argument(parser)
    parser.add_argument(
        "--ensemble", action="store_true", help="also fuse the models of all phases of all runs"
    )
    parser.add_argument("--json", metavar="FILE", help="write all metrics")


def run(arguments: argparse.Namespace) -> int:
    """Evaluate on each data set of DATASETS.VAL and DATASETS.TEST, and print a table of each."""
    if len(arguments.output_dirs) < 2:
        raise ConfigError("one OUTPUT_DIR is given; name two or more runs to be fused")
    if arguments.json:
        check_json_target(arguments.json, has_metrics)
    configs = open_runs(arguments.output_dirs)
    sets = _judging_sets(configs[0])
    for cfg in configs[1:]:  # the first run was trained beside its own
        _warn_of_trained_on(cfg, sets)
    members, rows = _members(configs, arguments)
    models = [load_phase_model(cfg, phase) for cfg, phase in members]
    fusion = Fusion.from_config(configs[0]).of_equals()
    found = {}
    for name, images in sets.items():
        how = judged_on(configs[0], name, images)
        found[name] = evaluate_rows(models, **how, rows=rows, fusion=fusion)
        print(format_metrics(name, found[name]))
    if arguments.json:
        write_json(arguments.json, found)
    return 0


def _members(
    configs: Sequence[CfgNode], arguments: argparse.Namespace
) -> tuple[list[tuple[CfgNode, int]], dict[str, Sequence[int]]]:
    """List the phases of runs that take part, and of each row of the table their numbers."""
    members: list[tuple[CfgNode, int]] = []
    rows: dict[str, Sequence[int]] = {}
    for cfg in configs:
        phases, first = choose_phases(cfg, arguments.phase), len(members)
        members += [(cfg, phase) for phase in phases]
        rows[f"{cfg.OUTPUT_DIR}, {_describe(phases)}"] = range(first, len(members))
    rows["these, fused"] = range(len(members))
    if arguments.ensemble:
        of_all = [(cfg, phase) for cfg in configs for phase in range(cfg.SSOD.NUM_PHASES + 1)]
        members += [member for member in of_all if member not in members]
        rows["all phases of all, fused"] = range(len(members))
    return members, rows


def _describe(phases: Sequence[int]) -> str:
    return f"phase {phases[0]}" if len(phases) == 1 else f"phases {phases[0]}~{phases[-1]}"


def _judging_sets(cfg: CfgNode) -> dict[str, list[dict]]:
    """Read the images that a run is judged by."""
    names = (*cfg.DATASETS.VAL, *cfg.DATASETS.TEST)
    if not names:
        raise ConfigError(
            f"{cfg.OUTPUT_DIR}: neither DATASETS.VAL nor DATASETS.TEST names a data set to judge "
            "by; name first a run that has one"
        )
    own = [entry for entry in cfg.SSOD.REGISTER if entry["NAME"] in names]
    register_from_config(own, f"{RunFolder(cfg.OUTPUT_DIR).config}: SSOD.REGISTER of VAL and TEST")
    return check_judging_sets(cfg, load_classes(RunFolder(cfg.OUTPUT_DIR)))


def _warn_of_trained_on(cfg: CfgNode, sets: Mapping[str, list[dict]]) -> None:
    """Say which images to judge by a run has learned the labels of."""
    findings, files = Findings(), PictureFiles()
    try:
        labeled = _labeled_images(cfg)
    except ConfigError as error:
        line = f"{cfg.OUTPUT_DIR}: whether it has learned test images is not known: {error}"
        print(line, file=sys.stderr)
        return
    words = ("test", f"labeled (of {cfg.OUTPUT_DIR})", "results on them mean nothing")
    for name, images in sets.items():
        check_disjoint(labeled, images, files, words, name, findings)
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
