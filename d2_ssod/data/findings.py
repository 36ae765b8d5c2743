"""What readers and checks find in a user's data: place, what, remedy; gathered, then acted on."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

from d2_ssod.errors import ConfigError, shortened

logger = logging.getLogger(__name__)

Level = Literal["error", "warning"]
_KEPT = 10_000  # cases of each kind; others are counted


@dataclass(frozen=True)
class Finding:
    """Something that is wrong (an error) or odd (a warning) about data; alike ones are one finding.

    Attributes:
        level: an error cannot be trained or evaluated with, a warning can.
        place: file or config key; empty if the case names it.
        kind: names what all of its cases have in common.
        cases: sentences on the first cases, such as "annotation 7 of image a.png has no bbox".
        remedy: what to do.
        count: number of cases.
    """

    level: Level
    place: str
    kind: str
    cases: tuple[str, ...]
    remedy: str
    count: int

    def __str__(self) -> str:
        """Say it in one line: place, the first case, how many more, and what to do."""
        more = f" (and {self.count - 1} more: {self.kind})" if self.count > 1 else ""
        place = f"{self.place}: " if self.place else ""
        remedy = f"; {self.remedy}" if self.remedy else ""
        # Names may have line breaks.
        return shortened(" ".join(f"{place}{self.cases[0]}{more}{remedy}".split()))


class Findings:
    """Gathers findings; those of one level, place and kind become one."""

    def __init__(self, findings: Iterable[Finding] = ()) -> None:
        self._by_kind: dict[tuple[Level, str, str], _Kind] = {}
        self.extend(findings)

    def error(self, place: str, kind: str, case: str, remedy: str) -> None:
        """Add one case of what cannot be used; the arguments as in :class:`Finding`."""
        self._add(Finding("error", str(place), kind, (case,), remedy, 1))

    def warning(self, place: str, kind: str, case: str, remedy: str) -> None:
        """Add one case of what is odd."""
        self._add(Finding("warning", str(place), kind, (case,), remedy, 1))

    def extend(self, findings: Iterable[Finding]) -> None:
        """Add findings that were made elsewhere."""
        for finding in findings:
            self._add(finding)

    def __iter__(self) -> Iterator[Finding]:
        """Yield the findings in the order in which they were made."""
        for kind in self._by_kind.values():
            yield replace(kind.first, cases=tuple(kind.cases), count=kind.count)

    def __len__(self) -> int:
        return len(self._by_kind)

    @property
    def has_errors(self) -> bool:
        """Tell whether anything was found that cannot be used."""
        return any(level == "error" for level, _, _ in self._by_kind)

    def _add(self, new: Finding) -> None:
        kind = self._by_kind.setdefault((new.level, new.place, new.kind), _Kind(new))
        kind.cases += new.cases[: _KEPT - len(kind.cases)]
        kind.count += new.count


@dataclass
class _Kind:
    """Findings that are one: the first of them, and the cases of all."""

    first: Finding
    cases: list[str] = field(default_factory=list)
    count: int = 0


def raise_first(findings: Iterable[Finding]) -> None:
    """Log the warnings, each once in a process, and stop at the first error.

    Raises:
        ConfigError: the first error, and how many more there are.
    """
    found = list(findings)
    for finding in found:
        if finding.level == "warning":
            _warn_once(str(finding))
    errors = [finding for finding in found if finding.level == "error"]
    if errors:
        more = len(errors) - 1
        kinds = f" ({more} more kinds of errors: `python -m d2_ssod check` lists all)"
        raise ConfigError(f"{errors[0]}{kinds if more else ''}")


@functools.cache
def _warn_once(line: str) -> None:
    logger.warning("%s", line)
