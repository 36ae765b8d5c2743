"""How a run was made: machine and versions, settings."""

from __future__ import annotations

import re
from typing import Any

from detectron2.config import CfgNode, get_cfg

from d2_ssod.config import add_ssod_config, flat_keys

from .collect import Phase, Run

_OF_PLACES = ("OUTPUT_DIR", "SSOD.REGISTER", "VERSION")


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
    """List what the guards have said of the labels and models that there are now."""
    said: dict[tuple[str, str], str] = {}
    of_new: dict[tuple[str, str], str] = {}  # of labels, before the event that they are made
    for event in run.history:
        kind, name = (str(event.get(key)) for key in ("event", "name"))
        phase = str(event.get("phase", _phase_in(event)))
        if kind == "started":  # what was said before may have stopped the run
            said, of_new = said | of_new, {}
        elif kind == "labeled":
            said = {key: text for key, text in said.items() if key[0] != phase} | of_new
            of_new = {}
        elif kind == "guard":
            noted = said if name == "VALIDATION" else of_new
            noted[phase, name] = str(event.get("text"))
    said |= of_new
    return [
        f"Before its labels were changed: {text}"
        if name != "VALIDATION" and _were_changed(phase)
        else text
        for phase in run.phases
        for (number, name), text in said.items()
        if number == str(phase.number)
        and (name != "VALIDATION" or _is_worse_than_before(run, phase))
    ]


def _phase_in(event: dict[str, Any]) -> str | None:
    """Find the phase in what a guard has said, which earlier versions noted there alone."""
    said = re.match(r"Phase (\d+): ", str(event.get("text")))
    return said and said[1]


def _were_changed(phase: Phase) -> bool:
    """Tell whether a person has changed the phase's labels in place."""
    return phase.labels is not None and phase.labels.were_changed


def _is_worse_than_before(run: Run, phase: Phase) -> bool:
    """Tell whether the validation images say so, as far as they judge both now."""
    before = run.phases[phase.number - 1]
    aps = [(of.validation or {}).get("AP") for of in (before, phase)]
    return None in aps or aps[1] < aps[0] - run.cfg.SSOD.GUARD.VALIDATION_DROP
