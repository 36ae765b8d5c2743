"""One-stage systems side by side on the embedded data: ``python -m ablation.one_stage``.

SSD trained on labels alone, in one and two phases, and CSD and ISD. Each row trains for 3900
iterations of 8 images. Finished runs leave a small JSON file under ``ablation/results/one_stage``;
``python -m ablation.report`` has the table.
"""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from d2_ssod.json_files import write_json

from .rows import KEPT_METRICS, RESULTS
from .training import commit, metrics_of, train, versions

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

    def overrides(self, output: Path) -> dict[str, object]:
        """Config keys of the run; one phase starts from the same phase 0 as two."""
        row = ROWS[self.row]
        keys = {
            "SEED": self.seed,
            "SSOD.NUM_PHASES": len(row.lengths) - 1,
            "SSOD.SCHEDULE.MAX_ITER": row.lengths,
            "SSOD.REPORT": False,
        }
        if self.row == "one_phase":
            shared = output / OneStageRun("two_phase", self.seed).name / "phase_0"
            keys["SSOD.START.PHASE_0"] = (shared / "model_final.pth").resolve()
        return keys


def main() -> None:
    """Do the runs that have no result yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--processes", type=int, default=1, help="runs at a time")
    parser.add_argument("--output", type=Path, default=Path("output/ablation"))
    args = parser.parse_args()
    failed = []
    with ThreadPoolExecutor(args.processes) as pool:
        for row in args.rows:  # one after the other: one phase needs what two have left
            runs = [OneStageRun(row, seed) for seed in args.seeds]
            failed += [run.name for run in pool.map(lambda r: do(r, args.output), runs) if run]
    if failed:
        sys.exit(f"{len(failed)} runs failed: {', '.join(failed)}; see their run.log")


def do(run: OneStageRun, output: Path) -> OneStageRun | None:
    """Train and evaluate a run unless it has a result; returns it if it failed."""
    if run.result.exists():
        return None
    row, folder, started = ROWS[run.row], output / run.name, time.time()
    if not train(row.config, run.overrides(output), folder):
        print(f"{run.name}: FAILED", flush=True)
        return run
    result = {
        "row": run.row,
        "seed": run.seed,
        "lengths": row.lengths,
        "views": row.views,
        "metrics": metrics_of(folder, KEPT_METRICS),
        "seconds": round(time.time() - started),
        "commit": commit(),
        "versions": versions(),
    }
    write_json(run.result, result)
    print(f"{run.name}: done", flush=True)
    return None


if __name__ == "__main__":
    main()
