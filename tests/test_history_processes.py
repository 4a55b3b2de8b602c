"""A run that another process thinks is seen, stopped and gone on with from here.

Two `Runs` on two stores of one file are two processes to each other: each knows of the other's
what the store says, and no more. tests/test_history_store.py kills a real one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import history.store
from history.entries import Entry, Progress
from history.followed import Followed, later_events
from history.leases import Leases
from history.request import Link, RunRequest
from history.run import Run
from history.runs import Loop, Runs, Thinker
from history.store import Store, StoreError
from history.votes import VotesElsewhere, is_undecided
from reasoning.events import (
    Answer,
    Delta,
    Event,
    Notice,
    Queued,
    Retry,
    Step,
    Stopped,
)
from reasoning.traces import compact
from tests.processes import until
from tests.test_history_runs import (
    ANSWER,
    STARTED,
    STEP,
    WHY,
    Script,
    Voters,
    begin_vote,
    quick,
)

MakeRuns = Callable[[Thinker], Runs]


@pytest.fixture
def process(tmp_path: Path) -> Iterator[MakeRuns]:
    """Makes what a further process has: runs on a loop and a store of its own."""
    stores: list[Store] = []

    def make(thinker: Thinker) -> Runs:
        stores.append(Store(f"sqlite:///{tmp_path / 'history.db'}"))
        return Runs(Loop(), thinker, stores[-1])

    yield make
    for store in stores:
        store.close()


def found(runs: Runs, id: str) -> Run:
    run = runs.get(id)
    assert run is not None
    return run


# -- it is seen


def test_a_run_of_another_process_is_followed_to_its_end(process: MakeRuns) -> None:
    script = Script(STARTED, STEP, Delta(2, "title", "Nex"), Delta(2, "title", "t"), ANSWER)
    here, there = process(quick(ANSWER)), process(script)
    run = there.start(WHY, owner="ann")
    until(lambda: len(run.events(0)) == 4)
    followed = found(here, run.id)
    assert (followed.ended, followed.asked, followed.link) == (False, WHY, run.link)
    assert compact(followed.events(0)) == (STARTED, STEP, Delta(2, "title", "Next"))
    assert found(here, run.id) is followed
    assert 0 <= followed.seconds() < 60
    script.gate.set()
    until(lambda: followed.ended)
    assert followed.events(0)[-1] == ANSWER
    assert found(here, run.id).trace.events == (STARTED, STEP, ANSWER)


def half_way(process: MakeRuns) -> tuple[Runs, Run, Script]:
    """A process, and a run that thinks in another: it has a step, and waits at the gate."""
    script = Script(STARTED, STEP, ANSWER)
    here, there = process(quick(ANSWER)), process(script)
    run = there.start(WHY)
    until(lambda: len(run.events(0)) == 2)
    return here, run, script


def test_runs_that_think_elsewhere_are_among_their_owners(process: MakeRuns) -> None:
    here, there = process(quick(ANSWER)), process(Script(STARTED, ANSWER))
    run = there.start(WHY, owner="ann")
    until(lambda: run.events(0))
    assert [one.id for one in here.live("ann")] == [run.id]
    assert here.live("bob") == []
    there.stop(run.id)
    until(lambda: here.live("ann") == [])


def test_a_process_that_dies_leaves_its_run_interrupted(
    process: MakeRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, run, script = half_way(process)
    followed = found(here, run.id)
    assert not followed.ended
    monkeypatch.setattr(history.store, "lives", lambda keeper, silent: False)
    until(lambda: followed.ended)
    assert (followed.trace.steps, followed.trace.end) == ((STEP,), None)
    script.gate.set()  # it lives after all: what it comes to is not lost
    until(lambda: run.settled)
    assert found(here, run.id).trace.answer == ANSWER


def test_a_process_that_ends_in_order_leaves_its_run_at_once(process: MakeRuns) -> None:
    script = Script(STARTED, STEP, ANSWER)
    here, there = process(quick(ANSWER)), process(script)
    run = there.start(WHY)
    until(lambda: len(run.events(0)) == 2)
    followed = found(here, run.id)
    assert not followed.ended
    there.leave()
    until(lambda: followed.ended)
    assert (followed.trace.steps, followed.trace.end) == ((STEP,), None)
    script.gate.set()


def test_a_store_that_cannot_be_read_ends_no_run(
    process: MakeRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, run, script = half_way(process)
    followed = found(here, run.id)

    def fail(id: str, since: int) -> Progress:
        raise StoreError("unreachable", "here", "no answer")

    with monkeypatch.context() as broken:
        broken.setattr(here._store, "follow", fail)
        until(lambda: not followed.ended and here.trouble)
    script.gate.set()
    until(lambda: followed.ended)
    assert (followed.trace.answer, here.trouble) == (ANSWER, None)


# -- its vote is


def test_a_vote_is_on_here_until_it_is_decided_there(process: MakeRuns) -> None:
    voters = Voters("4", "4", "", "", "4")
    here, there = process(quick(ANSWER)), process(voters)
    first = begin_vote(there, 5)
    until(lambda: len(there.together(first.id)) == 3)
    until(lambda: here.ids_together(first.id) == {one.id for one in there.together(first.id)})
    assert here.votes_on(first.id)
    voters.answers[2] = "5"  # so one more is asked
    until(lambda: len(here.ids_together(first.id)) == 4)
    assert here.votes_on(first.id)
    voters.answers[3] = "4"
    until(lambda: not here.votes_on(first.id))
    assert not there.votes_on(first.id)


def chain(state: str, answer: str = "4", ended: float = 100.0, way: str = "cot") -> Entry:
    link = Link("first", group="first")
    return Entry("id", "Why?", "m", way, link, 90.0, ended, state, 1, 0, 9, 1, answer, "ann")


@pytest.mark.parametrize(
    ("on", "runs", "most"),
    [
        (False, [], 5),
        (True, [chain("thinking", "", 0.0)], 1),
        (False, [chain("answered")] * 3, 8),
        (True, [chain("answered")] * 2, 8),
        (False, [chain("answered", ended=97.0)] * 2, 8),  # its process died just then
        (False, [chain("answered")], 1),
        (True, [chain("answered"), chain("failed", ""), chain("answered", "5")], 8),
        (False, [chain("answered"), chain("stopped", "")], 8),
        (False, [chain("answered"), chain("interrupted", "")], 8),
        (True, [chain("answered"), chain("answered"), chain("answered", way="direct")], 8),
    ],
)
def test_a_vote_is_undecided_as_where_it_is_drawn(on: bool, runs: list[Entry], most: int) -> None:
    assert is_undecided(runs, most, now=101.0) is on


def test_however_many_look_the_store_is_asked_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, looks = Store(f"sqlite:///{tmp_path / 'history.db'}"), list[str]()
    votes = VotesElsewhere(store, every=60.0)
    monkeypatch.setattr(store, "together", lambda group: looks.append(group) or [])
    for group in ("one", "one", "other", "one", "other"):
        assert votes.chains(group) == []
    assert looks == ["one", "other"]
    store.close()


def test_a_store_that_cannot_be_read_tells_of_no_vote(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(group: str) -> list[Entry]:
        raise StoreError("unreachable", "here", "no answer")

    store = Store("sqlite://")
    monkeypatch.setattr(store, "together", fail)
    assert not VotesElsewhere(store).is_on("one", 5)


# -- it is stopped


def test_a_stop_from_here_ends_it_there(process: MakeRuns) -> None:
    here, run, script = half_way(process)
    here.stop(run.id)
    until(lambda: run.ended)
    assert script.closed.wait(10)
    assert isinstance(run.trace.end, Stopped)
    until(lambda: found(here, run.id).ended)
    assert found(here, run.id).trace.events == run.trace.events


def test_a_vote_is_stopped_from_here_and_begins_no_more(process: MakeRuns) -> None:
    voters = Voters("4", "", "", "4", "4")
    here, there = process(quick(ANSWER)), process(voters)
    first = begin_vote(there, 5)
    until(lambda: first.ended and len(here.live("")) == 2)
    here.stop_vote(first.id)
    until(lambda: not there.votes_on(first.id))
    until(lambda: all(run.ended for run in there.together(first.id)))
    ends = [type(run.trace.end) for run in there.together(first.id)]
    assert (voters.begun, ends) == ([0, 1, 2], [Answer, Stopped, Stopped])


# -- it is gone on with


def test_a_run_that_is_gone_on_with_elsewhere_is_stopped(
    process: MakeRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process was taken for dead, and only slow: one of the two goes on."""
    here, run, _script = half_way(process)
    with monkeypatch.context() as slow:
        slow.setattr(history.store, "lives", lambda keeper, silent: False)
        assert found(here, run.id).ended
    link = Link(run.id, origin=run.id, parts=2, how="go_on")
    after = here.start(RunRequest("Why?", steps=(STEP,)), link)
    assert after.id != run.id
    until(lambda: run.ended and after.ended)
    assert isinstance(run.trace.end, Stopped)
    assert after.trace.answer == ANSWER


# -- signs of life


def test_runs_that_think_give_signs_of_life_until_they_are_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, run = Store("sqlite://"), Run(WHY)
    beats: list[Sequence[str]] = []
    monkeypatch.setattr(store, "beat", beats.append)
    leases = Leases(store, lambda run, together: None, beat=0.0, look=0.001)
    leases.hold(run)
    until(lambda: len(beats) > 2)
    run.close()
    until(lambda: leases._runs == {})
    assert beats[0] == [run.id]


def test_a_run_that_was_given_back_is_not_taken_again_by_a_sign_of_life(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, run = Store("sqlite://"), Run(WHY)
    asked: list[tuple[str, Sequence[str]]] = []
    monkeypatch.setattr(store, "beat", lambda ids: asked.append(("beat", ids)))
    monkeypatch.setattr(store, "give_back", lambda ids: asked.append(("give back", ids)))
    leases = Leases(store, lambda run, together: None, beat=0.0, look=0.001)
    leases.hold(run)
    until(lambda: asked)
    leases.give_back()
    time.sleep(0.05)
    run.close()
    assert asked[-1] == ("give back", [run.id])


def test_a_store_that_takes_no_sign_of_life_is_tried_again_and_named_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store, run = Store("sqlite://"), Run(WHY)
    tries: list[Sequence[str]] = []

    def fail(ids: Sequence[str]) -> None:
        tries.append(ids)
        raise StoreError("locked", "here")

    with monkeypatch.context() as broken:
        broken.setattr(store, "beat", fail)
        leases = Leases(store, lambda run, together: None, beat=0.0, look=0.001)
        leases.hold(run)
        until(lambda: len(tries) > 3)
    until(lambda: not leases._failed)
    run.close()
    assert caplog.text.count("took no sign of life") == 1


# -- what is new of a run


class Writing:
    """A model that writes in order: what is drawn is a happening, each where it can come."""

    def __init__(self) -> None:
        self.step = 1

    def event(self, what: str) -> Event:
        if what == "step":
            self.step += 1
            return Step(self.step - 1, "T", "abc", "continue", 1.0, 1)
        made: dict[str, Event] = {
            "retry": Retry(self.step, 1, "cut", ""),
            "notice": Notice("context", ""),
            "queued": Queued(2),
        }
        part, _, text = what.partition(" ")
        return made.get(what) or Delta(self.step, part, text)  # type: ignore[arg-type]


HAPPENINGS = ["title a", "title b", "content a", "content b", "action continue", "step", "retry"]


@given(
    st.lists(st.sampled_from([*HAPPENINGS, "notice", "queued"]), max_size=12),
    st.lists(st.integers(0, 12), max_size=5),
)
def test_whoever_looks_now_and_then_comes_to_know_all(whats: list[str], looks: list[int]) -> None:
    """However the events fall between two looks: what was heard is what there is."""
    writing = Writing()
    events = [STARTED, *map(writing.event, whats)]
    heard: list[Event] = []
    for until_now in [*sorted(looks), len(events)]:
        now = compact(events[:until_now])
        heard += later_events(compact(heard), now)
        assert compact(heard) == now


def test_the_clock_of_a_followed_run_does_not_stand_still_for_waits_that_are_over() -> None:
    now = [100.0]
    retry = Retry(1, 1, "unreachable", "No server.", wait=2.0)
    progress = Progress("thinking", 3, (STARTED, retry, Delta(1, "title", "T")), whole=True)
    entry = Entry("one", "Why?", "m", "w", Link("one"), 0, 0, "thinking", 0, 0, 0, 0, "", "")
    run = Followed(WHY, entry, lambda since: progress, 10.0, now=lambda: now[0])
    assert run.seconds() == pytest.approx(8.0)
    now[0] += 1.0
    assert run.seconds() == pytest.approx(9.0)
