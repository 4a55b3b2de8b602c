"""What the history takes and gives: a run that begins, what it heard, entries of its lists.

A row that a disk has damaged is told from one that was written here by the types of its values.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar, get_type_hints

from history.request import Link, RunRequest
from reasoning.events import Answer, Event, Failed, Stopped
from reasoning.traces import LARGEST

STATE_OF = {Answer: "answered", Failed: "failed", Stopped: "stopped"}
STATES = {*STATE_OF.values(), "thinking", "interrupted"}
Value = TypeVar("Value")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Begun:
    """A run that begins. Its thread is its own id where it begins a conversation.

    `state` is "interrupted" for one that was broken off before it came here.
    """

    id: str
    asked: RunRequest
    link: Link
    owner: str
    at: float
    state: str = "thinking"


@dataclass(frozen=True, slots=True)
class Heard:
    """What a run has heard beyond its first `since` events."""

    run: str
    since: int
    events: tuple[Event, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """A run as it is listed. Times are seconds since the epoch, `ended` is 0 before the end.

    `state` is "thinking", "answered", "failed", "stopped" or "interrupted".
    """

    id: str
    question: str
    model: str
    way: str
    link: Link
    at: float
    ended: float
    state: str
    seconds: float
    waited: float
    tokens: int
    steps: int
    answer: str
    owner: str


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is that another process thinks: the number of its last event is `place`.

    The events are those after the place that was asked from; all of them where it is `whole`,
    for a step that ends takes the place of the deltas in which it came.
    """

    state: str
    place: int
    events: tuple[Event, ...]
    whole: bool


@dataclass(frozen=True, slots=True)
class Thread:
    """A conversation as it is listed; `last` is the id of its newest run, `model` that run's."""

    id: str
    name: str
    owner: str
    touched: float
    pinned: bool
    last: str
    model: str


# -- out of rows


def readable(rows: Iterable[Any], make: Callable[[Any], Value]) -> list[Value]:
    """What the rows say; those that a disk has damaged are left out, and counted in the log."""
    found, damaged = [], 0
    for row in rows:
        try:
            found.append(make(row))
        except ValueError:
            damaged += 1
    if damaged:
        _log.warning("The history has damaged rows, left out of a list: %d", damaged)
    return found


def first(values: list[Value]) -> Value | None:
    return values[0] if values else None


def entry_of(row: Any) -> Entry:
    link = Link(row.thread, row.after, row.origin, row.parts, row.how, row.together)
    names = [name for name in Entry.__slots__ if name != "link"]
    entry = Entry(link=link, **{name: getattr(row, name) for name in names})
    _check(link)
    _check(entry)
    if entry.state not in STATES:
        raise ValueError(f"expected a state of {sorted(STATES)}, got {entry.state!r}")
    return entry


def thread_of(row: Any) -> Thread:
    thread = Thread(**{name: getattr(row, name) for name in Thread.__slots__})
    _check(thread)
    return thread


def _check(value: Entry | Thread | Link) -> None:
    """Raises ValueError where a column holds what was never written there."""
    for name, kind in _KINDS[type(value)].items():
        found = getattr(value, name)
        if not isinstance(found, kind):
            raise ValueError(f"expected {name} as {kind}, got {type(found).__name__}")
        if isinstance(found, (int, float)) and not 0 <= found <= LARGEST:
            raise ValueError(f"expected {name} from 0 to {LARGEST:.0e}, got {found!r:.20}")


_KINDS = {  # the type of each field; a whole number may stand for a float
    value: {
        name: (int, float) if kind is float else kind
        for name, kind in get_type_hints(value).items()
    }
    for value in (Entry, Thread, Link)
}
