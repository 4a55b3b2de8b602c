"""From the first visit on: settings within bounds, remembered and heeded; prompts of one's own."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from playwright.sync_api import Locator

from history.store import Store
from page.preferences import BOUNDS, OPTIONS, Preferences, parse_preferences
from reasoning.events import Settings
from tests.page_browser import (
    PHONE,
    PageServer,
    Visitor,
    expect,
    models,
    on_stage,
    thinking,
    until,
)
from tests.stub import Stub

KEYS = [*BOUNDS, *OPTIONS, "also_direct", "send_reasoning", "letters", "way", "prompts", "seed"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(KEYS), JSON))
def test_whatever_was_remembered_the_preferences_are_within_bounds(values: dict[str, Any]) -> None:
    preferences = parse_preferences(values)
    assert isinstance(preferences.settings, Settings)
    assert preferences.min_steps <= preferences.max_steps
    for name, (low, high) in BOUNDS.items():
        assert low <= getattr(preferences, name) <= high
        assert type(getattr(preferences, name)) is type(getattr(Preferences(), name))
    assert all(getattr(preferences, name) in options for name, options in OPTIONS.items())
    assert all(isinstance(it, bool) for it in (preferences.also_direct, preferences.send_reasoning))


def test_what_was_remembered_within_bounds_is_what_holds() -> None:
    values = {"max_steps": 7, "min_steps": 2, "temperature": 1, "folding": "all", "language": "zh"}
    values |= {"step_seconds": 90, "chain_seconds": -1}
    preferences = parse_preferences({**values, "chains": 16, "also_direct": True})
    assert preferences == Preferences(
        language="zh", folding="all", max_steps=7, min_steps=2, temperature=1.0, chains=16,
        also_direct=True, step_seconds=90,
    )  # fmt: skip
    assert (preferences.settings.step_seconds, preferences.settings.chain_seconds) == (90, None)


def test_the_defaults_are_the_core_s() -> None:
    assert parse_preferences({}).settings == Settings()


# -- in a browser


@pytest.fixture(autouse=True)
def stub(port: int) -> Iterator[Stub]:
    """The model before which the page stands."""
    with on_stage(thinking(), port=port) as stub:
        yield stub


def thumbs(menu: Locator, widget: str) -> Locator:
    """What is moved along a slider."""
    return menu.locator(f'[class*="st-key-choice-{widget}-"] input[type=range]')


def shows_steps(menu: Locator, least: str, most: str) -> None:
    """Once the menu has caught up."""
    expect(thumbs(menu, "steps").nth(0)).to_have_value(least)
    expect(thumbs(menu, "steps").nth(1)).to_have_value(most)


def stand_open(visitor: Visitor, *wanted: bool) -> None:
    """The steps, each as wanted, after a moment."""

    def seen() -> bool:
        every = visitor.steps.locator("> details").all()
        return tuple(box.evaluate("details => details.open") for box in every) == wanted

    until(seen)


def stored(staged: PageServer) -> dict[str, Any]:
    store = Store(f"sqlite:///{staged.history}")
    try:
        return store.preferences("")
    finally:
        store.close()


def asked_for(stub: Stub, question: str) -> dict[str, Any]:
    """The first request with that question in it."""
    return next(it for it in stub.requests if question in str(it.get("messages")))


def prompts(visitor: Visitor) -> Locator:
    """The dialog, with the first prompt unfolded."""
    visitor.show_settings().locator(".st-key-prompts button").click()
    dialog = visitor.page.get_by_role("dialog")
    dialog.locator("summary").first.click()
    expect(dialog.locator("textarea").first).to_be_visible()
    expect(dialog.locator("textarea").first).not_to_have_value("")  # it is for a moment
    return dialog


def done(dialog: Locator) -> None:
    dialog.get_by_role("button", name="Done").click()
    expect(dialog).to_have_count(0)


def test_a_first_visit_shows_a_sentence_three_examples_and_nothing_else(
    page: str, stub: Stub, visitors: Any
) -> None:
    visitor = visitors(page)
    examples = visitor.page.locator("[class*='st-key-example_'] button")
    expect(examples).to_have_count(3)
    expect(examples.first).to_be_enabled()
    visitor.sees("Ask a question and watch an open model")
    expect(visitor.page.locator(".st-key-bar button:visible")).to_have_count(0)
    expect(visitor.threads).to_have_count(0)
    assert visitor.page.evaluate("document.activeElement.tagName") in ("TEXTAREA", "BODY")
    question = examples.nth(1).inner_text()
    examples.nth(1).click()
    visitor.sees("The answer to")
    visitor.wait_for_end()
    assert stub.requests[0]["messages"][0]["content"].startswith(question)


# -- settings


def test_preferences_survive_a_reload_a_new_tab_and_a_restart(
    staged: PageServer, visitors: Any
) -> None:
    visitor = visitors(staged.address)
    choose(visitor)
    preferences = {"max_steps": 23, "folding": "all", "also_direct": True}
    until(lambda: stored(staged).items() >= preferences.items())
    visitor.choose_way("Direct")
    visitor.page.reload()
    shows_steps(visitor.show_settings(), "1", "23")
    staged.stop()
    staged.start()
    other = visitors(staged.address)
    expect(other.way).to_contain_text("Direct")
    menu = other.show_settings()
    shows_steps(menu, "1", "23")
    expect(menu.get_by_role("radio", name="All open")).to_be_checked()
    expect(menu.get_by_role("switch", name="Also answer directly")).to_be_checked()
    menu.locator(".st-key-reset button").click()
    expect(menu.get_by_role("switch", name="Also answer directly")).not_to_be_checked()
    shows_steps(menu, "1", "25")


def choose(visitor: Visitor) -> None:
    """Two steps fewer, all of them open, and the plain answer beside them."""
    menu = visitor.show_settings()
    shows_steps(menu, "1", "25")
    most = thumbs(menu, "steps").nth(1)
    most.press("ArrowLeft")
    visitor.page.keyboard.press("ArrowLeft")
    expect(most).to_have_value("23")
    expect(most).to_be_focused()
    menu.get_by_text("All open").click()
    menu.get_by_text("Also answer directly").click()
    expect(menu.get_by_role("switch", name="Also answer directly")).to_be_checked()
    visitor.leave()


def test_two_tabs_agree_and_neither_undoes_what_the_other_chose(
    staged: PageServer, visitors: Any
) -> None:
    one, other = visitors(staged.address), visitors(staged.address)
    mine, theirs = one.show_settings(), other.show_settings()
    mine.get_by_text("Also answer directly").click()
    mine.get_by_role("radio", name="All folded").click()
    one.leave()
    until(lambda: stored(staged).get("folding") == "folded")
    theirs.get_by_text("Follow-ups send the steps too").click()
    for name in ("Also answer directly", "Follow-ups send the steps too"):
        expect(theirs.get_by_role("switch", name=name)).to_be_checked()
    expect(theirs.get_by_role("radio", name="All folded")).to_be_checked()
    mine = one.show_settings()
    for name in ("Also answer directly", "Follow-ups send the steps too"):
        expect(mine.get_by_role("switch", name=name)).to_be_checked()


def test_what_is_chosen_is_what_is_asked_for(page: str, stub: Stub, visitors: Any) -> None:
    stub.script = [thinking(steps=40)]
    visitor = visitors(page)
    menu = visitor.show_settings()
    for widget in ("temperature", "step_tokens"):
        thumbs(menu, widget).press("Home")
    two_steps(menu)
    menu.get_by_role("radio", name="中文").click()
    expect(menu.get_by_role("radio", name="中文")).to_be_checked()
    visitor.leave()
    visitor.ask("Is it cold?")
    visitor.wait_for_end()
    expect(visitor.steps).to_have_count(2)
    asked = asked_for(stub, "Is it cold?")
    assert (asked["temperature"], asked["max_tokens"]) == (0, 100)
    assert re.search(r"[\u4e00-\u9fff]", asked["messages"][0]["content"])


def two_steps(menu: Locator) -> None:
    """At most, and at least one."""
    least, most = (thumbs(menu, "steps").nth(number) for number in (0, 1))
    least.press("Home")
    expect(least).to_have_value("1")
    most.press("Home")
    most.press("ArrowRight")
    shows_steps(menu, "1", "2")


def test_how_steps_fold_is_a_choice(page: str, visitors: Any) -> None:
    visitor = visitors(page)
    visitor.page.set_viewport_size({"width": 1280, "height": 1400})  # for steps that are all open
    visitor.ask("Fold?")
    visitor.wait_for_end()
    stand_open(visitor, False, False, False)
    for choice, wanted in (("All open", True), ("All folded", False), ("Current open", False)):
        visitor.show_settings().get_by_text(choice, exact=True).click()
        visitor.leave()
        stand_open(visitor, wanted, wanted, wanted)


def test_what_a_way_does_not_heed_is_grey(page: str, stub: Stub, visitors: Any) -> None:
    stub.models = models("Satori-7B-Round2")
    visitor = visitors(page)
    expect(visitor.way).to_contain_text("COAT")
    menu = visitor.show_settings()
    expect(menu).to_contain_text("What is grey does not matter to COAT.")
    expect(thumbs(menu, "steps").first).to_be_disabled()
    expect(menu.get_by_role("radio", name="English")).to_be_disabled()
    expect(menu.get_by_role("radio", name="All open")).to_be_enabled()


def test_on_a_phone_all_settings_are_reached_and_least_and_most_steps_never_cross(
    page: str, visitors: Any
) -> None:
    visitor = visitors(page, size=PHONE)
    menu = visitor.show_settings()
    until(lambda: scrolled_to(menu.locator(".st-key-reset button")))
    until(lambda: fits_a_phone(menu))  # it moves while it opens
    least, most = (thumbs(menu, "steps").nth(number) for number in (0, 1))
    expect(most).to_be_enabled()  # for a moment it is not, and a key is lost
    most.press("Home")
    expect(most).to_have_value("1")
    least.press("ArrowRight")
    visitor.leave()
    shows_steps(visitor.show_settings(), "1", "1")


def scrolled_to(button: Locator) -> bool:
    """A redraw of the menu scrolls it back."""
    button.scroll_into_view_if_needed()
    with suppress(AssertionError):
        expect(button).to_be_in_viewport(timeout=1_000)
        return True
    return False


def fits_a_phone(menu: Locator) -> bool:
    box = menu.bounding_box()
    return box is not None and box["x"] >= 0 and box["x"] + box["width"] <= PHONE[0]


# -- prompts


def test_a_changed_prompt_is_sent_until_it_is_reset(page: str, stub: Stub, visitors: Any) -> None:
    visitor = visitors(page)
    dialog = prompts(visitor)
    text = dialog.locator("textarea").first
    ours = text.input_value()
    assert "$question" in ours
    text.fill("Think as a sailor would of this: $question")
    done(dialog)
    visitor.ask("How deep is it?")
    visitor.wait_for_end()
    first = asked_for(stub, "How deep is it?")["messages"][0]["content"]
    assert first == "Think as a sailor would of this: How deep is it?"
    take_ours_again(prompts(visitor), ours)
    visitor.begin_anew()
    visitor.ask("How wide is it?")
    visitor.wait_for_end()
    assert "sailor" not in str(asked_for(stub, "How wide is it?")["messages"])


def take_ours_again(dialog: Locator, ours: str) -> None:
    expect(dialog.locator("textarea").first).to_have_value(re.compile("^Think as a sailor"))
    expect(dialog).to_contain_text("changed")
    dialog.get_by_role("button", name="Take ours again").click()
    expect(dialog.locator("textarea").first).to_have_value(ours)
    expect(dialog).not_to_contain_text("changed")
    done(dialog)


def test_a_prompt_with_an_unknown_word_is_refused_by_name(
    page: str, stub: Stub, visitors: Any
) -> None:
    visitor = visitors(page)
    dialog = prompts(visitor)
    dialog.locator("textarea").first.fill("Think of $everything.")
    dialog.locator("textarea").first.press("Control+Enter")  # a dialog that opens takes the focus
    expect(dialog.get_by_role("alert")).to_contain_text("$everything")
    done(dialog)
    visitor.ask("Wrong?")
    visitor.wait_for_end()
    expect(visitor.run).to_contain_text("$everything")
    assert stub.requests == []


def test_while_a_run_is_followed_prompts_are_read_and_afterwards_changed(
    page: str, stub: Stub, visitors: Any
) -> None:
    end = threading.Event()
    stub.script = [thinking(until=end)]
    visitor = visitors(page)
    visitor.ask("A long one")
    expect(visitor.button("stop")).to_be_visible()
    dialog = prompts(visitor)
    expect(dialog.locator("textarea").first).to_be_disabled()
    expect(dialog).to_contain_text("as soon as the run has ended")
    end.set()
    expect(dialog.locator("textarea").first).to_be_enabled()
    done(dialog)
    visitor.sees("The answer to A long one")
