"""``history.jsonl``: what the run did, when, and how long it took; a line for each event."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any

from detectron2.utils import comm

from d2_ssod.json_files import read_json_lines, write_json_line

from .layout import RunFolder


def record_event(folder: RunFolder, event: str, **values: Any) -> None:
    """Add an event; only the main process does.

    Args:
        folder: of the run.
        event: what happened: ``started``, ``trained``, ``predicted``, ``labeled``, ``paused``,
            ``evaluated``, or ``guard``, which is what one has said.
        values: what else is known of it.
    """
    if not comm.is_main_process():
        return
    folder.root.mkdir(parents=True, exist_ok=True)
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    with open(folder.history, "a", encoding="utf-8") as file:
        write_json_line(file, {"time": now, "event": event, **values})


@contextmanager
def timed_event(folder: RunFolder, event: str, **values: Any) -> Iterator[None]:
    """Add an event once the block has ended without an error, with the ``seconds`` that it took."""
    began = time.perf_counter()
    yield
    record_event(folder, event, **values, seconds=round(time.perf_counter() - began, 1))


def read_history(folder: RunFolder) -> list[dict[str, Any]]:
    """Read all events, oldest first; none if there is no such file."""
    if not folder.history.exists():
        return []
    return [line for line in read_json_lines(folder.history) if isinstance(line, dict)]
