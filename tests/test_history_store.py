"""The history keeps what it took, finds it again, and says in words when it cannot.

What is no matter of one database alone is tested on SQLite and on PostgreSQL.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Barrier
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, func, select, text

from history import database, salvage, store
from history.entries import Begun, Heard, Progress
from history.keeper import SILENT
from history.request import Link, RunRequest
from history.runs import Loop, Runs
from history.store import Store, StoreError
from history.tables import EVENTS, PREFERENCES, RUNS, TEXTS, THREADS
from page.i18n import LANGUAGES, load
from reasoning.events import (
    Answer,
    Correction,
    Delta,
    Event,
    Failed,
    Notice,
    Part,
    Retry,
    Settings,
    Started,
    Steer,
    Step,
    Stopped,
    Trace,
    Turn,
)
from reasoning.traces import compact
from tests.postgres import PASSWORD, WRITTEN, Postgres, postgres
from tests.processes import ROOT, start, until

STARTED = Started("Why?", "model", "json_steps", "en", 0.0)
ANSWER = Answer("Because.", 1.0, 5)
DAY = 24 * 3600.0


def step(number: int, content: str = "a", seconds: float = 2.0) -> Step:
    return Step(number, "Think", content, "continue", seconds, 10)


STEP = step(1)


@pytest.fixture(scope="module")
def postgresql() -> Iterator[Postgres]:
    with postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'history.db'}"
    running: Postgres = request.getfixturevalue("postgresql")
    return running.url()


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def opened(url: str, clock: Clock) -> Iterator[Store]:
    it = Store(url, clock)
    yield it
    it.close()


def ask(
    it: Store,
    id: str,
    question: str = "Why?",
    events: Sequence[Event] = (),
    link: Link = Link(),
    owner: str = "",
    at: float = 1.0,
) -> None:
    it.write([Begun(id, RunRequest(question), link, owner, at)], [Heard(id, 0, tuple(events))])


def count(it: Store, table: Any) -> int:
    with it._database.reading() as connection:
        return connection.scalar(select(func.count()).select_from(table)) or 0


def ids(it: Store, search: str = "", owner: str = "") -> list[str]:
    return [thread.id for thread in it.threads(owner, search)]


# -- runs


def test_a_run_is_found_again_as_it_was(opened: Store) -> None:
    events = (
        STARTED,
        Notice("format", "The server takes no schema."),
        STEP,
        Correction(1, "192", "204"),
        ANSWER,
    )
    link = Link("one", "two", "three", 4, "doubt", "five")
    ask(opened, "one", "Why?", events, link, "ann", 7.0)
    assert opened.events("one") == events
    entry = opened.entry("one")
    assert entry is not None
    assert (entry.question, entry.model, entry.way) == ("Why?", "model", "json_steps")
    assert (entry.link, entry.owner, entry.at, entry.ended) == (link, "ann", 7.0, Clock.now)
    assert (entry.state, entry.steps, entry.answer) == ("answered", 1, "Because.")
    assert (entry.seconds, entry.waited, entry.tokens) == (3.0, 0.0, 15)


def test_what_was_asked_is_found_again_as_it_was(opened: Store) -> None:
    asked = RunRequest(
        "Why?",
        "coat",
        Settings(max_steps=4, seed=3),
        "zh",
        (STEP, step(2, "b")),
        (Turn("Who?", "I.", "Because."),),
        Steer("again", "b"),
        {"step": "Think, $number."},
    )
    opened.write([Begun("one", asked, Link(), "", 1.0)])
    assert opened.asked("one") == asked


def test_an_unknown_run_is_none(opened: Store) -> None:
    assert (opened.entry("x"), opened.asked("x"), opened.thread("x")) == (None, None, None)
    assert opened.events("x") == ()


@pytest.mark.parametrize(
    ("end", "state"), [(Failed("busy", "m", "r", 1.0), "failed"), (Stopped(1.0), "stopped")]
)
def test_a_run_without_an_answer_says_how_it_ended(opened: Store, end: Event, state: str) -> None:
    ask(opened, "one", events=[STARTED, end])
    entry = opened.entry("one")
    assert entry is not None
    assert (entry.state, entry.seconds, entry.answer) == (state, 1.0, "")


def test_the_deltas_of_a_finished_step_are_gone_and_those_of_the_next_stay(opened: Store) -> None:
    deltas = tuple(Delta(1, "content", "a") for _ in range(5))
    ask(opened, "one", events=[STARTED])
    for number, delta in enumerate(deltas, 1):
        opened.write(heard=[Heard("one", number, (delta,))])
    assert count(opened, EVENTS) == 6
    opened.write(heard=[Heard("one", 6, (STEP, Delta(2, "title", "N")))])
    opened.write(heard=[Heard("one", 8, (Delta(2, "title", "ext"),))])
    assert count(opened, EVENTS) == 4
    assert opened.events("one") == (STARTED, STEP, Delta(2, "title", "Next"))


def test_lone_surrogates_and_nul_are_no_harm(opened: Store) -> None:
    odd = "a\x00b\ud800c"
    events = (STARTED, step(1, odd), Answer(odd, 1.0, 1))
    ask(opened, "one", odd, events)
    assert opened.events("one") == events
    assert opened.asked("one") == RunRequest(odd)
    assert ids(opened, "\ud800c") == ids(opened, "b") == ["one"]


numbers = st.integers(1, 3)
happenings = st.one_of(
    st.builds(Delta, numbers, st.sampled_from(get_args(Part)), st.text("ab")),
    st.builds(step, numbers, st.text("ab"), st.integers(0, 4)),
    st.builds(Retry, numbers, st.just(1), st.just("cut"), st.just(""), st.integers(0, 4)),
    st.builds(Notice, st.just("context"), st.just(""), st.integers(0, 4), st.integers(0, 4)),
)


# However a run's events are cut into batches, and however often and far back a batch is written
# again, the store holds what the whole run comes down to, and its figures count each event once.
@given(
    st.lists(happenings, max_size=20),
    st.sampled_from([(), (ANSWER,), (Stopped(1.0),)]),
    st.lists(st.tuples(st.integers(0, 22), st.integers(0, 22)), max_size=12),
)
def test_writing_twice_changes_nothing(
    heard: list[Event], end: tuple[Event, ...], cuts: list[tuple[int, int]]
) -> None:
    events = (STARTED, *heard, *end)
    it, written = Store("sqlite://"), 0
    ask(it, "one")
    for since, stop in [*cuts, (0, len(events))]:
        since, stop = min(since, written), min(stop, len(events))
        it.write(heard=[Heard("one", since, events[since:stop])])
        written = max(written, stop)
    trace, entry = Trace(events), it.entry("one")
    assert it.events("one") == compact(events)
    assert entry is not None
    assert (entry.seconds, entry.waited) == (trace.seconds, trace.waited)
    assert (entry.tokens, entry.steps) == (trace.tokens, len(trace.steps))
    assert len(it.threads("")) == 1
    it.close()


def test_a_transaction_is_whole_or_nothing(opened: Store) -> None:
    ask(opened, "one", events=[STARTED])
    endless = Step(1, "T", "C", "continue", 1.0, 2**80)
    with pytest.raises(Exception, match=r"(?i)range|overflow|large"):
        opened.write(heard=[Heard("one", 1, (STEP, ANSWER)), Heard("one", 3, (endless,))])
    assert opened.events("one") == (STARTED,)


def test_a_run_that_was_purged_keeps_no_other_from_being_saved(opened: Store) -> None:
    ask(opened, "one")
    opened.write(heard=[Heard("gone", 0, (STARTED,)), Heard("one", 0, (STARTED,))])
    assert opened.events("one") == (STARTED,)


# -- conversations


def test_the_runs_of_a_conversation_are_listed_in_the_order_of_asking(opened: Store) -> None:
    ask(opened, "one", "First?")
    ask(opened, "two", "Second?", link=Link("one", after="one"), at=2.0)
    ask(opened, "other", "Else?", at=3.0)
    ask(opened, "three", "Third?", link=Link("one", after="two"), at=0.5)  # a clock was set
    assert [entry.id for entry in opened.runs_of("one")] == ["one", "two", "three"]
    thread = opened.thread("one")
    assert thread is not None
    assert (thread.name, thread.last, thread.touched) == ("First?", "three", 0.5)


def test_of_runs_asked_together_the_first_stands_for_all(opened: Store) -> None:
    ask(opened, "one")
    ask(opened, "two", link=Link("one", group="one"))
    thread = opened.thread("one")
    assert thread is not None
    assert thread.last == "one"


def test_a_conversation_bears_its_newest_model(opened: Store) -> None:
    ask(opened, "one", events=[STARTED])
    ask(opened, "two", events=[Started("?", "other", "coat", "en", 0.0)], link=Link("one"))
    assert [thread.model for thread in opened.threads("")] == ["other"]


def test_pinned_conversations_come_first_then_those_touched_last(opened: Store) -> None:
    for number in range(5):
        ask(opened, str(number), at=float(number))
    ask(opened, "late", link=Link("1"), at=9.0)
    opened.pin("0", True)
    assert ids(opened) == ["0", "1", "4", "3", "2"]
    assert [thread.pinned for thread in opened.threads("")] == [True, *[False] * 4]
    assert [thread.id for thread in opened.threads("", limit=2, offset=1)] == ["1", "4"]
    opened.pin("0", False)
    assert ids(opened) == ["1", "4", "3", "2", "0"]


def test_everybody_sees_his_own_conversations_alone(opened: Store) -> None:
    for owner in ("", "ann", "bob"):
        ask(opened, f"of-{owner}", events=[STARTED, ANSWER], owner=owner)
    for owner in ("", "ann", "bob"):
        assert ids(opened, owner=owner) == ids(opened, "why", owner) == [f"of-{owner}"]
        assert [entry.id for entry in opened.figures(owner)] == [f"of-{owner}"]


def test_nobody_looks_up_or_changes_what_is_anothers(opened: Store) -> None:
    ask(opened, "one", events=[STARTED, ANSWER], owner="ann")
    for other in ("bob", ""):
        assert (opened.entry("one", other), opened.runs_of("one", other)) == (None, [])
        opened.rename("one", "Mine", other)
        opened.pin("one", True, other)
        opened.delete("one", other)
    (thread,) = opened.threads("ann")
    assert (thread.name, thread.pinned) == ("Why?", False)
    assert opened.entry("one", "ann") is not None
    opened.delete("one", "ann")
    opened.restore("one", "bob")
    assert ids(opened, owner="ann") == []


@pytest.mark.parametrize(
    ("search", "found"),
    [
        ("strawberry", ["berry"]),
        ("STRAW rs", ["berry"]),  # parts of words, in any order, whatever their case
        ("straw gauss", []),
        ("count", ["berry"]),  # a step's title
        ("letter", ["berry"]),  # a step's content
        ("three", ["berry"]),  # the answer
        ("高斯", ["gauss"]),
        ("gauß 5050", ["gauss"]),
        ("ＧＡＵＳＳ", ["gauss"]),  # full width
        ("100%", ["sure"]),
        ("%", ["sure"]),
        ("a_b", ["sure"]),
        ("a%b", []),
        ("_", ["sure"]),
        ("\\", ["sure"]),
        ("'; drop table stepwise_runs", []),
        ("  ", ["sure", "gauss", "berry"]),
        ("x" * 100_000, []),
    ],
)
def test_a_search_finds_what_holds_all_its_words(
    opened: Store, search: str, found: list[str]
) -> None:
    counted = Step(1, "Count", "Each letter.", "continue", 1.0, 1)
    ask(opened, "berry", "How many Rs in Strawberry?", [STARTED, counted, Answer("Three.", 1, 1)])
    ask(opened, "gauss", "What did Gauß find?", [STARTED, Answer("高斯: 5050", 1, 1)], at=2.0)
    ask(opened, "sure", "Is a_b \\ c 100% sure?", at=3.0)
    assert ids(opened, search) == found


def test_a_new_name_is_found_and_an_empty_one_is_the_question_again(opened: Store) -> None:
    ask(opened, "one", "Why is\n the sky blue?")
    opened.rename("one", "  Light ")
    assert [thread.name for thread in opened.threads("", "light")] == ["Light"]
    assert ids(opened, "sky") == ["one"]  # the question is still there
    opened.rename("one", " ")
    assert [thread.name for thread in opened.threads("")] == ["Why is the sky blue?"]
    assert ids(opened, "light") == []


def test_what_is_deleted_is_nowhere_and_comes_back_as_it_was(opened: Store) -> None:
    ask(opened, "one", events=[STARTED, ANSWER])
    opened.pin("one", True)
    before = (opened.threads(""), opened.runs_of("one"), opened.figures(""), opened.entry("one"))
    opened.delete("one")
    assert (ids(opened), ids(opened, "why"), opened.runs_of("one"), opened.figures("")) == (
        ([],) * 4
    )
    assert (opened.entry("one"), opened.thread("one")) == (None, None)
    opened.restore("one")
    assert before == (
        opened.threads(""),
        opened.runs_of("one"),
        opened.figures(""),
        opened.entry("one"),
    )


def test_what_was_deleted_is_gone_for_good_after_thirty_days(opened: Store, clock: Clock) -> None:
    ask(opened, "old", events=[STARTED, STEP, ANSWER])
    ask(opened, "new", events=[STARTED, STEP, ANSWER])
    opened.delete("old")
    clock.now += 29 * DAY
    opened.delete("new")
    assert count(opened, RUNS) == 2
    clock.now += 2 * DAY
    opened.delete("nothing")
    assert [count(opened, table) for table in (RUNS, EVENTS, TEXTS)] == [1, 3, 3]
    opened.restore("old")
    opened.restore("new")
    assert ids(opened) == ["new"]


def test_a_start_purges_too(url: str, clock: Clock) -> None:
    first = Store(url, clock)
    ask(first, "one", events=[STARTED, STEP, ANSWER])
    first.delete("one")
    clock.now += 31 * DAY
    second = Store(url, clock)
    assert [count(second, table) for table in (RUNS, EVENTS, TEXTS)] == [0, 0, 0]
    first.close()
    second.close()


def test_asking_in_a_deleted_conversation_brings_it_back(opened: Store) -> None:
    ask(opened, "one")
    opened.delete("one")
    ask(opened, "two", link=Link("one", after="one"))
    assert [entry.id for entry in opened.runs_of("one")] == ["one", "two"]


def test_preferences_are_an_owners_and_the_last_ones_hold(opened: Store) -> None:
    assert opened.preferences("ann") == {}
    opened.prefer("ann", {"way": "coat", "n": 3})
    opened.prefer("ann", {"language": "中文"})
    assert (opened.preferences("ann"), opened.preferences("")) == ({"language": "中文"}, {})


def test_figures_are_of_the_newest_answered_runs(
    opened: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "FIGURES", 2)
    for id, end in (("1", ANSWER), ("2", ANSWER), ("3", Stopped()), ("4", ANSWER)):
        ask(opened, id, events=[STARTED, end])
    assert [entry.id for entry in opened.figures("")] == ["2", "4"]


# -- processes

CHILD = """
import os, sys
sys.path.insert(0, {root!r})
from history.request import RunRequest, Link
import history.database
history.database.BUSY = 60.0  # seconds; so many writers keep each other waiting on a busy machine
from history.entries import Begun, Heard
from history.store import Store
from reasoning.events import Started, Step
"""


def child(code: str, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CHILD.format(root=str(ROOT)) + code, *arguments]
    return start(command, stdout=subprocess.PIPE, text=True, **options)


@pytest.mark.slow
def test_a_run_whose_process_was_killed_is_interrupted(url: str) -> None:
    begin = "Store(sys.argv[1]).write([Begun('one', RunRequest('Why?'), Link(), '', 1.0)])"
    process = child(f"{begin}; print('begun', flush=True); sys.stdin.read()", url, stdin=-1)
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    meanwhile = Store(url)
    ask(meanwhile, "ours")
    assert [entry.state for entry in meanwhile.runs_of("one")] == ["thinking"]
    process.kill()
    process.communicate()
    after = Store(url)
    assert [entry.state for entry in after.runs_of("one")] == ["interrupted"]
    assert [entry.state for entry in after.runs_of("ours")] == ["thinking"]
    meanwhile.close()
    after.close()


def test_another_machines_run_is_interrupted_when_its_signs_of_life_cease(
    opened: Store, url: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def states() -> list[str]:
        it = Store(url, clock)
        entries = [it.entry("living"), it.entry("silent")]
        it.close()
        return [entry.state for entry in entries if entry]

    monkeypatch.setattr(store, "this_process", lambda: "another-machine 1 1.5")
    ask(opened, "living")
    monkeypatch.setattr(store, "this_process", lambda: "a-third-machine 1 1.5")
    ask(opened, "silent")
    be_silent(opened, SILENT - 5)
    assert states() == ["thinking", "thinking"]
    opened.beat(["living"])
    be_silent(opened, 10)
    assert states() == ["thinking", "interrupted"]
    opened.write(heard=[Heard("silent", 0, (STARTED, ANSWER))])  # it was only cut off
    assert states() == ["thinking", "answered"]


def be_silent(it: Store, seconds: float) -> None:
    """As if all processes had said nothing for so long, by whatever clock counts it."""
    with it._database.writing() as connection:
        connection.execute(RUNS.update().values(beat=RUNS.c.beat - seconds))


def test_a_process_of_this_machine_that_says_nothing_has_lost_its_runs(opened: Store) -> None:
    """It may be stopped, or cut off from the database: another may go on."""
    ask(opened, "one", events=[STARTED])
    assert opened.follow("one").state == "thinking"
    be_silent(opened, SILENT)
    assert opened.follow("one").state == "interrupted"
    assert opened.thinking("") == []


def test_a_clock_that_is_wrong_interrupts_no_run(
    postgresql: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On several machines: the server's own clock is the one they have in common."""
    url = postgresql.url()
    here = Store(url)
    monkeypatch.setattr(store, "this_process", lambda: "another-machine 1 1.5")
    ask(here, "one")
    late = Store(url, Clock())
    ask(late, "two")
    late.beat(["two"])
    assert [here.follow(id).state for id in ("one", "two")] == ["thinking"] * 2
    here.close()
    late.close()


# -- runs of several processes


def cut_off(it: Store, id: str, events: Sequence[Event] = ()) -> None:
    """A run whose process is gone."""
    it.write([Begun(id, RunRequest("Why?"), Link(), "", 1.0, "interrupted")])
    it.write(heard=[Heard(id, 0, tuple(events))])


def going_on(id: str, origin: str) -> Begun:
    return Begun(id, RunRequest("Why?"), Link("one", origin=origin, how="go_on"), "", 1.0)


def test_of_two_that_would_go_on_with_an_interrupted_run_one_does(url: str) -> None:
    """Exactly one, whoever is first, and the other is told which."""
    stores, both = (Store(url), Store(url)), Barrier(2)

    def take(number: int, origin: str) -> str:
        both.wait(30)
        return stores[number].take(going_on(f"{origin}-by-{number}", origin))

    with ThreadPoolExecutor(2) as pool:
        for origin in map(str, range(20)):
            cut_off(stores[0], origin)
            one, other = pool.map(take, (0, 1), (origin, origin))
            begun = [f"{origin}-by-{number}" for number in (0, 1)]
            assert one == other
            assert [id for id in begun if stores[1].entry(id)] == [one]
    for it in stores:
        it.close()


def test_what_goes_on_is_told_again_who_does(opened: Store) -> None:
    cut_off(opened, "one")
    assert [opened.take(going_on(id, "one")) for id in ("two", "two", "three")] == ["two"] * 3
    assert opened.entry("three") is None


def test_from_a_run_that_was_stopped_several_may_go_on(opened: Store) -> None:
    ask(opened, "one", events=[STARTED, Stopped()])
    assert [opened.take(going_on(id, "one")) for id in ("two", "three")] == ["two", "three"]


def test_a_run_that_lives_after_all_goes_on_itself(opened: Store) -> None:
    """Its process was only slow; whoever took it for dead and would go on is led to it."""
    ask(opened, "one", events=[STARTED])
    be_silent(opened, SILENT)
    assert opened.follow("one").state == "interrupted"
    opened.beat(["one"])
    assert opened.follow("one").state == "thinking"
    assert opened.take(going_on("two", "one")) == "one"
    assert opened.entry("two") is None


def test_a_run_that_another_goes_on_with_ends_where_it_was(opened: Store) -> None:
    ask(opened, "one", events=[STARTED])
    be_silent(opened, SILENT)
    opened.follow("one")
    opened.take(going_on("two", "one"))
    opened.beat(["one", "two"])
    assert (opened.follow("one").state, opened.follow("two").state) == ("interrupted", "thinking")
    assert opened.stops(["one", "two"]) == {"one": False}


def test_a_stop_is_asked_for_where_the_run_thinks(opened: Store) -> None:
    ask(opened, "one", events=[STARTED])
    ask(opened, "two", link=Link("one", group="one"))
    ask(opened, "three", link=Link("one", group="one"))
    ask(opened, "over", events=[STARTED, ANSWER], link=Link("one", group="one"))
    every = ["one", "two", "three", "over"]
    assert opened.stops(every) == {}
    opened.ask_stop("two")
    assert opened.stops(every) == {"two": False}
    opened.ask_stop("one", together=True)
    opened.ask_stop("one")  # once more takes nothing back
    opened.ask_stop("nobody")
    assert opened.stops(every) == {"one": True, "two": True, "three": True}


def test_a_run_is_followed_by_what_is_new_of_it(opened: Store) -> None:
    drafts = (Delta(1, "title", "Th"), Delta(1, "title", "ink"))
    ask(opened, "one", events=[STARTED])
    assert opened.follow("one") == Progress("thinking", 1, (STARTED,), whole=True)
    opened.write(heard=[Heard("one", 1, drafts[:1])])
    opened.write(heard=[Heard("one", 2, drafts[1:])])
    assert opened.follow("one", 1) == Progress("thinking", 3, compact(drafts), whole=False)
    assert opened.follow("one", 3) == Progress("thinking", 3, (), whole=False)
    opened.write(heard=[Heard("one", 3, (STEP, ANSWER))])
    whole = (STARTED, STEP, ANSWER)
    assert opened.follow("one", 3) == Progress("answered", 5, whole, whole=True)


def test_a_run_that_is_not_there_has_come_to_nothing(opened: Store) -> None:
    assert opened.follow("x") == Progress("interrupted", 0, (), whole=True)


def test_the_runs_that_think_are_an_owners(opened: Store) -> None:
    for id, owner, events in (("a", "ann", ()), ("b", "bob", ()), ("c", "ann", (STARTED, ANSWER))):
        ask(opened, id, owner=owner, events=events)
    assert [entry.id for entry in opened.thinking("ann")] == ["a"]


ENDLESS = """
import asyncio, itertools
from history.runs import Loop, Runs
from tests.test_history_store import sequence

async def thinker(asked):
    for number in itertools.count():
        yield sequence(number)
        await asyncio.sleep(0.01)

run = Runs(Loop(), thinker, Store(sys.argv[1])).start(RunRequest("Why?"), id="one")
run.events(0, 60)
print("begun", flush=True)
sys.stdin.read()
"""


@pytest.mark.slow
def test_a_killed_process_leaves_its_run_to_one_of_the_others(url: str) -> None:
    """It is followed while it thinks there, then seen to be cut off, and gone on with once."""

    async def thinker(asked: RunRequest) -> AsyncIterator[Event]:
        yield Answer(f"After {len(asked.steps)} steps.", 1.0, 5)

    others = [Runs(Loop(), thinker, Store(url)) for _ in range(2)]
    process = child(ENDLESS, url, cwd=ROOT, stdin=-1)
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    followed = others[0].get("one")
    assert followed is not None
    until(lambda: len(followed.events(0)) > 20 and len(followed.trace.steps) > 2)
    assert [run.id for run in others[1].live("")] == ["one"]
    assert not followed.ended
    process.kill()
    process.communicate()
    until(lambda: followed.ended)
    steps = followed.trace.steps
    assert (followed.trace.end, [it.number for it in steps]) == (None, [*range(1, len(steps) + 1)])
    link = Link("one", origin="one", parts=len(steps) + 1, how="go_on")
    asked = RunRequest("Why?", steps=steps)
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(lambda runs: runs.start(asked, link), others)
    assert one.id == other.id
    until(lambda: one.ended and other.ended)
    assert one.trace.answer == other.trace.answer == Answer(f"After {len(steps)} steps.", 1.0, 5)
    assert len(Store(url).runs_of("one")) == 2


@pytest.mark.slow
def test_two_processes_write_to_one_history_at_once(url: str) -> None:
    code = """
it = Store(sys.argv[1])
for n in range(100):
    id = sys.argv[2] + str(n)
    it.write([Begun(id, RunRequest("Why?"), Link(), "", 1.0)])
    it.write(heard=[Heard(id, 0, (Started("Why?", "m", "w", "en", 0.0),))])
"""
    processes = [child(code, url, name) for name in "abc"]
    for process in processes:
        process.communicate(timeout=120)
    assert [process.returncode for process in processes] == [0, 0, 0]
    it = Store(url)
    assert (it.count_threads(""), count(it, EVENTS)) == (300, 300)
    it.close()


def sequence(number: int) -> Event:
    """Event `number` of a run without an end: a step in four events."""
    at, kind = divmod(number, 4)
    return Delta(at + 1, "content", "abc"[kind]) if kind < 3 else step(at + 1, "abc")


TORTURE = """
import asyncio, itertools
from history.runs import Loop, Runs
from tests.test_history_store import sequence

async def thinker(asked):
    for number in itertools.count():
        yield sequence(number)
        await asyncio.sleep(0.001)

runs = Runs(Loop(), thinker, Store(sys.argv[1]))
mine = [runs.start(RunRequest("Why?")) for _ in range(4)]
seen = [0] * 4
while True:
    for place, run in enumerate(mine):
        seen[place] += len(run.events(seen[place], 0.001))
    print(*[f"{run.id} {shown}" for run, shown in zip(mine, seen)], flush=True)
"""


@pytest.mark.slow
def test_every_event_that_was_shown_survives_a_kill(url: str) -> None:
    process = child(TORTURE, url, cwd=ROOT)
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(300)]
    process.send_signal(signal.SIGKILL)
    rest, _ = process.communicate()
    whole = [line for line in [*lines, *rest.splitlines(keepends=True)] if line.endswith("\n")]
    words = whole[-1].split()
    shown = dict(zip(words[::2], map(int, words[1::2]), strict=True))
    assert min(shown.values()) > 20
    it = Store(url)
    for id, seen in shown.items():
        kept = it.events(id)
        assert any(
            kept == compact(tuple(map(sequence, range(end)))) for end in range(seen, seen + 200)
        )
        entry = it.entry(id)
        assert entry is not None
        assert entry.state == "interrupted"
    it.close()
    if url.startswith("sqlite"):
        with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


# -- the schema


def test_a_history_of_a_newer_version_is_refused_and_left_alone(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = (*database.MIGRATIONS, lambda connection: None)
    monkeypatch.setattr(database, "MIGRATIONS", later)
    newer = Store(url)
    ask(newer, "one")
    monkeypatch.undo()
    with pytest.raises(StoreError, match=r"newer Stepwise.*version is 4, this one's 3") as refused:
        Store(url)
    assert refused.value.code == "newer"
    assert ids(newer) == ["one"]
    newer.close()


def test_an_older_history_is_brought_up_to_date_once(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = Store(url)
    ask(older, "one")
    older.close()
    add = "ALTER TABLE stepwise_threads ADD COLUMN colour TEXT NOT NULL DEFAULT 'red'"
    drop = "ALTER TABLE stepwise_threads DROP COLUMN model"
    steps = (lambda c: c.execute(text(add)), lambda c: c.execute(text(drop)))
    monkeypatch.setattr(database, "MIGRATIONS", (*database.MIGRATIONS, *steps))
    for _ in range(2):
        newer = Store(url)
        with newer._database.reading() as connection:
            assert connection.scalar(text("SELECT colour FROM stepwise_threads")) == "red"
            assert connection.scalar(text("SELECT version FROM stepwise_schema")) == 5
        newer.close()


def test_a_migration_that_fails_leaves_the_history_as_it_was(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = Store(url)
    ask(older, "one")
    older.close()

    def half(connection: Any) -> None:
        connection.execute(text("DELETE FROM stepwise_threads"))
        connection.execute(text("SELECT nothing"))

    monkeypatch.setattr(database, "MIGRATIONS", (*database.MIGRATIONS, half))
    with pytest.raises(StoreError):
        Store(url)
    monkeypatch.undo()
    again = Store(url)
    assert ids(again) == ["one"]
    again.close()


def make_second_version(url: str) -> None:
    """As it was before texts had numbers."""
    it = Store(url)
    with it._database.writing() as connection:
        statements = _OLDER[connection.dialect.name]
        for statement in (*statements, "UPDATE stepwise_schema SET version = 2"):
            connection.execute(text(statement))
    it.close()


_SOUGHT = (
    "ALTER TABLE stepwise_threads ADD COLUMN sought TEXT NOT NULL DEFAULT ''",
    "UPDATE stepwise_threads SET sought = coalesce((SELECT text FROM stepwise_texts"
    " WHERE thread = stepwise_threads.id AND named), lower(name))",
    "DELETE FROM stepwise_texts WHERE named",
)
_OLDER = {
    "sqlite": (
        *_SOUGHT,
        "DROP TRIGGER stepwise_search_in",
        "DROP TRIGGER stepwise_search_out",
        "DROP TABLE stepwise_search_pieces",
        "DROP TABLE stepwise_search",
        "DROP INDEX ix_stepwise_texts_thread",
        "ALTER TABLE stepwise_texts RENAME TO newer",
        "CREATE TABLE stepwise_texts (thread TEXT NOT NULL, text TEXT NOT NULL,"
        " FOREIGN KEY (thread) REFERENCES stepwise_threads (id) ON DELETE CASCADE)",
        "CREATE INDEX ix_stepwise_texts_thread ON stepwise_texts (thread)",
        "INSERT INTO stepwise_texts SELECT thread, text FROM newer",
        "DROP TABLE newer",
    ),
    "postgresql": (
        *_SOUGHT,
        "DROP INDEX stepwise_texts_pieces",
        "DROP FUNCTION stepwise_pieces",
        "ALTER TABLE stepwise_texts DROP COLUMN number",
        "ALTER TABLE stepwise_texts DROP COLUMN named",
    ),
}


def make_first_version(it: Store, url: str) -> None:
    """As it was before another process could stop a run, or go on with it."""
    it.close()
    make_second_version(url)
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        for column in ("stop", "taken"):
            connection.execute(text(f"ALTER TABLE stepwise_runs DROP COLUMN {column}"))
        connection.execute(text("UPDATE stepwise_schema SET version = 1"))
    engine.dispose()


def test_a_history_of_the_first_version_is_gone_on_with(url: str) -> None:
    older = Store(url)
    cut_off(older, "one", [STARTED, STEP])
    make_first_version(older, url)
    newer = Store(url)
    assert newer.stops(["one"]) == {}
    assert newer.take(going_on("two", "one")) == "two"
    assert newer.events("one") == (STARTED, STEP)
    newer.close()


@pytest.mark.slow
def test_many_processes_may_make_the_tables_at_once(url: str) -> None:
    processes = [child("Store(sys.argv[1])", url) for _ in range(3)]
    for process in processes:
        process.communicate(timeout=120)
    assert [process.returncode for process in processes] == [0] * 3


# -- where it lies


def test_it_lies_in_the_users_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "50% of data?"))
    it = Store()
    file = tmp_path / "50% of data?" / "stepwise" / "history.db"
    assert it.where == str(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    beside = {stat.S_IMODE(path.stat().st_mode) for path in file.parent.iterdir()}
    assert beside == {0o600}  # the journal, too
    it.close()
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    it = Store()
    assert it.where == str(tmp_path / ".local" / "share" / "stepwise" / "history.db")
    it.close()


def test_the_environment_says_where_else(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Store(url)
    ask(first, "one")
    first.close()
    for scheme in ("postgresql", "postgres", "postgresql+psycopg"):
        monkeypatch.setenv("DATABASE_URL", url.replace("postgresql", scheme))
        it = Store()
        assert ids(it) == ["one"]
        it.close()


def test_a_history_in_memory_is_one_for_all_threads() -> None:
    it = Store("sqlite://")
    ask(it, "one", events=[STARTED])
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda n: ask(it, str(n), events=[STARTED, STEP]), range(40)))
        assert set(threads.map(lambda n: it.count_threads(""), range(8))) == {41}
    it.close()


# -- what goes wrong


def failing(url: str) -> StoreError:
    with pytest.raises(StoreError) as caught:
        Store(url)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300
    return caught.value


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda url: url.replace(WRITTEN, "wrong"), "refused"),
        (lambda url: url.replace("stepwise:", "nobody:"), "refused"),
        (lambda url: f"{url}x", "missing"),
        (lambda url: url.replace("@127.0.0.1", "@stepwise.invalid"), "unreachable"),
        (lambda url: f"{url}?sslmode=require", "unreachable"),
        (lambda url: f"{url}?dance=1", "other"),
        (lambda url: url.replace("postgresql", "mysql"), "url"),
        (lambda url: url.replace("://", ":"), "url"),
    ],
)
def test_a_server_that_cannot_be_used_is_named_without_its_password(
    postgresql: Postgres, change: Callable[[str], str], code: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    error = failing(change(postgresql.address()))
    assert error.code == code
    for secret in (PASSWORD, WRITTEN, "wrong"):
        assert secret not in str(error) + caplog.text + repr(error.__context__)


def test_a_server_that_does_not_answer_is_named_and_used_again_when_it_does(
    postgresql: Postgres,
) -> None:
    it = Store(postgresql.url())
    ask(it, "one")
    postgresql.stop()
    with pytest.raises(StoreError, match=r"No answer from the database postgres on .* Start it"):
        it.threads("")
    postgresql.start()
    assert ids(it) == ["one"]
    it.close()


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_fault_has_words_of_its_own(language: str) -> None:
    assert load(language)["store"].keys() == database.FAULTS.keys()


def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "letter.txt"
    file.write_text("Dear Ann, " * 500, encoding="utf-8")
    assert failing(f"sqlite:///{file}").code == "damaged"
    assert file.read_text(encoding="utf-8") == "Dear Ann, " * 500


def test_a_folder_that_cannot_be_made_is_named() -> None:
    error = failing("sqlite:////proc/stepwise/history.db")
    assert error.code == "closed"
    assert "/proc/stepwise/history.db" in str(error)


def test_a_folder_that_is_not_ours_is_named(tmp_path: Path) -> None:
    it = Store(f"sqlite:///{tmp_path / 'history.db'}")
    it.close()
    for path in (tmp_path, *tmp_path.iterdir()):
        path.chmod(0o555 if path.is_dir() else 0o444)
    code = """
from history.store import StoreError
if os.getuid() == 0:  # whom no permission stops
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
try:
    Store(sys.argv[1])
except StoreError as error:
    print(error.code)
"""
    for folder in (tmp_path.parent, tmp_path.parent.parent):
        folder.chmod(0o755)  # pytest's own, in which only who runs it may look
    for name in ("history.db", "another.db"):
        process = child(code, f"sqlite:///{tmp_path / name}")
        assert process.communicate() == ("closed\n", None)


def test_a_history_that_another_program_locks_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY", 0.05)
    it = Store(f"sqlite:///{tmp_path / 'history.db'}")
    other = sqlite3.connect(tmp_path / "history.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError) as caught:
        ask(it, "one")
    assert caught.value.code == "locked"
    assert ids(it) == []  # reading goes on
    other.execute("COMMIT")
    ask(it, "one")
    assert ids(it) == ["one"]
    other.close()
    it.close()


def filled(file: Path) -> bytes:
    """A history of fifty runs, as bytes."""
    it = Store(f"sqlite:///{file}")
    for number in range(50):
        events = [STARTED, step(1, f"long 高 {number} " * 100), step(2, "b"), ANSWER]
        ask(it, str(number), events=events)
    it.prefer("", {"way": "coat"})
    it.close()
    return file.read_bytes()


def test_a_damaged_file_is_set_aside_and_a_fresh_one_begun_with_what_is_readable(
    tmp_path: Path,
) -> None:
    file = tmp_path / "history.db"
    whole = filled(file)
    file.write_bytes(whole[:40] + b"\xff" * 20 + whole[60:])  # SQLite opens no such file
    it = Store(f"sqlite:///{file}")
    assert it.set_aside is not None
    ask(it, "new", events=[STARTED, ANSWER])
    assert "new" in ids(it)
    it.close()
    (aside,) = (path for path in tmp_path.iterdir() if ".corrupt-" in path.name)
    assert aside.name in str(it.set_aside)
    assert aside.read_bytes()[60:4096] == whole[60:4096]
    again = Store(f"sqlite:///{file}")
    assert again.set_aside is None
    assert "new" in ids(again)
    again.close()


def test_a_page_that_is_damaged_takes_no_other_run_with_it(tmp_path: Path) -> None:
    file = tmp_path / "history.db"
    whole = filled(file)
    at = whole.index(b"long \\u9ad8 20 ") // 4096 * 4096
    file.write_bytes(whole[:at] + b"\xff" * 4096 + whole[at + 4096 :])
    it = Store(f"sqlite:///{file}")
    met = [id for id in map(str, range(50)) if not _reads(it, id)]
    assert len(met) == 1  # who meets the damage is told, and may try again
    assert it.set_aside is not None
    assert "a fresh one was begun with 50 runs" in str(it.set_aside)
    kept = [len(Trace(it.events(str(number))).steps) for number in range(50)]
    assert sum(steps == 2 for steps in kept) >= 44
    assert it.preferences("") == {"way": "coat"}
    it.close()


def test_what_is_read_of_a_damaged_file_may_be_of_an_older_version(tmp_path: Path) -> None:
    old, new = (Store(f"sqlite:///{tmp_path / name}") for name in ("old", "new"))
    ask(old, "one", events=[STARTED, STEP])
    make_first_version(old, f"sqlite:///{tmp_path / 'old'}")
    columns = {table.name: [it.name for it in table.columns] for table in (THREADS, RUNS, EVENTS)}
    taken = salvage.salvage(tmp_path / "old", tmp_path / "new", columns)
    assert list(taken.values()) == [1, 1, 2]
    assert (new.events("one"), new.stops(["one"])) == ((STARTED, STEP), {})
    new.close()


def _reads(it: Store, id: str) -> bool:
    try:
        return bool(it.events(id))
    except StoreError:
        return False


def test_a_damaged_event_is_left_out_and_counted(opened: Store) -> None:
    ask(opened, "one", events=[STARTED, step(1), step(2), ANSWER])
    bad = ("{", '{"kind": "step"}', '{"kind": ["step"]}', "[]")
    for body in bad:
        with opened._database.writing() as connection:
            connection.execute(EVENTS.update().where(EVENTS.c.place == 2).values(body=body))
        assert opened.events("one") == (STARTED, Notice("damaged", "1"), step(2), ANSWER)


def test_a_damaged_row_is_left_out_of_lists(
    opened: Store, caplog: pytest.LogCaptureFixture
) -> None:
    ask(opened, "one", events=[STARTED, ANSWER])
    ask(opened, "two", events=[STARTED, ANSWER])
    opened.prefer("", {"way": "coat"})
    bad = {"state": "answeree", "at": 1e300, "asked": "{", "keeper": "x"}
    with opened._database.writing() as connection:
        connection.execute(RUNS.update().where(RUNS.c.id == "one").values(bad))
        connection.execute(PREFERENCES.update().values(body="{'"))
    assert (opened.entry("one"), opened.asked("one")) == (None, None)
    assert [entry.id for entry in opened.figures("")] == ["two"]
    assert opened.preferences("") == {}
    assert "damaged rows, left out of a list: 1" in caplog.text


def test_text_that_is_no_utf_8_costs_a_character(tmp_path: Path) -> None:
    it = Store(f"sqlite:///{tmp_path / 'history.db'}")
    ask(it, "one", "Why?", [STARTED, ANSWER])
    with it._database.writing() as connection:
        connection.exec_driver_sql("UPDATE stepwise_runs SET question = CAST(x'57ff79' AS TEXT)")
    assert [entry.question for entry in it.runs_of("one")] == ["W\ufffdy"]
    it.close()


# Whatever bits of a history's file are flipped, reading and writing it raises a StoreError at most.
@settings(max_examples=10)
@given(st.lists(st.integers(0, 8 * 60_000), min_size=1, max_size=20))
def test_flipped_bits_are_no_error_but_a_store_error(flips: list[int]) -> None:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "history.db"
        data = bytearray(_whole())
        for bit in flips:
            data[bit // 8 % len(data)] ^= 1 << bit % 8
        file.write_bytes(data)
        with contextlib.suppress(StoreError):
            it = Store(f"sqlite:///{file}")
            for use in (_read_all, lambda it: ask(it, "new", events=[STARTED, ANSWER])):
                with contextlib.suppress(StoreError):
                    use(it)
            it.close()


@cache
def _whole() -> bytes:
    with TemporaryDirectory() as folder:
        return filled(Path(folder) / "history.db")


def _read_all(it: Store) -> None:
    for thread in it.threads("", limit=100):
        for entry in it.runs_of(thread.id):
            it.events(entry.id)
            it.asked(entry.id)
    it.figures("")
    it.preferences("")
