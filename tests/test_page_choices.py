"""Settings are few, within bounds and remembered; prompts can be read and changed."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from history.store import Store
from page.choices import BOUNDS, OPTIONS, Choices, read
from reasoning.events import Settings
from tests.axe import serious
from tests.page_browser import (
    PATIENCE,
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
def test_whatever_was_remembered_the_choices_are_within_bounds(values: dict[str, Any]) -> None:
    choices = read(values)
    assert isinstance(choices.settings, Settings)
    assert choices.min_steps <= choices.max_steps
    for name, (low, high) in BOUNDS.items():
        assert low <= getattr(choices, name) <= high
        assert type(getattr(choices, name)) is type(getattr(Choices(), name))
    assert all(getattr(choices, name) in options for name, options in OPTIONS.items())
    assert all(isinstance(it, bool) for it in (choices.also_direct, choices.send_reasoning))


def test_what_was_remembered_within_bounds_is_what_holds() -> None:
    values = {"max_steps": 7, "min_steps": 2, "temperature": 1, "folding": "all", "language": "zh"}
    choices = read({**values, "chains": 16, "also_direct": True})
    assert choices == Choices(
        language="zh", folding="all", max_steps=7, min_steps=2, temperature=1.0, chains=16,
        also_direct=True,
    )  # fmt: skip


def test_the_defaults_are_the_core_s() -> None:
    assert read({}).settings == Settings()


# -- in a browser


@pytest.fixture(autouse=True)
def stub(port: int) -> Iterator[Stub]:
    """The model before which the page stands."""
    with on_stage(thinking(), port=port) as stub:
        yield stub


def closed(visitor: Visitor) -> None:
    visitor.page.keyboard.press("Escape")
    expect(visitor.page.locator('[data-testid="stPopoverBody"]')).to_have_count(0)


def shows_steps(menu: Any, wanted: list[str]) -> None:
    """The least and the most steps, once the menu has caught up."""
    thumbs = menu.locator('[class*="st-key-choice-steps-"] input[type=range]')
    for number, value in enumerate(wanted):
        expect(thumbs.nth(number)).to_have_value(value, timeout=PATIENCE)


def test_choices_survive_a_reload_a_new_tab_and_a_restart(
    staged: PageServer, visitors: Any
) -> None:
    visitor = visitors(staged.address)
    menu = visitor.show_settings()
    shows_steps(menu, ["3", "25"])
    most = menu.locator('[class*="st-key-choice-steps-"] input[type=range]').nth(1)
    most.press("ArrowLeft")
    visitor.page.keyboard.press("ArrowLeft")
    expect(most).to_have_value("23")
    expect(most).to_be_focused()
    menu.get_by_text("All open").click()
    menu.get_by_text("Also answer directly").click()
    expect(menu.get_by_role("switch", name="Also answer directly")).to_be_checked()
    closed(visitor)
    chosen = {"max_steps": 23, "folding": "all", "also_direct": True}
    until(lambda: stored(staged).items() >= chosen.items())
    visitor.page.reload()
    shows_steps(visitor.show_settings(), ["3", "23"])
    staged.stop()
    staged.start()
    other = visitors(staged.address)
    menu = other.show_settings()
    shows_steps(menu, ["3", "23"])
    expect(menu.get_by_role("radio", name="All open")).to_be_checked()
    expect(menu.get_by_role("switch", name="Also answer directly")).to_be_checked()
    menu.locator(".st-key-reset button").click()
    expect(menu.get_by_role("switch", name="Also answer directly")).not_to_be_checked()
    shows_steps(menu, ["3", "25"])


def test_two_tabs_agree_and_neither_undoes_what_the_other_chose(
    staged: PageServer, visitors: Any
) -> None:
    one, other = visitors(staged.address), visitors(staged.address)
    mine, theirs = one.show_settings(), other.show_settings()
    mine.get_by_text("Also answer directly").click()
    mine.get_by_role("radio", name="All folded").click()
    closed(one)
    until(lambda: stored(staged).get("folding") == "folded")
    theirs.get_by_text("Follow-ups send the steps too").click()
    for name in ("Also answer directly", "Follow-ups send the steps too"):
        expect(theirs.get_by_role("switch", name=name)).to_be_checked()
    expect(theirs.get_by_role("radio", name="All folded")).to_be_checked()
    mine = one.show_settings()
    for name in ("Also answer directly", "Follow-ups send the steps too"):
        expect(mine.get_by_role("switch", name=name)).to_be_checked()


def test_the_least_and_the_most_steps_cannot_pass_each_other(
    staged: PageServer, visitors: Any
) -> None:
    visitor = visitors(staged.address)
    menu = visitor.show_settings()
    least, most = (
        menu.locator('[class*="st-key-choice-steps-"] input[type=range]').nth(n) for n in (0, 1)
    )
    most.press("Home")
    expect(most).to_have_value("3")
    least.press("ArrowRight")
    closed(visitor)
    shows_steps(visitor.show_settings(), ["3", "3"])


def test_what_is_chosen_is_what_is_asked_for(staged: PageServer, stub: Stub, visitors: Any) -> None:
    visitor = visitors(staged.address)
    menu = visitor.show_settings()
    menu.locator('[class*="st-key-choice-temperature-"] input[type=range]').press("Home")
    menu.get_by_role("radio", name="中文").click()
    expect(menu.get_by_role("radio", name="中文")).to_be_checked()
    closed(visitor)
    visitor.ask("Is it cold?")
    visitor.wait_for_end()
    asked = asked_for(stub, "Is it cold?")
    assert asked["temperature"] == 0
    assert re.search(r"[\u4e00-\u9fff]", asked["messages"][0]["content"])


def test_what_a_way_does_not_heed_is_grey(page: str, stub: Stub, visitors: Any) -> None:
    stub.models = models("Satori-7B-Round2")
    visitor = visitors(page)
    expect(visitor.way).to_contain_text("COAT")
    menu = visitor.show_settings()
    expect(menu).to_contain_text("What is grey does not matter to COAT.")
    thumbs = menu.locator('[class*="st-key-choice-steps-"] input[type=range]')
    expect(thumbs.first).to_be_disabled()
    expect(menu.get_by_role("radio", name="English")).to_be_disabled()
    expect(menu.get_by_role("radio", name="All open")).to_be_enabled()


def test_a_changed_prompt_is_sent_until_it_is_reset(
    staged: PageServer, stub: Stub, visitors: Any
) -> None:
    visitor = visitors(staged.address)
    dialog = prompts(visitor)
    text = dialog.locator("textarea").first
    ours = text.input_value()
    assert "$min_steps" in ours
    text.fill("Think as a sailor would, in $min_steps to $max_steps steps.")
    dialog.get_by_role("button", name="Done").click()
    expect(dialog).to_have_count(0)
    visitor.ask("How deep is it?")
    visitor.wait_for_end()
    first = asked_for(stub, "How deep is it?")["messages"][0]["content"]
    assert first.startswith("Think as a sailor would, in 3 to 25 steps.")
    dialog = prompts(visitor)
    expect(dialog.locator("textarea").first).to_have_value(re.compile("^Think as a sailor"))
    expect(dialog).to_contain_text("changed")
    dialog.get_by_role("button", name="Take ours again").click()
    expect(dialog.locator("textarea").first).to_have_value(ours)
    expect(dialog).not_to_contain_text("changed")


def test_a_word_that_nobody_fills_in_is_said_at_once(staged: PageServer, visitors: Any) -> None:
    dialog = prompts(visitors(staged.address))
    text = dialog.locator("textarea").first
    text.fill("Think of $everything.")
    text.blur()
    expect(dialog.get_by_role("alert")).to_contain_text("$everything")


def test_while_a_run_is_followed_prompts_are_read_and_afterwards_changed(
    page: str, stub: Stub, visitors: Any
) -> None:
    end = threading.Event()
    stub.script = [thinking(until=end)]
    visitor = visitors(page)
    visitor.ask("A long one")
    expect(visitor.page.locator(".st-key-stop button")).to_be_visible()
    dialog = prompts(visitor)
    expect(dialog.locator("textarea").first).to_be_disabled()
    expect(dialog).to_contain_text("as soon as the run has ended")
    end.set()
    expect(dialog.locator("textarea").first).to_be_enabled(timeout=PATIENCE)
    dialog.get_by_role("button", name="Done").click()
    expect(dialog).to_have_count(0)
    visitor.sees("The answer to A long one")


def test_settings_and_prompts_shut_nobody_out(page: str, visitors: Any) -> None:
    visitor = visitors(page)
    visitor.show_settings()
    for scheme in visitor.in_both_themes():
        visitor.shoot(f"settings-desktop-{scheme}")
        assert serious(visitor.page, '[data-testid="stPopoverBody"]') == []
    closed(visitor)
    prompts(visitor)
    for scheme in visitor.in_both_themes():
        visitor.shoot(f"prompts-desktop-{scheme}")
        assert serious(visitor.page, '[role="dialog"]') == []


def stored(staged: PageServer) -> dict[str, Any]:
    store = Store(f"sqlite:///{staged.history}")
    try:
        return store.preferences("")
    finally:
        store.close()


def asked_for(stub: Stub, question: str) -> dict[str, Any]:
    """The first request with that question in it."""
    return next(it for it in stub.requests if question in str(it.get("messages")))


def prompts(visitor: Visitor) -> Any:
    """The dialog, with the first prompt unfolded."""
    visitor.show_settings().locator(".st-key-prompts button").click()
    dialog = visitor.page.get_by_role("dialog")
    dialog.locator("summary").first.click()
    expect(dialog.locator("textarea").first).to_be_visible()
    return dialog


def test_on_a_phone_the_whole_menu_can_be_reached(staged: PageServer, visitors: Any) -> None:
    visitor = visitors(staged.address, size=PHONE)
    menu = visitor.show_settings()
    visitor.shoot("settings-phone-light")
    menu.locator(".st-key-reset button").scroll_into_view_if_needed()
    expect(menu.locator(".st-key-reset button")).to_be_in_viewport()
    box = menu.bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= PHONE[0]
