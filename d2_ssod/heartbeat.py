"""Ranks that wait for the others notice one that hangs, without a time-out for those that work.

The first rank to be done may have to wait for hours. So each says how far it is, and only one that
goes no further is given up.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import platform
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from detectron2.utils import comm
from torch import distributed as dist

# Seconds after which a rank is given up that
NO_PROGRESS = 600.0  # ... makes no step,
NO_SIGN = 120.0  # ... shows no sign of life: its process has gone or stopped, or its network,
NOT_BEGUN = 1800.0  # ... is still at something else, such as computing what only the first one does
_OTHERS_SPEAK = 30.0  # seconds that the first waiting rank has to speak before others do
_EVERY = 2.0  # seconds between signs of life
_SOONEST = 0.02  # seconds between the first looks of one that waits

_NOTHING = (0, -1)  # signs and steps seen of a rank that has not begun
_numbers = itertools.count()  # the same on all ranks, as all take part in everything


@dataclass(frozen=True)
class Ranks:
    """A rank and those that it works with.

    Attributes:
        rank: its own.
        hosts: the machines of all ranks.
        store: what all of them write into and read.
    """

    rank: int
    hosts: Sequence[str]
    store: dist.Store

    @classmethod
    def of_run(cls) -> Ranks | None:
        """All processes of the run; None if there is only one."""
        if comm.get_world_size() == 1:
            return None
        store = dist.distributed_c10d._get_default_store()
        own = dist.PrefixStore(f"d2_ssod/heartbeat/{next(_numbers)}", store)
        return cls(comm.get_rank(), _hosts(), own)

    def name(self, rank: int) -> str:
        """Tell which rank it is, and where."""
        return f"rank {rank} on {self.hosts[rank]}"


@functools.cache
def _hosts() -> list[str]:
    """Collect the machines' names while all ranks are here, so that one that is not is noticed."""
    return comm.all_gather(platform.node())


class Heartbeat:
    """Says that this rank makes progress, and waits for the others as long as they do.

    All ranks use it in a ``with`` block, call :meth:`beat` after each step of their work, and
    :meth:`wait_for_others` at its end. With one process nothing happens.
    """

    def __init__(self, activity: str, ranks: Ranks | None) -> None:
        """Have nothing said yet.

        Args:
            activity: what is done; for the error.
            ranks: this one and the others, if there are any.
        """
        self._activity, self._ranks = activity, ranks
        self._exchange = None if ranks is None else _Exchange(ranks)

    def __enter__(self) -> Heartbeat:
        if self._exchange is not None:
            self._exchange.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._exchange is not None:
            self._exchange.end()

    def beat(self) -> None:
        """Say that a step of the work is done."""
        if self._exchange is not None:
            self._exchange.steps += 1

    def wait_for_others(self) -> None:
        """Return when all ranks are done.

        Raises:
            TimeoutError: one makes no progress; it is named with its machine.
        """
        if self._exchange is None:
            return
        silences: dict[Any, _Silence] = defaultdict(_Silence)
        before = time.monotonic()
        self._exchange.finish()
        while self._exchange.at_work:
            self._exchange.wait_for_news()
            now = time.monotonic()
            self._listen(silences, _heard(now - before))
            before = now
            self._raise_if_lost(silences)

    def _listen(self, silences: dict[Any, _Silence], passed: float) -> None:
        exchange, store = self._exchange, silences["store"]
        passed_since_look = _heard(store.seconds + passed)
        if store.lasts(exchange.looks, passed):
            return  # Until the store answers, nothing is known of the others.
        for rank, (signs, steps) in exchange.at_work.copy().items():
            silences["signs", rank].lasts(signs, passed_since_look)
            silences["steps", rank].lasts(steps, passed_since_look)

    def _raise_if_lost(self, silences: dict[Any, _Silence]) -> None:
        at_work, ranks = self._exchange.at_work.copy(), self._ranks
        is_first = ranks.rank == min(set(range(len(ranks.hosts))) - set(at_work))
        patience = 0.0 if is_first else _OTHERS_SPEAK

        def give_up_after(limit: float, kind: Any, what: str) -> None:
            seconds = silences[kind].seconds
            if seconds >= limit + patience:
                raise TimeoutError(
                    f"{what} for {seconds:.0f} s, while {ranks.name(ranks.rank)} waits for it "
                    f"({self._activity}); see what that machine is doing, then go on with --resume"
                )

        keeper = f"{ranks.name(0)}, whose machine keeps the store of the process group,"
        give_up_after(NO_SIGN, "store", f"{keeper} has not answered")
        for rank, (signs, _) in at_work.items():
            name = ranks.name(rank)
            if signs == 0:
                give_up_after(NOT_BEGUN, ("signs", rank), f"{name} has not begun")
                continue
            give_up_after(NO_SIGN, ("signs", rank), f"{name} has shown no sign of life")
            what = f"{name} is alive, but has made no progress"
            give_up_after(NO_PROGRESS, ("steps", rank), what)


def _heard(seconds: float) -> float:
    """Leave out times in which all processes were stopped, or none could say anything."""
    return min(seconds, 2 * _EVERY)


class _Silence:
    """For how many seconds a value has not changed, of those in which somebody looked."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._value: int | None = None

    def lasts(self, value: int, passed: float) -> bool:
        """Tell whether it still is that value, after so many more seconds."""
        same, self._value = value == self._value, value
        self.seconds = self.seconds + passed if same else 0.0
        return same


class _Exchange(threading.Thread):
    """Passes on how far this rank is and, once it is done, finds out how far the others are.

    It alone uses the store, as a call does not return where the machine that keeps it hangs.

    Attributes:
        steps: that this rank has made.
        at_work: the ranks that are not done, with the numbers of signs and steps last seen of them.
        looks: how often that was looked at.
    """

    def __init__(self, ranks: Ranks) -> None:
        super().__init__(name="heartbeat", daemon=True)
        self._ranks = ranks
        self.steps = self.looks = 0
        others = set(range(len(ranks.hosts))) - {ranks.rank}
        self.at_work = dict.fromkeys(sorted(others), _NOTHING)
        self._is_done = self._has_ended = False
        self._wake, self._news = threading.Event(), threading.Event()

    def finish(self) -> None:
        """Say that this rank is done."""
        self._is_done = True
        self._wake.set()

    def wait_for_news(self) -> None:
        """Wait until the others have been looked at, or for a while."""
        self._news.wait(_EVERY)
        self._news.clear()

    def end(self) -> None:
        """Say nothing more."""
        self._has_ended = True
        self._wake.set()
        self.join(timeout=1.0)  # not for long: the store may not answer

    def run(self) -> None:
        """Do it, until the end."""
        done_since = None
        # Without the store, which is gone with the process that kept it, there are no more looks.
        with contextlib.suppress(RuntimeError):
            for sign in itertools.count(1):
                is_done = self._is_done  # as the others know before this rank knows of them
                self._say(f"{sign} {self.steps} {int(is_done)}")
                pause = _EVERY
                if is_done:
                    done_since = done_since or time.monotonic()
                    self._look()
                    waited = time.monotonic() - done_since
                    pause = min(max(waited / 10, _SOONEST), _EVERY)
                if self._has_ended:
                    return
                self._wake.wait(pause)
                self._wake.clear()

    def _say(self, words: str) -> None:
        self._ranks.store.set(str(self._ranks.rank), words)

    def _look(self) -> None:
        at_work = {}
        for rank in self.at_work:
            signs, steps, is_done = *_NOTHING, 0
            if self._ranks.store.check([str(rank)]):  # to get what is not there would wait for it
                signs, steps, is_done = map(int, self._ranks.store.get(str(rank)).split())
            if not is_done:
                at_work[rank] = signs, steps
        self.at_work = at_work
        self.looks += 1
        self._news.set()
