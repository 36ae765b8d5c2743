"""How long labelling takes between two phases, beside plain nested loops.

Predictions of several models are generated: objects that all of them see a little differently, some
that one misses, some that only one invents. Then the steps of labelling are timed one after
another, as a run does them: threshold, consensus and selection, and writing the pseudo-labels; and
apart from them, writing and reading the predictions of one model. The nested loops, which compare
every box of one model with every box of another, image by image, are timed on the first images
only, and their time is scaled up; both must agree on these images, box for box.

    python benchmarks/bench_pseudo_labels.py [--images 120000] [--boxes 30] [--classes 80]
        [--models 3] [--loop-images 300] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import d2_ssod.quiet  # noqa: F401

import numpy as np
from tabulate import tabulate

from d2_ssod.artifacts import load_predictions, save_predictions, save_pseudo_labels
from d2_ssod.pseudo_label import Consensus, Tiers, build_pseudo_labels
from d2_ssod.pseudo_label.threshold import match_counts
from d2_ssod.structures import Detections, Predictions

SIZE = 640.0  # pixels, of every image
SEEN = 0.8  # share of the objects that a model sees


def generate(args: argparse.Namespace, seed: int = 0) -> list[Predictions]:
    """Predictions of all models, of which each sees most of the same objects."""
    rng = np.random.default_rng(seed)
    shape = (args.images, args.boxes)
    centers, sides = rng.uniform(0, SIZE, (*shape, 2)), rng.uniform(20, 200, (*shape, 2))
    classes = rng.integers(args.classes, size=shape)
    return [_seen_by_one(rng, centers, sides, classes) for _ in range(args.models)]


def _seen_by_one(
    rng: np.random.Generator, centers: np.ndarray, sides: np.ndarray, classes: np.ndarray
) -> Predictions:
    invented = rng.random(classes.shape) > SEEN
    where = np.where(invented[..., None], rng.uniform(0, SIZE, centers.shape), centers)
    where = where + rng.normal(0, 0.05, centers.shape) * sides
    boxes = np.concatenate([where - sides / 2, where + sides / 2], axis=2).astype(np.float32)
    scores = rng.beta(1.0, 1.0 + invented, classes.shape).astype(np.float32)
    return {
        number + 1: Detections(*columns)
        for number, columns in enumerate(zip(boxes, scores, classes, strict=True))
    }


def nested_loops(a: Detections, b: Detections, iou_thresh: float, nms_thresh: float) -> list[tuple]:
    """The intersection of two models in one image, box by box: (box, score, class), best first."""
    rows = [
        [(*map(float, d.boxes[i]), float(d.scores[i]), int(d.classes[i])) for i in range(len(d))]
        for d in (a, b)
    ]
    agreed: list[tuple] = []
    for one in rows[0]:
        for other in rows[1]:
            if one[5] == other[5] and _iou(one, other) > iou_thresh:
                better = one if one[4] >= other[4] else other
                if better not in agreed:
                    agreed.append(better)
    kept: list[tuple] = []
    for row in sorted(agreed, key=lambda row: -row[4]):
        if all(row[5] != other[5] or _iou(row, other) <= nms_thresh for other in kept):
            kept.append(row)
    return kept


def _iou(a: tuple, b: tuple) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return both / (areas[0] + areas[1] - both)


def seconds_of(call: Callable[[], object]) -> tuple[float, object]:
    """The time of one call, and what it gave."""
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def time_steps(args: argparse.Namespace, sources: list[Predictions]) -> dict[str, float]:
    """Seconds of each step of labelling, and of the predictions' file."""
    target = np.full(args.classes, args.boxes / args.classes / 2)  # objects of a class per image
    times: dict[str, float] = {}
    times["thresholds"], chosen = seconds_of(lambda: [match_counts(s, target) for s in sources])
    times["applying them"], thresholded = seconds_of(
        lambda: [t.apply(s) for t, s in zip(chosen, sources, strict=True)]
    )
    times["consensus"], _ = seconds_of(partial(Consensus().of_predictions, thresholded))
    del thresholded
    times["labels"], labels = seconds_of(lambda: build_pseudo_labels(sources, target, fraction=1.0))
    times["labels of two tiers instead"], _ = seconds_of(
        lambda: build_pseudo_labels(sources, target, fraction=1.0, rule=Tiers())
    )
    images = [
        {"image_id": i, "file_name": f"{i:012d}.jpg", "width": int(SIZE), "height": int(SIZE)}
        for i in sources[0]
    ]
    names, numbers = [f"class {n}" for n in range(args.classes)], list(range(args.classes))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pseudo_labels.json"
        times["writing labels"], _ = seconds_of(
            lambda: save_pseudo_labels(path, labels.selected, images, names, numbers)
        )
        path = Path(folder) / "predictions.json"
        times["writing predictions"], _ = seconds_of(
            lambda: save_predictions(path, sources[0], numbers)
        )
        times["reading predictions"], _ = seconds_of(
            lambda: load_predictions(path, list(sources[0]), numbers)
        )
    return times


def time_nested_loops(args: argparse.Namespace, sources: list[Predictions]) -> float:
    """Seconds that they would take for two models and all images; they must give the same boxes."""
    consensus, images = Consensus(), list(sources[0])[: args.loop_images]
    first, second = ({i: source[i] for i in images} for source in sources[:2])
    seconds, expected = seconds_of(
        lambda: [
            nested_loops(first[i], second[i], consensus.iou_thresh, consensus.nms_thresh)
            for i in images
        ]
    )
    found = consensus.of_predictions([first, second])
    for image, rows in zip(images, expected, strict=True):
        boxes = [row[:4] for row in rows]
        if found[image].boxes.tolist() != [list(box) for box in boxes]:
            raise AssertionError(f"image {image}: {found[image]}, but nested loops give {rows}")
    return seconds / len(images) * args.images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=120_000)
    parser.add_argument("--boxes", type=int, default=30, help="of each model in each image")
    parser.add_argument("--classes", type=int, default=80)
    parser.add_argument("--models", type=int, default=3)
    parser.add_argument("--loop-images", type=int, default=300, help="timed with nested loops")
    parser.add_argument("--json", type=Path, help="write the figures there")
    args = parser.parse_args()
    sources = generate(args)
    times = time_steps(args, sources)
    two_models, _ = seconds_of(lambda: Consensus().of_predictions(sources[:2]))
    times["consensus of two models, all boxes"] = two_models
    times["the same by nested loops (scaled up)"] = time_nested_loops(args, sources)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2  # kilobytes on Linux
    print(tabulate([(k, round(v, 1)) for k, v in times.items()], headers=["step", "seconds"]))
    total = times["labels"] + times["writing labels"]
    print(f"threshold + consensus + selection + writing: {total:.1f} s; peak memory {peak:.1f} GB")
    if args.json:
        args.json.write_text(json.dumps({**vars(args), "json": None, **times, "peak_gb": peak}))


if __name__ == "__main__":
    main()
