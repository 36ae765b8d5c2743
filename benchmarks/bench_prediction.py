"""What labelling spends on prediction beside the model: loading, batches, and what is kept on disk.

The demo's detector, with random weights, predicts on pictures of the embedded data set: through
``d2_ssod.inference.predict`` with the loader of a run, whose workers decode and resize while the
model computes, and every batch kept on disk as a run keeps it; and in a bare loop of model calls on
batches that lie in memory. Both take turns; the figure is the median over turns of
(with - bare) / bare, of the time on the clock, since loading is to hide behind the model.

    python benchmarks/bench_prediction.py [--images 400] [--turns 5] [--workers 1] [--batch 8]
        [--size 512] [--device cpu|cuda]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import d2_ssod.quiet  # noqa: F401

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from torch import nn

from d2_ssod.artifacts import keep_partial_predictions
from d2_ssod.data.loader import build_inference_loader
from d2_ssod.engine import PhaseTrainer, build_config, default_argument_parser
from d2_ssod.inference import predict


def read_config(args: argparse.Namespace) -> CfgNode:
    """The demo's config, for images of a size at which a detector has something to do."""
    size = ["INPUT.MIN_SIZE_TEST", str(args.size), "INPUT.MAX_SIZE_TEST", str(args.size)]
    gpus = str(int(args.device == "cuda"))
    command = ["--config-file", "configs/digits_two_phase.yaml", "--num-gpus", gpus, *size]
    batch = ["SSOD.INFERENCE_BATCH_SIZE", str(args.batch)]
    workers = ["DATALOADER.NUM_WORKERS", str(args.workers)]
    parsed = default_argument_parser().parse_args([*command, *batch, *workers])
    return build_config(parsed, world_size=1)


def seconds_of_a_run(cfg: CfgNode, model: nn.Module, images: list[dict]) -> float:
    """Loading, predicting and keeping, as between two phases."""
    start = time.perf_counter()
    with (
        tempfile.TemporaryDirectory() as folder,
        keep_partial_predictions(Path(folder) / "partial") as keep,
    ):
        predict(model, build_inference_loader(cfg, images), description="", on_batch=keep)
    return time.perf_counter() - start


@torch.no_grad()
def seconds_of_the_model(model: nn.Module, batches: list[list[dict]]) -> float:
    """The model alone."""
    start = time.perf_counter()
    for batch in batches:
        model(batch)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=512, help="of the short edge, in pixels")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(1)

    cfg = read_config(args)
    torch.manual_seed(0)
    model = PhaseTrainer.build_model(cfg).eval()
    images = DatasetCatalog.get("digit_scenes_unlabeled")[: args.images]
    batches = list(build_inference_loader(cfg, images))
    seconds_of_the_model(model, batches[:2])
    shares, rates = [], []
    for turn in range(args.turns):
        # The one that goes first changes.
        if turn % 2:
            whole, bare = (
                seconds_of_a_run(cfg, model, images),
                seconds_of_the_model(model, batches),
            )
        else:
            bare = seconds_of_the_model(model, batches)
            whole = seconds_of_a_run(cfg, model, images)
        shares.append(whole / bare - 1)
        rates.append(len(images) / whole)
    print(
        f"{len(images)} images of {args.size} pixels, batches of {args.batch}, {args.workers} "
        f"workers: prediction takes {100 * statistics.median(shares):+.1f} % beside the model "
        f"alone ({100 * min(shares):+.1f} to {100 * max(shares):+.1f}; {args.turns} turns)"
    )
    if args.device == "cuda":
        print(f"{statistics.median(rates):.0f} images/s ({torch.cuda.get_device_name()})")


if __name__ == "__main__":
    main()
