"""The page by its keys: to the question, stop, a new question; none of them surprises."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from page.keyboard import FOCUS, NEW, STOP
from tests.page_browser import Visitor, expect, on_stage, until
from tests.stub import NEVER, Stub, step

BOX = '[data-testid="stChatInput"] textarea'
KEYS = {FOCUS: "/", STOP: "Escape", NEW: "Control+Shift+O"}


@pytest.fixture(autouse=True)
def model(port: int) -> Iterator[Stub]:
    """One that thinks for as long as nobody stops it."""
    with on_stage(step("One", "word " * 80, until=NEVER), port=port) as model:
        yield model


def press(visitor: Visitor, key: str) -> None:
    visitor.page.keyboard.press(KEYS[key])


def press_on_the_page(visitor: Visitor, key: str) -> None:
    """While nothing is written anywhere."""
    visitor.page.evaluate("document.activeElement.blur()")
    press(visitor, key)


def thinking(visitor: Visitor) -> None:
    visitor.ask("A long one")
    expect(visitor.steps.first).to_contain_text("word word")


def listens(visitor: Visitor, letters: str = "on") -> None:
    expect(visitor.page.locator("body")).to_have_attribute("data-keys", letters)


def test_the_keyboard_alone_asks_stops_and_begins_anew(page: str, visitors: Any) -> None:
    visitor = visitors(page)
    expect(visitor.page.locator(BOX)).to_be_enabled()
    listens(visitor)
    press_on_the_page(visitor, FOCUS)
    expect(visitor.page.locator(BOX)).to_be_focused()
    visitor.page.keyboard.type("Keys / only?")
    visitor.page.keyboard.press("Enter")
    visitor.steps.first.wait_for()
    press(visitor, STOP)
    visitor.sees("Stopped.")
    expect(visitor.page.locator(".st-key-question")).to_have_text("Keys / only?")
    press(visitor, NEW)
    visitor.sees("Try one of these")


def test_escape_stops_the_run_unless_it_closes_a_menu_or_something_is_written(
    page: str, model: Stub, visitors: Any
) -> None:
    visitor = visitors(page)
    thinking(visitor)
    visitor.way.click()
    menu = visitor.page.get_by_test_id("stPopoverBody")
    expect(menu).to_be_visible()
    press(visitor, STOP)
    expect(menu).to_have_count(0)
    visitor.page.get_by_role("searchbox", name="Search").click()
    press(visitor, STOP)
    visitor.search("no such words")  # the page hears of it after a stop, had there been one
    visitor.sees("Nothing found.")
    expect(visitor.button("stop")).to_be_visible()
    assert model.gone == 0
    press_on_the_page(visitor, STOP)
    visitor.sees("Stopped.")
    until(lambda: model.gone == 1)


def test_a_new_question_while_one_is_thought_about(page: str, visitors: Any) -> None:
    visitor = visitors(page)
    thinking(visitor)
    press(visitor, NEW)
    expect(visitor.page.locator('[data-testid="stHeading"]')).to_have_text("Stepwise")
    expect(visitor.page.locator(BOX)).to_be_enabled()
    visitor.threads.first.click()  # it is thought about still
    visitor.stop()
    visitor.wait_for_end()


def test_a_slash_goes_to_the_question_unless_it_is_turned_off(page: str, visitors: Any) -> None:
    visitor = visitors(page)
    box = visitor.page.locator(BOX)
    visitor.switch("The key / goes to the question")
    listens(visitor, "off")
    press_on_the_page(visitor, FOCUS)
    expect(box).not_to_be_focused()
    visitor.switch("The key / goes to the question")
    listens(visitor, "on")
    press_on_the_page(visitor, FOCUS)
    expect(box).to_be_focused()
    expect(box).to_have_value("")
