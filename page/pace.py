"""How often a run that is followed is drawn: the less often, the more are followed at once.

One process draws for all, and Python runs one thread of it at a time: what drawing takes is
missing where the models' words are read. Together it may take a share of the time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

OFTEN, SELDOM = 0.05, 0.5  # seconds between two drawings of a session
SHARE = 0.2  # of the time, for all drawing; to send what was drawn takes as much again
WEIGHT = 0.1  # of the newest drawing in the mean


class Pace:
    """Shared by all sessions of the process; `clock` counts the seconds that a thread works."""

    def __init__(self, clock: Callable[[], float] = time.thread_time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._followers = 0
        self._cost = 0.0  # seconds of work that a drawing takes, in the mean

    @property
    def seconds(self) -> float:
        """The time between two drawings of a session, as it is now."""
        return min(SELDOM, max(OFTEN, self._followers * self._cost / SHARE))

    @contextmanager
    def following(self) -> Iterator[None]:
        """While a session follows a run."""
        self._count(1)
        try:
            yield
        finally:
            self._count(-1)

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """One drawing; what it takes is learnt."""
        began = self._clock()
        yield
        self._cost += WEIGHT * (self._clock() - began - self._cost)

    def _count(self, more: int) -> None:
        with self._lock:
            self._followers += more
