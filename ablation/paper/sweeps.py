"""Fig. 6 and 7: two phases with other fractions of easy images, and more phases than two."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ablation.training import ROOT, metrics_of, train
from d2_ssod.engine.configs.files import read_config
from d2_ssod.errors import ConfigError

from .plots import curves

KEYS = ("AP50", "AP")
FRACTIONS = (0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
PHASES = (1, 2, 3, 4)


@dataclass(frozen=True)
class Sweep:
    """Trainings that differ in one thing; those of a seed share phase 0.

    Attributes:
        config: a file below ``configs/``.
        seeds: of the trainings.
        output: their folders lie below it.
        num_gpus: of each; 0: one thread of the CPU.
        extra: further config keys.
    """

    config: str
    seeds: Sequence[int]
    output: Path
    num_gpus: int = 0
    extra: Mapping[str, object] | None = None

    def easy_fractions(self, fractions: Sequence[float] = FRACTIONS) -> dict:
        """Train two phases, the first with this fraction of the images, easiest first."""
        keys = {
            fraction: {"SSOD.NUM_PHASES": 2, "SSOD.EASY_FRACTIONS": (fraction, 1.0)}
            for fraction in fractions
        }
        return {"figure": "6", **self._results("fraction", keys)}

    def phases(self, numbers: Sequence[int] = PHASES) -> dict:
        """Train so many phases; those that the config has no length for are as its last."""
        keys = {number: {"SSOD.NUM_PHASES": number, **self._schedule(number)} for number in numbers}
        return {"figure": "7", **self._results("phases", keys)}

    def _schedule(self, phases: int) -> dict[str, object]:
        """Give the schedule of the config for another number of phases."""
        schedule = read_config(str(ROOT / "configs" / self.config)).SSOD.SCHEDULE
        given = {f"SSOD.SCHEDULE.{key}": list(values) for key, values in schedule.items() if values}
        given |= {k: list(v) for k, v in (self.extra or {}).items() if k in given}
        return {key: (values + values[-1:] * phases)[: phases + 1] for key, values in given.items()}

    def _results(self, name: str, keys: Mapping[float, Mapping[str, object]]) -> dict:
        """Train what has no results yet, and take the mean over the seeds."""
        runs = {
            (value, seed): self._run(name, keys, value, seed)
            for seed in self.seeds
            for value in keys
        }
        return {
            "config": self.config,
            "seeds": list(self.seeds),
            name: list(keys),
            **{
                row: [
                    statistics.fmean(_of_row(runs[value, seed], row) for seed in self.seeds)
                    for value in keys
                ]
                for row in ("first phase", "last phase", "all fused")
            },
        }

    def _run(
        self,
        name: str,
        keys: Mapping[float, Mapping[str, object]],
        value: float,
        seed: int,
    ) -> dict[str, dict[str, float]]:
        folder = self.output / f"{name}_{value:g}_seed_{seed}"
        shared = self.output / f"{name}_{next(iter(keys)):g}_seed_{seed}"
        if not (folder / "summary.json").exists():
            overrides = {"SEED": seed, **(self.extra or {}), **keys[value]}
            if folder != shared:
                start = shared.resolve() / "phase_0" / "model_final.pth"
                overrides["SSOD.START.PHASE_0"] = start
            if not train(self.config, overrides, folder, num_gpus=self.num_gpus):
                raise ConfigError(f"{folder}: the training has failed; see run.log there")
        return metrics_of(folder, KEYS)


def draw(result: dict, path: Path) -> None:
    """Draw AP50 of the first and the last semi-supervised phase and of all models."""
    name = "fraction" if result["figure"] == "6" else "phases"
    label = {"fraction": "fraction of easy images in phase 1", "phases": "phases"}[name]
    rows = ("first phase", "last phase", "all fused")
    curves(path, result[name], {row: result[row] for row in rows}, labels=(label, "AP50"))


def _of_row(metrics: dict[str, dict[str, float]], row: str) -> float:
    last = max(int(model[6:]) for model in metrics if model.startswith("phase_"))
    model = {"first phase": "phase_1", "last phase": f"phase_{last}", "all fused": "0~N"}[row]
    return metrics[model]["AP50"]
