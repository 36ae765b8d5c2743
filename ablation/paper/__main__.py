"""Figures and tables of the paper, each as a JSON file and a PNG.

    python -m ablation.paper noise output/voc_two_phase_baseline --truth voc_2012_trainval_labeled
    python -m ablation.paper difficulty output/voc_two_phase
    python -m ablation.paper heatmap output/voc_two_phase
    python -m ablation.paper easy-fractions --config voc_two_phase.yaml --num-gpus 8
    python -m ablation.paper phases --config voc_two_phase.yaml --num-gpus 8
    python -m ablation.paper table 3

What was computed is kept, and only drawn again; delete the JSON file to have it computed anew.
Trainings that were interrupted go on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import d2_ssod.quiet  # noqa: F401

from d2_ssod.errors import ConfigError
from d2_ssod.json_files import read_json, write_json


def main(arguments: list[str] | None = None) -> None:
    """Compute and draw what the command names."""
    given = _parser().parse_args(arguments)
    try:
        given.do(given)
    except ConfigError as error:
        sys.exit(f"error: {error}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="NAME")
    for name, (do, words) in _OF_A_RUN.items():
        own = commands.add_parser(name, help=words)
        own.add_argument("run", type=Path, metavar="OUTPUT_DIR", help="of a finished run")
        if name == "noise":
            own.add_argument("--truth", default="", help="data set with the unlabeled's objects")
        if name == "heatmap":
            own.add_argument("--phase", type=int, help="by default the last")
            own.add_argument("--images", type=int, default=4, metavar="N")
        own.set_defaults(do=do)
    for name, (do, words) in _SWEEPS.items():
        own = commands.add_parser(name, help=words)
        own.add_argument("--config", default="digits_two_phase.yaml", help="below configs/")
        own.add_argument("--seeds", type=int, nargs="+", default=[1])
        own.add_argument("--num-gpus", type=int, default=0)
        own.add_argument("--output", type=Path, default=Path("output/paper"))
        own.set_defaults(do=do)
    own = commands.add_parser("table", help="Tables 3 and 4 from runs")
    own.add_argument("number", choices=["3", "4"])
    own.add_argument("--data", choices=["voc", "digits"], default="voc")
    own.add_argument("--train", action="store_true", help="on digits: what has not been run")
    own.add_argument("--num-gpus", type=int, default=0)
    own.add_argument("--output", type=Path, help="where the runs' folders are (output)")
    own.set_defaults(do=_table)
    return parser


def _noise(given: argparse.Namespace) -> None:
    from . import noise

    _keep(given.run, "noise", lambda: noise.compute(given.run, given.truth), noise.draw)


def _difficulty(given: argparse.Namespace) -> None:
    from . import difficulty

    _keep(given.run, "difficulty", lambda: difficulty.compute(given.run), difficulty.draw)


def _heatmap(given: argparse.Namespace) -> None:
    from . import heatmap

    def compute() -> dict:
        return heatmap.compute(given.run, given.phase, given.images)

    _keep(given.run, "heatmap", compute, heatmap.draw)


def _sweep(given: argparse.Namespace, name: str) -> None:
    from . import sweeps

    own = given.output / Path(given.config).stem
    sweep = sweeps.Sweep(given.config, given.seeds, own, given.num_gpus)
    compute = {"easy_fractions": sweep.easy_fractions, "phases": sweep.phases}[name]
    _keep(own, name, compute, sweeps.draw, given.seeds)


def _table(given: argparse.Namespace) -> None:
    from . import tables

    folder = given.output or Path("output" if given.data == "voc" else "output/paper/digits")
    result = tables.compute(
        given.number, folder, data=given.data, missing=given.train, num_gpus=given.num_gpus
    )
    path = write_json(folder / f"table_{given.number}.json", result)
    tables.draw(result, path.with_suffix(".png"))
    print(f"{tables.text(result)}\n{path}, {path.with_suffix('.png')}")


def _keep(
    folder: Path,
    name: str,
    compute: Callable[[], dict],
    draw: Callable[[dict, Path], None],
    seeds: list[int] | None = None,
) -> None:
    """Compute a figure unless it is there, for the same seeds; draw it."""
    path = folder / "figures" / f"{name}.json"
    result = read_json(path) if path.exists() else None
    if result is None or (seeds is not None and result.get("seeds") != seeds):
        result = compute()
        write_json(path, result)
    draw(result, path.with_suffix(".png"))
    print(f"{path}, {path.with_suffix('.png')}")


_OF_A_RUN = {
    "noise": (_noise, "Fig. 2a: every phase on test and on unlabeled images"),
    "difficulty": (_difficulty, "Fig. 2b, Table 5: easy and difficult test images"),
    "heatmap": (_heatmap, "Fig. 5: how much the background of images counts"),
}
_SWEEPS = {
    "easy-fractions": (
        lambda given: _sweep(given, "easy_fractions"),
        "Fig. 6: two phases with other fractions of easy images",
    ),
    "phases": (lambda given: _sweep(given, "phases"), "Fig. 7: one to four phases"),
}

if __name__ == "__main__":
    main()
