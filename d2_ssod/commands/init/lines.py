"""The lines of the config, with a comment on every choice."""

from __future__ import annotations

import argparse
import math
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from d2_ssod.config import shipped_configs
from d2_ssod.data import statistics
from d2_ssod.data.objects import has_objects, num_objects
from d2_ssod.errors import escaped

from .choices import METHODS, MODELS, Model
from .schedule import EpochSchedule, batch_size, num_phases

_DETECTIONS = 100  # Detectron2's TEST.DETECTIONS_PER_IMAGE
_OBJECT_SIDE = 24  # pixels that nine of ten objects should have at least, once resized
_WARM_UP = 1000  # Detectron2's SOLVER.WARMUP_ITERS
_MIXED = [
    "DATALOADER:",
    "  ASPECT_RATIO_GROUPING: False  # or half of each batch were labeled on average only",
]
_SECONDS = (0.2, 1.0)  # that an iteration of the small model takes on a CPU, from idle to busy


def lines_of(
    arguments: argparse.Namespace,
    entries: dict[str, dict[str, Any]],
    images: list[dict],
    classes: list[str],
    num_unlabeled: int,
) -> list[str]:
    """Write the config, with a comment on every choice."""
    model = MODELS[arguments.model]
    counts = statistics.objects_per_class(images, classes)
    listed = ", ".join(f"{escaped(name)} {count}" for name, count in list(counts.items())[:20])
    short, most = _resizing(images, model)
    base = shipped_configs() / model.base
    schedule = EpochSchedule.of(arguments, sum(map(has_objects, images)), num_unlabeled)
    judged = "AP is that of VAL" if "VAL" in entries else "name a data set to see AP"
    return [
        *_comment(
            f"Made by `python -m d2_ssod init` from {len(images)} labeled and {num_unlabeled} "
            "unlabeled pictures. Everything may be changed; keys that are not here are in the base "
            "config and in d2_ssod/config.py."
        ),
        f"_BASE_: {_scalar(str(base))}  # {model.what}",
        "MODEL:",
        *_comment(
            "MODEL.WEIGHTS may be the path of a detector trained elsewhere, such as on COCO; here "
            "it is that of the base config.",
            indent=2,
        ),
        f"  ROI_HEADS: {{NUM_CLASSES: {len(classes)}}}  # objects: {listed}",
        *_anchor_lines(statistics.BoxShapes.of(images, short, most), model),
        *(
            ["  PROPOSAL_GENERATOR: {NAME: UncertaintyRPN}"]
            if arguments.method == "teacher"
            else []
        ),
        "DATASETS:",
        *(f"  {key}: {_flow([entry['NAME']])}" for key, entry in entries.items()),
        *([] if "TEST" in entries else [f"  TEST: []  # {judged}"]),
        *_limit_lines(images),
        "INPUT:",
        *_comment(
            f"The median picture is {_median_size(images)}. The short edge is chosen from "
            f"{model.short[0]} to {model.short[1]}, so that nine of ten objects have a side of "
            f"{_OBJECT_SIDE} pixels if that can be.",
            indent=2,
        ),
        f"  MIN_SIZE_TRAIN: [{short}]",
        f"  MAX_SIZE_TRAIN: {most}",
        f"  MIN_SIZE_TEST: {short}",
        f"  MAX_SIZE_TEST: {most}",
        *_solver_lines(arguments, schedule),
        *([] if arguments.method == "paper" else _MIXED),
        "SSOD:",
        *METHODS[arguments.method],
        *_schedule_lines(arguments, schedule),
        "  REGISTER:",
        *(f"    - {_flow(entry)}" for entry in entries.values()),
        f"OUTPUT_DIR: {_scalar(f'output/{Path(arguments.output).stem}')}",
    ]


def _limit_lines(images: Sequence[dict]) -> list[str]:
    """Have a model find as many objects as images have, where that is more than by default."""
    most = max(map(num_objects, images))
    if most <= _DETECTIONS:
        return []
    limit = math.ceil(1.5 * most / 100) * 100
    return [
        "TEST:",
        f"  DETECTIONS_PER_IMAGE: {limit}  # by default {_DETECTIONS}; labeled: up to {most}",
    ]


def _comment(text: str, indent: int = 0) -> list[str]:
    """Write a comment over as many lines as it takes."""
    margin = " " * indent + "# "
    return textwrap.wrap(text, 100, initial_indent=margin, subsequent_indent=margin)


def _resizing(images: Sequence[dict], model: Model) -> tuple[int, int]:
    """Choose the short edge, so that small objects are large enough, and the most long one."""
    own = float(np.median(_picture_sizes(images).min(axis=1)))
    sides = statistics.BoxShapes.of(images, 0, 0).side
    wanted = own * max(1.0, _OBJECT_SIDE / float(np.quantile(sides, 0.1)))
    short = int(np.clip(round(wanted / 32) * 32, *model.short))
    return short, round(short * model.most)


def _picture_sizes(images: Sequence[dict]) -> np.ndarray:
    """Collect widths and heights; int [n, 2]."""
    return np.array(
        [(i["width"], i["height"]) for i in images if i.get("height") and i.get("width")]
    )


def _median_size(images: Sequence[dict]) -> str:
    width, height = np.median(_picture_sizes(images), axis=0)
    return f"{width:.0f} x {height:.0f}"


def _anchor_lines(shapes: statistics.BoxShapes, model: Model) -> Iterator[str]:
    sizes, ratios = statistics.fit_anchors(shapes, model.num_sizes, model.num_ratios)
    while len(sizes) < model.levels:  # one on each level
        sizes.append(sizes[-1] * 1.5)
    per_level = [[size] for size in sizes] if model.levels > 1 else [sizes]
    low, middle, high = np.quantile(shapes.side, [0.05, 0.5, 0.95])
    iou = shapes.best_iou(sizes, ratios).mean()
    usual = shapes.best_iou([32, 64, 128, 256, 512], [0.5, 1, 2]).mean()
    yield "  ANCHOR_GENERATOR:"
    yield from _comment(
        f"Objects have sides of {low:.0f} to {high:.0f} pixels (5 % to 95 %, median {middle:.0f}) "
        "once pictures are resized. k-means of them gives these sizes and ratios (height / width); "
        f"the mean best IoU of an object with an anchor is {iou:.2f} (with the usual 32 to 512: "
        f"{usual:.2f}).",
        indent=4,
    )
    yield f"    SIZES: {_flow(per_level)}"
    yield f"    ASPECT_RATIOS: {_flow([ratios])}"


def _solver_lines(arguments: argparse.Namespace, schedule: EpochSchedule) -> Iterator[str]:
    if MODELS[arguments.model].iterations is not None:
        return
    batch, shortest = batch_size(arguments), min(schedule.iterations)
    yield "SOLVER:"
    yield f"  IMS_PER_BATCH: {batch}  # two per GPU"
    yield f"  BASE_LR: {0.02 * batch / 16:g}  # 0.02 for a batch of 16, in proportion"
    if shortest < 10 * _WARM_UP:
        yield f"  WARMUP_ITERS: {shortest // 10}  # a tenth of the shortest phase"


def _schedule_lines(arguments: argparse.Namespace, schedule: EpochSchedule) -> Iterator[str]:
    iterations = MODELS[arguments.model].iterations
    if iterations is not None:
        of_phases = list(iterations[num_phases(arguments)])
        if len(of_phases) == 1:
            first = round(schedule.supervised_part * of_phases[0])
            of_phases = [first, of_phases[0] - first]
        low, high = (sum(of_phases) * seconds / 3600 for seconds in _SECONDS)
        yield from _comment(
            "Iterations of each phase. Phase 0 should go on until more of it gains nothing: its "
            "model makes the first labels (the more pictures are labeled, the longer). "
            f"An iteration takes {_SECONDS[0]:g} to {_SECONDS[1]:g} s on two cores, by what else "
            "they do and by the size of the pictures, whose loading takes a good part: "
            f"{low:.1f} to {high:.1f} hours for all. For a short trial see docs/own_data.md.",
            indent=2,
        )
        yield from _control_lines([f"MAX_ITER '[{sum(of_phases)}]'"])
        yield f"  SCHEDULE: {{MAX_ITER: {of_phases}}}"
        return
    yield "  SCHEDULE:"
    yield from _comment(
        f"{schedule.text}. That is {' + '.join(map(str, schedule.iterations))} iterations, or "
        "fewer if not all pictures get labels. The learning rate drops after three quarters.",
        indent=4,
    )
    alone = [schedule.labels_alone]
    control = [f"EPOCHS '{_flow(alone)}'", f"STEP_EPOCHS '{_flow(_steps(alone))}'"]
    yield from _control_lines(control, indent=4)
    yield f"    EPOCHS: {_flow(schedule.epochs)}"
    yield f"    STEP_EPOCHS: {_flow(_steps(schedule.epochs))}"


def _steps(epochs: Sequence[float]) -> list[float]:
    return [round(0.75 * e, 1) for e in epochs]


def _control_lines(schedule: Sequence[str], indent: int = 2) -> list[str]:
    """Say how labels alone are trained as long."""
    keys = " ".join(f"SSOD.SCHEDULE.{key}" for key in schedule)
    return _comment(
        "To compare with labels alone, trained as long (docs/report.md): OUTPUT_DIR "
        f"output/labels_only SSOD.NUM_PHASES 0 {keys}",
        indent,
    )


def _scalar(text: str) -> str:
    return yaml.safe_dump(text, allow_unicode=True, width=10**6).splitlines()[0]


def _flow(value: Any) -> str:
    """Write a value on one line."""
    return yaml.safe_dump(
        value, default_flow_style=True, allow_unicode=True, sort_keys=False, width=10**6
    ).strip()
