"""Timing by turns, peak memory, and the machine's own speed."""

from __future__ import annotations

import ctypes
import gc
import statistics
import sys
import time
from collections.abc import Callable

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

    def by_turns(self, calls: dict[str, Call], seconds: float) -> dict[str, list[float]]:
        """Times of all calls, by turns: whatever else the machine does hits all alike."""
        once = sum(self.time(call) for call in calls.values())
        rounds = min(200, max(5, int(seconds / once)))
        times: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(rounds):
            for name, call in calls.items():
                times[name].append(self.time(call))
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


def as_cuda_graph(call: Call) -> Call:
    """The call recorded once, to be replayed without the CPU's part.

    A call that waits for the device raises before anything is recorded: within a recording it would
    spoil the process.
    """
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        torch.cuda.set_sync_debug_mode("error")
        try:
            for _ in range(3):
                call()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


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


def library_speed(device: str) -> tuple[float, float]:
    """FLOP/s of the library's float32 product and bytes/s of its copy, the best of several."""
    clock = Clock(device)
    size = 8192 if device == "cuda" else 1024
    a, b = (torch.randn(size, size, device=device) for _ in range(2))
    source = torch.zeros(256 * 2**20 // 4, device=device)
    target = torch.zeros_like(source)
    product = min(clock.time(lambda: a @ b) for _ in range(20))
    copy = min(clock.time(lambda: target.copy_(source)) for _ in range(20))
    return 2 * size**3 / product, 2 * source.nbytes / copy
