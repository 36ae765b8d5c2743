"""How a run was made: its steps and their time, machine and versions, settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from detectron2.config import CfgNode, get_cfg

from d2_ssod.config import add_ssod_config, flat_keys
from d2_ssod.limits import is_number

from .collect import Run

_OF_PLACES = ("OUTPUT_DIR", "SSOD.REGISTER", "VERSION")


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


def duration(seconds: float) -> str:
    """Write seconds for people."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def changed_settings(cfg: CfgNode) -> list[tuple[str, str, str]]:
    """List the keys whose values are not the defaults: key, value, default."""
    defaults = get_cfg()
    add_ssod_config(defaults)
    before = dict(flat_keys(defaults))
    return [
        (key, str(value), str(before.get(key, "")))
        for key, value in flat_keys(cfg)
        if value != before.get(key) and key not in _OF_PLACES
    ]


def starts_of(run: Run) -> list[dict[str, Any]]:
    """List the different environments in which the run was started."""
    starts: list[dict[str, Any]] = []
    for event in run.history:
        if event.get("event") == "started":
            known = {k: v for k, v in event.items() if k not in ("time", "event")}
            if known not in starts:
                starts.append(known)
    return starts


def guards_of(run: Run) -> list[str]:
    """List what the guards have said, each once."""
    said = (e.get("text") for e in run.history if e.get("event") == "guard")
    return list(dict.fromkeys(text for text in said if isinstance(text, str)))
