"""How far a long transfer or conversion is: one bar over all its bytes, and the time left."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from serving.report import Report

GB = 10**9
CELLS = 20  # of the bar


class _Halted(BaseException):
    """Ends a transfer from within. Not an Exception: the clients try again after those."""


class Progress:
    """Counts bytes from several threads and shows now and then how far it is.

    `total` is in bytes. With `begun` of them there already, the bar starts there, and the speed is
    that of the rest.
    """

    def __init__(
        self,
        total: int,
        report: Report,
        clock: Callable[[], float] = time.monotonic,
        begun: int = 0,
    ) -> None:
        self._total = total
        self._report = report
        self._clock = clock
        self._lock = threading.Lock()
        self._done = self._before = self._begun = begun
        self._started = self._shown = clock()
        self._halted = False

    def add(self, size: int) -> None:
        if self._halted:
            raise _Halted
        with self._lock:
            now = self._clock()
            if self._done == self._begun:  # what came before the first bytes says nothing of speed
                self._before, self._started = self._done + size, now
            self._done += size
            if now - self._shown < self._report.pace:
                return
            self._shown = now
            self._report.bar(self._line(now - self._started))

    def reach(self, done: int) -> None:
        """`done` bytes of all are there now."""
        self.add(done - self._done)

    def halt(self) -> None:
        self._halted = True

    def _line(self, seconds: float) -> str:
        rate = (self._done - self._before) / seconds if seconds > 0 else 0.0
        left = f", {_minutes((self._total - self._done) / rate)} left" if rate > 0 else ""
        speed = f", {rate / 1e6:.1f} MB/s" if rate > 0 else ""
        return f"[{self._bar()}] {self._done / GB:.2f} of {self._total / GB:.2f} GB{speed}{left}"

    def _bar(self) -> str:
        full = min(CELLS, CELLS * self._done // max(1, self._total))
        return "#" * full + "-" * (CELLS - full)


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{max(seconds, 0):.0f} s"
