"""A run in a real browser, alone on a stage: folding, copying, tooltips, charts."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from reasoning.events import Answer, Correction, Delta, Event, Retry, Started, Step, to_dict
from tests.axe import serious
from tests.page_browser import PHONE, Visitor, expect, page_server, until
from tests.processes import ROOT

THRICE, CHINESE = "\\(r\\) comes **three** times.\n\n- one\n- two", "一共三个，$5 也是。"
ANSWER = "There are **three**: \\(3\\)."
COPIED = (("Copy step 1", THRICE), ("Copy step 2", CHINESE), ("Copy the answer", ANSWER))


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
    folder = tmp_path_factory.mktemp("stage")
    modules = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    given = {"script": "tests/stage/app.py", "STAGE": str(folder), "PYTHONPATH": modules}
    with page_server("", "stage.log", **given) as page:
        yield Stage(page.address, folder)


def step(number: int, content: str = THRICE, **given: Any) -> Step:
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
    return [*events, Answer(ANSWER, 1.0, 12, 0.2)]


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


# -- what an ended run has to offer


def test_an_ended_run_explains_its_small_things_and_is_copied_as_the_model_wrote_it(
    stage: Stage, visitors: Any
) -> None:
    began, *said = run(step(2, CHINESE))
    edited = step(1, edited=True)
    small = [Retry(1, 1, "repeat", "It repeats."), edited, Correction(1, "3", "4")]
    stage.put([began, *small, *said])
    visitor = visitors(f"{stage.address}?folding=all")
    explains_its_small_things(visitor)
    for name, text in COPIED:
        copies(visitor, name, text)
    # as over plain http from another machine
    visitor.page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    copies(visitor, *COPIED[0])


def explains_its_small_things(visitor: Visitor) -> None:
    """By marks that stand in the label, and where the pointer rests."""
    marks = visitor.steps.first.locator("summary img")
    expect(marks).to_have_count(3)
    names = [mark.get_attribute("alt") for mark in marks.all()]
    assert names == ["Tried again", "Changed by you", "Corrected"]
    assert "was refused" in (marks.first.get_attribute("title") or "")
    visitor.steps.first.get_by_role("button", name="Help").first.hover()
    expect(visitor.page.get_by_role("tooltip")).to_contain_text("was refused")


def copies(visitor: Visitor, name: str, text: str) -> None:
    visitor.page.get_by_role("button", name=name, exact=True).click()
    expect(visitor.page.get_by_text("Copied", exact=True)).to_have_count(1)
    assert pasted(visitor) == text
    expect(visitor.page.get_by_text("Copied", exact=True)).to_have_count(0)


# -- charts


def test_charts_over_the_history_fit_a_phone_whatever_a_model_is_called(
    stage: Stage, visitors: Any
) -> None:
    models = ("SmolLM2-135M-Instruct", "Satori-7B-Round2", "<img src=x onerror=alert(1)>" * 3)
    entries = [
        {"model": model, "way": "json_steps", "state": "answered", "steps": number % 9 + 3}
        | {"seconds": (number * 7919 % 97) / (row + 1)}
        for row, model in enumerate(models)
        for number in range(30 * (2 - row) + 4)
    ]
    (stage.folder / "entries.json").write_text(json.dumps(entries), encoding="utf-8")
    visitor = visitors(f"{stage.address}?history=1&lang=zh", size=PHONE)
    charts = visitor.page.locator('[data-testid="stEChartsChart"]')
    expect(charts.locator("canvas")).to_have_count(2)
    assert "SmolLM2-135M-Instruct" in (charts.first.get_attribute("aria-label") or "")
    charts.first.hover(position={"x": 250, "y": 40})
    visitor.page.set_viewport_size({"width": PHONE[0], "height": 1400})
    for scheme in visitor.in_both_themes():
        visitor.shoot(f"show-history-{scheme}")
        assert visitor.page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]
        assert serious(visitor.page) == []
