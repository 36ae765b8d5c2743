"""Which trained models commands use: of which phase, of one run or of several."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from detectron2.config import CfgNode

from d2_ssod.artifacts import RunFolder, best_phases, ensembles_of, load_classes, load_own_summary
from d2_ssod.class_lists import describe_difference
from d2_ssod.config import value_of
from d2_ssod.engine import check_registered_names, read_run_config
from d2_ssod.errors import ConfigError

# Models that are fused see the same pictures.
_OF_PICTURES = ("INPUT.MIN_SIZE_TEST", "INPUT.MAX_SIZE_TEST", "INPUT.FORMAT")


def add_phase_argument(parser: argparse._ActionsContainer) -> None:
    """Add ``--phase``."""
    parser.add_argument(
        "--phase",
        metavar="I",
        help="model of this phase; best: that, or the ensemble of a run, with the best AP on the "
        "validation images, or, without such, on the test images (default: the last)",
    )


def open_runs(folders: Sequence[str]) -> list[CfgNode]:
    """Read the configs of runs whose models can be fused.

    Raises:
        ConfigError: a folder is not a run's or named twice, or one has other classes or sizes than
            the first.
    """
    for number, folder in enumerate(folders):
        if any(os.path.realpath(folder) == os.path.realpath(other) for other in folders[:number]):
            raise ConfigError(f"{folder}: is named twice; name each run once")
    configs = [read_run_config(RunFolder(folder)) for folder in folders]
    for cfg in configs:
        check_registered_names(cfg)
    first, *others = configs
    for cfg in others:
        _check_fits(cfg, first)
    return configs


def choose_phases(cfg: CfgNode, asked: str | None) -> list[int]:
    """Find the phases that are asked for: a number, "best", or, with None, the last trained one.

    Returns:
        One, or several whose models are to be fused.

    Raises:
        ConfigError: it is something else, or no phase has been trained to its end.
    """
    folder, last = RunFolder(cfg.OUTPUT_DIR), cfg.SSOD.NUM_PHASES
    trained = [p for p in range(last + 1) if folder.phase(p).model.exists()]
    if not trained:
        raise ConfigError(f"{folder.root}: no phase has been trained to its end there")
    if asked is None:
        if trained[-1] < last:
            print(
                f"{folder.root}: takes phase {trained[-1]}, the last that was trained to its end, "
                f"of phases 0..{last}",
                file=sys.stderr,
            )
        elif better := _better_by_validation(folder, last):
            print(
                f"{folder.root}: takes phase {last}, the last; on the validation images {better} "
                "did better (--phase best)",
                file=sys.stderr,
            )
        return [trained[-1]]
    if asked == "best":
        return best_phases(folder, last) or _best_by_test(cfg, trained)
    if not asked.isdecimal():
        raise ConfigError(f"--phase is {asked!r}; expected a number, or best")
    return [int(asked)]


def _better_by_validation(folder: RunFolder, last: int) -> str | None:
    """Name what has a better AP than the last phase, if it is known."""
    try:
        best = best_phases(folder, last)
    except ConfigError:  # a damaged file, of which nothing else is wanted
        return None
    if best is None or best == [last]:
        return None
    return (
        f"phase {best[0]}" if len(best) == 1 else f"phases {' and '.join(map(str, best))}, fused,"
    )


def _check_fits(cfg: CfgNode, first: CfgNode) -> None:
    own, expected = (load_classes(RunFolder(each.OUTPUT_DIR)) for each in (cfg, first))
    if own != expected:
        raise ConfigError(
            f"{cfg.OUTPUT_DIR}: has other classes than {first.OUTPUT_DIR}: "
            f"{describe_difference(own, expected)}; name runs of the same classes"
        )
    for key in _OF_PICTURES:
        if value_of(cfg, key) != value_of(first, key):
            raise ConfigError(
                f"{cfg.OUTPUT_DIR}: {key} is {value_of(cfg, key)!r}, but "
                f"{value_of(first, key)!r} in {first.OUTPUT_DIR}; name runs whose models see "
                "pictures alike"
            )


def _best_by_test(cfg: CfgNode, trained: Sequence[int]) -> list[int]:
    """Find the phases whose model, or models together, have the best AP on the test images."""
    folder, summary = RunFolder(cfg.OUTPUT_DIR), load_own_summary(cfg)
    if summary is None:
        raise ConfigError(
            f"{folder.summary()}: no such file, nor are all phases judged on validation images "
            "(validation.json), so that the best phase is not known; name a phase"
        )
    if unknown := sorted(set(trained) - set(summary.phases)):
        raise ConfigError(
            f"{folder.root}: phase {unknown[0]} is trained, but not judged on the test images yet, "
            "so that the best phase is not known; name a phase, or have all judged (train_net.py "
            "--eval-only)"
        )
    found = [([phase], metrics.get("AP")) for phase, metrics in summary.phases.items()]
    found += [
        (list(phases), summary.ensembles[name].get("AP"))
        for name, phases in ensembles_of(len(summary.phases) - 1).items()
        if name in summary.ensembles
    ]
    known = [each for each in found if each[1] is not None]
    if not known:
        raise ConfigError(
            f"{folder.summary()}: no model has an AP, so that the best phase is not known; name a "
            "phase, or have it made again (train_net.py --eval-only)"
        )
    return max(known, key=lambda each: each[1])[0]
