"""From clicks to runs: one click asks once, wherever Streamlit breaks its callback off."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from history.request import Link, RunRequest
from history.run import Run
from page import actions
from page.navigation import Location
from page.preferences import Preferences

USES = 8  # of the session in one callback, and more


class BrokenOff(Exception):
    """What Streamlit raises in a callback when the page is to be drawn anew."""


class Session(dict[str, Any]):
    """A session that breaks the callback off at one of its uses, before it does anything."""

    def __init__(self, use: int) -> None:
        super().__init__()
        self._left = use

    def _use(self) -> None:
        self._left -= 1
        if self._left == 0:
            raise BrokenOff

    def __setitem__(self, key: str, value: Any) -> None:
        self._use()
        super().__setitem__(key, value)

    def __getitem__(self, key: str) -> Any:
        self._use()
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        self._use()
        return super().get(key, default)


class Runs:
    """Starts nothing, and remembers what it was to start."""

    def __init__(self) -> None:
        self.started: list[Run] = []
        self.others: list[RunRequest] = []  # of the vote, to be begun as it needs them
        self.first: Run | None = None  # to go on, in another process

    def start(self, asked: RunRequest, link: Link = Link(), owner: str = "", id: str = "") -> Run:
        if self.first is not None:
            return self.first
        self.started.append(Run(asked, link, owner, id=id))
        return self.started[-1]

    def vote(self, first: Run, others: Sequence[RunRequest], link: Link) -> None:
        assert link.group == first.id
        self.others += others

    def get(self, id: str | None) -> Run | None:
        return next((run for run in self.started if run.id == id), None)


@pytest.fixture
def context(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(actions, "load_preferences", lambda context: Preferences(chains=2))
    runs = Runs()
    return SimpleNamespace(runs=runs, run=runs.get, store=None, owner="", own_way="json_steps")


def click(context: Any) -> None:
    actions.ask(context, "Why?", None)


@pytest.mark.parametrize("use", range(1, USES))
def test_a_click_that_is_broken_off_and_played_again_asks_once(
    context: Any, monkeypatch: pytest.MonkeyPatch, use: int
) -> None:
    session = Session(use)
    monkeypatch.setattr("streamlit.session_state", session)
    played(click, context)
    asked = [*(run.asked for run in context.runs.started), *context.runs.others]
    assert [(one.question, one.most) for one in asked] == [("Why?", 2)] * 2  # the chains wanted
    assert dict(session.items())["shown"].run == context.runs.started[0].id


def test_who_is_second_to_go_on_with_a_run_is_led_to_the_first(
    context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, context.runs.first = Run(RunRequest("Why?"), past=True), Run(RunRequest("Why?"))
    context.runs.started.append(broken)
    broken.close()
    session = {"shown": Location(broken.id)}
    monkeypatch.setattr("streamlit.session_state", session)
    actions.go_on(context, broken)
    assert context.runs.started == [broken]
    assert session["shown"] == Location(context.runs.first.id)


def played(click: Callable[[Any], None], context: Any) -> None:
    """Twice, if it is broken off, with the view that the click was made on."""
    try:
        click(context)
    except BrokenOff:
        click(context)
