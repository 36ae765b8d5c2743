"""Write a run's report: one page to look at, and files of what is worth a person's look.

    python -m d2_ssod report output/mine
    python -m d2_ssod report output/mine --control output/labels_only --images 500

Reads what the run has left so far, also one that has not ended, or whose data lie elsewhere now;
needs no model and no GPU. Writes report.html into the run's folder, and review/: queue.csv and
queue.json (unlabeled images that are worth labeling), label_errors.csv (labels that the last model
contradicts).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from d2_ssod.artifacts import RunFolder, check_has_no_yolo_data
from d2_ssod.data.datasets import register_available
from d2_ssod.engine import read_run_config
from d2_ssod.report import write_report, write_yolo

from .arguments import count
from .targets import check_folder_target


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("output_dir", metavar="OUTPUT_DIR", help="of a run")
    parser.add_argument(
        "--control", metavar="DIR", help="of another run, such as of labeled images only"
    )
    parser.add_argument(
        "--images", type=count, default=200, metavar="N", help="images in review/queue.json (200)"
    )
    parser.add_argument(
        "--yolo", metavar="DIR", help="also write the last phase's pseudo-labels as YOLO's files"
    )


def run(arguments: argparse.Namespace) -> int:
    """Write the report and say where it is."""
    cfg = read_run_config(RunFolder(arguments.output_dir))
    if arguments.yolo:
        check_folder_target("yolo", arguments.yolo)
        check_has_no_yolo_data(Path(arguments.yolo))
    print(f"Reading {cfg.OUTPUT_DIR}: minutes, where it has millions of boxes", file=sys.stderr)
    problems = register_available(cfg.SSOD.REGISTER or (), "SSOD.REGISTER")
    unwritten: OSError | None = None
    try:
        path = write_report(
            cfg, control=arguments.control, images_to_label=arguments.images, problems=problems
        )
        print(f"Report: {path}")
    except OSError as error:  # as of a run that may only be read
        unwritten = error
    if arguments.yolo:  # the last, as what is written there is not written again
        print(f"Pseudo-labels: {write_yolo(cfg, arguments.yolo, problems=problems)}")
    if unwritten is not None:
        raise unwritten
    return 0
