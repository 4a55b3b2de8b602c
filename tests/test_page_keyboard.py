"""The page by its keys: to the question, stop, a new question; none of them surprises."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from page.keyboard import FOCUS, NEW, STOP
from tests.page_browser import Visitor, expect, on_stage
from tests.stub import NEVER, step

BOX = '[data-testid="stChatInput"] textarea'
KEYS = {FOCUS: "/", STOP: "Escape", NEW: "Control+Shift+O"}


@pytest.fixture(autouse=True)
def model(port: int) -> Iterator[None]:
    """One that thinks for as long as nobody stops it."""
    with on_stage(step("One", "word " * 80, until=NEVER), port=port):
        yield


def press(visitor: Visitor, key: str) -> None:
    visitor.page.keyboard.press(KEYS[key])


def thinking(visitor: Visitor) -> None:
    visitor.ask("A long one")
    expect(visitor.page.locator(".st-key-stop button")).to_be_visible()


def test_a_slash_goes_to_the_question_and_is_not_written(page: str, visitors: Any) -> None:
    visitor = visitors(page)
    box = visitor.page.locator(BOX)
    expect(visitor.page.locator("body")).to_have_attribute("data-keys", "on")
    visitor.page.mouse.click(700, 600)
    expect(box).not_to_be_focused()
    press(visitor, FOCUS)
    expect(box).to_be_focused()
    expect(box).to_have_value("")
    press(visitor, FOCUS)
    expect(box).to_have_value("/")


def test_escape_stops_the_run(page: str, visitors: Any) -> None:
    visitor = visitors(page)
    thinking(visitor)
    press(visitor, STOP)
    visitor.wait_for_end()
    visitor.sees("Stopped.")


def test_escape_that_closes_a_menu_stops_nothing(page: str, visitors: Any) -> None:
    visitor = visitors(page)
    thinking(visitor)
    visitor.way.first.click()
    menu = visitor.page.locator('[data-testid="stPopoverBody"]')
    expect(menu).to_be_visible()
    press(visitor, STOP)
    expect(menu).to_have_count(0)
    expect(visitor.page.locator(".st-key-stop button")).to_be_visible()
    press(visitor, STOP)
    visitor.wait_for_end()


def test_escape_while_a_name_is_written_stops_nothing(page: str, visitors: Any) -> None:
    visitor = visitors(page)
    thinking(visitor)
    visitor.page.get_by_role("searchbox", name="Search").click()
    press(visitor, STOP)
    visitor.sees("word word")
    expect(visitor.page.locator(".st-key-stop button")).to_be_visible()
    visitor.page.locator(".st-key-stop button").click()
    visitor.wait_for_end()


def test_a_new_question_while_one_is_thought_about(page: str, visitors: Any) -> None:
    visitor = visitors(page)
    thinking(visitor)
    press(visitor, NEW)
    expect(visitor.page.locator('[data-testid="stHeading"]')).to_have_text("Stepwise")
    expect(visitor.page.locator(BOX)).to_be_enabled()


def test_single_letters_can_be_turned_off(page: str, visitors: Any) -> None:
    visitor = visitors(page)
    visitor.page.locator(".st-key-settings button").first.click()
    visitor.page.get_by_text("The key / goes to the question").click()
    expect(visitor.page.locator("body")).to_have_attribute("data-keys", "off")
    visitor.page.keyboard.press("Escape")
    expect(visitor.page.locator('[data-testid="stPopoverBody"]')).to_have_count(0)
    visitor.page.mouse.click(700, 600)
    press(visitor, FOCUS)
    expect(visitor.page.locator(BOX)).not_to_be_focused()
    visitor.page.locator(".st-key-settings button").first.click()
    visitor.page.get_by_text("The key / goes to the question").click()
    expect(visitor.page.locator("body")).to_have_attribute("data-keys", "on")
