"""A step's time and a chain's: when they are over the work ends, and what strikes is named."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from math import inf

import pytest

from reasoning.deadline import CHAIN, STEP, STEP_SECONDS, Deadlines, keep_deadlines
from reasoning.endpoint import Endpoint
from reasoning.errors import BadSetting, DeadlinePassed
from reasoning.events import Delta, Event, Failed, Settings, Step
from reasoning.inquiry import Inquiry
from reasoning.think import WAYS, think
from tests.processes import until
from tests.scripted import Scripted, good, run
from tests.stub import EVENTS, NEVER, Play, Stub, chunk, head, raw, says, status, step

STEP_1 = Step(1, "One", "First.", "continue", 1.0, 5)


@pytest.mark.parametrize(
    ("settings", "environment", "expected"),
    [
        (Settings(), {}, Deadlines(STEP_SECONDS, inf)),
        (Settings(), {STEP: "60", CHAIN: "600.5"}, Deadlines(60, 600.5)),
        (Settings(), {STEP: " ", CHAIN: ""}, Deadlines(STEP_SECONDS, inf)),
        (Settings(), {STEP: "0", CHAIN: "0"}, Deadlines(inf, inf)),
        (Settings(step_seconds=5, chain_seconds=9), {STEP: "60", CHAIN: "600"}, Deadlines(5, 9)),
        (Settings(step_seconds=0, chain_seconds=0), {STEP: "60", CHAIN: "6"}, Deadlines(inf, inf)),
    ],
)
def test_the_settings_come_before_the_environment(
    settings: Settings, environment: dict[str, str], expected: Deadlines
) -> None:
    assert Deadlines.of(settings, environment) == expected


@pytest.mark.parametrize("value", ["soon", "-1", "nan", "inf", "1e999", "1 min"])
def test_an_environment_that_says_no_seconds_is_named(value: str) -> None:
    with pytest.raises(BadSetting, match=CHAIN):
        Deadlines.of(Settings(), {CHAIN: value})


async def test_such_an_environment_fails_the_run_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(STEP, "soon")
    failed = (await run(Scripted(good(1))))[-1]
    assert isinstance(failed, Failed)
    assert STEP in failed.message


async def hanging(*events: Event) -> AsyncGenerator[Event, None]:
    for event in events:
        yield event
    await asyncio.sleep(60)


@pytest.mark.parametrize(
    ("events", "deadlines", "said"),
    [
        ((), Deadlines(0.05), "Step 1 was not done in 0.05 s."),
        ((STEP_1,), Deadlines(0.05), "Step 2 was not done in 0.05 s."),
        ((STEP_1, Delta(2, "answer", "T")), Deadlines(0.05), "The answer was not done in 0.05 s."),
        ((STEP_1,), Deadlines(60, 0.05), "The chain was not done in 0.05 s."),
        ((STEP_1,), Deadlines(0.05, 60), "Step 2 was not done in 0.05 s."),
    ],
)
async def test_what_strikes_is_named(
    events: tuple[Event, ...], deadlines: Deadlines, said: str
) -> None:
    timely = keep_deadlines(hanging(*events), deadlines, time.monotonic, 1)
    assert tuple([await anext(timely) for _ in events]) == events
    with pytest.raises(DeadlinePassed) as caught:
        await anext(timely)
    assert caught.value.message == said


async def test_a_finished_step_gives_the_next_one_its_own_time() -> None:
    now = [0.0]

    async def steps() -> AsyncGenerator[Event, None]:
        for _ in range(5):
            now[0] += 9
            yield STEP_1

    timely = keep_deadlines(steps(), Deadlines(10), lambda: now[0], 1)
    assert len([event async for event in timely]) == 5


async def test_a_timeout_of_the_work_itself_is_no_deadline() -> None:
    async def fails() -> AsyncGenerator[Event, None]:
        raise TimeoutError
        yield STEP_1

    with pytest.raises(TimeoutError):
        async for _ in keep_deadlines(fails(), Deadlines(10), time.monotonic, 1):
            pass


# -- over sockets: no deadline is passed by more than half a second, whatever the server does

DRIP = [b": ping\n\n"] * 300
SLOWLY = [chunk("word ")] * 300
FAULTS = {
    "hangs before headers": raw(end="hang"),
    "hangs after headers": raw(EVENTS, end="hang"),
    "drips its head": raw(*[bytes([letter]) for letter in EVENTS * 3], pause=0.1),
    "drips comments": raw(EVENTS, *DRIP, pause=0.1),
    "drips text": raw(EVENTS, *SLOWLY, pause=0.1),
    "drips an event": raw(EVENTS, b"data: ", *[b"x"] * 300, pause=0.1),
    "drips an error": raw(head(500, "text/plain"), *[b"x"] * 300, pause=0.1),
    "stops in its middle": says("word " * 400, until=NEVER),
    "is busy for long": status(503, {"error": "full"}, "Retry-After: 30"),
    "floods": raw(EVENTS, *[b":\n" * 100_000] * 100),
}
SECONDS = 0.5
CASES = [(fault, "json_steps") for fault in FAULTS]
CASES += [("drips text", way) for way in sorted(WAYS) if way != "json_steps"]


@pytest.mark.parametrize(("fault", "way"), CASES)
async def test_no_deadline_is_passed_by_more_than_half_a_second(fault: str, way: str) -> None:
    """Each in its own words, and none uncaught."""
    with Stub(FAULTS[fault]) as stub:
        seconds, failed = await thought(stub, way, Settings(chain_seconds=SECONDS))
    assert seconds < SECONDS + 0.5
    assert failed.code == "deadline"
    assert failed.message == "The chain was not done in 0.5 s."


async def thought(stub: Stub, way: str, settings: Settings) -> tuple[float, Failed]:
    endpoint = Endpoint(stub.base_url)
    model, began = await endpoint.model(), time.monotonic()
    inquiry = Inquiry("Why?", way, settings=settings)
    async with aclosing(think(inquiry, endpoint=endpoint, model=model)) as events:
        last = [event async for event in events][-1]
    seconds = time.monotonic() - began
    await endpoint.close()
    assert isinstance(last, Failed), last
    return seconds, last


async def test_the_finished_steps_stay_and_the_servers_work_ends() -> None:
    slow: Play = says(json.dumps({"title": "T", "content": "word " * 99}), until=NEVER)
    with Stub(step("One", "First."), slow) as stub:
        endpoint = Endpoint(stub.base_url)
        settings, model = Settings(step_seconds=SECONDS), await endpoint.model()
        inquiry = Inquiry("Why?", "json_steps", settings=settings)
        events = [event async for event in think(inquiry, endpoint=endpoint, model=model)]
        await asyncio.to_thread(until, lambda: stub.gone == 1)
        await endpoint.close()
    assert [event.content for event in events if isinstance(event, Step)] == ["First."]
    assert isinstance(events[-1], Failed)
    assert events[-1].message == "Step 2 was not done in 0.5 s."
