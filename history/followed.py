"""A run that another process thinks: what the store has of it is read while somebody looks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from history.entries import Entry, Progress
from history.request import RunRequest
from history.rows import PASSING
from history.run import Run
from reasoning.events import Delta, Event
from reasoning.traces import compact

LOOK = 0.3  # seconds between two looks at the store, however many people look on
Look = Callable[[int], Progress]


class Followed(Run):
    """As a run of this process, for who looks at it. It ends here when it does there, or dies.

    `look` gives what the store has beyond an event's number, `age` is how many seconds ago it
    began. Whoever asks for its events, or whether it has ended, has the store looked at.
    """

    def __init__(
        self,
        asked: RunRequest,
        entry: Entry,
        look: Look,
        age: float,
        *,
        every: float = LOOK,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(asked, entry.link, entry.owner, id=entry.id, now=now)
        self.written = 0
        self._began = now() - max(0.0, age)
        self._look, self._every = look, every
        self._looked = now()
        self._looking = threading.Lock()
        self._place = 0
        self._known: tuple[Event, ...] = ()
        self._learn(look(0))
        self._waits = [(began - wait, wait) for began, wait in self._waits]  # they are over

    @property
    def ended(self) -> bool:
        self._look_again()
        return super().ended

    def events(self, since: int, timeout: float = 0.0) -> tuple[Event, ...]:
        self._look_again()
        return super().events(since, timeout)

    def _look_again(self) -> None:
        """If nobody else does, and none did of late."""
        if self.over or not self._looking.acquire(blocking=False):
            return
        try:
            if self._now() - self._looked >= self._every:
                self._learn(self._look(self._place))
                self._looked = self._now()
        finally:
            self._looking.release()

    def _learn(self, progress: Progress) -> None:
        new = progress.events
        if progress.whole:
            new = later_events(self._known, progress.events)
        self._place = progress.place
        self._known = compact((*self._known, *new))
        for event in new:
            self.hear(event)
        if progress.state != "thinking":
            self.close()
        self.show()


def later_events(known: Sequence[Event], now: Sequence[Event]) -> tuple[Event, ...]:
    """What is to be heard after `known` to have `now`. Both are compact.

    What is no draft stays, and in its order. So the two part after the last of `known`: there
    a draft of it may have grown, or be void by what follows.
    """
    solid = sum(map(_is_solid, known))
    drafts, rest = _after(known, solid), _after(now, solid)
    while drafts and rest and drafts[0] == rest[0]:
        drafts, rest = drafts[1:], rest[1:]
    if drafts and rest and (grown := _growth(drafts[0], rest[0])):
        return (grown, *rest[1:])
    return tuple(rest)


def _is_solid(event: Event) -> bool:
    return not isinstance(event, PASSING)


def _after(events: Iterable[Event], solid: int) -> Sequence[Event]:
    """The events behind the first so many that are no drafts."""
    rest = list(events)
    for _ in range(solid):
        while rest and not _is_solid(rest.pop(0)):
            pass
    return rest


def _growth(before: Event, now: Event) -> Event | None:
    """What was added to the text of a delta."""
    if not isinstance(before, Delta) or not isinstance(now, Delta) or now.part == "action":
        return None
    same = (before.number, before.part) == (now.number, now.part)
    if not same or not now.text.startswith(before.text):
        return None
    return replace(now, text=now.text[len(before.text) :])
