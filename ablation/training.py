"""One training as a process of its own: ``train_net.py``, gone on with if it was interrupted."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Collection, Mapping
from pathlib import Path

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


def metrics_of(folder: Path, keys: Collection[str]) -> dict[str, dict[str, float]]:
    """Read from a run's summary these metrics of each phase and ensemble."""
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    models = {f"phase_{phase['phase']}": phase["metrics"] for phase in summary["phases"]}
    models |= summary["ensembles"]
    return {model: {key: round(values[key], 3) for key in keys} for model, values in models.items()}


def versions() -> dict[str, str]:
    """Of what a result depends on."""
    return {name: importlib.metadata.version(name) for name in ("torch", "torchvision", "numpy")}
