"""What is kept, in the browser: follow-ups, links, closed tabs, and a page that is killed."""

from __future__ import annotations

import json
import threading
from typing import Any

from tests.page_browser import PageServer, Visitor, expect, on_stage, thinking, until
from tests.stub import NEVER, Stub, says, step

SPINNER = "[data-testid=stSpinnerIcon]:visible"  # what has a hint has a twin


def think(visitor: Visitor, question: str) -> None:
    visitor.ask(question)
    visitor.sees(f"The answer to {question}")
    visitor.wait_for_end()


def sent(stub: Stub, question: str) -> str:
    """All that the model was told when the first step about that was asked for."""
    requests = (json.dumps(request["messages"]) for request in stub.requests)
    return next(told for told in requests if question in told)


# -- a conversation


def test_a_follow_up_sends_questions_and_answers_and_the_steps_where_that_is_chosen(
    page: str, port: int, visitors: Any
) -> None:
    with on_stage(thinking(), port=port) as stub:
        visitor = visitors(page)
        think(visitor, "One and one?")
        think(visitor, "And one more?")
        told = sent(stub, "And one more?")
        assert '"content": "One and one?' in told
        assert "The answer to One and one? is" in told
        assert "About One and one?" not in told
        visitor.sees("The answer to One and one?")  # stands above
        expect(visitor.threads).to_have_text(["One and one?"])
        visitor.shoot("follow-up")
        visitor.switch("Follow-ups send the steps too")
        think(visitor, "And the last?")
        told = sent(stub, "And the last?")
        assert "About One and one?: 2." in told
        assert "About And one more?: 2." in told


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
        think(visitor, "By a link?")
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
    chain = [step("Look", "First."), step("Count", "Second."), endless]
    with on_stage(*chain, port=port):
        visitor = visitors(staged.address)
        visitor.ask("Killed?")
        expect(visitor.steps.nth(2)).to_contain_text("word word", timeout=60_000)
        staged.kill()
    with on_stage(step("Check", "Third.", "final_answer"), says("Done."), port=port) as stub:
        staged.start()
        visitor.page.reload()
        visitor.sees("Interrupted")
        expect(visitor.steps.nth(0)).to_contain_text("Look")
        expect(visitor.steps.nth(1)).to_contain_text("Count")
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
