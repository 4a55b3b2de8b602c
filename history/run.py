"""A run: one question and all that happened since.

An event is heard first, on the loop where the run thinks; it is shown when the recorder
says so. Whoever reads a run sees what is shown, and may wait for more.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from history.entries import Begun, Heard
from history.request import Link, RunRequest
from reasoning.events import ENDS, Event, Queued, Retry, Trace


def new_id() -> str:
    """Nobody can guess it."""
    return secrets.token_urlsafe(16)


class Run:
    """One question and its events. Its clock stands still while it waits for a retry.

    A run that was thought before, and is only shown here, has no clock: `past`.
    """

    def __init__(
        self,
        asked: RunRequest,
        link: Link = Link(),
        owner: str = "",
        *,
        id: str = "",
        past: bool = False,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.id = id or new_id()
        self.asked = asked
        self.link = replace(link, thread=link.thread or self.id)
        self.owner = owner
        self.written = -1  # how many events are in the store; -1: not even that it began
        self.refused = False  # the store cannot take it
        self._at = time.time()
        self.past = past
        self._events: list[Event] = []
        self._shown = 0  # of the events
        self._over = False
        self._changed = threading.Condition()
        self._now = now
        self._began = self._ended = now()
        self._waits: list[tuple[float, float]] = []  # when it began, how long it is
        self._away: float | None = None  # since when the server does not answer
        self._queued = Queued(0)

    # -- for who looks at it

    @property
    def question(self) -> str:
        return self.asked.question

    @property
    def trace(self) -> Trace:
        with self._changed:
            return Trace(tuple(self._events[: self._shown]))

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        with self._changed:
            return self._over and self._shown == len(self._events)

    def events(self, since: int, timeout: float = 0.0) -> tuple[Event, ...]:
        """The events from number `since` on; waits up to `timeout` seconds for one."""
        with self._changed:
            self._changed.wait_for(lambda: self._shown > since, timeout)
            return tuple(self._events[since : self._shown])

    def seconds(self) -> float:
        """The thinking time so far, without the waits before retries."""
        if self.past:
            return self.trace.seconds
        end = self._ended if self._over else self._now()
        waited = sum(min(wait, end - began) for began, wait in self._waits)
        before = sum(step.seconds for step in self.asked.steps)
        return before + max(0.0, end - self._began - waited)

    def waiting(self) -> float:
        """For how many seconds the server has not answered; 0 where the run waits for none."""
        away = self._away
        return 0.0 if self._over or away is None else self._now() - away

    @property
    def queued(self) -> Queued:
        """Its place in the queue of a full server; 0 where it waits in none."""
        return Queued(0) if self._over else self._queued

    # -- for who thinks it and who writes it

    @property
    def heard(self) -> Trace:
        """All that was heard; some of it may not be shown yet."""
        with self._changed:
            return Trace(tuple(self._events))

    @property
    def over(self) -> bool:
        """Whether its end was heard; it may not be shown yet."""
        return self._over

    @property
    def begun(self) -> Begun:
        broken = self.past and self.heard.end is None
        state = "interrupted" if broken else "thinking"
        return Begun(self.id, self.asked, self.link, self.owner, self._at, state)

    @property
    def unfinished(self) -> float:
        """The seconds of thinking that no event has counted."""
        return max(0.0, self.seconds() - self.heard.seconds)

    @property
    def unwritten(self) -> Heard:
        """What the store does not have yet."""
        with self._changed:
            since = max(0, self.written)
            return Heard(self.id, since, tuple(self._events[since:]))

    @property
    def settled(self) -> bool:
        """Whether it is over and nothing of it is left to write."""
        with self._changed:
            return self._over and self.written == len(self._events)

    def hear(self, event: Event) -> None:
        """One more event. Nothing follows an end."""
        with self._changed:
            if self._over:
                return
            waits = isinstance(event, Retry) and event.wait > 0
            self._queued = event if isinstance(event, Queued) else Queued(0)
            self._away = (self._away or self._now()) if waits else None
            if isinstance(event, Retry):
                self._waits.append((self._now(), event.wait))
            self._ended = self._now()
            self._events.append(event)
            self._over = isinstance(event, ENDS)

    def close(self) -> None:
        """Nothing more will be heard, whether there was an end or not."""
        self._over = True

    def show(self, events: int | None = None) -> None:
        """Shows the first `events` of them; None: all that was heard."""
        with self._changed:
            self._shown = len(self._events) if events is None else max(self._shown, events)
            self._changed.notify_all()
