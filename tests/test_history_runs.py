"""A run lives by itself: nobody who looks at it can lose it, and only a stop ends it.

What it shows is in the store already. When the store fails it goes on, and is saved later.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

import history.store
from history import database
from history.entries import Begun, Heard
from history.recorder import Recorder
from history.request import Link, RunRequest
from history.run import Run
from history.runs import Loop, Runs, Thinker
from history.store import Store, StoreError
from page.health import LOOKED_AT, Health, ServerState
from reasoning.endpoint import Replicas, ServedModel
from reasoning.errors import Unreachable
from reasoning.events import (
    Answer,
    Delta,
    Event,
    Failed,
    Retry,
    Settings,
    Started,
    Step,
    Stopped,
    Trace,
)
from tests.processes import ROOT, until

STARTED = Started("Why?", "model", "json_steps", "en", 0.0)
STEP = Step(1, "Think", "a", "continue", 2.0, 10)
ANSWER = Answer("Because.", 1.0, 5)
WHY = RunRequest("Why?")


class Script:
    """A thinker that says its events, waiting at `gate` before the last."""

    def __init__(self, *events: Event | Exception) -> None:
        self.events = events
        self.gate = threading.Event()
        self.asked: list[RunRequest] = []
        self.closed = threading.Event()

    async def __call__(self, asked: RunRequest) -> AsyncIterator[Event]:
        self.asked.append(asked)
        try:
            for event in self.events[:-1]:
                yield self.said(event)
            while not self.gate.is_set():  # noqa: ASYNC110  another thread opens it
                await asyncio.sleep(0.001)
            yield self.said(self.events[-1])
        finally:
            self.closed.set()

    def said(self, event: Event | Exception) -> Event:
        if isinstance(event, Exception):
            raise event
        return event


def quick(*events: Event | Exception) -> Script:
    """A script that waits for nothing."""
    script = Script(*events)
    script.gate.set()
    return script


class SlowStore(Store):
    """A store that writes events when the gate opens, and remembers how many at a time."""

    def __init__(self) -> None:
        super().__init__("sqlite://")
        self.gate = threading.Event()
        self.sizes: list[int] = []

    def write(self, begun: Sequence[Begun] = (), heard: Sequence[Heard] = ()) -> None:
        if heard:
            self.sizes.append(sum(len(one.events) for one in heard))
            assert self.gate.wait(10)
        super().write(begun, heard)


class BrokenStore(Store):
    """A store that fails until it is mended."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__("sqlite://")
        self.error = error

    def write(self, begun: Sequence[Begun] = (), heard: Sequence[Heard] = ()) -> None:
        if self.error:
            raise self.error
        super().write(begun, heard)


FULL = StoreError("full", "here")


@pytest.fixture(scope="module")
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.loop.call_soon_threadsafe(loop.loop.stop)


@pytest.fixture
def store() -> Store:
    return Store("sqlite://")


def runs_on(loop: Loop, thinker: Thinker, store: Store, kept: int = 200) -> Runs:
    return Runs(loop, thinker, store, recorder=Recorder(store, retry=0.01), kept=kept)


# -- a run lives by itself


def test_whoever_comes_late_follows_from_the_first_event(loop: Loop, store: Store) -> None:
    script = Script(STARTED, STEP, ANSWER)
    run = runs_on(loop, script, store).start(WHY)
    until(lambda: len(run.events(0)) == 2)
    assert run.events(0) == (STARTED, STEP)
    script.gate.set()
    until(lambda: run.ended)
    assert run.events(0) == (STARTED, STEP, ANSWER)
    assert run.events(2) == (ANSWER,)


def test_a_follower_is_woken_by_the_next_event(loop: Loop, store: Store) -> None:
    script = Script(STARTED, ANSWER)
    run = runs_on(loop, script, store).start(WHY)
    until(lambda: len(run.events(0)) == 1)
    threading.Timer(0.05, script.gate.set).start()
    assert run.events(1, timeout=10) == (ANSWER,)


def test_a_stop_closes_the_thinker_and_keeps_the_steps(loop: Loop, store: Store) -> None:
    script = Script(STARTED, STEP, ANSWER)
    runs = runs_on(loop, script, store)
    run = runs.start(WHY)
    until(lambda: run.trace.steps)
    runs.stop(run.id)
    until(lambda: run.ended)
    assert script.closed.wait(10)
    assert run.trace.steps == (STEP,)
    assert isinstance(run.trace.end, Stopped)


def test_a_stop_of_an_ended_or_unknown_run_changes_nothing(loop: Loop, store: Store) -> None:
    runs = runs_on(loop, quick(STARTED, ANSWER), store)
    run = runs.start(WHY)
    until(lambda: run.ended)
    runs.stop(run.id)
    runs.stop("nobody")
    done = threading.Event()
    loop.loop.call_soon_threadsafe(done.set)
    assert done.wait(10)
    assert run.events(0) == (STARTED, ANSWER)


def test_a_failure_of_the_core_is_shown_with_its_remedy(loop: Loop, store: Store) -> None:
    script = quick(STARTED, Unreachable("No server answers.", "Start one."))
    run = runs_on(loop, script, store).start(WHY)
    until(lambda: run.ended)
    end = run.trace.end
    assert isinstance(end, Failed)
    assert (end.code, end.message, end.remedy) == (
        "unreachable",
        "No server answers.",
        "Start one.",
    )


def test_a_mistake_of_ours_ends_the_run_and_names_it(
    loop: Loop, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    run = runs_on(loop, quick(STARTED, ZeroDivisionError("secret")), store).start(WHY)
    until(lambda: run.ended)
    end = run.trace.end
    assert isinstance(end, Failed)
    assert end.code == "bug"
    assert run.id in end.message
    assert "secret" not in end.message
    assert "secret" in caplog.text


def test_a_thinker_that_just_ends_is_a_mistake(loop: Loop, store: Store) -> None:
    run = runs_on(loop, quick(STARTED, STEP), store).start(WHY)
    until(lambda: run.ended)
    assert isinstance(run.trace.end, Failed)


def test_runs_are_found_by_ids_that_cannot_be_guessed(loop: Loop, store: Store) -> None:
    runs = runs_on(loop, Script(STARTED, ANSWER), store)
    one, two = runs.start(RunRequest("1")), runs.start(RunRequest("2"))
    assert (runs.get(one.id), runs.get(two.id)) == (one, two)
    assert min(len(one.id), len(two.id)) >= 20
    assert (runs.get(None), runs.get(""), runs.get("guess")) == (None, None, None)
    runs.stop(one.id)
    runs.stop(two.id)


def test_two_runs_do_not_mix(loop: Loop, store: Store) -> None:
    async def thinker(asked: RunRequest) -> AsyncIterator[Event]:
        for _ in range(20):
            yield Delta(1, "content", asked.question)
            await asyncio.sleep(0)
        yield Answer(asked.question, 0.0, 1)

    runs = runs_on(loop, thinker, store)
    pair = [runs.start(RunRequest(name)) for name in "ab"]
    until(lambda: all(run.ended for run in pair))
    for run in pair:
        assert {e.text for e in run.events(0) if isinstance(e, Delta)} == {run.question}
        assert store.events(run.id) == (Answer(run.question, 0.0, 1),)


def test_a_run_is_asked_all_that_was_asked_for(loop: Loop, store: Store) -> None:
    script = Script(STARTED, STEP, ANSWER)
    runs = runs_on(loop, script, store)
    asked = RunRequest(
        "Why?", "coat", Settings(max_steps=4), "zh", (STEP,), prompts={"step": "Think."}
    )
    run = runs.start(asked)
    until(lambda: script.asked)
    assert script.asked == [asked]
    assert run.seconds() >= STEP.seconds
    runs.stop(run.id)


def test_the_runs_that_think_are_known_by_their_owner(loop: Loop, store: Store) -> None:
    script = Script(STARTED, ANSWER)
    runs = runs_on(loop, script, store)
    ann, bob = runs.start(WHY, owner="ann"), runs.start(WHY, owner="bob")
    assert (runs.live("ann"), runs.live("bob"), runs.live("")) == ([ann], [bob], [])
    script.gate.set()
    until(lambda: ann.ended and bob.ended)
    assert runs.live("ann") == []


def test_the_clock_of_a_run_stands_still_while_it_waits_for_a_retry() -> None:
    now = [100.0]
    run = Run(WHY, now=lambda: now[0])
    run.hear(STARTED)
    now[0] = 103.0
    run.hear(Retry(1, 1, "unreachable", "No server.", wait=2.0))
    now[0] = 104.0
    assert run.seconds() == pytest.approx(3.0)
    now[0] = 106.0
    assert run.seconds() == pytest.approx(4.0)
    run.hear(ANSWER)
    now[0] = 200.0
    assert run.seconds() == pytest.approx(4.0)


def test_a_run_tells_for_how_long_its_server_does_not_answer() -> None:
    """Over all retries in a row, until the next word; a bad reply is no such wait."""
    now = [100.0]
    run = Run(WHY, now=lambda: now[0])
    run.hear(STARTED)
    run.hear(Retry(1, 1, "unreadable", "No JSON."))
    now[0] = 103.0
    assert run.waiting() == 0.0
    for attempt in (1, 2):
        run.hear(Retry(1, attempt, "unreachable", "No server.", wait=2.0))
        now[0] += 4.0
    assert run.waiting() == pytest.approx(8.0)
    run.hear(STEP)
    assert run.waiting() == 0.0


def test_a_stopped_run_owns_up_to_its_unfinished_time_before_its_steps_are_saved() -> None:
    now = [100.0]
    run = Run(WHY, now=lambda: now[0])
    now[0] = 102.0
    run.hear(STEP)
    now[0] = 105.0
    assert run.trace.steps == ()
    assert run.unfinished == pytest.approx(3.0)


def test_nothing_follows_an_end() -> None:
    run = Run(WHY)
    run.hear(ANSWER)
    run.hear(Stopped())
    run.show()
    assert run.events(0) == (ANSWER,)


# -- what is shown is saved


def test_nothing_is_shown_before_it_is_saved_and_the_thinker_waits_for_nothing(
    loop: Loop,
) -> None:
    store, script = SlowStore(), quick(STARTED, STEP, ANSWER)
    run = runs_on(loop, script, store).start(WHY)
    assert script.closed.wait(10)
    assert (run.over, run.ended, run.events(0)) == (True, False, ())
    store.gate.set()
    until(lambda: run.ended)
    assert store.events(run.id) == run.events(0) == (STARTED, STEP, ANSWER)


def test_what_was_heard_during_a_write_is_written_at_once_for_all_runs(loop: Loop) -> None:
    store = SlowStore()
    first = Script(STARTED, ANSWER)
    later = quick(STARTED, STEP, ANSWER)

    def thinker(asked: RunRequest) -> AsyncIterator[Event]:
        return (first if asked.question == "first" else later)(asked)

    runs = runs_on(loop, thinker, store)
    started = [runs.start(RunRequest("first"))]
    until(lambda: store.sizes == [1])
    started += [runs.start(RunRequest("later")) for _ in range(5)]
    until(lambda: all(run.over for run in started[1:]))
    first.gate.set()
    until(lambda: started[0].over)
    store.gate.set()
    until(lambda: all(run.ended for run in started))
    assert store.sizes == [1, 16]


def test_a_run_is_in_the_history_when_its_start_returns(loop: Loop) -> None:
    store = SlowStore()
    run = runs_on(loop, Script(STARTED, ANSWER), store).start(WHY, owner="ann")
    entry = store.entry(run.id)
    assert entry is not None
    assert (entry.state, entry.question, entry.owner) == ("thinking", "Why?", "ann")
    assert store.asked(run.id) == WHY
    assert entry.link == run.link == Link(thread=run.id)
    store.gate.set()


# -- a store that fails


def test_a_run_is_shown_all_the_same_and_saved_when_the_store_is_mended(
    loop: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    store, script = BrokenStore(), Script(STARTED, STEP, ANSWER)
    runs = runs_on(loop, script, store)
    run = runs.start(WHY)
    until(lambda: len(run.events(0)) == 2)
    assert runs.trouble is None
    store.error = FULL
    script.gate.set()
    until(lambda: run.ended)
    assert run.events(0) == (STARTED, STEP, ANSWER)
    until(lambda: runs.trouble is FULL)
    assert runs.get(run.id) is run
    assert store.events(run.id) == (STARTED, STEP)
    store.error = None
    until(lambda: runs.trouble is None)
    assert store.events(run.id) == (STARTED, STEP, ANSWER)
    assert caplog.text.count("Make room on the disk.") == 1
    assert "saved again" in caplog.text


def test_no_log_holds_what_was_asked_or_answered(
    loop: Loop, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    store = Store(f"sqlite:///{tmp_path / 'history.db'}")
    endless = Step(2, "T", "my secret", "continue", 1.0, 2**80)  # no database takes it
    runs = runs_on(loop, quick(STARTED, endless, Answer("my secret", 1.0, 1)), store)
    run = runs.start(RunRequest("my secret?"))
    until(lambda: run.ended and run.refused)
    assert f"Run {run.id} cannot be saved" in caplog.text
    assert "secret" not in caplog.text
    store.close()


def test_a_run_that_began_meanwhile_is_saved_with_its_beginning(loop: Loop) -> None:
    store = BrokenStore(FULL)
    runs = runs_on(loop, quick(STARTED, STEP, ANSWER), store)
    run = runs.start(WHY)
    assert runs.trouble is FULL
    until(lambda: run.ended)
    assert runs.get(run.id) is run
    assert store.entry(run.id) is None
    store.error = None
    until(lambda: runs.trouble is None)
    assert store.events(run.id) == (STARTED, STEP, ANSWER)
    assert store.asked(run.id) == WHY


def test_what_waits_to_be_saved_is_bounded_and_what_is_given_up_is_named(
    loop: Loop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("history.recorder.KEPT_UNSAVED", 2)
    store = BrokenStore(FULL)
    runs = runs_on(loop, quick(STARTED, ANSWER), store)
    started: list[Run] = []
    for _ in range(5):
        started.append(runs.start(WHY))
        until(lambda: started[-1].ended)
    until(lambda: [run.refused for run in started] == [True, True, True, False, False])
    store.error = None
    until(lambda: runs.trouble is None)
    until(lambda: store.count_threads("") == 2)
    for run in started[:3]:
        assert f"Run {run.id} is not saved" in caplog.text


def test_a_run_that_cannot_be_saved_keeps_no_other_from_being_saved(
    loop: Loop, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    endless = Answer("Because.", 1.0, 2**80)

    def thinker(asked: RunRequest) -> AsyncIterator[Event]:
        return quick(STARTED, endless if asked.question == "odd" else ANSWER)(asked)

    runs = runs_on(loop, thinker, store)
    started = [runs.start(RunRequest(name)) for name in ("a", "odd", "b")]
    until(lambda: all(run.ended for run in started))
    assert started[1].events(0) == (STARTED, endless)
    assert runs.get(started[1].id) is started[1]
    until(lambda: all(store.events(run.id)[-1:] == (ANSWER,) for run in started[::2]))
    assert f"Run {started[1].id} cannot be saved" in caplog.text
    assert runs.trouble is None


def test_a_history_that_cannot_be_read_is_named_and_what_is_known_is_shown(
    loop: Loop, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = runs_on(loop, quick(STARTED, ANSWER), store)
    run = runs.start(WHY)
    until(lambda: run.settled)

    def fail(id: str) -> None:
        raise FULL

    with monkeypatch.context() as broken:
        broken.setattr(store, "entry", fail)
        assert (runs.get(run.id), runs.get("another")) == (run, None)
        assert runs.trouble is FULL
    assert runs.get(run.id) is run
    assert runs.trouble is None


def test_a_history_that_another_program_locks_is_waited_for(
    loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY", 0.05)
    store, script = Store(f"sqlite:///{tmp_path / 'history.db'}"), Script(STARTED, ANSWER)
    runs = runs_on(loop, script, store)
    run = runs.start(WHY)
    until(lambda: run.events(0))
    other = sqlite3.connect(tmp_path / "history.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    script.gate.set()
    until(lambda: run.ended)
    until(lambda: runs.trouble)
    assert runs.trouble is not None
    assert runs.trouble.code == "locked"
    other.execute("COMMIT")
    until(lambda: runs.trouble is None)
    assert store.events(run.id) == (STARTED, ANSWER)
    other.close()
    store.close()


FULL_DISK = """
import asyncio, resource, sys, time
from history.request import RunRequest
from history.runs import Loop, Runs
from history.store import Store
from reasoning.events import Answer, Step

async def thinker(asked):
    for number in range(1, 200):
        yield Step(number, "T", "long " * 2000, "continue", 1.0, 1)
    yield Answer("Because.", 1.0, 1)

store = Store(sys.argv[1])
runs = Runs(Loop(), thinker, store)
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, most))
run = runs.start(RunRequest("Why?"))
while not run.ended or not runs.trouble:
    time.sleep(0.01)
print(runs.trouble.code, len(run.trace.steps), len(store.events(run.id)) < 200)
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
while runs.trouble:
    time.sleep(0.01)
print(len(store.events(run.id)), store.entry(run.id).state)
"""


def test_a_disk_that_is_full_stops_no_run_and_is_filled_up_later(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'history.db'}"
    command = [sys.executable, "-c", FULL_DISK, url]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=60)
    assert done.stdout.splitlines() == ["disk 199 True", "200 answered"]


# -- runs of an earlier process


def test_a_run_is_found_after_a_restart(loop: Loop, store: Store) -> None:
    link = Link(after="before", origin="another", parts=2, how="edit", group="first")
    run = runs_on(loop, quick(STARTED, STEP, ANSWER), store).start(WHY, link, "ann")
    until(lambda: run.settled)
    later = runs_on(loop, Script(ANSWER), store)
    again = later.get(run.id)
    assert again is not None
    assert again is not run
    assert again.events(0) == run.events(0)
    assert again.ended
    assert again.trace.end is not None
    assert (again.asked, again.link, again.owner) == (WHY, run.link, "ann")
    assert again.seconds() == again.trace.seconds == 3.0
    assert later.get(run.id) is again


def test_a_run_whose_process_ended_is_interrupted_and_shows_what_was_being_written(
    loop: Loop, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    drafts = (Delta(2, "title", "Nex"), Delta(2, "title", "t"))
    script = Script(STARTED, STEP, *drafts, ANSWER)
    runs = runs_on(loop, script, store)
    run = runs.start(WHY)
    until(lambda: len(run.events(0)) == 4)
    assert not run.ended
    later = runs_on(loop, Script(ANSWER), store)
    monkeypatch.setattr(history.store, "lives", lambda keeper, silent: False)
    again = later.get(run.id)
    assert again is not None
    assert (again.ended, again.trace.end) == (True, None)
    assert again.events(0) == (STARTED, STEP, Delta(2, "title", "Next"))
    script.gate.set()  # it lived on elsewhere
    until(lambda: run.settled)
    grown = later.get(run.id)
    assert grown is not None
    assert grown.trace.answer == ANSWER


def test_a_deleted_run_is_unknown_until_it_is_restored(loop: Loop, store: Store) -> None:
    runs = runs_on(loop, quick(STARTED, ANSWER), store)
    run = runs.start(WHY)
    until(lambda: run.settled)
    store.delete(run.id)
    assert runs.get(run.id) is None
    store.restore(run.id)
    assert runs.get(run.id) is run


def test_only_the_newest_ended_runs_stay_in_memory_and_a_thinking_one_always(
    loop: Loop, store: Store
) -> None:
    waiting, ended = Script(STARTED, ANSWER), quick(ANSWER)

    def thinker(asked: RunRequest) -> AsyncIterator[Event]:
        return (waiting if asked.question == "slow" else ended)(asked)

    runs = runs_on(loop, thinker, store, kept=3)
    slow = runs.start(RunRequest("slow"))
    quick_ones: list[Run] = []
    for number in range(8):
        quick_ones.append(runs.start(RunRequest(str(number))))
        until(lambda: quick_ones[-1].settled)
    assert runs.get(slow.id) is slow
    assert [runs.get(run.id) is run for run in quick_ones[4:]] == [True] * 4
    read = runs.get(quick_ones[0].id)
    assert read is not None
    assert read is not quick_ones[0]
    assert read.question == "0"
    runs.stop(slow.id)


# -- conversations and imports


def test_a_follow_up_is_in_the_conversation_and_anothers_is_in_one_of_its_own(
    loop: Loop, store: Store
) -> None:
    runs = runs_on(loop, quick(STARTED, ANSWER), store)
    first = runs.start(WHY, owner="ann")
    link = Link(thread=first.link.thread, after=first.id)
    mine, others = runs.start(WHY, link, "ann"), runs.start(WHY, link, "bob")
    assert mine.link == link
    assert others.link == Link(thread=others.id, after=first.id)
    assert [entry.id for entry in store.runs_of(first.id)] == [first.id, mine.id]
    assert [thread.id for thread in store.threads("bob")] == [others.id]


def test_an_imported_run_is_shown_and_kept_as_any_other(loop: Loop, store: Store) -> None:
    runs = runs_on(loop, Script(ANSWER), store)
    trace = Trace((STARTED, STEP, ANSWER))
    run = runs.put(trace, "ann")
    until(lambda: run.ended)
    assert (run.trace, run.question, run.seconds()) == (trace, "Why?", 3.0)
    assert run.asked.way == "json_steps"
    assert run.trace.end is not None
    assert runs.live("ann") == []
    assert store.events(run.id) == trace.events
    assert [entry.id for entry in store.figures("ann")] == [run.id]


def test_what_goes_on_from_an_imported_run_keeps_its_instructions(loop: Loop, store: Store) -> None:
    """The gateway's callers give a chain some; the page has no place for them but this."""
    began = replace(STARTED, instructions="Answer as a pirate.")
    run = runs_on(loop, Script(ANSWER), store).put(Trace((began, STEP)), "ann")
    until(lambda: run.ended)
    assert run.asked.instructions == "Answer as a pirate."


def test_an_imported_run_without_an_end_is_interrupted(loop: Loop, store: Store) -> None:
    run = runs_on(loop, Script(ANSWER), store).put(Trace((STARTED, STEP)))
    until(lambda: run.ended)
    assert run.ended
    assert run.trace.end is None
    assert [entry.state for entry in store.runs_of(run.id)] == ["interrupted"]


def test_a_trace_that_does_not_tell_how_it_began_is_refused(loop: Loop, store: Store) -> None:
    with pytest.raises(ValueError, match="expected a trace that begins"):
        runs_on(loop, Script(ANSWER), store).put(Trace((ANSWER,)))
    assert store.count_threads("") == 0


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
    assert health.state() == ServerState()
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


@pytest.mark.parametrize(("vllm", "replicas"), [(True, Replicas(3, 2)), (False, None)])
def test_the_servers_behind_a_vllms_address_are_counted(
    loop: Loop, vllm: bool, replicas: Replicas | None
) -> None:
    async def ask() -> ServedModel:
        return ServedModel("model", vllm=vllm)

    async def count() -> Replicas:
        return Replicas(3, 2)

    health = Health(ask, count=count, interval=0.005)
    watch = loop.start(health.watch())
    until(lambda: health.state().model)
    assert health.state().replicas == replicas
    loop.cancel(watch)
    until(watch.done)


class Clock:
    """Stands at `now`; counts who reads it."""

    def __init__(self) -> None:
        self.now, self.read = 0.0, 0

    def __call__(self) -> float:
        self.read += 1
        return self.now


def test_a_server_is_left_alone_while_nobody_looks(loop: Loop) -> None:
    server, clock = Server("model"), Clock()
    health = Health(server.ask, interval=0.005, clock=clock)
    watch = loop.start(health.watch())
    until(lambda: server.asked)
    clock.now = LOOKED_AT + 1
    late = clock.read
    until(lambda: clock.read > late + 2)  # what was under way is over
    asked, late = server.asked, clock.read
    until(lambda: clock.read > late + 5)
    assert server.asked == asked
    health.state()
    until(lambda: server.asked > asked)
    loop.cancel(watch)
    until(watch.done)


# -- a vote


class Voters:
    """Chains that say what is scripted for them, told apart by their seeds; "" for ever thinks."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.begun: list[int] = []
        self.closed: list[int] = []

    async def __call__(self, asked: RunRequest) -> AsyncIterator[Event]:
        number = asked.settings.seed or 0
        self.begun.append(number)
        try:
            yield STARTED
            while not self.answers[number]:  # noqa: ASYNC110  nobody ends it
                await asyncio.sleep(0.001)
            yield Answer(self.answers[number], 1.0, 5)
        finally:
            self.closed.append(number)


def vote(voters: Voters, store: Store) -> tuple[Runs, Run]:
    """The runs, and the first of a vote of all the voters, which has begun."""
    runs = Runs(Loop(), voters, store)
    return runs, begin_vote(runs, len(voters.answers))


def begin_vote(runs: Runs, most: int) -> Run:
    first, *others = (
        RunRequest("Why?", settings=Settings(seed=it), most=most) for it in range(most)
    )
    run = runs.start(first)
    runs.vote(run, others, Link(thread=run.id, group=run.id))
    return run


def test_a_vote_begins_further_chains_by_itself_until_it_is_decided(store: Store) -> None:
    voters = Voters(*"44545555")
    runs, first = vote(voters, store)
    until(lambda: not runs.votes_on(first.id))
    until(lambda: all(run.settled for run in runs.together(first.id)))
    assert sorted(voters.begun) == list(range(8))
    assert [entry.link.group for entry in store.runs_of(first.id)] == ["", *[first.id] * 7]
    asked = [store.asked(run.id) for run in runs.together(first.id)]
    assert {one.most for one in asked if one} == {8}


def test_three_that_agree_are_all_that_a_vote_begins(store: Store) -> None:
    voters = Voters(*"44444444")
    runs, first = vote(voters, store)
    until(lambda: not runs.votes_on(first.id))
    assert sorted(voters.begun) == [0, 1, 2]


def test_a_vote_whose_first_chain_is_over_counts_it(store: Store) -> None:
    voters = Voters(*"444")
    runs = Runs(Loop(), voters, store)
    first = runs.start(RunRequest("Why?", settings=Settings(seed=0)))
    until(lambda: first.settled)
    runs.start(RunRequest("Another?", settings=Settings(seed=1)))  # ended tasks are forgotten here
    others = [RunRequest("Why?", settings=Settings(seed=it)) for it in (1, 2)]
    runs.vote(first, others, Link(thread=first.id, group=first.id))
    until(lambda: not runs.votes_on(first.id))
    assert 1 in voters.begun


def test_a_vote_that_is_stopped_begins_no_more(store: Store) -> None:
    voters = Voters("4", "", "", "4", "4")
    runs, first = vote(voters, store)
    until(lambda: first.ended)
    runs.stop_vote(first.id)
    for run in runs.together(first.id):
        runs.stop(run.id)  # once more is once
    until(lambda: len(voters.closed) == 3 and not runs.votes_on(first.id))
    until(lambda: all(run.ended for run in runs.together(first.id)))
    ends = [type(run.trace.end) for run in runs.together(first.id)]
    assert (voters.begun, ends) == ([0, 1, 2], [Answer, Stopped, Stopped])


def test_a_chain_that_is_not_needed_any_more_is_stopped(store: Store) -> None:
    voters = Voters("4", "", "4")
    runs, first = vote(voters, store)
    until(lambda: not runs.votes_on(first.id))
    until(lambda: all(run.ended for run in runs.together(first.id)))
    assert isinstance(runs.together(first.id)[1].trace.end, Stopped)
