"""A server that ends is started again, later each time, and five times in ten minutes at most."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, cast

import pytest

from serving.failures import Failure
from serving.launch import look_at_replicas
from serving.report import Report
from serving.restarts import MOST, Died, Restarter, pause_before


class Mortal:
    """Stands in for a Service: ends when a test says so, and answers when a test says so."""

    name, log = "The page", Path("/x.log")

    def __init__(self) -> None:
        self.status: int | None = None
        self.up, self.started = True, 0

    def answers(self) -> bool:
        return self.up

    def start_again(self) -> None:
        self.status, self.started = None, self.started + 1

    def failure(self) -> Failure:
        return Failure("was ended by SIGKILL", (), "")


class Watch:
    """A restarter over a mortal, on a clock that a test turns."""

    def __init__(self) -> None:
        self.now, self.out, self.mortal = 1000.0, io.StringIO(), Mortal()
        service = cast(Any, self.mortal)
        self.restarter = Restarter(service, Report(self.out), clock=lambda: self.now)

    def ends(self, after: float = 0.0) -> None:
        self.now += after
        self.mortal.status = 137
        self.restarter.look()

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.restarter.look()


def test_pauses_double_and_end() -> None:
    assert [pause_before(n) for n in range(MOST + 1)] == [1, 2, 4, 8, 16, None]


def test_it_is_started_again_after_its_pause_and_says_when_it_answers() -> None:
    watch = Watch()
    watch.ends()
    watch.wait(0.9)
    assert watch.mortal.started == 0
    watch.wait(0.1)
    assert watch.mortal.started == 1
    watch.wait(0.2)
    assert watch.out.getvalue().splitlines()[-1] == "The page answers again."


def test_the_sixth_end_in_ten_minutes_is_the_last() -> None:
    watch = Watch()
    for _ in range(MOST):
        watch.ends(after=60)
        watch.wait(16)
        watch.wait(0.2)
    with pytest.raises(Died) as died:
        watch.ends(after=60)
    assert died.value.starts == watch.mortal.started == MOST


def test_what_ends_once_in_a_while_is_started_for_ever() -> None:
    watch = Watch()
    for _ in range(20):
        watch.ends(after=200)
        watch.wait(16)
        watch.wait(0.2)
    assert watch.mortal.started == 20


def test_one_that_never_answers_again_ends_however_long_it_takes_to_fail() -> None:
    watch = Watch()
    watch.mortal.up = False
    for _ in range(MOST):
        watch.ends(after=300)
        watch.wait(16)
    with pytest.raises(Died):
        watch.ends(after=300)


def test_a_replica_that_cannot_be_kept_up_is_given_up_and_the_others_go_on() -> None:
    """And with the last one all ends."""
    dying, living = Watch(), Watch()
    replicas = [dying.restarter, living.restarter]
    for _ in range(MOST):
        dying.ends(after=60)
        dying.wait(16)
        dying.wait(0.2)
    dying.mortal.status = 137
    look_at_replicas(replicas, dying.restarter.report)
    assert replicas == [living.restarter]
    assert dying.out.getvalue().splitlines()[-1].endswith("is given up. The others go on.")
    living.restarter.starts = [living.now] * MOST
    living.mortal.status = 137
    with pytest.raises(Died):
        look_at_replicas(replicas, living.restarter.report)
