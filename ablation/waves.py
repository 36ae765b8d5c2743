"""Runs that build on others: which are missing, and in which order they are done."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, TypeVar


class Run(Protocol):
    """What is done once, leaves a result, and may need what other runs leave."""

    @property
    def result(self) -> Path:
        """Where its result lies once it is finished."""

    @property
    def needs(self) -> Sequence[Run]:
        """Runs whose models must be there before."""


AnyRun = TypeVar("AnyRun", bound=Run)


def _after_needs(run: AnyRun) -> Iterator[AnyRun]:
    """What a run needs, what that needs and so on, and then the run."""
    for need in run.needs:
        yield from _after_needs(need)
    yield run


def with_needs(runs: Iterable[AnyRun]) -> list[AnyRun]:
    """The runs and all that they need, each once and after what it needs."""
    return list(dict.fromkeys(each for run in runs for each in _after_needs(run)))


def missing(runs: Sequence[AnyRun], is_usable: Callable[[AnyRun], bool]) -> list[AnyRun]:
    """The runs without a result, and what these need where only the result is left.

    Results are kept in the repository, models are not: on a fresh clone the shared phase 0 of a
    seed is trained again as soon as a row of that seed is missing.

    Args:
        runs: with all that they need, each after what it needs.
        is_usable: whether other runs can build on this one.
    """
    needed: set[AnyRun] = set()
    found = []
    for run in reversed(runs):
        if not run.result.exists() or (run in needed and not is_usable(run)):
            needed.update(run.needs)
            found.append(run)
    return found[::-1]


def do_in_waves(
    runs: Sequence[AnyRun],
    do: Callable[[AnyRun], bool],
    is_usable: Callable[[AnyRun], bool],
    processes: int,
) -> list[AnyRun]:
    """Do the runs, so many at a time, each once what it needs is finished.

    Returns:
        those that failed (``do`` gave False), and those that were not tried for want of these.
    """
    pending, failed = list(runs), []
    with ThreadPoolExecutor(processes) as pool:
        while ready := [run for run in pending if all(map(is_usable, run.needs))]:
            pending = [run for run in pending if run not in ready]
            finished = pool.map(do, ready)
            failed += [run for run, well in zip(ready, finished, strict=True) if not well]
    return failed + pending
