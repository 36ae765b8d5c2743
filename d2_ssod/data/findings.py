"""What readers and checks find in a user's data: place, what, remedy; gathered, then acted on."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from d2_ssod.errors import ConfigError, shortened

logger = logging.getLogger(__name__)

Level = Literal["error", "warning"]
_EXAMPLES = 20  # kept of each kind


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
        self._by_kind: dict[tuple[Level, str, str], Finding] = {}
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
        return iter(self._by_kind.values())

    def __len__(self) -> int:
        return len(self._by_kind)

    @property
    def has_errors(self) -> bool:
        """Tell whether anything was found that cannot be used."""
        return any(finding.level == "error" for finding in self)

    def _add(self, new: Finding) -> None:
        key = (new.level, new.place, new.kind)
        known = self._by_kind.get(key)
        if known is not None:
            cases = (*known.cases, *new.cases)[:_EXAMPLES]
            new = replace(known, cases=cases, count=known.count + new.count)
        self._by_kind[key] = new


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
