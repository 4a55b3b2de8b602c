"""Steering a chain in the browser: edit, again, doubt, answer now; its branches."""

from __future__ import annotations

import json
import re
from typing import Any

from tests.page_browser import (
    LED,
    PageServer,
    Visitor,
    expect,
    on_stage,
    thinking,
    until,
)
from tests.reciter import NAME as RECITER
from tests.reciter_steps import APPLES
from tests.stub import NEVER, Play, Stub, says, step, step_number

BRANCH = ".st-key-branches [class*='st-key-branch-'] button:visible"


def steered(request: dict[str, Any]) -> Play:
    """The chain at first; once a step says "mine", or is doubted or unwanted, another one."""
    text = json.dumps(request["messages"][1:])
    if not any(word in text for word in ("mine", "doubt step", "As you say.")):
        return _plays(thinking(3), request)
    if "response_format" not in request:
        return says("Another answer.")
    return step("Other", "As you say. " + text[-20:], "final_answer")


def _plays(script: Any, request: dict[str, Any]) -> Play:
    play: Play = script(request)
    return play


def thought(visitor: Visitor, question: str) -> None:
    visitor.ask(question)
    visitor.wait_for_end()


def edit(visitor: Visitor, number: int, words: str) -> None:
    visitor.steer(number, "Edit and go on")
    rewrite(visitor, words)


def rewrite(visitor: Visitor, words: str) -> None:
    visitor.page.get_by_role("textbox", name="What the step says").fill(words)
    visitor.page.get_by_role("button", name="Go on from here").click()


def test_an_edited_step_is_not_empty_and_is_what_the_model_reads_and_the_old_run_stays(
    page: str, port: int, visitors: Any
) -> None:
    with on_stage(steered, port=port) as stub:
        visitor = visitors(page)
        thought(visitor, "Edit?")
        first, before = visitor.page.url, len(stub.requests)
        edit(visitor, 2, "  ")
        visitor.sees("A step cannot be empty.")
        assert len(stub.requests) == before
        rewrite(visitor, "These words are mine.")
        visitor.sees("Another answer.")
        visitor.wait_for_end()
        assert visitor.page.url != first
        turns = [turn["content"] for turn in stub.requests[before]["messages"]]
        assert any("These words are mine." in turn for turn in turns)
        assert not any("About Edit?: 2." in turn for turn in turns)
        assert any("About Edit?: 1." in turn for turn in turns)
        expect(visitor.unfold(2)).to_contain_text("Changed by you")
        expect(visitor.steps).to_have_count(3)
        visitor.shoot("steer-edited")
        visitor.page.goto(first)
        visitor.sees("The answer to Edit? is 5.")
        expect(visitor.unfold(2)).to_contain_text("About Edit?: 2.")


def test_a_step_is_thought_again_doubted_or_followed_by_the_answer(
    page: str, port: int, visitors: Any
) -> None:
    with on_stage(steered, port=port) as stub:
        visitor = visitors(page)
        thought(visitor, "Steer?")
        first = visitor.page.url
        for steered_so in (thought_again, doubted, answered):
            before = len(stub.requests)
            steered_so(visitor, stub, before)
            visitor.button("branch-1").click()
            expect(visitor.page).to_have_url(first)
            visitor.settle()  # or the redraw shuts the menu that is opened next


def thought_again(visitor: Visitor, stub: Stub, before: int) -> None:
    """The steps before it are kept, and another is asked for."""
    visitor.steer(3, "Think again")
    until(lambda: len(stub.requests) > before)
    visitor.wait_for_end()
    asked = stub.requests[before]["messages"]
    assert "About Steer?: 2." in json.dumps(asked)
    assert step_number({"messages": asked}) == 3


def doubted(visitor: Visitor, stub: Stub, before: int) -> None:
    """The next step examines it."""
    visitor.steer(1, "Doubt this step")
    visitor.sees("Another answer.")
    visitor.wait_for_end()
    last = stub.requests[before]["messages"][-1]
    assert last["role"] == "user"
    assert "doubt step 1" in last["content"]
    expect(visitor.unfold(2)).to_contain_text("Asked to doubt")


def answered(visitor: Visitor, stub: Stub, before: int) -> None:
    """No step comes after it."""
    visitor.steer(1, "Answer now")
    expect(visitor.steps).to_have_count(1)
    visitor.wait_for_end()
    visitor.sees("The answer to Steer? is 6.")
    assert len(stub.requests) == before + 1
    assert "response_format" not in stub.requests[before]


def test_answer_now_is_there_while_it_thinks(page: str, port: int, visitors: Any) -> None:
    slow = step("Slow", "word " * 400, until=NEVER)

    def reply(request: dict[str, Any]) -> Play:
        play = _plays(thinking(), request)
        return slow if "response_format" in request and step_number(request) > 2 else play

    with on_stage(reply, port=port) as stub:
        visitor = visitors(page)
        visitor.ask("Now?")
        expect(visitor.steps.nth(2)).to_contain_text("Slow")
        visitor.button("answer-now").click()
        visitor.sees("The answer to Now? is 4.")
        visitor.wait_for_end()
        expect(visitor.steps).to_have_count(2)
        until(lambda: stub.gone == 1)


def test_branches_are_switched_between_and_say_where_they_part(
    page: str, port: int, visitors: Any
) -> None:
    with on_stage(steered, port=port):
        visitor = visitors(page)
        thought(visitor, "Branch?")
        expect(visitor.page.locator(BRANCH)).to_have_count(0)
        edit(visitor, 2, "These words are mine.")
        visitor.sees("Another answer.")
        visitor.wait_for_end()
        branches = visitor.page.locator(".st-key-branches")
        expect(branches).to_contain_text("from branch 1, step 2 edited")
        visitor.button("branch-1").click()
        visitor.sees("The answer to Branch? is 7.")
        expect(visitor.run).not_to_contain_text("Another answer.")
        visitor.button("branch-2").click()
        visitor.sees("Another answer.")
        visitor.shoot("steer-branches")
        visitor.button("branch-compare").click()
        visitor.sees("The chains part at step 2.")
        left = visitor.page.locator(".st-key-run-left")
        right = visitor.page.locator(".st-key-run-right")
        left.locator("summary").get_by_text("Thought 2").click()
        expect(left).to_contain_text("About Branch?: 2.")
        right.locator("summary").get_by_text("Thought 2").click()
        expect(right).to_contain_text("Changed by you")
        visitor.shoot("compare-branches")
        visitor.button("compare-close").click()
        expect(visitor.page.locator(".st-key-compare-head")).to_have_count(0)


def test_a_real_chain_is_steered(real_page: PageServer, visitors: Any) -> None:
    real_page.prefer(**LED, min_steps=1, max_steps=1, step_tokens=100)
    visitor = visitors(real_page.address, size=(1280, 1400))
    visitor.sees(RECITER)
    thought(visitor, APPLES)
    expect(visitor.steps.first).to_be_visible()
    edit(visitor, 1, "Tom eats three apples, so nine of twelve are left.")
    expect(visitor.page.locator(".st-key-branches")).to_contain_text("step 1 edited")
    visitor.wait_for_end()
    expect(visitor.unfold(1)).to_contain_text("nine of twelve are left")
    expect(visitor.bar).to_contain_text(re.compile(r"Thought for [\d.]+ s in \d step"))
    visitor.shoot("steer-real")
