"""How often a run is drawn, without a page."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from page.pace import OFTEN, SELDOM, SHARE, Pace


class Work:
    """A clock that shows how long a thread has worked."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def drawn(pace: Pace, work: Work, seconds: float, times: int = 100) -> None:
    """Drawings that take as long each."""
    for _ in range(times):
        with pace.drawing():
            work.seconds += seconds


def test_who_is_alone_sees_twenty_drawings_a_second() -> None:
    work = Work()
    pace = Pace(work)
    with pace.following():
        drawn(pace, work, 0.005)
        assert pace.seconds == OFTEN


def test_all_together_draw_no_longer_than_their_share() -> None:
    work = Work()
    pace, many, cost = Pace(work), 20, 0.004
    with ExitStack() as crowd:
        for _ in range(many):
            crowd.enter_context(pace.following())
        drawn(pace, work, cost)
        assert many * cost / pace.seconds == pytest.approx(SHARE, rel=0.01)
    assert pace.seconds == OFTEN  # they went, and nobody waits for them


def test_nobody_waits_longer_than_half_a_second() -> None:
    work = Work()
    pace = Pace(work)
    with ExitStack() as crowd:
        for _ in range(1000):
            crowd.enter_context(pace.following())
        drawn(pace, work, 0.05)
        assert pace.seconds == SELDOM


def test_a_session_that_breaks_off_is_not_counted() -> None:
    """Streamlit ends a script by an exception, at any of its calls."""
    work = Work()
    pace = Pace(work)

    def break_off() -> None:
        with pace.following(), pace.drawing():
            work.seconds += 1e6
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        break_off()
    assert pace.seconds == OFTEN
