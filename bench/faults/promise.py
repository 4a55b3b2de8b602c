"""A promise, how hard it is tried, and what came of that."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field

SHOWN = 20  # failures that are told one by one; more say nothing new


def escaped(error: BaseException) -> str:
    """The problem with an error that nobody named: that there is one is what is looked for."""
    return f"escaped: {error!r}"[:200]


@dataclass(frozen=True, slots=True)
class Effort:
    """How hard to try: all that the promise names, or (`quick`) what a few minutes allow.

    `minutes` is how long a soak lasts.
    """

    quick: bool
    minutes: float

    def of(self, full: int, quick: int) -> int:
        return quick if self.quick else full


@dataclass(slots=True)
class Tally:
    """What was tried and did not hold, and what was measured on the way."""

    tried: int = 0
    failed: int = 0
    broken: list[str] = field(default_factory=list)  # the first of what failed, a line each
    figures: list[str] = field(default_factory=list)

    def note(self, what: str, problems: str = "", times: int = 1) -> None:
        """A try, or several that are judged together; they held where there is no problem."""
        self.tried += times
        if problems:
            print(f"  failed: {what}: {problems}", file=sys.stderr, flush=True)
            self.failed += times
            self.broken += [f"{what}: {problems}"][: SHOWN - len(self.broken)]

    def tell(self, figure: str) -> None:
        self.figures.append(figure)

    def add(self, other: Tally) -> None:
        self.tried += other.tried
        self.failed += other.failed
        self.broken += other.broken[: max(0, SHOWN - len(self.broken))]
        self.figures += other.figures


@dataclass(frozen=True, slots=True)
class Promise:
    """`says` is one sentence; `keep` tries it and notes what came of each try."""

    says: str
    keep: Callable[[Effort, Tally], None]
