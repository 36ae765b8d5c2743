"""How a group of processes ends, in one line: that of the process that ended first."""

from __future__ import annotations

import atexit
import contextlib
import errno
import logging
import multiprocessing
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, TextIO

from detectron2.utils import comm
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

from d2_ssod.errors import one_line

from .interruption import INTERRUPTED, PREEMPTED, Stopped, hold_signals
from .logs import record_traceback

USER_ERROR = 2  # exit code; the process that had it has said it
_FAULT = 1  # exit code
_FIRST_IS_HEARD = 5.0  # seconds
_ENDS_WITH_LAUNCHER = 600.0  # seconds, for ten iterations and a checkpoint


def say_stopped(number: int) -> None:
    """Say that a signal ended the run."""
    name = signal.Signals(number).name
    say(f"stopped by {name}: what was done is kept, go on with --resume")


def say_once(error: str) -> None:
    """Say an error that the other processes of this machine may have, too.

    The first of them says it at once and ends, which ends the others. What is not ended by then is
    alone with its error, and says that.
    """
    if comm.get_local_rank() == 0:
        say(f"error: {error}")
        return
    time.sleep(_FIRST_IS_HEARD)
    say(f"error: rank {comm.get_rank()}: {error}")


def end_of_group(
    error: ProcessExitedException | ProcessRaisedException,
    first: int,
    asked: int | None,
    log: Path,
) -> NoReturn:
    """End the launcher as its processes ended.

    Args:
        error: of the process that ended first; there are none left.
        first: the rank of the first process of this machine.
        asked: the signal that the launcher has handed on; None if there was none.
        log: of the run; it gets the traceback.
    """
    code = error.exit_code if isinstance(error, ProcessExitedException) else _FAULT
    if code == USER_ERROR:
        sys.exit(code)
    if asked is None and code in (PREEMPTED, INTERRUPTED):  # it was sent to a process alone
        asked = signal.SIGINT if code == INTERRUPTED else signal.SIGTERM
    if asked is not None:
        say_stopped(asked)
        raise Stopped(asked)
    rank = first + error.error_index
    if isinstance(error, ProcessRaisedException):
        say(f"error: rank {rank}: {_reason(error)}{_keep(str(error), rank, log)}")
    else:
        pid = error.error_pid if hasattr(error, "error_pid") else error.pid  # of older PyTorch
        say(f"error: rank {rank} (process {pid}) {_way(error)}; go on with --resume")
    sys.exit(_FAULT)


def _reason(error: ProcessRaisedException) -> str:
    """Take the error of the traceback, whose frames are indented and whose text may not be."""
    lines = str(error).rstrip().splitlines()
    frames = [number for number, line in enumerate(lines) if line.startswith("  File ")]
    text = lines[frames[-1] + 1 :] if frames else lines
    return " ".join(" ".join(line for line in text if line and line[0] != " ").split())


def _way(error: ProcessExitedException) -> str:
    """Tell how a process ended that has said nothing."""
    if error.signal_name == "SIGKILL":
        return "was killed (SIGKILL), as the system does where memory is short"
    if error.signal_name:
        return f"ended by {error.signal_name}"
    return f"ended with exit code {error.exit_code}"


def _keep(traceback: str, rank: int, log: Path) -> str:
    """Add the traceback to the log, if there is one; tell where it is."""
    if not log.exists():
        return f"\n{traceback}"
    try:
        with open(log, "a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"Rank {rank}:{traceback}\n")
    except OSError:
        return f"\n{traceback}"
    return f" (traceback in {log})"


def run_to_the_end(function: Callable[[], object]) -> NoReturn:
    """Call ``function`` in a process of the group, which ends as it does, with no more of Python.

    A thread of gloo may be about to release the tensors of the last collective. Where it does that
    while Python is finalized, it aborts the process, whatever that has done.

    Args:
        function: may end with ``SystemExit``; other errors are the caller's.
    """
    code: object = 0
    try:
        try:
            function()
        finally:
            hold_signals()
    except SystemExit as end:
        code = end.code or 0
    except Exception:
        # PyTorch keeps it for the launcher. Then Python would be finalized.
        atexit._run_exitfuncs()
        atexit.register(_end_at_once)
        raise
    if not isinstance(code, int):  # then it is what there is to say
        say(str(code))
        code = _FAULT
    atexit._run_exitfuncs()
    _end_at_once(code)


def _end_at_once(code: int = _FAULT) -> NoReturn:
    flush_streams()
    os._exit(code)


def end_with_launcher() -> None:
    """Have this process end some time after the launcher was killed that has started it.

    PyTorch sends it a ``SIGINT`` then, after which it ends, with a checkpoint if it trains; but not
    if it waits, outside of Python, for one that has done so or hangs. It would keep its GPU.
    """
    threading.Thread(target=_outlive_launcher, name="launcher", daemon=True).start()


def _outlive_launcher() -> None:
    multiprocessing.parent_process().join()
    time.sleep(_ENDS_WITH_LAUNCHER)
    log = logging.getLogger(__name__)
    log.error(
        "the launcher was killed %.0f s ago, and this process waits or works since: it ends",
        _ENDS_WITH_LAUNCHER,
    )
    _end_at_once()


def flush_streams() -> None:
    """Flush stdout and stderr, and redirect those that nobody reads any more to /dev/null.

    Otherwise Python would fail to flush them as it exits, and end with code 120.
    """
    for stream in (sys.stdout, sys.stderr):
        if stream is None:
            continue
        try:
            stream.flush()
        except ValueError:  # it is closed
            continue
        except OSError as error:
            if error.errno in (errno.EPIPE, errno.EIO):
                _let_go(stream)


def is_read(stream: TextIO | None) -> bool:
    """Tell whether somebody may still read a stream; False of a pipe that is closed at its end."""
    try:
        watched = select.poll()
        watched.register(stream.fileno(), select.POLLOUT)
    except (AttributeError, OSError, ValueError):  # it is none of the system's, or closed here
        return True
    return not any(state & (select.POLLERR | select.POLLHUP) for _, state in watched.poll(0))


def _let_go(stream: TextIO) -> None:
    with contextlib.suppress(OSError), open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


def end_of_rank(error: Exception) -> NoReturn:
    """End one of the processes that somebody else has started; without a launcher of ours."""
    record_traceback()
    say(f"error: rank {comm.get_rank()}: {type(error).__name__}: {one_line(error)}")
    sys.exit(_FAULT)


def say(line: str) -> None:
    """Say a line on stderr, if anybody reads it."""
    with contextlib.suppress(OSError):  # nobody reads it any more
        print(line, file=sys.stderr)
