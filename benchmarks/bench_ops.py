"""Times the operators against eager PyTorch, torch.compile and the libraries' own.

    python benchmarks/bench_ops.py --device cpu|cuda [--json FILE] [--ops NAME ...] [--seconds S]

Every provider's result is compared with the float64 reference before it is timed. All providers of
a case are timed by turns in one process; ``x ours`` is the median of the ratios within a turn.
``floor`` is the time that the library's matrix product (or copy, whichever is longer) would need
for the FLOP (or bytes) that cannot be avoided, and ``share`` is floor / median. Rows of the JSON
file: {op, shape, provider, mode, median_us, p20_us, p80_us, peak_mb, ratio_to_ours, floor_us,
share}.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import measure
import plain
import torch
from torch import Tensor

from d2_ssod import ops
from d2_ssod.ops import reference

TOLERANCE = 2e-3
# Providers that would need more are left out, and said so.
MEMORY_LIMIT = {"cpu": 6e9, "cuda": 60e9}


@dataclasses.dataclass
class Case:
    """One operator on one shape."""

    op: str
    shape: str
    mode: str
    providers: dict[str, Callable[[], object]]
    check: Callable[[object], None]
    flop: float
    bytes: float
    plain_bytes: float = 0.0  # that the eager forms need
    waiting: tuple[str, ...] = ()  # providers that wait for the device


@dataclasses.dataclass
class Batch:
    """Images of equal size, their RoIs one after another."""

    boxes: Tensor
    embeddings: Tensor
    foreground: Tensor
    counts: list[int]

    @property
    def columns(self) -> list[int]:
        """Foreground RoIs of each image."""
        return [int(flags.sum()) for flags in self.foreground.split(self.counts)]

    @property
    def pairs(self) -> int:
        """Background x foreground, over all images."""
        return sum((n - f) * f for n, f in zip(self.counts, self.columns, strict=True))


def make_batch(images: int, rois: int, depth: int, fraction: float, device: str) -> Batch:
    generator = torch.Generator().manual_seed(0)
    total = images * rois
    corner = torch.rand(total, 2, generator=generator) * 800
    extent = torch.rand(total, 2, generator=generator) * 200 + 8
    per_image = torch.rand(images, rois, generator=generator).argsort(dim=1)
    return Batch(
        torch.cat([corner, corner + extent], dim=1).to(device),
        (torch.randn(total, depth, generator=generator) + 0.5).to(device),
        (per_image < round(rois * fraction)).flatten().to(device),
        [rois] * images,
    )


def check_close(actual: Tensor, expected: Tensor, scale: float = 1.0) -> None:
    actual, expected = actual.detach().double().cpu(), expected.double().cpu()
    torch.testing.assert_close(actual, expected, rtol=TOLERANCE, atol=TOLERANCE * scale)


def check_weights(batch: Batch, weights: Tensor) -> None:
    """All foreground rows and some background rows of each image: rows are independent."""
    for number, flags in enumerate(batch.foreground.split(batch.counts)):
        background = (~flags).nonzero()[:: max(1, len(flags) // 200), 0]
        rows = torch.cat([flags.nonzero()[:, 0], background]) + sum(batch.counts[:number])
        expected = reference.uncertainty_weights(
            batch.boxes[rows].double(),
            batch.embeddings[rows].double(),
            batch.foreground[rows],
            [len(rows)],
        )
        check_close(weights[rows], expected)


def uncertainty_case(images: int, rois: int, depth: int, fraction: float, device: str) -> Case:
    batch = make_batch(images, rois, depth, fraction, device)
    arguments = (batch.boxes, batch.embeddings, batch.foreground)
    most, fewest = max(batch.columns), min(batch.columns)
    sizes = (images, most, fewest)
    providers = {
        "ours": lambda: ops.uncertainty_weights(*arguments, batch.counts),
        "eager": lambda: plain.uncertainty_loop(*arguments, batch.counts),
        "eager padded": lambda: plain.uncertainty_padded(*arguments, *sizes),
        "compile": partial(torch.compile(plain.uncertainty_padded), *arguments, *sizes),
    }
    background = batch.embeddings[~batch.foreground]
    columns = batch.embeddings[batch.foreground].T.contiguous()
    if images == 1:
        # Only the product: no norms, boxes, maximum or weights; stores the matrix.
        result = torch.empty(0, device=device)
        providers["bare product"] = lambda: torch.mm(background, columns, out=result)
    return Case(
        "uncertainty_weights",
        f"{images} x {rois} ({most} fg), D {depth}",
        "forward",
        providers,
        lambda result: check_weights(batch, result),
        flop=2.0 * batch.pairs * depth,
        bytes=4.0 * batch.embeddings.numel() + 16.0 * len(batch.boxes),
        plain_bytes=4.0 * batch.pairs * 6,
        waiting=("eager",),  # for the size of what a mask selects
    )


def loss_and_gradient(loss_of: Callable[[Tensor], Tensor], embeddings: Tensor) -> tuple:
    leaf = embeddings.detach().requires_grad_()
    loss = loss_of(leaf)
    loss.backward()
    return loss, leaf.grad


def similarity_case(images: int, rois: int, depth: int, backward: bool, device: str) -> Case:
    batch = make_batch(images, rois, depth, 0.25, device)
    compiled = torch.compile(plain.similarity_padded)
    losses = {
        "ours": lambda e: ops.similarity_loss(batch.boxes, e, batch.counts),
        "eager": lambda e: plain.similarity_loop(batch.boxes, e, batch.counts),
        "eager padded": lambda e: plain.similarity_padded(batch.boxes, e, images),
        "compile": lambda e: compiled(batch.boxes, e, images),
    }
    run = loss_and_gradient if backward else lambda loss_of, embeddings: loss_of(embeddings)
    expected = loss_and_gradient(
        lambda e: reference.similarity_loss(batch.boxes.double(), e, batch.counts),
        batch.embeddings.double(),
    )

    def check(result: object) -> None:
        if not backward:
            check_close(result, expected[0])
            return
        for actual, exact in zip(result, expected, strict=True):
            check_close(actual, exact, scale=exact.abs().max().item())

    pairs = images * rois**2
    return Case(
        "similarity_loss",
        f"{images} x {rois}, D {depth}",
        "forward+backward" if backward else "forward",
        {name: partial(run, loss_of, batch.embeddings) for name, loss_of in losses.items()},
        check,
        # The cosines are symmetric; the gradient takes all pairs' derivatives times the embeddings.
        flop=pairs * depth * (1.0 + 2.0 * backward),
        bytes=4.0 * batch.embeddings.numel() * (1 + backward),
        plain_bytes=4.0 * pairs * (8 if backward else 5),
    )


def pairwise_case(name: str, rows: int, columns: int, device: str) -> Case:
    boxes = make_batch(1, rows + columns, 1, 0.25, device).boxes
    first, second = boxes[:rows], boxes[rows:]
    eager = getattr(plain, f"pairwise_{name}")
    providers = {
        "ours": partial(getattr(ops, f"pairwise_{name}"), first, second),
        "eager": partial(eager, first, second),
        "compile": partial(torch.compile(eager), first, second),
    }
    if find_spec("detectron2"):
        from detectron2.structures import Boxes
        from detectron2.structures.boxes import pairwise_ioa, pairwise_iou

        pair = (Boxes(first), Boxes(second))
        providers["detectron2"] = (
            (lambda: pairwise_iou(*pair))
            if name == "iou"
            else (lambda: pairwise_ioa(pair[1], pair[0]).T)
        )
    if find_spec("torchvision") and name == "iou":
        from torchvision.ops import box_iou

        providers["torchvision"] = partial(box_iou, first, second)
    if find_spec("mmcv"):
        from mmcv.ops import bbox_overlaps

        providers["mmcv"] = partial(bbox_overlaps, first, second, mode=name)
    expected = getattr(reference, f"pairwise_{name}")(first.double(), second.double())
    return Case(
        f"pairwise_{name}",
        f"{rows} x {columns}",
        "forward",
        providers,
        lambda result: check_close(result, expected),
        flop=0.0,
        bytes=4.0 * rows * columns,
    )


def cosine_case(rows: int, depth: int, device: str) -> Case:
    first, second = make_batch(1, 2 * rows, depth, 0.25, device).embeddings.split(rows)
    expected = reference.pairwise_cosine_similarity(first.double(), second.double())
    columns = second.T.contiguous()
    return Case(
        "pairwise_cosine_similarity",
        f"{rows} x {rows}, D {depth}",
        "forward",
        {
            "ours": partial(ops.pairwise_cosine_similarity, first, second),
            "compile": partial(torch.compile(ops.pairwise_cosine_similarity), first, second),
            "bare product": lambda: first @ columns,
        },
        lambda result: check_close(result, expected),
        flop=2.0 * rows * rows * depth,
        bytes=8.0 * rows * depth + 4.0 * rows * rows,
    )


def cases(device: str) -> list[tuple[str, Callable[[], Case]]]:
    """Operator and maker of every case: one case's tensors live at a time."""
    training = [(images, 512, depth) for depth in (128, 1024) for images in (2, 16)]
    made = [partial(uncertainty_case, *shape, 0.25, device) for shape in training]
    made.append(partial(uncertainty_case, 1, 8192, 256, 0.25, device))
    made.append(partial(uncertainty_case, 1, 65536, 128, 0.125, device))
    losses = [
        partial(similarity_case, *shape, backward, device)
        for backward in (False, True)
        for shape in training
    ]
    return [
        *(("uncertainty_weights", case) for case in made),
        *(("similarity_loss", case) for case in losses),
        *((f"pairwise_{x}", partial(pairwise_case, x, 2000, 500, device)) for x in ("iou", "iof")),
        ("pairwise_cosine_similarity", partial(cosine_case, 1024, 256, device)),
    ]


def usable_providers(case: Case, device: str, chosen: list[str] | None) -> dict[str, Callable]:
    """Those asked for, that fit in memory and give the right result."""
    usable = {}
    for name, call in case.providers.items():
        if chosen and name.split()[0] not in chosen:
            continue
        if name not in ("ours", "bare product") and case.plain_bytes > MEMORY_LIMIT[device]:
            print(f"  {name}: left out, needs some {case.plain_bytes / 1e9:.0f} GB")
            continue
        result = call()
        if name != "bare product":
            case.check(result)
        usable[name] = call
    return usable


def graphed(case: Case, calls: dict[str, Callable]) -> dict[str, Callable]:
    """Those that a CUDA graph can record: one that waits for the device cannot."""
    recorded = {}
    for name, call in calls.items():
        if name in case.waiting:
            continue
        try:
            recorded[name] = measure.as_cuda_graph(call)
        except RuntimeError as error:
            print(f"  {name}: no CUDA graph ({str(error).splitlines()[0]})")
    return recorded


def run_case(
    case: Case, device: str, seconds: float, speed: tuple[float, float], chosen: list[str] | None
) -> list[dict]:
    """Rows of all providers of a case, on CUDA with and without graphs."""
    print(f"{case.op}, {case.shape}, {case.mode}")
    calls = usable_providers(case, device, chosen)
    rows = time_calls(case, case.mode, calls, device, seconds, speed)
    if device == "cuda" and case.mode == "forward":
        recorded = graphed(case, calls)
        if "ours" in recorded:
            rows += time_calls(case, "forward, CUDA graph", recorded, device, seconds, speed)
    return rows


def time_calls(
    case: Case,
    mode: str,
    calls: dict[str, Callable],
    device: str,
    seconds: float,
    speed: tuple[float, float],
) -> list[dict]:
    clock = measure.Clock(device)
    peaks = {name: clock.peak_mb(call) for name, call in calls.items()}
    times = clock.by_turns(calls, seconds)
    floor = max(case.flop / speed[0], case.bytes / speed[1]) * 1e6
    rows = []
    for name, values in times.items():
        median = statistics.median(values) * 1e6
        rows.append(
            {
                "op": case.op,
                "shape": case.shape,
                "provider": name,
                "mode": mode,
                "median_us": round(median, 1),
                "p20_us": round(measure.quantile(values, 0.2) * 1e6, 1),
                "p80_us": round(measure.quantile(values, 0.8) * 1e6, 1),
                "peak_mb": None if peaks[name] is None else round(peaks[name], 1),
                "ratio_to_ours": round(measure.median_ratio(values, times["ours"]), 2),
                "floor_us": round(floor, 1),
                "share": round(floor / median, 2),
            }
        )
        print(
            "  {provider:13} {ratio_to_ours:7.2f} x ours  {median_us:10.1f} us "
            "({p20_us:.1f} - {p80_us:.1f})  peak {peak_mb} MB  share {share}  {mode}".format(
                **rows[-1]
            )
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--ops", nargs="+", help="only these operators")
    parser.add_argument(
        "--providers",
        nargs="+",
        help="only these providers, 'ours' among them (eager, compile, ...)",
    )
    parser.add_argument("--shapes", nargs="+", help="only shapes that contain one of these texts")
    parser.add_argument("--seconds", type=float, default=3.0, help="timing per case")
    arguments = parser.parse_args()
    if arguments.providers and "ours" not in arguments.providers:
        parser.error("--providers must have 'ours' among them: the others are compared with it")

    speed = measure.library_speed(arguments.device)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {ops.build_info()}")
    print(
        f"library: {speed[0] / 1e9:.0f} GFLOP/s (float32 product), {speed[1] / 1e9:.0f} GB/s (copy)"
    )
    rows = []
    for op, make in cases(arguments.device):
        if arguments.ops and op not in arguments.ops:
            continue
        torch._dynamo.reset()
        case = make()
        if arguments.shapes and not any(text in case.shape for text in arguments.shapes):
            continue
        rows += run_case(case, arguments.device, arguments.seconds, speed, arguments.providers)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
