"""The rows of the ablation table: config overrides, and what they build on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .waves import with_needs

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

# Their iterations: of phase 0, and of the whole chain.
LENGTHS = {"fs": 1500, "fs_plus": 3900}

# Rows of phases 1..N: title and config overrides.
SEMI_SUPERVISED = {
    "one_phase": (
        "one phase, no re-weighting (2700 iterations)",
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

# The rows that the main question rests on may be given more seeds.
MAIN_ROWS = ("none", "constant", "paper")

# A phase 0 comes out the same only with the same code on the same kind of processor, and rows are
# compared that share it. So a seed that was begun elsewhere and is not complete (0 to 2, 4) is left
# as it is, and the rows that it lacks have other seeds.
SEEDS = (3, 5, 6)


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
        if self.row == "fs_x3":  # Each of these ensembles has three models of its own.
            return [Run("ordinary", "fs", 3 * self.seed + member) for member in range(3)]
        runs = [Run("ordinary", "fs", self.seed)]
        if self.row == "constant":
            runs.append(Run(self.setting, "paper", self.seed))
        return runs


def all_runs(seeds: Sequence[int] = SEEDS, main_seeds: Sequence[int] = SEEDS) -> list[Run]:
    """Every run, after those that it needs; one seed after the other, so that each is complete.

    Args:
        seeds: those of every row that starts from a shared phase 0; of the others, as many.
        main_seeds: those of ``MAIN_ROWS``.
    """
    runs = [Run(s, row, seed) for seed in seeds for s in SETTINGS for row in SEMI_SUPERVISED]
    runs += [Run("ordinary", row, n) for row in ("fs_x3", "fs_plus") for n in range(len(seeds))]
    runs += [Run(s, row, seed) for seed in main_seeds for s in SETTINGS for row in MAIN_ROWS]
    return with_needs(runs)
