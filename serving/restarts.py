"""A server that ends is started again: after longer and longer pauses, and not for ever."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from serving.catalogue import ROOT
from serving.processes import Service
from serving.report import Report

MOST = 5  # times
WITHIN = 600.0  # seconds; what ends more often will end again
FIRST_PAUSE = 1.0  # seconds, doubled each time


class Died(Exception):
    """A server has ended, after so many starts anew, and is not started again."""

    def __init__(self, service: Service, starts: int = 0) -> None:
        super().__init__(service.name)
        self.service, self.starts = service, starts


@dataclass(slots=True)
class Restarter:
    """Watches one server that has answered, and starts it again."""

    service: Service
    report: Report
    clock: Callable[[], float] = time.monotonic
    starts: list[float] = field(default_factory=list)
    due: float | None = None  # when it is started again; None while it runs
    silent: bool = False  # it was started again and has not answered yet

    def look(self) -> None:
        """Does what is due, and waits for nothing. Raises Died where it ended too often."""
        now = self.clock()
        if self.due is not None:
            if now >= self.due:
                self._start(now)
        elif self.service.status is not None:
            self._plan(now)
        elif self.silent and self.service.answers():
            self.silent = False
            self.report.say(f"{self.service.name} answers again.")

    def _plan(self, now: float) -> None:
        recent = [start for start in self.starts if now - start < WITHIN]
        self.starts = self.starts if self.silent else recent  # a large model takes minutes to fail
        pause = pause_before(len(self.starts))
        if pause is None:
            raise Died(self.service, len(self.starts))
        tell_end(self.service, self.report)
        count = f"{len(self.starts) + 1} of at most {MOST} times in {WITHIN / 60:.0f} minutes"
        self.report.say(f"It is started again in {pause:g} s ({count}).")
        self.due = now + pause

    def _start(self, now: float) -> None:
        self.starts.append(now)
        self.due, self.silent = None, True
        self.service.start_again()


def pause_before(starts: int) -> float | None:
    """Seconds before the next start, after so many of late; None where these were enough."""
    return FIRST_PAUSE * 2.0**starts if starts < MOST else None


def tell_end(service: Service, report: Report) -> None:
    """What is known of a server's end."""
    failure = service.failure()
    report.say(f"{service.name} {failure.what}.{' It said last:' if failure.lines else ''}")
    for line in failure.lines:
        report.say(f"    {line}")
    if failure.advice:
        report.say(failure.advice)
    report.say(f"The whole log: {display_path(service.log)}")


def display_path(path: Path) -> str:
    """A path as a person would type it here."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)
