"""One progress bar with the time left, on the main process only."""

import contextlib
import sys
from collections.abc import Iterable
from typing import Any, TypeVar

from detectron2.utils import comm
from tqdm import tqdm

T = TypeVar("T")


class _IfRead:
    """Stderr, but nothing where it was a pipe whose reader has gone: the work goes on."""

    def write(self, text: str) -> None:
        """Write, if anybody reads."""
        with contextlib.suppress(OSError):
            sys.stderr.write(text)

    def flush(self) -> None:
        """Flush, if anybody reads."""
        with contextlib.suppress(OSError):
            sys.stderr.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)


def progress_bar(items: Iterable[T], *, description: str, total: int | None = None) -> Iterable[T]:
    """Iterate over ``items`` and show on stderr how far it is and how long it will take.

    Args:
        items: what to iterate over.
        description: what is being done, shown before the bar.
        total: number of items; their length by default.

    Returns:
        An iterable over ``items``; silent on every process but the main one.
    """
    return tqdm(
        items,
        desc=description,
        total=total,
        disable=not comm.is_main_process(),
        file=_IfRead(),
        dynamic_ncols=True,
        # A log file keeps every state of the bar: there, show it rarely.
        mininterval=0.2 if sys.stderr.isatty() else 20.0,
    )
