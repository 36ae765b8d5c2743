"""Train every row and seed that has no result yet: ``python -m ablation.run --processes 2``.

Each run is a process of its own with one thread on the CPU. Finished runs leave a small JSON file
under ``ablation/results`` and are not repeated; an interrupted one resumes from its checkpoint.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import d2_ssod.quiet  # noqa: F401

from .rows import (
    CONFIG,
    KEPT_METRICS,
    LENGTHS,
    SEEDS,
    SEMI_SUPERVISED,
    SETTINGS,
    Run,
    all_runs,
)
from .training import Beginning, evaluate_together, in_process_config, keep, kept
from .waves import do_in_waves, missing


def main() -> None:
    """Do one run in this process, or all that are missing in processes of their own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=1, help="runs at a time")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, help="of every row")
    parser.add_argument("--main-seeds", type=int, nargs="+", default=SEEDS, help="of the main")
    parser.add_argument("--output", type=Path, default=Path("output/ablation"))
    parser.add_argument("--only", metavar="SETTING/ROW/SEED", help="do this run, in this process")
    args = parser.parse_args()
    if args.only:
        setting, row, seed = args.only.split("/")
        do(Run(setting, row, int(seed)), args.output)
        return
    wanted = all_runs(args.seeds, args.main_seeds)
    runs = missing(wanted, lambda run: _is_usable(run, args.output))
    print(f"{len(runs)} runs to do, {args.processes} at a time")
    failed = do_all(runs, args.processes, args.output)
    if failed:
        sys.exit(f"{len(failed)} runs failed: {', '.join(map(_name, failed))}")


def _is_usable(run: Run, output: Path) -> bool:
    """Whether other runs can build on this one: of phase 0 they need files, not only the result."""
    from d2_ssod.artifacts import RunFolder

    files = RunFolder(run_folder(run, output)).phase(0)
    has_files = run.row != "fs" or files.predictions.exists()
    return run.result.exists() and has_files


def do_all(runs: list[Run], processes: int, output: Path) -> list[Run]:
    """Do each run in a process of its own; returns those that failed."""
    return do_in_waves(
        runs,
        lambda run: _in_own_process(run, output),
        lambda run: _is_usable(run, output),
        processes,
    )


def _in_own_process(run: Run, output: Path) -> bool:
    folder, started = run_folder(run, output), time.time()
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "ablation.run", "--only", _name(run), "--output", str(output)]
    # One thread each: the runs share the cores.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with open(folder / "run.log", "a") as log:
        done = subprocess.run(
            command, stdout=log, stderr=subprocess.STDOUT, env=environment, check=False
        )
    well = done.returncode == 0
    print(
        f"{_name(run)}: {'done' if well else 'FAILED'} after {time.time() - started:.0f} s",
        flush=True,
    )
    return well


def _name(run: Run) -> str:
    return f"{run.setting}/{run.row}/{run.seed}"


def run_folder(run: Run, output: Path) -> Path:
    """The output folder of a run's training."""
    return output / run.setting / run.row / f"seed_{run.seed}"


def do(run: Run, output: Path) -> None:
    """Train and evaluate one run in this process, and keep its result."""
    began = Beginning.now()
    if run.row in LENGTHS:
        result = _supervised(run, output)
    elif run.row == "fs_x3":
        result = _supervised_ensemble(run, output)
    else:
        result = _semi_supervised(run, output)
    own = {"setting": run.setting, "row": run.row, "seed": run.seed}
    keep(run.result, {**own, **result, "metrics": kept(result["metrics"], KEPT_METRICS)}, began)


def _supervised(run: Run, output: Path) -> dict:
    """Phase 0 alone; leaves its predictions for other runs."""
    from d2_ssod.engine import load_run_data, train_phases
    from d2_ssod.engine.labeling.predicting import predict_unlabeled

    folder = run_folder(run, output)
    alone = ["SSOD.NUM_PHASES", "0", "SSOD.SCHEDULE.MAX_ITER", f"({LENGTHS[run.row]},)"]
    cfg = _config(folder, run.seed, alone)
    data = load_run_data(cfg)
    train_phases(cfg, data)
    predict_unlabeled(cfg, 0, data)
    return {"metrics": {"phase_0": _evaluate(cfg, [folder])["phase_0"]}}


def _supervised_ensemble(run: Run, output: Path) -> dict:
    """Three phases 0, fused."""
    folders = [run_folder(member, output) for member in run.needs]
    return {"metrics": _evaluate(_config(run_folder(run, output), run.seed, []), folders)}


def _semi_supervised(run: Run, output: Path) -> dict:
    """Phases 1..N on the shared phase 0 of the seed."""
    from d2_ssod.engine import PhaseTrainer, load_run_data, train_phases
    from d2_ssod.evaluation import evaluate_run

    from .oracle import OracleTrainer
    from .separation import separation

    folder = run_folder(run, output)
    cfg = _config(
        folder,
        run.seed,
        [*SETTINGS[run.setting], *SEMI_SUPERVISED[run.row][1], *_constant_weight(run)],
    )
    data = load_run_data(cfg)
    shared = run_folder(Run("ordinary", "fs", run.seed), output) / "phase_0"
    shutil.copytree(shared, folder / "phase_0", dirs_exist_ok=True)
    train_phases(cfg, data, OracleTrainer if run.row == "oracle" else PhaseTrainer)
    summary = evaluate_run(cfg)
    phases = range(1, cfg.SSOD.NUM_PHASES + 1)
    return {
        "metrics": {
            **{f"phase_{phase['phase']}": phase["metrics"] for phase in summary["phases"]},
            **summary["ensembles"],
        },
        "pseudo": [
            {key: phase[key] for key in ("pseudo_images", "pseudo_boxes")}
            for phase in summary["phases"][1:]
        ],
        "mean_weight": _mean_weight(folder),
        "separation": {f"phase_{phase}": separation(cfg, phase, data) for phase in phases},
    }


def _config(folder: Path, seed: int, overrides: list[str]):
    from . import oracle  # noqa: F401  adds the oracle to the weightings

    return in_process_config(CONFIG, ["OUTPUT_DIR", str(folder), "SEED", str(seed), *overrides])


def _evaluate(cfg, folders: list[Path]) -> dict[str, dict]:
    """Phase-0 models of several runs, each alone and fused (``0~N``), on the test set."""
    return evaluate_together(cfg, folders, *cfg.DATASETS.TEST)


def _constant_weight(run: Run) -> list[str]:
    """For the constant row: the mean weight that the paper's row gave with this seed."""
    if run.row != "constant":
        return []
    paper = json.loads(Run(run.setting, "paper", run.seed).result.read_text())
    return ["SSOD.ROI_WEIGHTING.CONSTANT", str(round(paper["mean_weight"], 4))]


def _mean_weight(folder: Path) -> float | None:
    """Mean weight of the background RoIs of pseudo-labeled images over the whole training."""
    lines = [
        json.loads(line)
        for path in sorted(folder.glob("phase_[1-9]*/metrics.json"))
        for line in path.read_text().splitlines()
    ]
    key = "roi_weighting/weights_mean"
    means = [line[key] for line in lines if key in line]
    return sum(means) / len(means) if means else None


if __name__ == "__main__":
    main()
