"""What RoI weighting and the similarity loss cost in a real training step of the demo.

Two models with the same weights take the same batches, step by step in turn: one as trained, one
whose output layers do neither, which is bare Detectron2. Half of each batch is pseudo-labeled, so
half of the images are weighted. The share is the median over steps of (with - without) / with: on
the CPU in CPU time of the process, which other processes disturb less than the clock on the wall,
on a GPU by that clock, until the GPU is done.

    python benchmarks/bench_training.py [--steps 100] [--threads 1] [--device cpu|cuda] [--amp]
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time

import d2_ssod.quiet  # noqa: F401

import torch
from detectron2.data import DatasetCatalog
from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers
from detectron2.utils.events import EventStorage
from torch import nn

from d2_ssod.data.loader import PhaseImages, build_phase_loader
from d2_ssod.data.mapper import PseudoLabelMapper
from d2_ssod.engine import PhaseTrainer, build_config, default_argument_parser
from d2_ssod.modeling import UncertaintyOutputLayers


class PlainOutputLayers(UncertaintyOutputLayers):
    """The same layers and parameters without embedding, weights and similarity loss."""

    forward = FastRCNNOutputLayers.forward
    losses = FastRCNNOutputLayers.losses


def pseudo_labeled_images() -> list[dict]:
    """The unlabeled images with their true boxes, marked as pseudo-labels."""
    images = DatasetCatalog.get("digit_scenes_unlabeled_truth")
    return [
        {
            **image,
            "is_pseudo": True,
            "annotations": [{**a, "score": 1.0} for a in image["annotations"]],
        }
        for image in images
    ]


def now(device: str) -> float:
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def seconds_of_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, batch: list, device: str, amp: bool
) -> float:
    torch.manual_seed(0)  # both models sample the same RoIs
    start = now(device)
    with torch.autocast(device, torch.bfloat16, enabled=amp):
        loss = sum(model(batch).values())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return now(device) - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--amp", action="store_true", help="in bfloat16 where autocast does so")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    gpus = str(int(args.device == "cuda"))
    command = ["--config-file", "configs/digits_two_phase.yaml", "--num-gpus", gpus]
    cfg = build_config(default_argument_parser().parse_args(command), world_size=1)
    loader = build_phase_loader(
        cfg,
        PseudoLabelMapper(cfg, is_train=True),
        PhaseImages.merge(
            DatasetCatalog.get("digit_scenes_labeled"),
            pseudo_labeled_images(),
            sampling=cfg.SSOD.SAMPLING,
            labeled_repeat=1,
        ),
        phase=1,
    )
    weighted = PhaseTrainer.build_model(cfg).train()
    plain = copy.deepcopy(weighted)
    plain.roi_heads.box_predictor.__class__ = PlainOutputLayers
    steps = [(m, PhaseTrainer.build_optimizer(cfg, m)) for m in (weighted, plain)]
    shares, seconds_of = [], {weighted: [], plain: []}
    with EventStorage():
        for number, batch in zip(range(args.steps + 10), loader, strict=False):
            # The one that goes first changes, as it meets colder caches.
            order = steps if number % 2 else steps[::-1]
            seconds = {
                model: seconds_of_step(model, optimizer, batch, args.device, args.amp)
                for model, optimizer in order
            }
            shares.append(1 - seconds[plain] / seconds[weighted])
            for model, taken in seconds.items():
                seconds_of[model].append(taken)
    low, median, high = statistics.quantiles(shares[10:], n=4)
    print(
        f"weighting + similarity loss: {100 * median:.1f} % of a step "
        f"(quartiles {100 * low:.1f} to {100 * high:.1f}; {args.steps} pairs of steps)"
    )
    if args.device == "cuda":
        ours, bare = (
            cfg.SOLVER.IMS_PER_BATCH / statistics.median(seconds_of[model][10:])
            for model in (weighted, plain)
        )
        print(f"{ours:.0f} images/s; without both {bare:.0f} ({torch.cuda.get_device_name()})")


if __name__ == "__main__":
    main()
