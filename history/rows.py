"""What a run heard as rows of the history: its events, and the texts that are searched."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from typing import Any

from reasoning.events import Answer, Delta, Event, Notice, Queued, Step, to_dict
from reasoning.parsing import whole_characters
from reasoning.traces import event_from_row

LONGEST_NAME = 200  # characters
PASSING = (Delta, Queued)  # what a later event makes void


def finishes(new: tuple[Event, ...]) -> bool:
    """Whether there is more than a draft going on."""
    return any(not isinstance(event, PASSING) for event in new)


def event_of(body: Any) -> Event | None:
    """The event of a row; None where a disk has damaged it."""
    try:
        return event_from_row(body)
    except (ValueError, TypeError, RecursionError):
        return None


def told_of(bodies: Sequence[Any]) -> tuple[Event, ...]:
    """The events of a run's rows, and in the place of the first damaged one how many are."""
    events = [event_of(body) for body in bodies]
    damaged = events.count(None)
    told = [event for event in events if event is not None]
    if damaged:
        told.insert(events.index(None), Notice("damaged", str(damaged)))
    return tuple(told)


def rows_of(run: int, last: int, kept: tuple[Event, ...]) -> list[dict[str, Any]]:
    """The rows of what is kept of a batch, whose last event is number `last` of its run."""
    return [
        {
            "run": run,
            "place": place,
            "draft": isinstance(event, PASSING),
            "body": json.dumps(to_dict(event)),  # ASCII: no database refuses a character of it
        }
        for place, event in enumerate(kept, last - len(kept) + 1)
    ]


def said_in(events: tuple[Event, ...]) -> list[str]:
    """What is searched."""
    steps = [f"{event.title}\n{event.content}" for event in events if isinstance(event, Step)]
    return steps + [event.content for event in events if isinstance(event, Answer)]


# -- texts


def plain(said: str) -> str:
    """The text without what a database refuses: NUL, halves of characters."""
    return whole_characters(said).replace("\x00", "\ufffd")


def sought(said: str) -> str:
    """The text as it is searched: without case, full width and half width alike."""
    return unicodedata.normalize("NFKC", plain(said)).casefold()


def name_of(said: str) -> str:
    """In one line."""
    return " ".join(said.split())[:LONGEST_NAME]
