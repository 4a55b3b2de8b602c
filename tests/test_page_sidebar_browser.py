"""What is kept, in the browser: the sidebar, follow-ups, links, and a page that is killed."""

from __future__ import annotations

import json
import threading
from typing import Any

from tests.page_browser import PageServer, Visitor, expect, on_stage, thinking, until
from tests.stub import NEVER, says, step

SPINNER = "[data-testid=stSpinnerIcon]:visible"  # what has a hint has a twin


def thought(visitor: Visitor, *questions: str) -> None:
    """Each in a conversation of its own; the last one stays on the page."""
    for number, question in enumerate(questions):
        if number:
            visitor.begin_anew()
        visitor.ask(question)
        visitor.sees(f"The answer to {question}")
        visitor.wait_for_end()


def names(visitor: Visitor) -> list[str]:
    visitor.settle()
    return visitor.threads.all_inner_texts()


# -- the sidebar


def test_what_was_asked_is_found_by_its_words_and_opened(
    page: str, port: int, visitors: Any
) -> None:
    with on_stage(thinking(), port=port):
        visitor = visitors(page)
        thought(visitor, "Which bird is a wren?", "Which bird is a heron?")
        visitor.search("wren bird")
        expect(visitor.threads).to_have_count(1)
        visitor.shoot("history-search")
        visitor.threads.first.click()
        visitor.sees("The answer to Which bird is a wren?")
        expect(visitor.run).not_to_contain_text("heron")
        visitor.search("no such words")
        visitor.sees("Nothing found.")
        visitor.search("about heron")  # of a step
        expect(visitor.threads).to_have_count(1)


def test_a_conversation_is_renamed_and_pinned(page: str, port: int, visitors: Any) -> None:
    with on_stage(thinking(), port=port):
        visitor = visitors(page)
        thought(visitor, "Rename me?", "Newer than it?")
        visitor.do_with("Rename me?", "Rename")
        box = visitor.page.locator("[class*='st-key-name-'] input")
        box.fill("My own name")
        box.press("Enter")
        expect(visitor.thread("My own name")).to_have_count(1)
        expect(visitor.thread("Rename me?")).to_have_count(0)
        assert "My own name" not in names(visitor)[0]
        visitor.do_with("My own name", "Pin")
        expect(visitor.page.locator(".st-key-threads")).to_contain_text("Pinned")
        assert "My own name" in names(visitor)[0]
        visitor.page.reload()
        expect(visitor.threads.first).to_contain_text("My own name")
        visitor.shoot("history-pinned")
        visitor.do_with("My own name", "Unpin")
        expect(visitor.page.locator(".st-key-threads")).not_to_contain_text("Pinned")


def test_what_was_deleted_comes_back_by_undo_and_else_stays_away(
    page: str, port: int, visitors: Any
) -> None:
    with on_stage(thinking(), port=port):
        visitor = visitors(page)
        thought(visitor, "Delete me?")
        address = visitor.page.url
        visitor.do_with("Delete me?", "Delete")
        visitor.sees("Deleted: Delete me?")
        visitor.sees("Try one of these")
        expect(visitor.thread("Delete me?")).to_have_count(0)
        visitor.shoot("history-deleted")
        visitor.button("undo").click()
        expect(visitor.thread("Delete me?")).to_have_count(1)
        visitor.do_with("Delete me?", "Delete")
        visitor.sees("Deleted: Delete me?")
        visitor.page.goto(address)
        visitor.sees("is not known here")
        expect(visitor.thread("Delete me?")).to_have_count(0)


def test_a_phone_shows_the_page_and_the_sidebar_opens_and_closes(
    page: str, port: int, visitors: Any
) -> None:
    with on_stage(thinking(), port=port):
        visitor = visitors(page, size=(390, 844))
        thought(visitor, "On a phone?")
        visitor.begin_anew()
        expect(visitor.thread("On a phone?")).not_to_be_in_viewport()
        visitor.page.get_by_test_id("stExpandSidebarButton").click()
        expect(visitor.thread("On a phone?")).to_be_in_viewport()
        visitor.shoot("phone-history")
        visitor.threads.filter(has_text="On a phone?").click()
        expect(visitor.thread("On a phone?")).not_to_be_in_viewport()
        expect(visitor.run).to_be_in_viewport()


# -- a conversation


def test_a_follow_up_sends_questions_and_answers_alone(page: str, port: int, visitors: Any) -> None:
    with on_stage(thinking(), port=port) as stub:
        visitor = visitors(page)
        thought(visitor, "One and one?")
        before = len(stub.requests)
        visitor.ask("And one more?")
        visitor.sees("The answer to And one more?")
        visitor.wait_for_end()
        turns = [turn["content"] for turn in stub.requests[before]["messages"]]
        assert any(turn.startswith("One and one?") for turn in turns)
        assert any("The answer to One and one? is" in turn for turn in turns)
        assert not any("About One and one?" in turn for turn in turns)
        visitor.sees("The answer to One and one?")  # stands above
        assert names(visitor).count("One and one?") == 1
        assert "And one more?" not in names(visitor)
        visitor.shoot("follow-up")


def test_a_follow_up_sends_the_steps_too_where_that_is_chosen(
    page: str, port: int, visitors: Any
) -> None:
    with on_stage(thinking(), port=port) as stub:
        visitor = visitors(page)
        visitor.switch("Follow-ups send the steps too")
        thought(visitor, "Two and two?")
        before = len(stub.requests)
        visitor.ask("And two more?")
        visitor.sees("The answer to And two more?")
        visitor.wait_for_end()
        visitor.switch("Follow-ups send the steps too")
        assert "About Two and two?: 2." in json.dumps(stub.requests[before]["messages"])


def test_a_run_that_ends_elsewhere_no_longer_seems_to_think(
    page: str, port: int, visitors: Any
) -> None:
    """Nobody clicks, and the page that is looked at is another one."""
    end = threading.Event()
    with on_stage(thinking(until=end), port=port):
        visitor = visitors(page)
        visitor.ask("Alone in the background?")
        visitor.steps.first.wait_for()
        visitor.button("new-question").click()
        line = visitor.thread("Alone in the background?")
        expect(line.locator(SPINNER)).to_have_count(1)
        visitor.button("example_1").wait_for()
        end.set()
        expect(line.locator(SPINNER)).to_have_count(0)


# -- links, tabs, and a page that is killed


def test_a_link_opens_the_run_in_another_browser(page: str, port: int, visitors: Any) -> None:
    with on_stage(thinking(), port=port):
        visitor = visitors(page)
        thought(visitor, "By a link?")
        other = visitors(visitor.page.url)
        other.sees("The answer to By a link?")
        expect(other.run).to_have_text(visitor.run.inner_text(), use_inner_text=True)


def test_a_closed_tab_is_found_again_in_the_sidebar(page: str, port: int, visitors: Any) -> None:
    go_on = threading.Event()
    with on_stage(thinking(until=go_on), port=port) as stub:
        visitor = visitors(page)
        visitor.ask("Closed in the middle?")
        visitor.steps.first.wait_for()
        visitor.page.close()
        go_on.set()
        until(lambda: len(stub.requests) == 4)
        visitor.page = visitor.open(page)
        visitor.threads.filter(has_text="Closed in the middle?").click()
        visitor.sees("The answer to Closed in the middle?")
        visitor.wait_for_end()
        expect(visitor.steps).to_have_count(3)
        assert len(stub.requests) == 4


def test_a_killed_page_keeps_the_steps_and_goes_on(
    staged: PageServer, port: int, visitors: Any
) -> None:
    endless = step("Endless", "word " * 80, until=NEVER)
    chain = [step("One", "First."), step("Two", "Second."), endless]
    with on_stage(*chain, port=port):
        visitor = visitors(staged.address)
        visitor.ask("Killed?")
        expect(visitor.steps.nth(2)).to_contain_text("word word", timeout=60_000)
        staged.kill()
    with on_stage(step("Three", "Third.", "final_answer"), says("Done."), port=port) as stub:
        staged.start()
        visitor.page.reload()
        visitor.sees("Interrupted")
        expect(visitor.steps.nth(0)).to_contain_text("One")
        expect(visitor.steps.nth(1)).to_contain_text("Two")
        expect(visitor.steps.nth(2)).to_contain_text("word word")
        visitor.shoot("interrupted")
        visitor.button("go-on").click()
        visitor.sees("Done.")
        visitor.wait_for_end()
        expect(visitor.steps).to_have_count(3)
        expect(visitor.bar).to_contain_text("in 3 steps")
        sent = json.dumps(stub.requests[0]["messages"])
        assert "First." in sent
        assert "word word" not in sent
        assert len(stub.requests) == 2
