"""A run lives by itself: nobody who looks at it can lose it, and only a stop ends it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence

import pytest

from page.health import Health, State
from page.runs import Loop, Run, Runs
from reasoning.endpoint import ServedModel
from reasoning.errors import Unreachable
from reasoning.events import Answer, Delta, Event, Failed, Retry, Started, Step, Stopped

STARTED = Started("Why?", "model", "json_steps", "en", 0.0)
STEP = Step(1, "Think", "a", "continue", 2.0, 10)
ANSWER = Answer("Because.", 1.0, 5)


class Script:
    """A thinker that says its events, waiting at `gate` before the last."""

    def __init__(self, *events: Event | Exception) -> None:
        self.events = events
        self.gate = threading.Event()
        self.asked: list[tuple[str, tuple[Step, ...], str]] = []
        self.closed = threading.Event()

    async def __call__(
        self, question: str, steps: Sequence[Step], way: str
    ) -> AsyncIterator[Event]:
        self.asked.append((question, tuple(steps), way))
        try:
            for event in self.events[:-1]:
                yield self.said(event)
            await asyncio.to_thread(self.gate.wait, 10)
            yield self.said(self.events[-1])
        finally:
            self.closed.set()

    def said(self, event: Event | Exception) -> Event:
        if isinstance(event, Exception):
            raise event
        return event


@pytest.fixture(scope="module")
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.loop.call_soon_threadsafe(loop.loop.stop)


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "waited for 10 s"
        time.sleep(0.005)


def test_whoever_comes_late_follows_from_the_first_event(loop: Loop) -> None:
    script = Script(STARTED, STEP, ANSWER)
    run = Runs(loop, script).start("Why?")
    until(lambda: len(run.events(0)) == 2)
    assert run.events(0) == (STARTED, STEP)
    script.gate.set()
    until(lambda: run.ended)
    assert run.events(0) == (STARTED, STEP, ANSWER)
    assert run.events(2) == (ANSWER,)


def test_a_follower_is_woken_by_the_next_event(loop: Loop) -> None:
    script = Script(STARTED, ANSWER)
    run = Runs(loop, script).start("Why?")
    until(lambda: len(run.events(0)) == 1)
    threading.Timer(0.05, script.gate.set).start()
    assert run.events(1, timeout=10) == (ANSWER,)


def test_a_stop_closes_the_thinker_and_keeps_the_steps(loop: Loop) -> None:
    script = Script(STARTED, STEP, ANSWER)
    runs = Runs(loop, script)
    run = runs.start("Why?")
    until(lambda: run.trace.steps)
    runs.stop(run.id)
    until(lambda: run.ended)
    assert script.closed.wait(10)
    assert run.trace.steps == (STEP,)
    assert isinstance(run.trace.end, Stopped)


def test_a_stop_of_an_ended_or_unknown_run_changes_nothing(loop: Loop) -> None:
    script = Script(STARTED, ANSWER)
    script.gate.set()
    runs = Runs(loop, script)
    run = runs.start("Why?")
    until(lambda: run.ended)
    runs.stop(run.id)
    runs.stop("nobody")
    time.sleep(0.05)
    assert run.events(0) == (STARTED, ANSWER)


def test_a_failure_of_the_core_is_shown_with_its_remedy(loop: Loop) -> None:
    script = Script(STARTED, Unreachable("No server answers.", "Start one."))
    script.gate.set()
    run = Runs(loop, script).start("Why?")
    until(lambda: run.ended)
    end = run.trace.end
    assert isinstance(end, Failed)
    assert (end.code, end.message, end.remedy) == (
        "unreachable",
        "No server answers.",
        "Start one.",
    )


def test_a_mistake_of_ours_ends_the_run_and_names_it(
    loop: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    script = Script(STARTED, ZeroDivisionError("secret"))
    script.gate.set()
    run = Runs(loop, script).start("Why?")
    until(lambda: run.ended)
    end = run.trace.end
    assert isinstance(end, Failed)
    assert end.code == "bug"
    assert run.id in end.message
    assert "secret" not in end.message
    assert "secret" in caplog.text


def test_a_thinker_that_just_ends_is_a_mistake(loop: Loop) -> None:
    script = Script(STARTED, STEP)
    script.gate.set()
    run = Runs(loop, script).start("Why?")
    until(lambda: run.ended)
    assert isinstance(run.trace.end, Failed)


def test_runs_are_found_by_ids_that_cannot_be_guessed(loop: Loop) -> None:
    runs = Runs(loop, Script(STARTED, ANSWER))
    one, two = runs.start("1"), runs.start("2")
    assert (runs.get(one.id), runs.get(two.id)) == (one, two)
    assert min(len(one.id), len(two.id)) >= 20
    assert (runs.get(None), runs.get("guess")) == (None, None)
    runs.stop(one.id)
    runs.stop(two.id)


def test_two_runs_do_not_mix(loop: Loop) -> None:
    async def thinker(question: str, steps: Sequence[Step], way: str) -> AsyncIterator[Event]:
        for _ in range(20):
            yield Delta(1, "content", question)
            await asyncio.sleep(0)
        yield Answer(question, 0.0, 1)

    runs = Runs(loop, thinker)
    pair = [runs.start(name) for name in "ab"]
    until(lambda: all(run.ended for run in pair))
    for run in pair:
        assert {e.text for e in run.events(0) if isinstance(e, Delta)} == {run.question}


def test_only_the_newest_ended_runs_are_kept_and_a_running_one_always(loop: Loop) -> None:
    waiting = Script(STARTED, ANSWER)
    quick = Script(ANSWER)
    quick.gate.set()

    def thinker(question: str, steps: Sequence[Step], way: str) -> AsyncIterator[Event]:
        return (waiting if question == "slow" else quick)(question, steps, way)

    runs = Runs(loop, thinker, kept=3)
    slow = runs.start("slow")
    ended: list[Run] = []
    for number in range(8):
        ended.append(runs.start(str(number)))
        until(lambda: ended[-1].ended)
    assert runs.get(slow.id) is slow
    assert [run.question for run in ended if runs.get(run.id)] == ["5", "6", "7"]
    runs.stop(slow.id)


def test_a_run_goes_on_after_finished_steps_in_the_way_asked_for(loop: Loop) -> None:
    script = Script(STARTED, STEP, ANSWER)
    runs = Runs(loop, script)
    run = runs.start("Why?", (STEP,), "coat")
    until(lambda: script.asked)
    assert script.asked == [("Why?", (STEP,), "coat")]
    assert run.seconds() >= STEP.seconds
    runs.stop(run.id)


def test_the_clock_of_a_run_stands_still_while_it_waits_for_a_retry() -> None:
    now = [100.0]
    run = Run("Why?", now=lambda: now[0])
    run.append(STARTED)
    now[0] = 103.0
    run.append(Retry(1, 1, "unreachable", "No server.", wait=2.0))
    now[0] = 104.0
    assert run.seconds() == pytest.approx(3.0)
    now[0] = 106.0
    assert run.seconds() == pytest.approx(4.0)
    run.append(ANSWER)
    now[0] = 200.0
    assert run.seconds() == pytest.approx(4.0)


def test_nothing_follows_an_end() -> None:
    run = Run("Why?")
    run.append(ANSWER)
    run.append(Stopped())
    assert run.events(0) == (ANSWER,)


# -- health


class Server:
    """What the health asks: a model's name, or None for a server that is down."""

    def __init__(self, name: str | None) -> None:
        self.name = name
        self.asked = 0
        self.greeted: list[str | None] = []

    async def ask(self) -> ServedModel:
        self.asked += 1
        if self.name is None:
            raise Unreachable("No server answers.", "Start one.")
        return ServedModel(self.name)

    async def greet(self) -> None:
        self.greeted.append(self.name)


def test_health_follows_a_server_down_up_and_swapped(loop: Loop) -> None:
    server = Server(None)
    health = Health(server.ask, server.greet, interval=0.005)
    assert health.state() == State()
    watch = loop.start(health.watch())
    until(lambda: health.state().error)
    for name in ("small", "large"):
        server.name = name
        until(lambda: health.state().name == server.name)
    server.name = None
    until(lambda: health.state().error)
    assert server.greeted == ["small", "large"]
    loop.cancel(watch)
    until(watch.done)


def test_a_server_is_left_alone_while_nobody_looks(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("page.health.LOOKED_AT", 0.05)
    server = Server("model")
    health = Health(server.ask, interval=0.005)
    watch = loop.start(health.watch())
    time.sleep(0.3)
    asked = server.asked
    time.sleep(0.2)
    assert server.asked == asked
    health.state()
    until(lambda: server.asked > asked)
    loop.cancel(watch)
    until(watch.done)
