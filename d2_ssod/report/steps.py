"""What a run has done, and how long it took, from its history."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from d2_ssod.limits import is_number


@dataclass(frozen=True)
class Step:
    """A step of the run, over all its starts.

    Attributes:
        title: what was done.
        seconds: how long it took.
        image_passes: images that were trained on, each time counted; 0 for other steps.
    """

    title: str
    seconds: float
    image_passes: int


def steps_of(history: Sequence[dict[str, Any]]) -> list[Step]:
    """Add up the steps of a run's history, in the order in which they first ended."""
    steps: dict[str, Step] = {}
    for event in history:
        title = _title(event)
        seconds = event.get("seconds")
        counts = [event.get(name, 0) for name in ("iterations", "images_per_batch")]
        if title is None or not all(map(is_number, (seconds, *counts))):
            continue
        passes = int(counts[0]) * int(counts[1])
        before = steps.get(title, Step(title, 0.0, 0))
        steps[title] = Step(title, before.seconds + seconds, before.image_passes + passes)
    return list(steps.values())


def _title(event: dict[str, Any]) -> str | None:
    phase, data = event.get("phase"), event.get("data")
    return {
        "trained": f"phase {phase}: training",
        "predicted": f"phase {phase}: prediction on the {data} images",
        "labeled": f"phase {phase}: labels from the predictions",
        "evaluated": f"evaluation on {data}",
    }.get(str(event.get("event")))
