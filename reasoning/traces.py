"""A run as JSON and back: what is exported, imported and printed by the terminal. Pure.

The deltas are left out: a finished step or answer holds their text whole. What had been
written of a step that was never finished is kept as one delta a part. What comes in is
looked at to the last field, so that nothing later stumbles over it.

    python -m reasoning.traces      prints the format's JSON Schema (docs/trace.schema.json)
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from reasoning.events import (
    ENDS,
    KINDS,
    Answer,
    Delta,
    Event,
    Queued,
    Retry,
    Started,
    Step,
    Trace,
    from_dict,
    is_tentative,
    to_dict,
    voids_tentative,
)
from reasoning.parsing import printable

LONGEST_TEXT = 1_000_000  # characters of one text; a page must survive whatever is brought to it
LARGEST = 10**11  # of seconds and tokens: as a time this is the year 5138
FIGURES = {
    "seconds": "The total thinking time: the model's time.",
    "waited": "Seconds of waiting before retries.",
    "tokens": "Completion tokens of all steps and the answer.",
}


def compact(events: Iterable[Event]) -> tuple[Event, ...]:
    """The events without the deltas that a later event made superfluous."""
    kept: list[Event] = []
    for event in events:
        if isinstance(event, (Step, Answer, Retry)):
            kept = _joined(old for old in kept if not _told_by(event, old))
        _add(kept, event)
    return tuple(kept)


def _joined(events: Iterable[Event]) -> list[Event]:
    """With deltas of one place that come to stand side by side made one."""
    kept: list[Event] = []
    for event in events:
        _add(kept, event)
    return kept


def _add(kept: list[Event], event: Event) -> None:
    if kept and _is_void(kept[-1], by=event):
        kept.pop()
    last = kept[-1] if kept else None
    if isinstance(event, Delta) and isinstance(last, Delta) and _same_place(event, last):
        kept[-1] = event if event.part == "action" else _longer(last, event)
    else:
        kept.append(event)


def _is_void(old: Event, by: Event) -> bool:
    """Whether the next event makes an old one void, whatever it tells."""
    return voids_tentative(by) if is_tentative(old) else isinstance(old, Queued)


def _told_by(event: Step | Answer | Retry, old: Event) -> bool:
    """Whether an earlier event is a delta of what is finished now, or void."""
    if not isinstance(old, Delta):
        return False
    return not isinstance(event, Step) or (old.number == event.number and old.part != "answer")


def _same_place(one: Delta, other: Delta) -> bool:
    return (one.number, one.part) == (other.number, other.part)


def _longer(one: Delta, other: Delta) -> Delta:
    return replace(one, text=one.text + other.text)


def trace_to_json(trace: Trace) -> dict[str, Any]:
    """The trace as JSON values: its version, its figures and its events."""
    return {
        "version": trace.version,
        "seconds": round(trace.seconds, 3),
        "waited": round(trace.waited, 3),
        "tokens": trace.tokens,
        "events": [to_dict(event) for event in compact(trace.events)],
    }


def trace_from_json(values: Any) -> Trace:
    """The inverse. Raises ValueError, in one line, for what is no trace or a newer one."""
    if not isinstance(values, dict) or not isinstance(values.get("events"), list):
        raise ValueError('expected a trace: a JSON object with "version" and "events"')
    version = values.get("version")
    if version != Trace.version:
        raise ValueError(f"expected a trace of version {Trace.version}, got {version!r:.40}")
    trace = Trace(tuple(_event(number, one) for number, one in enumerate(values["events"], 1)))
    _look_at_order(trace)
    return trace


def event_from_row(body: str) -> Event:
    """An event as the history keeps it, its texts to the letter, however long.

    Raises ValueError where a disk has made something else of it.
    """
    values = json.loads(body)
    _event(1, values, longest=sys.maxsize)
    return from_dict(values)


# -- looking at what comes in


def _event(number: int, values: Any, longest: int = LONGEST_TEXT) -> Event:
    kind = values.get("kind") if isinstance(values, dict) else None
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(f"expected an event as number {number}, got the kind {kind!r:.40}")
    try:
        event: Event = _adapter(kind).validate_json(json.dumps(_whole(values)), strict=True)
        _look_at_values(event, longest)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"event {number} ({kind}), {place}: {first['msg']}") from None
    except ValueError as error:
        raise ValueError(f"event {number} ({kind}): {error}") from None
    return event


@cache
def _adapter(kind: str) -> TypeAdapter[Any]:
    return TypeAdapter(KINDS[kind])


def _whole(value: Any) -> Any:
    """The JSON value without what no database, page or file should get."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, list):
        return [_whole(part) for part in value]
    if isinstance(value, dict):
        return {_whole(key): _whole(part) for key, part in value.items()}
    return value


def _look_at_values(event: Event, longest: int) -> None:
    for value in _leaves(asdict(event)):
        if isinstance(value, str) and len(value) > longest:
            raise ValueError(f"expected texts of at most {longest:,} characters")
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"expected a finite number, got {value}")
    for name, value in asdict(event).items():
        if isinstance(value, (int, float)) and not 0 <= value <= LARGEST:
            raise ValueError(f"expected {name} from 0 to {LARGEST:.0e}, got {value!r:.20}")


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, (list, tuple, dict)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _leaves(part)
    else:
        yield value


def _look_at_order(trace: Trace) -> None:
    """Started, once and first; steps 1, 2, 3 ...; an end only at the end."""
    begun = [isinstance(event, Started) for event in trace.events]
    if not begun or not begun[0] or any(begun[1:]):
        raise ValueError('expected a trace that begins with its one "started" event')
    numbers = [step.number for step in trace.steps]
    for due, number in enumerate(numbers, 1):
        if number != due:
            raise ValueError(f"expected step {due} of {len(numbers)}, got step {number}")
    if any(isinstance(event, ENDS) for event in trace.events[:-1]):
        raise ValueError("expected nothing after the answer or another end")


# -- the format itself


def trace_schema() -> dict[str, Any]:
    """The format as a JSON Schema (2020-12), made from the events themselves."""
    made = TypeAdapter(Event).json_schema()
    definitions = {name: _untitled(made["$defs"][name]) for name in sorted(made["$defs"])}
    for word, kind in KINDS.items():
        definition = definitions[kind.__name__]
        definition["properties"] = {"kind": {"const": word}, **definition["properties"]}
        definition["required"] = ["kind", *definition.get("required", ())]
    figures = {name: {"type": "number", "description": FIGURES[name]} for name in FIGURES}
    events = {"oneOf": [{"$ref": f"#/$defs/{kind.__name__}"} for kind in KINDS.values()]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Stepwise trace",
        "description": "One run: a question, the steps of thought and the answer, as events.",
        "type": "object",
        "properties": {
            "version": {"const": Trace.version},
            **figures,
            "events": {"type": "array", "minItems": 1, "items": events},
        },
        "required": ["version", "events"],
        "$defs": definitions,
    }


def _untitled(schema: Any) -> Any:
    """A schema without the titles that only repeat the names."""
    if isinstance(schema, list):
        return [_untitled(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: {name: _untitled(part) for name, part in value.items()}
        if key == "properties"
        else _untitled(value)
        for key, value in schema.items()
        if key != "title" or not isinstance(value, str)
    }


if __name__ == "__main__":
    print(json.dumps(trace_schema(), indent=2, ensure_ascii=False))
