"""One run at a time in an output folder: two would leave a mixture of both."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import platform
import sys
import time
from pathlib import Path
from typing import IO

from d2_ssod.errors import ConfigError

_NAME = "run.lock"
_PATIENCE = 10.0  # seconds; workers of a run that was killed may outlive it by some
_PATIENCE_FAR = 150.0  # for a machine that is gone: NFS keeps its locks for a while, 90 by default
_MOST_RENAMES = 4  # times; as many runs may begin anew while one is waited for
_held: dict[Path, IO[str]] = {}  # by this process, until it ends


def lock_folder(folder: str | os.PathLike, patience: float | None = None) -> None:
    """Take a folder, which is made if it does not exist, for this process until it ends.

    The lock is the system's (``flock``), so that of a process that was killed is gone with it.
    Where the file system has none, nothing is locked. It moves with the folder if that is renamed.

    Args:
        folder: of a run.
        patience: seconds to wait for a process that has it; by default some, and more for one of
            another machine, of which a scheduler may have moved the run here.

    Raises:
        ConfigError: another process has it, named with its machine.
    """
    path = Path(os.path.abspath(folder)) / _NAME
    release_folder(folder)  # of an earlier run in this process
    file = _locked(path, patience)
    # Where a file has another number each time it is asked for, the lock is all there is.
    for _ in range(_MOST_RENAMES):
        if _lies_at(path, file):
            break
        file.close()  # The folder was renamed meanwhile, and its lock with it.
        file = _locked(path, patience)
    file.truncate(0)
    file.write(f"process {os.getpid()} on {platform.node()}\n")
    file.flush()
    _held[path] = file


def _locked(path: Path, patience: float | None) -> IO[str]:
    """Open the file, and wait for each other process that has it as long as it is worth."""
    Path(os.path.realpath(path.parent)).mkdir(parents=True, exist_ok=True)
    file = open(path, "a+", encoding="utf-8")  # noqa: SIM115  held until the process ends
    begin = time.monotonic()
    while not _is_ours(file):
        owner = _owner(file)
        if patience is None:
            patience = _patience_with(owner, path)
        if time.monotonic() >= begin + patience:
            file.close()
            raise ConfigError(
                f"OUTPUT_DIR {path.parent} is in use by {owner}; choose another folder, or wait "
                "until that run has ended"
            )
        time.sleep(0.2)
    return file


def _lies_at(path: Path, file: IO[str]) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def _owner(file: IO[str]) -> str:
    file.seek(0)
    return " ".join(file.read().split()) or "another process"


def _patience_with(owner: str, path: Path) -> float:
    _, on, host = owner.partition(" on ")
    if not on or host == platform.node():
        return _PATIENCE
    with contextlib.suppress(OSError):  # nobody reads it
        print(
            f"{path} is held by {owner}; if that machine is gone, its lock ends by itself: waiting "
            f"up to {_PATIENCE_FAR:.0f} s",
            file=sys.stderr,
        )
    return _PATIENCE_FAR


def release_folder(folder: str | os.PathLike) -> None:
    """Give the folder back, if this process has it."""
    held = _held.pop(Path(os.path.abspath(folder)) / _NAME, None)
    if held is not None:
        held.close()


def _is_ours(file: IO[str]) -> bool:
    """Try to take the lock; also true where there are none."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)
    return True
