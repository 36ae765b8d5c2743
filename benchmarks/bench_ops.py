"""Times the operators against eager PyTorch, torch.compile and the libraries' own.

    python benchmarks/bench_ops.py --device cpu|cuda [--json FILE] [--ops NAME ...] [--seconds S]

Every provider's result is compared with the float64 reference before it is timed. All providers of
a case are timed by turns in one process; ``x ours`` is the median of the ratios within a turn.
``floor`` is the longest of the times that the library's matrix product, its copy and, on CUDA, the
GPU's lanes would need for the FLOP, bytes and instructions that cannot be avoided, and ``share`` is
floor / median. On CUDA every case is timed as a call of Python and as a CUDA graph of many calls,
on inputs that take turns so that each finds the L2 cache without its own. Rows of the JSON file:
{op, shape, provider, mode, median_us, p20_us, p80_us, peak_mb, ratio_to_ours, floor_us, share}.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import math
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

# Of results, by what the embeddings are rounded to.
TOLERANCE = {"float32": 2e-3, "TF32": 2e-2, "half": 2e-2, "bfloat16": 0.15}
DTYPES = {"half": torch.float16, "bfloat16": torch.bfloat16}  # others are float32
# Providers that would need more are left out, and said so.
MEMORY_LIMIT = {"cpu": 6e9, "cuda": 60e9}


@dataclasses.dataclass
class Case:
    """One operator on one shape.

    Attributes:
        inputs: arguments of every provider.
        check: raises if a result is wrong.
        flop, bytes: that cannot be avoided.
        instructions: the same, beside the products, on CUDA.
        products: of halves that stand for one of the numbers' own, on CUDA; 0: the library's.
        plain_bytes: that the eager forms need.
        waiting: providers that wait for the device.
    """

    op: str
    shape: str
    mode: str
    providers: dict[str, Callable[..., object]]
    inputs: tuple[Tensor, ...]
    check: Callable[[object], None]
    flop: float
    bytes: float
    instructions: float = 0.0
    products: int = 0
    plain_bytes: float = 0.0
    waiting: tuple[str, ...] = ()

    def floor(self, speed: measure.Speed) -> float:
        """Seconds that the case takes at least."""
        if self.products and speed.half_product < math.inf:
            product = self.products * self.flop / speed.half_product
        else:
            product = self.flop / speed.product
        return max(product, self.bytes / speed.copy, self.instructions / speed.instructions)


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


def check_close(
    actual: Tensor, expected: Tensor, scale: float = 1.0, precision: str = "float32"
) -> None:
    actual, expected = actual.detach().double().cpu(), expected.double().cpu()
    tolerance = TOLERANCE[precision]
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance * scale)


def check_weights(batch: Batch, precision: str, weights: Tensor) -> None:
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
        check_close(weights[rows], expected, precision=precision)


def uncertainty_case(
    images: int, rois: int, depth: int, fraction: float, device: str, precision: str = "float32"
) -> Case:
    batch = make_batch(images, rois, depth, fraction, device)
    batch.embeddings = batch.embeddings.to(DTYPES.get(precision, torch.float32))
    most, fewest = max(batch.columns), min(batch.columns)
    compiled = torch.compile(plain.uncertainty_padded)
    providers = {
        "ours": lambda *rois: ops.uncertainty_weights(*rois, batch.counts),
        "eager": lambda *rois: plain.uncertainty_loop(*rois, batch.counts),
        "eager padded": lambda *rois: plain.uncertainty_padded(*rois, images, most, fewest),
        "compile": lambda *rois: compiled(*rois, images, most, fewest),
    }
    background = batch.embeddings[~batch.foreground]
    columns = batch.embeddings[batch.foreground].T.contiguous()
    if images == 1:
        # Only the product: no norms, boxes, maximum or weights; stores the matrix.
        result = torch.empty(0, device=device, dtype=background.dtype)
        providers["bare product"] = lambda *_: torch.mm(background, columns, out=result)
    return Case(
        "uncertainty_weights",
        f"{images} x {rois} ({most} fg), D {depth}"
        + ("" if precision == "float32" else f", {precision}"),
        "forward",
        providers,
        (batch.boxes, batch.embeddings, batch.foreground),
        partial(check_weights, batch, precision),
        flop=2.0 * batch.pairs * depth,
        bytes=batch.embeddings.nbytes + 16.0 * len(batch.boxes),
        instructions=22.0 * batch.pairs,
        products=3 if precision == "float32" else 1,
        plain_bytes=4.0 * batch.pairs * 6,
        waiting=("eager",),  # for the size of what a mask selects
    )


def loss_and_gradient(
    loss_of: Callable[[Tensor, Tensor], Tensor], boxes: Tensor, embeddings: Tensor
) -> tuple:
    leaf = embeddings.detach().requires_grad_()
    loss = loss_of(boxes, leaf)
    loss.backward()
    return loss, leaf.grad


def similarity_case(images: int, rois: int, depth: int, backward: bool, device: str) -> Case:
    batch = make_batch(images, rois, depth, 0.25, device)
    compiled = torch.compile(plain.similarity_padded)
    losses = {
        "ours": lambda boxes, e: ops.similarity_loss(boxes, e, batch.counts),
        "eager": lambda boxes, e: plain.similarity_loop(boxes, e, batch.counts),
        "eager padded": lambda boxes, e: plain.similarity_padded(boxes, e, images),
        "compile": lambda boxes, e: compiled(boxes, e, images),
    }
    expected = loss_and_gradient(
        lambda boxes, e: reference.similarity_loss(boxes, e, batch.counts),
        batch.boxes.double(),
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
        {name: partial(loss_and_gradient, loss_of) for name, loss_of in losses.items()}
        if backward
        else losses,
        (batch.boxes, batch.embeddings),
        check,
        # The cosines are symmetric; the gradient takes all pairs' derivatives times the embeddings.
        flop=pairs * depth * (1.0 + 2.0 * backward),
        bytes=4.0 * batch.embeddings.numel() * (1 + backward),
        products=3,
        plain_bytes=4.0 * pairs * (8 if backward else 5),
    )


def pairwise_case(name: str, rows: int, columns: int, device: str) -> Case:
    boxes = make_batch(1, rows + columns, 1, 0.25, device).boxes
    first, second = boxes[:rows], boxes[rows:]
    eager = getattr(plain, f"pairwise_{name}")
    providers = {
        "ours": getattr(ops, f"pairwise_{name}"),
        "eager": eager,
        "compile": torch.compile(eager),
    }
    if find_spec("detectron2"):
        from detectron2.structures import Boxes
        from detectron2.structures.boxes import pairwise_ioa, pairwise_iou

        providers["detectron2"] = (
            (lambda a, b: pairwise_iou(Boxes(a), Boxes(b)))
            if name == "iou"
            else (lambda a, b: pairwise_ioa(Boxes(b), Boxes(a)).T)
        )
    if find_spec("torchvision") and name == "iou":
        from torchvision.ops import box_iou

        providers["torchvision"] = box_iou
    if find_spec("mmcv"):
        from mmcv.ops import bbox_overlaps

        providers["mmcv"] = partial(bbox_overlaps, mode=name)
    expected = getattr(reference, f"pairwise_{name}")(first.double(), second.double())
    return Case(
        f"pairwise_{name}",
        f"{rows} x {columns}",
        "forward",
        providers,
        (first, second),
        lambda result: check_close(result, expected),
        flop=0.0,
        bytes=4.0 * rows * columns,
    )


def cosine_case(rows: int, depth: int, device: str) -> Case:
    first, second = make_batch(1, 2 * rows, depth, 0.25, device).embeddings.split(rows)
    expected = reference.pairwise_cosine_similarity(first.double(), second.double())
    return Case(
        "pairwise_cosine_similarity",
        f"{rows} x {rows}, D {depth}",
        "forward",
        {
            "ours": ops.pairwise_cosine_similarity,
            "compile": torch.compile(ops.pairwise_cosine_similarity),
            "bare product": lambda a, b: a @ b.T,
        },
        (first, second),
        lambda result: check_close(result, expected),
        flop=2.0 * rows * rows * depth,
        bytes=8.0 * rows * depth + 4.0 * rows * rows,
    )


def cases(device: str) -> list[tuple[str, Callable[[], Case]]]:
    """Operator and maker of every case: one case's tensors live at a time."""
    training = [(images, 512, depth) for depth in (128, 1024) for images in (2, 16)]
    made = [partial(uncertainty_case, *shape, 0.25, device) for shape in training]
    made.append(partial(uncertainty_case, 1, 8192, 256, 0.25, device))
    if device == "cuda":
        made += [
            partial(uncertainty_case, *shape, 0.25, device, precision)
            for precision in ("half", "bfloat16", "TF32")
            for shape in ((16, 512, 1024), (1, 8192, 256))
        ]
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
        result = call(*case.inputs)
        if name != "bare product":
            case.check(result)
        usable[name] = call
    return usable


def graphed(
    case: Case, calls: dict[str, Callable], inputs: list[tuple]
) -> dict[str, Callable[[], object]]:
    """Those that a CUDA graph can record: one that waits for the device cannot."""
    recorded = {}
    for name, call in calls.items():
        if name in case.waiting:
            continue
        try:
            recorded[name] = measure.as_cuda_graph(call, inputs)
        except RuntimeError as error:
            print(f"  {name}: no CUDA graph ({str(error).splitlines()[0]})")
    return recorded


def run_case(
    case: Case, device: str, seconds: float, speed: measure.Speed, chosen: list[str] | None
) -> list[dict]:
    """Rows of all providers of a case, on CUDA with and without graphs."""
    print(f"{case.op}, {case.shape}, {case.mode}")
    calls = usable_providers(case, device, chosen)
    clock = measure.Clock(device)
    bound = {name: partial(call, *case.inputs) for name, call in calls.items()}
    peaks = {name: clock.peak_mb(call) for name, call in bound.items()}
    rows = rows_of(case, case.mode, clock.by_turns(bound, seconds), peaks, case.floor(speed))
    if device == "cuda":
        inputs = measure.copies(case.inputs)
        recorded = graphed(case, calls, inputs)
        if "ours" in recorded:
            times = clock.by_turns(recorded, seconds, repeats=len(inputs))
            rows += rows_of(case, f"{case.mode}, CUDA graph", times, peaks, case.floor(speed))
    return rows


def rows_of(
    case: Case,
    mode: str,
    times: dict[str, list[float]],
    peaks: dict[str, float | None],
    floor: float,
) -> list[dict]:
    """What the file holds of each provider; printed, too."""
    rows = []
    for name, values in times.items():
        median = statistics.median(values)
        rows.append(
            {
                "op": case.op,
                "shape": case.shape,
                "provider": name,
                "mode": mode,
                "median_us": round(median * 1e6, 1),
                "p20_us": round(measure.quantile(values, 0.2) * 1e6, 1),
                "p80_us": round(measure.quantile(values, 0.8) * 1e6, 1),
                "peak_mb": None if peaks[name] is None else round(peaks[name], 1),
                "ratio_to_ours": round(measure.median_ratio(values, times["ours"]), 2),
                "floor_us": round(floor * 1e6, 1),
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

    speed = measure.speed_of(arguments.device)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {ops.build_info()}")
    print(f"library: {speed}")
    rows = []
    for op, make in cases(arguments.device):
        if arguments.ops and op not in arguments.ops:
            continue
        torch._dynamo.reset()
        case = make()
        if arguments.shapes and not any(text in case.shape for text in arguments.shapes):
            continue
        with measure.tf32() if "TF32" in case.shape else contextlib.nullcontext():
            rows += run_case(case, arguments.device, arguments.seconds, speed, arguments.providers)
        if arguments.json:
            arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
