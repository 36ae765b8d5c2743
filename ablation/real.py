"""Ways to train on real pictures, side by side: ``python -m ablation.real FOLDER``.

FOLDER has ``labeled.json``, ``val.json``, ``test.json`` and ``unlabeled_truth.json`` (COCO) and the
pictures in folders of these names (``unlabeled``); ``settings.json``, if there is one, holds config
keys that its pictures need. ``python -m ablation.digits_folder FOLDER`` makes one of the embedded
data. Every row has the same number of image passes in training; the truth about the unlabeled
pictures is measured by, never trained on. The detector is the small one of
``configs/Base-SSOD-Small.yaml``, from scratch. Each run is ``train_net.py`` in a process with one
thread, and goes on where it was interrupted; finished ones leave a small JSON file under
``ablation/results``. Tune on ``val``; ``--split test`` is for what was chosen.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate

from d2_ssod.json_files import write_json

from .report import mean_and_error
from .rows import RESULTS
from .run import commit
from .training import metrics_of, train, versions

BATCH = 8

# Of phases 1..N: title, phases, and config overrides. No re-weighting, no similarity loss.
ROWS: dict[str, tuple[str, int, dict[str, object]]] = {
    "fs_plus": ("FS+: labeled images only", 0, {}),
    "two_phase": ("two phases, consensus, mean score (Eq. 1)", 2, {}),
    "previous": ("one phase from phase 0", 1, {"SSOD.PHASE_INIT": "previous"}),
    "tiers": (
        "one phase from phase 0, two tiers, strong augmentation",
        1,
        {
            "SSOD.PHASE_INIT": "previous",
            "SSOD.LABELS": "tiers",
            "SSOD.AUG.STRONG": "pseudo",
            "MODEL.PROPOSAL_GENERATOR.NAME": "UncertaintyRPN",
        },
    ),
    "teacher": (
        "one phase from phase 0, mean teacher, strong augmentation",
        1,
        {
            "SSOD.PHASE_INIT": "previous",
            "SSOD.TEACHER.ENABLED": True,
            "SSOD.AUG.STRONG": "pseudo",
            "MODEL.PROPOSAL_GENERATOR.NAME": "UncertaintyRPN",
        },
    ),
}


@dataclass(frozen=True)
class RealRun:
    """One training on a folder of real pictures.

    Attributes:
        data: the folder.
        row: one of ``ROWS``.
        lengths: iterations of phase 0, and of all others together.
        rates: learning rates of phase 0 and of the others.
        seed: of the run.
        split: what it is judged on, "val" or "test".
    """

    data: Path
    row: str
    lengths: tuple[int, int]
    rates: tuple[float, float]
    seed: int
    split: str = "val"

    @property
    def name(self) -> str:
        """What tells it from the others, as a path."""
        length = "_".join(map(str, self.lengths))
        rate = "_".join(f"{rate:g}" for rate in self.rates)
        return f"{self.data.name}/{self.row}_{length}_{rate}_{self.split}/seed_{self.seed}"

    @property
    def result(self) -> Path:
        """Where its result lies once it is finished."""
        return RESULTS / f"{self.name}.json"

    def overrides(self) -> dict[str, object]:
        """Config keys of the run."""
        _, phases, own = ROWS[self.row]
        first, others = self.lengths
        lengths = [first + others] if phases == 0 else [first] + [others // phases] * phases
        rates = [self.rates[0]] + [self.rates[1]] * phases
        return {
            "SEED": self.seed,
            "MODEL.ROI_HEADS.NUM_CLASSES": len(_read(self.data / "labeled.json")["categories"]),
            "SOLVER.IMS_PER_BATCH": BATCH,
            "DATASETS.TRAIN": ["real_labeled"],
            "DATASETS.UNLABELED": ["real_unlabeled"],
            "DATASETS.TEST": [f"real_{self.split}"],
            "SSOD.REGISTER": _register(self.data),
            "SSOD.DIAGNOSTICS.UNLABELED_TRUTH": "real_truth" if phases else "",
            "SSOD.ROI_WEIGHTING.NAME": "none",
            "SSOD.SIMILARITY.LOSS_WEIGHT": 0.0,
            "SSOD.AVERAGE.DECAY": 0.999,
            "SSOD.NUM_PHASES": phases,
            "SSOD.SCHEDULE.MAX_ITER": lengths,
            "SSOD.SCHEDULE.BASE_LR": rates,
            **own,
            **self.settings(),
        }

    def settings(self) -> dict[str, object]:
        """Config keys that the pictures need."""
        file = self.data / "settings.json"
        return _read(file) if file.exists() else {}


def main() -> None:
    """Do the runs that have no result yet, and print the table of all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, metavar="FOLDER")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--lengths", type=int, nargs=2, default=[1500, 2400])
    parser.add_argument("--rates", type=float, nargs=2, default=[0.003, 0.003])
    parser.add_argument("--split", choices=["val", "test"], default="val")
    parser.add_argument("--processes", type=int, default=1, help="runs at a time")
    parser.add_argument("--output", type=Path, default=Path("output/real"))
    args = parser.parse_args()
    runs = [
        RealRun(args.data.resolve(), row, tuple(args.lengths), tuple(args.rates), seed, args.split)
        for seed in args.seeds
        for row in args.rows
    ]
    with ThreadPoolExecutor(args.processes) as pool:
        failed = [run.name for run in pool.map(lambda r: do(r, args.output), runs) if run]
    print(table(runs))
    if failed:
        sys.exit(f"{len(failed)} runs failed: {', '.join(failed)}; see their run.log")


def do(run: RealRun, output: Path) -> RealRun | None:
    """Train and evaluate a run unless it has a result; returns it if it failed."""
    if run.result.exists():
        return None
    started, folder = time.time(), output / run.name
    if not train("Base-SSOD-Small.yaml", run.overrides(), folder):
        print(f"{run.name}: FAILED", flush=True)
        return run
    write_json(run.result, _result(run, folder, time.time() - started))
    print(f"{run.name}: done", flush=True)
    return None


def table(runs: list[RealRun]) -> str:
    """Means over the seeds that are finished, with standard errors where there are two."""
    lines = []
    for row in dict.fromkeys(run.row for run in runs):
        results = [_read(run.result) for run in runs if run.row == row and run.result.exists()]
        if not results:
            continue
        last, first = f"phase_{ROWS[row][1]}", "phase_0"
        cells = [
            mean_and_error([result["metrics"][model][key] for result in results])
            for model in (first, last)
            for key in ("AP50", "AP")
        ]
        fused = [r["metrics"]["0~N"]["AP50"] for r in results if "0~N" in r["metrics"]]
        lines.append([ROWS[row][0], len(results), *cells, mean_and_error(fused) if fused else ""])
    return tabulate(
        lines,
        headers=["", "seeds", "phase 0 AP50", "AP", "last AP50", "AP", "all fused AP50"],
        tablefmt="github",
        disable_numparse=True,
    )


def _result(run: RealRun, folder: Path, seconds: float) -> dict[str, object]:
    summary = _read(folder / "summary.json")
    first, others = run.lengths
    return {
        "data": run.data.name,
        "row": run.row,
        "split": run.split,
        "seed": run.seed,
        "lengths": run.lengths,
        "image_passes": (first + others) * BATCH,
        "metrics": metrics_of(folder, ("AP50", "AP")),
        "label_quality": summary.get("label_quality", {}),
        "seconds": round(seconds),
        "commit": commit(),
        "versions": versions(),
    }


def _register(data: Path) -> list[dict[str, str]]:
    """Entries of ``SSOD.REGISTER`` for the folder."""

    def entry(name: str, annotations: str, pictures: str) -> dict[str, str]:
        file = {"JSON": str(data / f"{annotations}.json")} if annotations else {}
        return {"NAME": f"real_{name}", **file, "IMAGES": str(data / pictures)}

    return [
        *(entry(split, split, split) for split in ("labeled", "val", "test")),
        entry("unlabeled", "", "unlabeled"),
        entry("truth", "unlabeled_truth", "unlabeled"),
    ]


def _read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
