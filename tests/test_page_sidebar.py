"""The sidebar: what was asked is found again, named, kept on top, deleted and brought back."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page

from history.entries import Begun, Heard
from history.request import Link, RunRequest
from history.store import Store
from page.exports import as_json
from page.sidebar import LINES_AT_A_TIME, period
from reasoning.events import Answer, Settings, Started, Step, Trace
from tests.page_browser import PHONE, PageServer, expect, on_stage, thinking, until
from tests.stub import NEVER, Stub, step

NOW = datetime(2026, 3, 14, 9, 30, tzinfo=UTC).timestamp()
HOUR = 3600.0
OPEN = '[data-testid="stExpandSidebarButton"]'


@pytest.mark.parametrize(
    ("hours", "heading"),
    [
        (-1.0, "today"),  # a clock that was set back
        (0.1, "today"),
        (9.4, "today"),
        (9.6, "yesterday"),
        (33.4, "yesterday"),
        (33.6, "week"),
        (7 * 24 + 9.4, "week"),
        (7 * 24 + 9.6, "older"),
        (400 * 24.0, "older"),
    ],
)
def test_headings_follow_the_calendar(hours: float, heading: str) -> None:
    assert period(NOW - hours * HOUR, NOW, UTC) == heading


def test_a_day_begins_where_the_reader_is() -> None:
    ago = NOW - 12 * HOUR  # half past nine in the evening in London
    assert period(ago, NOW, UTC) == "yesterday"
    assert period(ago, NOW, timezone(timedelta(hours=6))) == "today"


# -- in a browser


def trace_of(question: str, at: float, answer: str, content: str = "content") -> Trace:
    steps = [Step(n, f"Title {n}", content, "continue", 1.0, 10) for n in (1, 2)]
    started = Started(question, "small", "json_steps", "en", at, Settings())
    return Trace((started, *steps, Answer(answer, 1.0, 5)))


def keep(
    store: Store, question: str, hours: float, answer: str = "Forty-two.", content: str = "content"
) -> str:
    """A run in the history that was asked some hours ago; gives its id."""
    id, at = f"run-{secrets.token_hex(4)}", time.time() - hours * HOUR
    trace = trace_of(question, at, answer, content)
    store.write([Begun(id, RunRequest(question), Link(), "", at)], [Heard(id, 0, trace.events)])
    return id


@pytest.fixture(autouse=True)
def stub(port: int) -> Iterator[Stub]:
    """The model before which the page stands."""
    with on_stage(thinking(), port=port) as stub:
        yield stub


@pytest.fixture
def store(staged: PageServer) -> Iterator[Store]:
    """The page's history, to put something into it."""
    store = Store(f"sqlite:///{staged.history}")
    yield store
    store.close()


def sidebar(page: Page) -> Locator:
    return page.locator('[data-testid="stSidebar"]')


def line(page: Page, name: str) -> Locator:
    return page.locator(".st-key-threads").get_by_role("button", name=name, exact=True)


def act(page: Page, name: str, what: str) -> None:
    """Chooses from the menu of that line."""
    page.get_by_role("button", name=f"What to do with: {name}", exact=True).click()
    page.get_by_role("menuitem", name=what).click()


def order(page: Page) -> list[str]:
    """The headings and the names, from top to bottom."""
    texts = page.locator(
        ".st-key-threads [data-testid=stCaptionContainer], .st-key-threads [data-testid=stButton]"
    ).all_inner_texts()
    return [text.split("\n")[-1] for text in texts]


def test_a_question_stands_on_top_as_soon_as_it_is_asked_and_opens_again(
    page: str, store: Store, visitors: Any
) -> None:
    old = keep(store, "An old one", 30)
    visitor = visitors(page)
    visitor.ask("How many legs?")
    visitor.wait_for_end()
    assert order(visitor.page)[:2] == ["Today", "How many legs?"]
    expect(visitor.page.locator(".st-key-shown-thread")).to_have_text(re.compile("How many legs?"))
    line(visitor.page, "An old one").click()
    expect(visitor.page.locator(".st-key-question")).to_have_text("An old one")
    expect(visitor.page.locator(".st-key-shown-thread")).to_have_text(re.compile("An old one"))
    assert f"run={old}" in visitor.page.url
    visitor.page.locator(".st-key-new-question button").click()
    expect(visitor.page.locator('[data-testid="stHeading"]')).to_have_text("Stepwise")
    expect(visitor.page.locator(".st-key-shown-thread")).to_have_count(0)


def test_words_are_found_in_names_steps_and_answers_and_what_is_found_opens(
    staged: PageServer, store: Store, visitors: Any
) -> None:
    keep(store, "A question about sheep", 1)
    keep(store, "Another one", 2, answer="The sheep are nine.")
    keep(store, "A third", 3, content="We count the sheep.")
    keep(store, "About the moon", 4)
    visitor = visitors(staged.address)
    expect(visitor.page.get_by_role("searchbox", name="Search")).to_be_visible()
    visitor.search("SHEEP")
    expect(line(visitor.page, "About the moon")).to_have_count(0)
    found = [name for name in order(visitor.page) if name not in ("Today", "Yesterday")]
    assert found == ["A question about sheep", "Another one", "A third"]  # at any hour
    visitor.search("sheep moon")
    expect(sidebar(visitor.page)).to_contain_text("Nothing found.")
    visitor.search("nine sheep")
    expect(visitor.threads).to_have_count(1)
    line(visitor.page, "Another one").click()
    expect(visitor.run).to_contain_text("The sheep are nine.")


def test_a_name_is_changed_or_left_and_an_empty_one_is_the_question_again(
    staged: PageServer, store: Store, visitors: Any
) -> None:
    keep(store, "What is it?", 1)
    visitor = visitors(staged.address)
    act(visitor.page, "What is it?", "Rename")
    visitor.page.get_by_role("button", name="Leave the name as it is").click()
    expect(line(visitor.page, "What is it?")).to_be_visible()
    act(visitor.page, "What is it?", "Rename")
    box = visitor.page.get_by_role("textbox", name="New name")
    expect(box).to_have_value("What is it?")
    box.fill("  My   *best*  one ")
    box.press("Enter")
    expect(line(visitor.page, "My *best* one")).to_be_visible()
    expect(line(visitor.page, "What is it?")).to_have_count(0)
    visitor.page.reload()
    expect(line(visitor.page, "My *best* one")).to_be_visible()
    act(visitor.page, "My *best* one", "Rename")
    box.fill("")
    box.press("Enter")
    expect(line(visitor.page, "What is it?")).to_be_visible()


def test_a_pinned_one_stands_above_newer_ones(
    staged: PageServer, store: Store, visitors: Any
) -> None:
    for hours, name in enumerate(("Newest", "Middle", "Oldest")):
        keep(store, name, 100.0 * hours)
    visitor = visitors(staged.address)
    act(visitor.page, "Oldest", "Pin")
    until(lambda: order(visitor.page)[:2] == ["Pinned", "Oldest"])
    visitor.page.reload()
    until(lambda: order(visitor.page)[:2] == ["Pinned", "Oldest"])
    act(visitor.page, "Oldest", "Unpin")
    until(lambda: order(visitor.page)[-1] == "Oldest")
    expect(visitor.page.locator(".st-key-threads")).not_to_contain_text("Pinned")


def test_what_is_deleted_can_be_brought_back_until_something_else_is_done(
    staged: PageServer, store: Store, visitors: Any
) -> None:
    keep(store, "Keep me", 1)
    keep(store, "Delete me", 2)
    visitor = visitors(staged.address)
    line(visitor.page, "Delete me").click()
    expect(visitor.page.locator(".st-key-question")).to_have_text("Delete me")
    address = visitor.page.url
    act(visitor.page, "Delete me", "Delete")
    expect(sidebar(visitor.page)).to_contain_text("Deleted: Delete me")
    expect(line(visitor.page, "Delete me")).to_have_count(0)
    expect(visitor.page.locator('[data-testid="stHeading"]')).to_have_text("Stepwise")
    visitor.page.get_by_role("button", name="Undo").click()
    expect(line(visitor.page, "Delete me")).to_be_visible()
    expect(sidebar(visitor.page)).not_to_contain_text("Deleted")
    act(visitor.page, "Delete me", "Delete")
    line(visitor.page, "Keep me").click()
    expect(visitor.page.locator(".st-key-question")).to_have_text("Keep me")
    expect(visitor.page.get_by_role("button", name="Undo")).to_have_count(0)
    visitor.page.goto(address)
    visitor.sees("is not known here")
    expect(line(visitor.page, "Delete me")).to_have_count(0)


def test_two_runs_are_laid_side_by_side(staged: PageServer, store: Store, visitors: Any) -> None:
    one, other = keep(store, "The one", 1), keep(store, "The other", 2)
    visitor = visitors(staged.address)
    line(visitor.page, "The one").click()
    expect(visitor.page.locator(".st-key-question")).to_have_text("The one")
    act(visitor.page, "The other", "Compare")
    visitor.page.wait_for_url(re.compile(f"beside={other}"))
    assert f"run={one}" in visitor.page.url


def test_only_some_are_asked_for_and_more_on_demand_and_no_name_is_markup(
    staged: PageServer, store: Store, visitors: Any
) -> None:
    name = "**Bold** <b>x</b> :red[y] $z$ [a](https://example.org)"
    keep(store, name, 1)
    for number in range(2, LINES_AT_A_TIME + 6):
        keep(store, f"Question {number}", number)
    visitor = visitors(staged.address)
    expect(line(visitor.page, name)).to_be_visible()
    expect(visitor.page.locator(".st-key-threads :is(strong, b, a, .katex)")).to_have_count(0)
    names = visitor.page.locator(".st-key-threads").get_by_role("button", name="What to do with")
    expect(names).to_have_count(LINES_AT_A_TIME)
    visitor.page.get_by_role("button", name="Show more").click()
    expect(names).to_have_count(LINES_AT_A_TIME + 5)
    expect(visitor.page.get_by_role("button", name="Show more")).to_have_count(0)


def test_a_run_that_thinks_is_marked_and_its_conversation_can_be_left(
    page: str, stub: Stub, visitors: Any
) -> None:
    stub.script = [step("One", "word " * 80, until=NEVER)]
    visitor = visitors(page)
    visitor.ask("A long one")
    expect(visitor.page.locator(".st-key-stop")).to_be_visible()
    spinner = visitor.page.locator(".st-key-threads [data-testid=stSpinnerIcon]").first
    expect(spinner).to_be_visible()
    visitor.page.locator(".st-key-new-question button").click()
    expect(visitor.page.locator('[data-testid="stHeading"]')).to_have_text("Stepwise")
    expect(spinner).to_be_visible()
    act(visitor.page, "A long one", "Delete")
    expect(sidebar(visitor.page)).to_contain_text("Deleted: A long one")
    until(lambda: stub.gone == 1)


def test_an_empty_history_says_what_it_is_for_and_takes_a_trace_from_a_file_and_nothing_else(
    staged: PageServer, visitors: Any, tmp_path: Path
) -> None:
    visitor = visitors(staged.address)
    expect(sidebar(visitor.page)).to_contain_text("What you ask is kept here.")
    bad, good = tmp_path / "bad.json", tmp_path / "good.json"
    bad.write_text("{}")
    good.write_text(as_json(trace_of("From elsewhere?", NOW, "From far away.")))
    visitor.page.locator(".st-key-import button").first.click()
    visitor.page.locator('[data-testid="stFileUploader"] input').set_input_files(str(bad))
    expect(visitor.page.get_by_role("alert")).to_contain_text("expected a trace")
    visitor.page.locator('[data-testid="stFileUploader"] input').set_input_files(str(good))
    expect(visitor.page.locator(".st-key-question")).to_have_text("From elsewhere?")
    visitor.sees("From far away.")
    expect(line(visitor.page, "From elsewhere?")).to_be_visible()


def test_on_a_phone_the_sidebar_opens_and_gives_way_to_what_was_picked(
    staged: PageServer, store: Store, visitors: Any
) -> None:
    keep(store, "Picked with a thumb", 1)
    visitor = visitors(staged.address, size=PHONE)
    one = line(visitor.page, "Picked with a thumb")
    expect(one).not_to_be_in_viewport()
    visitor.page.locator(OPEN).click()
    expect(one).to_be_in_viewport()
    visitor.shoot("history-phone-light")
    one.click()
    expect(visitor.page.locator(".st-key-question")).to_be_in_viewport()
    expect(one).not_to_be_in_viewport()
