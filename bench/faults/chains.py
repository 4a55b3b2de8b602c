"""One chain over scripted replies, and whether what came of it may be: the rules, in words.

* Nothing escapes: the last event is an answer or a failure, and it is the only end.
* Steps are numbered from one without a gap, and no more than were allowed.
* Every event is JSON and comes back from it as it was; nothing that governs a terminal is in it.
* The gateway can tell the chain as it comes, and never takes back what it has sent.
* An answer whose own reply was cut says so.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from bench.faults.generated import Written
from bench.faults.promise import escaped
from gateway.render import CHANGED, ChainFailed, ChainRenderer
from reasoning.endpoint import ServedModel
from reasoning.events import ENDS, Answer, Event, Settings, Step, from_dict, to_dict
from reasoning.parsing import printable
from tests.scripted import Scripted, run

BOUNDED = ("json_steps", "cot")  # the ways in which the loop, not the model, counts steps


class Speaking(Scripted):
    """Says what was written; knows the last reply that it was asked for."""

    def __init__(self, *written: Written) -> None:
        super().__init__(*(one.pieces() for one in written))
        self._written = written

    @property
    def last(self) -> Written:
        return self._written[min(max(1, len(self.requests)), len(self._written)) - 1]

    @property
    def broke(self) -> bool:
        return any(one.fault for one in self._written[: len(self.requests)])


async def think_over(
    written: Sequence[Written], way: str, model: ServedModel, settings: Settings
) -> tuple[int, list[Event], str]:
    """How many replies were asked for, what happened, what is wrong with it ("": nothing)."""
    server = Speaking(*written)
    try:
        events = await run(server, way=way, model=model, settings=settings)
    except Exception as error:  # any at all: that none escapes is the promise
        return len(server.requests), [], escaped(error)
    problems = "; ".join(_problems(events, way, settings, server))
    return len(server.requests), events, problems


def _problems(
    events: Sequence[Event], way: str, settings: Settings, server: Speaking
) -> Iterator[str]:
    if not isinstance(events[-1], ENDS) or sum(isinstance(one, ENDS) for one in events) != 1:
        yield "no end, or more than one"
    numbers = [event.number for event in events if isinstance(event, Step)]
    if numbers != list(range(1, len(numbers) + 1)):
        yield f"steps numbered {numbers}"
    if way in BOUNDED and len(numbers) > settings.max_steps:
        yield f"{len(numbers)} steps of at most {settings.max_steps}"
    yield from _kept(events)
    yield from _told(events, server.broke)
    yield from _wrong_final(events[-1], server)


def _kept(events: Sequence[Event]) -> Iterator[str]:
    for event in events:
        name, told = type(event).__name__, to_dict(event)
        if any(printable(it) != it for it in told.values() if isinstance(it, str)):
            yield f"control characters in {name}"
        values = json.loads(json.dumps(told, ensure_ascii=False).encode())
        if json.loads(json.dumps(to_dict(from_dict(values)))) != values:
            yield f"{name} does not come back from JSON"


def _told(events: Sequence[Event], broke: bool) -> Iterator[str]:
    """By the gateway. What broke in mid-answer may truly be answered otherwise then."""
    renderer = ChainRenderer()
    try:
        for event in events:
            for _ in renderer.render(event):
                pass
    except ChainFailed as error:
        if error.failed == CHANGED and not broke:
            yield "an answer that takes back what was sent of it"


def _wrong_final(end: Event, server: Speaking) -> Iterator[str]:
    """A cut reply that is told as a whole answer; a whole box in it is one all the same."""
    if not isinstance(end, Answer) or end.cut or not server.last.is_cut:
        return
    if not end.content.startswith("$$\\boxed{"):
        yield f"the cut reply {server.last.text[-40:]!r} is told as a whole answer"
