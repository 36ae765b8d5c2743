"""Signals that ask a run to end: a preemption (SIGTERM, SIGUSR1), Ctrl-C, a terminal that is gone.

Training finishes its iteration and writes a checkpoint; an evaluation between two iterations ends
at once, with a checkpoint of the first one. Everything else ends at once: what it has done is on
disk already. A second signal ends all of these at once.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from detectron2.engine import HookBase, TrainerBase, hooks
from detectron2.utils import comm

PREEMPTED = 75  # exit code; the system's EX_TEMPFAIL, "try again"
INTERRUPTED = 130  # that of a shell's command after Ctrl-C

_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP)
_SAME = 1.0  # seconds in which a signal that comes twice, by different ways, is one
_AGREE_EVERY = 10  # iterations; of several processes


class Stopped(SystemExit):
    """The run ends because a signal asked for it."""

    def __init__(self, number: int) -> None:
        super().__init__(INTERRUPTED if number == signal.SIGINT else PREEMPTED)
        self.number = number


class _Requests:
    """What signals have asked of this process."""

    def __init__(self) -> None:
        self.process: int | None = None
        self.only_hands_on = False
        self.finishes_iterations = False
        self.is_held = False
        self.is_due = False  # what is held is to end the process
        self.number: int | None = None
        self.since = 0.0

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Note the request, or end the process."""
        if os.getpid() != self.process:  # a worker of the loader, which its process ends
            return
        # Another signal may come between any two lines, so each field is read once, and `since` is
        # set before `number`.
        is_second = self.number is not None
        is_same = is_second and time.monotonic() - self.since < _SAME
        # Not to the loader's workers.
        children = [child for child in multiprocessing.active_children() if not child.daemon]
        for child in children:
            os.kill(child.pid, number)
        if self.only_hands_on and children:
            if not is_second:
                self._note(number)
            elif not is_same:
                for child in children:
                    child.kill()  # one that waits for others, outside of Python, obeys nothing else
            return
        if is_same:
            return
        self._note(number)
        if is_second or not self.finishes_iterations:
            if not self.is_held:
                raise Stopped(number)
            self.is_due = True
        elif comm.get_world_size() == 1:
            _say_that_it_ends(number)

    def _note(self, number: int) -> None:
        self.since = time.monotonic()
        self.number = number


def _say_that_it_ends(number: int) -> None:
    line = (
        f"{signal.Signals(number).name}: writing a checkpoint after this iteration; a second "
        "signal ends at once\n"
    )
    with suppress(OSError, ValueError):  # nobody reads it any more
        os.write(sys.__stderr__.fileno(), line.encode())  # a handler may interrupt a print


_requests = _Requests()


@contextmanager
def handled_signals(*, of_launcher: bool = False) -> Iterator[_Requests]:
    """Handle the signals in this block; afterwards they do what they did before.

    Python lets only the main thread do that: in others they are not handled.

    Args:
        of_launcher: this process only waits for others, to which it hands signals on.

    Yields:
        what the signals asked for; its ``number`` is that of the first one, or None.
    """
    if not _is_main_thread():
        yield _Requests()
        return
    _requests.process, _requests.number = os.getpid(), None
    _requests.only_hands_on, _requests.finishes_iterations = of_launcher, False
    _requests.is_held = _requests.is_due = False
    before = {n: signal.signal(n, _requests.handle) for n in _SIGNALS if not _is_by_nohup(n)}
    try:
        yield _requests
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _requests.number, _requests.finishes_iterations = None, False
        _requests.is_due = False


def hold_signals() -> None:
    """Let no signal come between what a process does as it ends."""
    _requests.is_held |= _is_main_thread()  # what another one does may end without the process


def _is_by_nohup(number: int) -> bool:
    return number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def may_stop_after(done: int) -> bool:
    """Tell whether training may stop after that many iterations; on all ranks the same."""
    return comm.get_world_size() == 1 or done % _AGREE_EVERY == 0


class StopOnSignal(HookBase):
    """Ends training after an iteration in which a signal came, with a checkpoint of it.

    Runs on every rank, after :class:`AverageOverRanks`.
    """

    def before_train(self) -> None:
        """Let signals wait for the end of an iteration."""
        _requests.finishes_iterations = _is_main_thread()

    def after_train(self) -> None:
        """Let them end the process at once again, also those that came too late."""
        _requests.finishes_iterations = False
        if _requests.number is not None and self.trainer.iter >= self.trainer.max_iter:
            raise Stopped(_requests.number)

    def after_step(self) -> None:
        """Stop, if any rank was asked to; all of them after the same iteration."""
        done = self.trainer.iter + 1
        if done >= self.trainer.max_iter or not may_stop_after(done):
            return
        number = _requests.number
        if comm.get_world_size() > 1:
            number = next((n for n in comm.all_gather(number) if n is not None), None)
        if number is None:
            return
        if comm.get_world_size() > 1 and comm.is_main_process():
            _say_that_it_ends(number)
        _save_checkpoint(self.trainer)
        comm.synchronize()
        raise Stopped(number)


class InterruptibleEvaluation(hooks.EvalHook):
    """Evaluates every few iterations; if that is cut short, a checkpoint keeps the training so far.

    Not after the last one: the model of a phase is validated when it is written.

    Runs on every rank, after :class:`AverageOverRanks`. No signal waits for the evaluation, which
    may take longer than a scheduler does.
    """

    def after_step(self) -> None:
        """Evaluate where it is due; whatever ends that early, the checkpoint is written first."""
        done = self.trainer.iter + 1
        if done % self._period != 0 or done >= self.trainer.max_iter:  # the phase's is validated
            return
        try:
            with _ending_at_once():
                super().after_step()
        except BaseException:
            _save_checkpoint(self.trainer)
            raise


@contextmanager
def _ending_at_once() -> Iterator[None]:
    """Let signals end what is done in this block, also one that has come before it."""
    before, _requests.finishes_iterations = _requests.finishes_iterations, False
    try:
        if _requests.number is not None:
            raise Stopped(_requests.number)
        yield
    finally:
        _requests.finishes_iterations = before


@contextmanager
def signals_wait() -> Iterator[None]:
    """Let signals, second ones too, wait for the end of this block: it leaves nothing undone."""
    if not _is_main_thread():
        yield
        return
    _requests.is_held = True
    try:
        yield
    finally:
        _requests.is_held = False
    if _requests.is_due:
        raise Stopped(_requests.number)


def _save_checkpoint(trainer: TrainerBase) -> None:
    """Write that of the iteration that has just been done, on the main process."""
    if comm.is_main_process():
        trainer.checkpointer.save(f"model_{trainer.iter:07d}", iteration=trainer.iter)
