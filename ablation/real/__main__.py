"""Ways to train on real pictures, side by side: ``python -m ablation.real FOLDER``.

FOLDER has ``labeled.json``, ``val.json``, ``test.json`` and ``unlabeled_truth.json`` (COCO) and the
pictures in folders of these names (``unlabeled``); ``settings.json``, if there is one, holds config
keys that its pictures need. ``python -m ablation.digits_folder FOLDER`` makes one of the embedded
data, ``python -m ablation.real_folder`` those of NEU and BCCD (``splits/``). Results are kept by
the folder's name. Every row has the same number of image passes in training, phase 0 included,
which the rows of a seed share; the truth about the unlabeled pictures is measured by, never trained
on. The detector is the small one of ``configs/Base-SSOD-Small.yaml``, from scratch; a folder that
``python -m ablation.lite0`` has written gives it a backbone trained on ImageNet. Each run is
``train_net.py`` in a process with one thread, and goes on where it was interrupted; finished ones
leave a small JSON file for each split under ``ablation/results``. Tune on ``val``; ``--split test``
is for what was chosen.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import d2_ssod.quiet  # noqa: F401

from ablation.training import (
    Beginning,
    evaluate_together,
    evaluation_config,
    keep,
    kept,
    metrics_of,
    train,
)
from ablation.waves import do_in_waves, missing, with_needs
from d2_ssod.artifacts import RunFolder
from d2_ssod.json_files import read_json, write_json

from .oracles import put_right
from .report import table
from .rows import CONFIG, ROWS, SPLITS, RealRun

_METRICS = ("AP50", "AP")
_MAIN_ROWS = ("fs_plus", "none_held", "fs_plus_x2", "none_held_x2", "none_held_all_x2")  # README


def main() -> None:
    """Do the runs that have no result yet, and print the table of all."""
    parser = argparse.ArgumentParser("python -m ablation.real", description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, metavar="FOLDER")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=_MAIN_ROWS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--lengths", type=int, nargs=2, default=[1500, 2400])
    parser.add_argument("--rates", type=float, nargs=2, default=[0.003, 0.003])
    parser.add_argument("--split", choices=SPLITS, default="val")
    parser.add_argument("--processes", type=int, default=1, help="runs at a time")
    parser.add_argument("--output", type=Path, default=Path("output/real"))
    args = parser.parse_args()
    runs = [
        RealRun(
            args.data.resolve(),
            row,
            *(tuple(args.lengths), tuple(args.rates), seed, args.split),
            mates=_mates(args.seeds, seed, ROWS[row].models),
        )
        for seed in args.seeds
        for row in args.rows
        # All of the seeds are the same models for each of them.
        if seed == args.seeds[0] or not 1 < ROWS[row].models == len(args.seeds)
    ]
    failed = do_all(runs, args.processes, args.output)
    print(table(runs))
    if failed:
        names = ", ".join(run.name for run in failed)
        sys.exit(f"{len(failed)} runs failed: {names}; see their run.log")


def do_all(runs: Sequence[RealRun], processes: int, output: Path) -> list[RealRun]:
    """Do the runs that are missing, after what they need; returns those that failed."""

    def is_usable(run: RealRun) -> bool:
        return (output / run.name / "summary.json").exists()  # the last that a training leaves

    to_do = missing(with_needs(runs), is_usable)
    trained = [run for run in to_do if not ROWS[run.row].fuses]
    fused = [run for run in to_do if ROWS[run.row].fuses]
    failed = do_in_waves(trained, lambda run: do(run, output), is_usable, processes)
    # In this process, one after the other.
    return failed + do_in_waves(fused, lambda run: fuse(run, output), is_usable, 1)


def do(run: RealRun, output: Path) -> bool:
    """Train and evaluate a run; False if it failed."""
    began, folder = Beginning.now(), output / run.name
    if oracle := ROWS[run.row].oracle:
        folder.mkdir(parents=True, exist_ok=True)
        made = RunFolder(output / run.needs[1].name).phase(1).pseudo_labels
        truth = run.data / "unlabeled_truth.json"
        write_json(run.labels(output), put_right(made, truth, oracle))
    if not (_train_voters(run, output) and train(CONFIG, run.overrides(output), folder)):
        print(f"{run.name}: FAILED", flush=True)
        return False
    summary = read_json(folder / "summary.json")
    metrics = {
        "val": metrics_of(folder, _METRICS),
        "test": metrics_of(folder, _METRICS, "summary_real_test.json"),
    }
    labels = summary.get("label_quality", {})
    _keep(run, metrics, began, {"lengths": run.phase_lengths, "label_quality": labels})
    return True


def _train_voters(run: RealRun, output: Path) -> bool:
    """Train the models that label along, each of a seed of its own, and have them predict."""
    others = ("SSOD.START.PHASE_0", "SSOD.CONSENSUS.EXTRA_SOURCES")
    keys = {key: value for key, value in run.overrides(output).items() if key not in others}
    for number, folder in enumerate(run.voters(output), start=1):
        own = {"SEED": run.seed + 100 * number, "SSOD.PSEUDO_LABEL.PAUSE": True}
        has_labeled = folder.phase(1).pseudo_labels.exists()
        if not (has_labeled or train(CONFIG, {**keys, **own}, folder.root)):
            return False
    return True


def fuse(run: RealRun, output: Path) -> bool:
    """Evaluate the models that a run fuses; always True."""
    began, (own, *_) = Beginning.now(), run.needs
    keys = own.overrides(output)
    cfg = evaluation_config(CONFIG, [part for pair in keys.items() for part in pair])
    folders = [output / need.name for need in run.needs]
    metrics = {
        split: kept(evaluate_together(cfg, folders, f"real_{split}", run.fused_phases), _METRICS)
        for split in SPLITS
    }
    _keep(run, metrics, began, {"seeds": [need.seed for need in run.needs]})
    return True


def _mates(seeds: Sequence[int], seed: int, models: int) -> tuple[int, ...]:
    """The seeds that follow, the first ones after the last."""
    if models > len(seeds):
        sys.exit(f"{models} models are fused, but --seeds gives {len(seeds)} only: give more")
    first = list(seeds).index(seed)
    return tuple(seeds[(first + step) % len(seeds)] for step in range(1, models))


def _keep(run: RealRun, metrics: dict, began: Beginning, known: dict[str, object]) -> None:
    """Keep the result for each split."""
    for split in SPLITS:
        own = {"data": run.data.name, "row": run.row, "split": split, "seed": run.seed}
        content = {**own, "image_passes": run.image_passes, **known, "metrics": metrics[split]}
        keep(replace(run, split=split).result, content, began)


if __name__ == "__main__":
    main()
