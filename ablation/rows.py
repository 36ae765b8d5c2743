"""The rows of the ablation table: config overrides, and what they build on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
CONFIG = "configs/digits_two_phase.yaml"

KEPT_METRICS = ("AP", "AP50", "AP/easy", "AP50/easy", "AP/difficult", "AP50/difficult")

SETTINGS = {
    "ordinary": [],
    # Only the better-scored half of the pseudo-boxes: many missing annotations.
    "sparse": ["SSOD.PSEUDO_LABEL.KEEP_FRACTION", "0.5"],
}

# Rows that train on labeled images only, alike in all settings.
SUPERVISED = {
    "fs": "FS: phase 0",
    "fs_plus": "FS+: labeled images only, as many iterations as the whole chain",
    "fs_x3": "FS x 3: ensemble of three phase-0 models",
}

# Rows of phases 1..N: title and config overrides.
SEMI_SUPERVISED = {
    "one_phase": (
        "one phase, no re-weighting",
        [
            *("SSOD.NUM_PHASES", "1", "SSOD.ROI_WEIGHTING.NAME", "none"),
            *("SSOD.SCHEDULE.MAX_ITER", "(1500, 1200)"),
        ],
    ),
    "none": ("two phases, no re-weighting", ["SSOD.ROI_WEIGHTING.NAME", "none"]),
    "soft_sampling": ("Soft Sampling", ["SSOD.ROI_WEIGHTING.NAME", "soft_sampling"]),
    "paper": ("uncertainty, paper", []),
    "released": ("uncertainty, released", ["SSOD.ROI_WEIGHTING.VARIANT", "released"]),
    "same_class": ("uncertainty, paper + SAME_CLASS", ["SSOD.SIMILARITY.SAME_CLASS", "True"]),
    "constant": ("constant weight", ["SSOD.ROI_WEIGHTING.NAME", "constant"]),
    "oracle": ("oracle: missed objects get weight 0", ["SSOD.ROI_WEIGHTING.NAME", "oracle"]),
}

# The rows that the main question rests on get more seeds.
MAIN_ROWS = ("none", "constant", "paper")


@dataclass(frozen=True)
class Run:
    """One training of one row with one seed."""

    setting: str
    row: str
    seed: int

    @property
    def result(self) -> Path:
        """Where its result lies once it is finished."""
        return RESULTS / self.setting / self.row / f"seed_{self.seed}.json"

    @property
    def needs(self) -> list[Run]:
        """Runs that must be finished before."""
        if self.row in ("fs", "fs_plus"):
            return []
        runs = [Run("ordinary", "fs", self.seed)]
        if self.row == "constant":
            runs.append(Run(self.setting, "paper", self.seed))
        return runs


def all_runs(seeds: int, main_seeds: int) -> list[Run]:
    """Every run, in the order of what is to be known first.

    Args:
        seeds: number of seeds of every row.
        main_seeds: number of seeds of ``MAIN_ROWS`` and what they are compared with.
    """
    first, more = range(seeds), range(seeds, max(seeds, main_seeds))
    runs = [Run("ordinary", "fs", seed) for seed in first]
    for setting in SETTINGS:
        runs += [Run(setting, row, seed) for seed in first for row in ("paper", "none", "constant")]
        if setting == "ordinary":
            runs += [Run("ordinary", "fs_plus", seed) for seed in first]
    runs += [Run("ordinary", "fs_x3", seed) for seed in first]
    others = [row for row in SEMI_SUPERVISED if row not in MAIN_ROWS]
    runs += [Run(s, row, seed) for row in others for s in SETTINGS for seed in first]
    for seed in more:
        runs += [Run("ordinary", row, seed) for row in ("fs", "fs_plus")]
        runs += [Run(s, row, seed) for s in SETTINGS for row in ("paper", "none", "constant")]
    return runs
