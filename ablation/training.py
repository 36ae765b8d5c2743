"""One training as a process of its own, gone on with if it was interrupted, and what came of it."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from d2_ssod.artifacts import load_summary
from d2_ssod.json_files import read_json, write_json

ROOT = Path(__file__).parent.parent


def train(config: str, overrides: Mapping[str, object], folder: Path, *, num_gpus: int = 0) -> bool:
    """Train and evaluate, or go on with it; tell whether it ended well.

    Args:
        config: a file below ``configs/``.
        overrides: config keys.
        folder: for its output, and what it prints (``run.log``).
        num_gpus: 0: the CPU, one thread.
    """
    options = [str(part) for pair in overrides.items() for part in pair]
    command = [
        *(sys.executable, "train_net.py", "--config-file", f"configs/{config}"),
        *("--num-gpus", str(num_gpus), "--resume", "OUTPUT_DIR", str(folder.resolve()), *options),
    ]
    folder.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # runs share the cores
    with open(folder / "run.log", "a") as log:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT, check=False
        )
    return done.returncode == 0


def metrics_of(
    folder: Path, keys: Collection[str], summary: str = "summary.json"
) -> dict[str, dict[str, float]]:
    """Read from a run's summary these metrics of each phase and ensemble."""
    found = load_summary(folder / summary)
    models = {f"phase_{phase}": metrics for phase, metrics in found.phases.items()}
    return kept(models | found.ensembles, keys)


def kept(metrics: Mapping[str, Mapping[str, float]], keys: Collection[str]) -> dict[str, dict]:
    """What a table shows of each model's metrics, so that results stay small."""
    return {
        model: {key: round(values[key], 3) for key in keys} for model, values in metrics.items()
    }


class Beginning(NamedTuple):
    """When a run began, and with the code of which commit: later ones may come while it trains."""

    time: float
    commit: str

    @classmethod
    def now(cls) -> Beginning:
        """Of a run that begins."""
        command = ["git", "describe", "--always", "--dirty"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        return cls(time.time(), done.stdout.strip() or "unknown")


def keep(result: Path, content: Mapping[str, object], began: Beginning) -> None:
    """Write a run's result, with what it depends on, unless there is one, which stays.

    Args:
        result: a JSON file.
        content: its content, with ``metrics``.
        began: when the run did.
    """
    if not result.exists():
        seconds = round(time.time() - began.time)
        made = {"seconds": seconds, "commit": began.commit, "versions": versions()}
        write_json(result, {**content, **made})
        print(f"{result}: done", flush=True)
        return
    before = read_json(result)["metrics"]
    if content["metrics"] == before:
        print(f"{result}: done again, with the same result", flush=True)
    else:
        print(
            f"WARNING: done again, with {content['metrics']}, but {result} has {before}: another "
            "processor, or version of torch or of this code. What is trained from here on starts "
            "from other models than what was trained before, and is not compared with it.",
            flush=True,
        )


def in_process_config(config: str, overrides: Sequence[object]):
    """A checked config, with logging and seeds set up, as on the command line.

    Args:
        config: a file, seen from the root of the repository.
        overrides: keys and values in turn.
    """
    from d2_ssod.engine import default_argument_parser, setup

    arguments = ["--config-file", str(ROOT / config), "--num-gpus", "0", "--resume"]
    arguments += map(str, overrides)
    return setup(default_argument_parser().parse_args(arguments))


def evaluation_config(config: str, overrides: Sequence[object]):
    """A checked config for models that others have trained: without logging and seeds.

    Args:
        config: a file below ``configs/``.
        overrides: keys and values in turn.
    """
    from d2_ssod.engine import build_config, default_argument_parser

    arguments = ["--config-file", str(ROOT / "configs" / config), "--num-gpus", "0"]
    arguments += map(str, overrides)
    return build_config(default_argument_parser().parse_args(arguments), world_size=1)


def evaluate_together(
    cfg, folders: Sequence[Path], dataset: str, phases: Sequence[int] = (0,)
) -> dict[str, dict]:
    """Models of these phases of several runs, each alone and fused (``0~N``)."""
    from detectron2.data import DatasetCatalog

    from d2_ssod.artifacts import load_phase_model
    from d2_ssod.evaluation import evaluate_phases, judged_on

    models = []
    for folder in folders:
        of_folder = cfg.clone()
        of_folder.defrost()
        of_folder.OUTPUT_DIR = str(folder)
        models += [load_phase_model(of_folder, phase) for phase in phases]
    results = evaluate_phases(models, **judged_on(cfg, dataset, DatasetCatalog.get(dataset)))
    alone = {f"phase_{number}": metrics for number, metrics in enumerate(results.phases)}
    return {**alone, **results.ensembles}


def versions() -> dict[str, str]:
    """Of what a result depends on."""
    return {name: importlib.metadata.version(name) for name in ("torch", "torchvision", "numpy")}
