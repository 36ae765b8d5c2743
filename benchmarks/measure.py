"""Timing by turns, peak memory, and the machine's own speed."""

from __future__ import annotations

import ctypes
import gc
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

Call = Callable[[], object]


class Clock:
    """Times single calls on one device."""

    def __init__(self, device: str) -> None:
        self.cuda = device == "cuda"

    def time(self, call: Call) -> float:
        """Seconds from handing out the call to the end of its work, with an idle device before."""
        if self.cuda:
            torch.cuda.synchronize()
        start = time.perf_counter()
        call()
        if self.cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - start

    def by_turns(
        self, calls: dict[str, Call], seconds: float, repeats: int = 1
    ) -> dict[str, list[float]]:
        """Times of all calls, by turns: whatever else the machine does hits all alike.

        A call that does its work several times in itself says so by ``repeats``.
        """
        once = sum(self.time(call) for call in calls.values())
        rounds = min(200, max(5, int(seconds / once)))
        times: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(rounds):
            for name, call in calls.items():
                times[name].append(self.time(call) / repeats)
        return times

    def peak_mb(self, call: Call) -> float | None:
        """Memory that a call takes beyond what was there before, in MB; None where unknown."""
        if self.cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            call()
            return (torch.cuda.max_memory_allocated() - before) / 1e6
        if not sys.platform.startswith("linux"):
            return None
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        try:
            with open("/proc/self/clear_refs", "w") as file:
                file.write("5")  # the peak starts again at what is used now
        except OSError:
            return None
        before = _status_kb("VmRSS")
        call()
        return (_status_kb("VmHWM") - before) / 1e3


def as_cuda_graph(call: Callable[..., object], inputs: list[tuple]) -> Call:
    """Calls on each of the inputs, one after another, recorded once for the GPU to replay alone.

    A call that waits for the device raises before anything is recorded: within a recording it would
    spoil the process.
    """
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        torch.cuda.set_sync_debug_mode("error")
        try:
            for _ in range(3):
                call(*inputs[0])
        finally:
            torch.cuda.set_sync_debug_mode("default")
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for arguments in inputs:
            call(*arguments)
    return graph.replay


def copies(inputs: tuple) -> list[tuple]:
    """The inputs some 20 times over, or more: so many that the L2 cache has none of the next call.

    At most 200 times, which small inputs do not reach the size of the cache with.
    """
    size = sum(x.nbytes for x in inputs)
    cache = torch.cuda.get_device_properties().L2_cache_size
    count = min(200, max(20, -(-2 * cache // size)))
    return [tuple(x.clone() for x in inputs) for _ in range(count)]


def _status_kb(field: str) -> int:
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith(field))
    return int(line.split()[1])


def quantile(values: list[float], q: float) -> float:
    ordered = sorted(values)
    return ordered[round(q * (len(ordered) - 1))]


def median_ratio(times: list[float], others: list[float]) -> float:
    """Median of the ratios within the rounds."""
    return statistics.median(a / b for a, b in zip(times, others, strict=True))


@dataclass(frozen=True)
class Speed:
    """What the machine can do, as far as its libraries show it; per second, infinite if unknown.

    Attributes:
        product: FLOP of a float32 matrix product.
        copy: bytes of a copy, read and written.
        half_product: FLOP of a product of halves with float32 sums; on CUDA.
        tf32_product: FLOP of a product rounded to TF32; on CUDA.
        instructions: simple float32 ones, of all lanes, at the highest clock; on CUDA.
    """

    product: float
    copy: float
    half_product: float = math.inf
    tf32_product: float = math.inf
    instructions: float = math.inf

    def __str__(self) -> str:
        return ", ".join(f"{name} {value / 1e9:.0f} G/s" for name, value in vars(self).items())


def speed_of(device: str) -> Speed:
    """Measure the libraries' products and copy, the best of several."""
    clock = Clock(device)
    size = 8192 if device == "cuda" else 1024

    def product(dtype: torch.dtype) -> float:
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        return 2 * size**3 / min(clock.time(lambda: a @ b) for _ in range(20))

    source = torch.zeros(256 * 2**20 // 4, device=device)
    target = torch.zeros_like(source)
    copy = 2 * source.nbytes / min(clock.time(lambda: target.copy_(source)) for _ in range(20))
    if device == "cpu":
        return Speed(product(torch.float32), copy)
    with tf32():
        rounded = product(torch.float32)
    card = torch.cuda.get_device_properties()
    clock_rate = getattr(card, "clock_rate", math.inf)  # kHz; not every torch tells
    lanes = 128 * card.multi_processor_count * clock_rate * 1e3
    return Speed(product(torch.float32), copy, product(torch.float16), rounded, lanes)


@contextmanager
def tf32() -> Iterator[None]:
    """Products of float32 are rounded to TF32 within."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
