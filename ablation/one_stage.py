"""One-stage systems side by side on the embedded data: ``python -m ablation.one_stage``.

SSD trained on labels alone, in one and two phases, and CSD and ISD. Each row trains for 3900
iterations of 8 images. Finished runs leave a small JSON file under ``ablation/results/one_stage``;
``python -m ablation.report`` has the table.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .rows import KEPT_METRICS, RESULTS
from .training import Beginning, keep, metrics_of, train
from .waves import do_in_waves, missing, with_needs

FIRST, OTHERS = 1500, 2400  # iterations of phase 0, and of the others together


@dataclass(frozen=True)
class Row:
    """A way to train.

    Attributes:
        title: of the row of the table.
        config: a file below ``configs/``.
        lengths: iterations of each phase.
        views: how often a training image goes through the network.
    """

    title: str
    config: str
    lengths: tuple[int, ...]
    views: int = 1

    @property
    def last(self) -> str:
        """The model of the last phase."""
        return f"phase_{len(self.lengths) - 1}"


ROWS = {
    "two_phase": Row("two phases", "digits_ssd.yaml", (FIRST, OTHERS // 2, OTHERS // 2)),
    "one_phase": Row("one phase", "digits_ssd.yaml", (FIRST, OTHERS)),
    "fs_plus": Row("FS+: labeled images only, as long", "digits_ssd.yaml", (FIRST + OTHERS,)),
    "csd": Row("CSD", "digits_csd.yaml", (FIRST + OTHERS,), views=2),
    "isd": Row("ISD", "digits_isd.yaml", (FIRST + OTHERS,), views=3),
}


@dataclass(frozen=True)
class OneStageRun:
    """One training of a row with one seed."""

    row: str
    seed: int

    @property
    def name(self) -> str:
        """What tells it from the others, as a path."""
        return f"one_stage/{self.row}/seed_{self.seed}"

    @property
    def result(self) -> Path:
        """Where its result lies once it is finished."""
        return RESULTS / f"{self.name}.json"

    @property
    def needs(self) -> list[OneStageRun]:
        """Runs whose models must be there before: one phase starts from the phase 0 of two."""
        return [OneStageRun("two_phase", self.seed)] if self.row == "one_phase" else []

    def phase_0(self, output: Path) -> Path:
        """The model of its phase 0."""
        return output / self.name / "phase_0" / "model_final.pth"

    def overrides(self, output: Path) -> dict[str, object]:
        """Config keys of the run."""
        row = ROWS[self.row]
        keys = {
            "SEED": self.seed,
            "SSOD.NUM_PHASES": len(row.lengths) - 1,
            "SSOD.SCHEDULE.MAX_ITER": row.lengths,
            "SSOD.REPORT": False,
        }
        for need in self.needs:
            keys["SSOD.START.PHASE_0"] = need.phase_0(output).resolve()
        return keys


def main() -> None:
    """Do the runs that have no result yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--processes", type=int, default=1, help="runs at a time")
    parser.add_argument("--output", type=Path, default=Path("output/ablation"))
    args = parser.parse_args()
    runs = [OneStageRun(row, seed) for row in args.rows for seed in args.seeds]
    if failed := do_all(runs, args.processes, args.output):
        names = ", ".join(run.name for run in failed)
        sys.exit(f"{len(failed)} runs failed: {names}; see their run.log")


def do_all(runs: Sequence[OneStageRun], processes: int, output: Path) -> list[OneStageRun]:
    """Do the runs that are missing, after what they need; returns those that failed."""

    def is_usable(run: OneStageRun) -> bool:
        return run.result.exists() and run.phase_0(output).exists()

    return do_in_waves(
        missing(with_needs(runs), is_usable), lambda run: do(run, output), is_usable, processes
    )


def do(run: OneStageRun, output: Path) -> bool:
    """Train and evaluate a run; False if it failed."""
    row, folder, began = ROWS[run.row], output / run.name, Beginning.now()
    if not train(row.config, run.overrides(output), folder):
        print(f"{run.name}: FAILED", flush=True)
        return False
    own = {"row": run.row, "seed": run.seed, "lengths": row.lengths, "views": row.views}
    keep(run.result, {**own, "metrics": metrics_of(folder, KEPT_METRICS)}, began)
    return True


if __name__ == "__main__":
    main()
