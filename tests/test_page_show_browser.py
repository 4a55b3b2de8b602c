"""A run in a real browser, alone on a stage: folding, copying, tooltips, charts, the policy."""

from __future__ import annotations

import json
import os
import re
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from reasoning.events import Answer, Correction, Delta, Event, Retry, Started, Step, to_dict
from tests.axe import serious
from tests.page_browser import PHONE, Visitor, expect, until
from tests.processes import OUTPUT, ROOT, free_port, start

ENGLISH, CHINESE = "\\(r\\) comes **three** times.\n\n- one\n- two", "一共三个，$5 也是。"


@dataclass(frozen=True, slots=True)
class Stage:
    """The stage's page, and how far the run on it has come."""

    address: str
    folder: Path

    def put(self, events: Sequence[Event], upto: int | None = None) -> None:
        told = [to_dict(event) for event in events]
        (self.folder / "events.json").write_text(json.dumps(told), encoding="utf-8")
        self.go_on(len(events) if upto is None else upto)

    def go_on(self, upto: int) -> None:
        new = self.folder / "new"
        new.write_text(str(upto))
        new.replace(self.folder / "upto")


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder, port = tmp_path_factory.mktemp("stage"), free_port()
    command = [sys.executable, "-m", "streamlit", "run", "tests/stage/app.py"]
    options = ["--server.port", str(port), "--server.headless", "true"]
    environment = {
        **os.environ,
        "STAGE": str(folder),
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    OUTPUT.mkdir(exist_ok=True)
    with (OUTPUT / "stage.log").open("wb") as log:
        process = start([*command, *options], cwd=ROOT, env=environment, stdout=log, stderr=log)
    try:
        until(lambda: serves(port), 60)
        yield Stage(f"http://127.0.0.1:{port}/", folder)
    finally:
        process.terminate()
        process.wait(30)


def serves(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=5):
            return True
    except OSError:
        return False


def step(number: int, content: str = ENGLISH, **given: Any) -> Step:
    values: dict[str, Any] = {"action": "continue", "seconds": 2.0, "tokens": 40} | given
    return Step(number, f"Title {number}", content, first_token=0.5, **values)


def run(*steps: Step) -> list[Event]:
    began = Started("q", "little-one", "json_steps", "en", 0.0)
    events: list[Event] = [began]
    for one in steps:
        events += [
            Delta(one.number, "title", one.title),
            Delta(one.number, "content", one.content),
            one,
        ]
    return [*events, Answer("There are **three**: \\(3\\).", 1.0, 12, 0.2)]


def open_steps(visitor: Visitor) -> list[bool]:
    steps = visitor.steps.locator("> details").all()
    return [bool(step.evaluate("details => details.open")) for step in steps]


def pasted(visitor: Visitor) -> str:
    """What a person gets who pastes into the question box."""
    box = visitor.page.locator('[data-testid="stChatInput"] textarea')
    box.fill("")
    box.press("Control+V")
    return box.input_value()


# -- folding


def test_the_current_step_is_open_and_a_reader_has_the_last_word_on_the_others(
    stage: Stage, visitors: Any
) -> None:
    stage.put(run(step(1), step(2), step(3)), 3)  # the first is being written
    visitor = visitors(stage.address)
    expect(visitor.steps).to_have_count(1)
    expect(visitor.steps.first).to_contain_text("three times")
    assert open_steps(visitor) == [True]
    stage.go_on(6)
    expect(visitor.steps).to_have_count(2)
    until(lambda: open_steps(visitor) == [False, True])
    expect(visitor.steps.first.locator("summary")).to_contain_text("2.0 s · 40 tokens")
    visitor.steps.first.locator("summary").click()
    until(lambda: open_steps(visitor) == [True, True])
    stage.go_on(8)
    expect(visitor.steps).to_have_count(3)
    until(lambda: open_steps(visitor) == [True, False, True])
    stage.go_on(11)
    visitor.sees("Thought for")
    until(lambda: open_steps(visitor) == [True, False, False])


def test_steps_that_are_all_open_stay_so_and_one_that_was_closed_stays_closed(
    stage: Stage, visitors: Any
) -> None:
    stage.put(run(step(1), step(2)), 5)
    visitor = visitors(f"{stage.address}?folding=all")
    expect(visitor.steps).to_have_count(2)
    assert open_steps(visitor) == [True, True]
    visitor.steps.first.locator("summary").click()
    until(lambda: open_steps(visitor) == [False, True])
    stage.go_on(8)
    visitor.sees("Thought for")
    assert open_steps(visitor) == [False, True]


# -- copying


def test_a_step_and_the_answer_are_copied_as_the_model_wrote_them(
    stage: Stage, visitors: Any
) -> None:
    stage.put(run(step(1), step(2, CHINESE)))
    visitor = visitors(f"{stage.address}?folding=all")
    for name, text in (
        ("Copy step 1", ENGLISH),
        ("Copy step 2", CHINESE),
        ("Copy the answer", "There are **three**: \\(3\\)."),
    ):
        button = visitor.page.get_by_role("button", name=name, exact=True)
        button.click()
        expect(visitor.page.get_by_text("Copied", exact=True)).to_have_count(1)
        assert pasted(visitor) == text
        expect(visitor.page.get_by_text("Copied", exact=True)).to_have_count(0)


def test_a_browser_that_keeps_its_clipboard_from_the_page_still_copies(
    stage: Stage, visitors: Any
) -> None:
    """As over plain http from another machine."""
    stage.put(run(step(1)))
    visitor = visitors(stage.address)
    button = visitor.page.get_by_role("button", name="Copy the answer", exact=True)
    button.wait_for()
    visitor.page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    button.click()
    expect(visitor.page.get_by_text("Copied", exact=True)).to_have_count(1)
    assert pasted(visitor) == "There are **three**: \\(3\\)."


# -- small things


def test_small_things_are_explained_where_the_pointer_rests(stage: Stage, visitors: Any) -> None:
    small: list[Event] = [
        Retry(1, 1, "repeat", "It repeats."),
        step(1, edited=True),
        Correction(1, "3", "4"),
    ]
    stage.put([*run()[:1], *small, *run()[1:]])
    visitor = visitors(stage.address)
    marks = visitor.steps.first.locator("summary img")
    expect(marks).to_have_count(3)
    assert [mark.get_attribute("alt") for mark in marks.all()] == [
        "Tried again",
        "Changed by you",
        "Corrected",
    ]
    assert "was refused" in (marks.first.get_attribute("title") or "")
    visitor.steps.first.locator("summary").click()
    visitor.steps.first.get_by_role("button", name="Help").first.hover()
    expect(visitor.page.get_by_role("tooltip")).to_contain_text("was refused")


# -- charts, widths, themes and the policy


SIZES: list[Any] = [("desktop", "", {}), ("zh-phone", "lang=zh", {"size": PHONE})]


class Eye:
    """Looks on while a page is drawn: what was forbidden, how wide it is, whom it shuts out."""

    def __init__(self, visitor: Visitor) -> None:
        self._visitor, self._said = visitor, list[str]()
        visitor.page.on("console", lambda said: self._said.append(said.text))
        visitor.page.reload()

    def approves(self, name: str) -> None:
        page = self._visitor.page
        width = page.viewport_size["width"]  # type: ignore[index]
        page.set_viewport_size({"width": width, "height": 1400})
        for scheme in self._visitor.in_both_themes():
            self._visitor.shoot(f"{name}-{scheme}")
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert serious(page) == []
        assert [text for text in self._said if "Content Security Policy" in text] == []


@pytest.mark.parametrize(("name", "query", "options"), SIZES)
def test_a_run_and_its_charts_fit_every_width_and_theme_under_the_policy(
    stage: Stage, visitors: Any, name: str, query: str, options: dict[str, Any]
) -> None:
    waited = Retry(3, 1, "busy", "The server is busy.", 3.0)
    events = run(*(step(number, tokens=30 * number) for number in range(1, 13)))
    stage.put([*events[:7], waited, *events[7:]])
    visitor = visitors(f"{stage.address}?{query}", **options)
    eye = Eye(visitor)
    visitor.page.get_by_text(re.compile("^(Charts|图表)$")).click()
    expect(visitor.page.locator('[data-testid="stEChartsChart"] canvas')).to_have_count(2)
    eye.approves(f"show-run-{name}")


@pytest.mark.parametrize(("name", "query", "options"), SIZES)
def test_charts_over_the_history_fit_every_width_and_theme_under_the_policy(
    stage: Stage, visitors: Any, name: str, query: str, options: dict[str, Any]
) -> None:
    models = ("SmolLM2-135M-Instruct", "Satori-7B-Round2", "<img src=x onerror=alert(1)>" * 3)
    entries = [
        {"model": model, "way": "json_steps", "state": "answered", "steps": number % 9 + 3}
        | {"seconds": (number * 7919 % 97) / (row + 1)}
        for row, model in enumerate(models)
        for number in range(30 * (2 - row) + 4)
    ]
    (stage.folder / "entries.json").write_text(json.dumps(entries), encoding="utf-8")
    visitor = visitors(f"{stage.address}?history=1&{query}", **options)
    eye = Eye(visitor)
    charts = visitor.page.locator('[data-testid="stEChartsChart"]')
    expect(charts.locator("canvas")).to_have_count(2)
    assert "SmolLM2-135M-Instruct" in (charts.first.get_attribute("aria-label") or "")
    charts.first.hover(position={"x": 250, "y": 40})
    eye.approves(f"show-history-{name}")
