"""What differs between the settings of before and now, and that this is refused."""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode

from d2_ssod.errors import ConfigError


def differences_between(made: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Tell of each key that differs what it was and is.

    A key that only one of them has is of another version of this package, and not compared.
    """
    return [
        f"{key} was {value!r} and is {now[key]!r}"
        for key, value in made.items()
        if key in now and value != now[key]
    ]


_REMEDY = "set them back, start anew without --resume"


def refuse(cfg: CfgNode, problem: str, differences: list[str], remedy: str = _REMEDY) -> None:
    """Raise an error if there are differences, unless they are wanted.

    Args:
        cfg: of the run.
        problem: what differs from what.
        differences: each of them.
        remedy: what to do, besides mixing both.
    """
    if not differences or cfg.SSOD.RESUME_ANYWAY:
        return
    more = f" and {len(differences) - 3} more" if len(differences) > 3 else ""
    raise ConfigError(
        f"{problem}: {'; '.join(differences[:3])}{more}; {remedy}, or set SSOD.RESUME_ANYWAY to "
        "True to mix both"
    )
