"""Several runs in the browser: n chains and their majority, the plain answer, side by side."""

from __future__ import annotations

import re
from collections.abc import Mapping
from threading import Event
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
from tests.reciter_steps import SUM
from tests.stub import NEVER, Play, says

WALL = re.compile(r"[\d.]+ s, [\d.]+ times .*[\d.]+ s")  # of all chains, and of one
CHAINS = ".st-key-chain-buttons button:visible"


def voting(answers: list[str], gates: Mapping[int, Event] = {}) -> Any:
    """A model whose chains, told apart by their seeds, come to these answers in turn.

    Those that have a gate wait there in the middle of their last step.
    """
    seeds: list[int] = []

    def reply(request: dict[str, Any]) -> Play:
        if request["seed"] not in seeds:
            seeds.append(request["seed"])
        number = seeds.index(request["seed"])
        if "response_format" in request:
            play: Play = thinking(until=gates.get(number))(request)  # type: ignore[assignment, arg-type, call-arg]
            return play
        return says(answers[number])

    return reply


def ask_many_times(visitor: Visitor, times: int) -> None:
    """From one: in the settings, with the keyboard."""
    visitor.set_slider("Ask this many times at most", "Home " + "ArrowRight " * (times - 1))


def test_four_chains_vote_and_each_can_be_opened(page: str, port: int, visitors: Any) -> None:
    answers = ["So \\(\\boxed{12}\\).", "It is 12", "The answer is 13.", "**12**"]
    with on_stage(voting(answers), port=port) as stub:
        visitor = visitors(page)
        ask_many_times(visitor, 4)
        visitor.ask("Three times four?")
        visitor.sees("the most frequent answer")
        visitor.wait_for_end()
        panel = visitor.page.locator(".st-key-chains")
        expect(panel).to_contain_text("12: 3 of 4 chains (75%)")
        expect(panel).to_contain_text(re.compile(r"13: 1 of 4 \(25%\)\. Chain \d"))
        expect(panel).to_contain_text(WALL)
        assert len({request["seed"] for request in stub.requests}) == 4
        visitor.shoot("chains")
        expect(visitor.page.locator(CHAINS)).to_have_count(4)
        seen = set()
        for number in range(1, 5):
            visitor.button(f"chain-{number}").click()
            expect(visitor.button(f"chain-{number}")).to_have_attribute("kind", "primary")
            visitor.settle()
            expect(visitor.steps).to_have_count(3)
            seen.add(visitor.page.url)
        assert len(seen) == 4


def test_three_chains_that_agree_are_all_that_are_asked(
    page: str, port: int, visitors: Any
) -> None:
    with on_stage(voting(["12"] * 8), port=port) as stub:
        visitor = visitors(page)
        ask_many_times(visitor, 8)
        visitor.ask("Three times four?")
        visitor.wait_for_end()
        panel = visitor.page.locator(".st-key-chains")
        expect(panel).to_contain_text("12: 3 of 3 chains (100%), of at most 8, the most frequent")
        assert len({request["seed"] for request in stub.requests}) == 3


def test_chains_begun_later_appear_while_they_think(page: str, port: int, visitors: Any) -> None:
    """The first three disagree, and the eighth could change nothing any more."""
    with on_stage(voting([*"12345", "1", "1", "1"]), port=port) as stub:
        visitor = visitors(page)
        ask_many_times(visitor, 8)
        visitor.ask("Which?")
        visitor.wait_for_end()
        expect(visitor.page.locator(CHAINS)).to_have_count(7)
        panel = visitor.page.locator(".st-key-chains")
        expect(panel).to_contain_text("1: 3 of 7 chains (43%), of at most 8, the most frequent")
        assert len({request["seed"] for request in stub.requests}) == 7


def test_chains_asked_together_are_one_line_of_the_history_and_stop_together(
    page: str, port: int, visitors: Any
) -> None:
    with on_stage(thinking(until=NEVER), port=port) as stub:
        visitor = visitors(page)
        ask_many_times(visitor, 3)
        visitor.ask("Stop all?")
        expect(visitor.page.locator(CHAINS)).to_have_count(3, timeout=60_000)
        visitor.steps.first.wait_for()
        until(lambda: len(stub.requests) == 3 * 3)  # each waits in the middle of its third step
        visitor.stop()
        visitor.wait_for_end()
        visitor.sees("Stopped.")
        until(lambda: stub.gone == 3)
        expect(visitor.threads.filter(has_text="Stop all?")).to_have_count(1)


def test_the_plain_answer_stands_beside_the_steps_and_what_differs_is_marked(
    page: str, port: int, visitors: Any
) -> None:
    def reply(request: dict[str, Any]) -> Play:
        in_steps = "next_action" in request["messages"][0]["content"]
        if in_steps:
            play: Play = thinking()(request)  # type: ignore[assignment, arg-type, call-arg]
            return play
        return says("The answer to Both? is 7.")

    with on_stage(reply, port=port):
        visitor = visitors(page)
        visitor.switch("Also answer directly")
        visitor.ask("Both?")
        visitor.sees("Different final answers")
        visitor.wait_for_end()
        beside = visitor.page.locator(".st-key-beside")
        expect(beside).to_contain_text("In steps")
        expect(beside).to_contain_text("The answer to Both? is 7.")
        expect(beside.get_by_text("Thought for")).to_have_count(2)
        visitor.shoot("beside")


def test_two_runs_of_the_history_are_laid_side_by_side(page: str, port: int, visitors: Any) -> None:
    with on_stage(thinking(), port=port):
        visitor = visitors(page)
        for question in ("Left?", "Right?"):
            visitor.ask(question)
            visitor.sees(f"The answer to {question}")
            visitor.wait_for_end()
            if question == "Left?":
                visitor.begin_anew()
        visitor.do_with("Left?", "Compare with the shown one")
        visitor.sees("Side by side")
        expect(visitor.page.locator(".st-key-question-left")).to_have_text("Right?")
        expect(visitor.page.locator(".st-key-question-right")).to_have_text("Left?")
        visitor.sees("Different final answers")
        visitor.shoot("compare")
        visitor.page.reload()
        visitor.sees("Side by side")
        visitor.button("compare-close").click()
        expect(visitor.steps).to_have_count(3)


def test_real_chains_run_at_once(real_page: PageServer, visitors: Any) -> None:
    real_page.prefer(**LED, min_steps=1, max_steps=1, step_tokens=60, chains=2, also_direct=True)
    visitor = visitors(real_page.address)
    visitor.ask(SUM)
    expect(visitor.page.locator(CHAINS)).to_have_count(2, timeout=60_000)
    visitor.wait_for_end()
    expect(visitor.page.locator(".st-key-chains")).to_contain_text(WALL)
    expect(visitor.page.locator(".st-key-beside")).to_contain_text("Directly")
    visitor.shoot("chains-real")
