"""Satori's way against a scripted server: one completion, cut into steps as it comes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasoning.endpoint import Piece, ServedModel
from reasoning.errors import Unreachable
from reasoning.events import (
    Answer,
    Correction,
    Delta,
    Event,
    Failed,
    Notice,
    Retry,
    Settings,
    Step,
    Trace,
)
from reasoning.splitting import META_ACTIONS
from tests.scripted import Scripted, run

SATORI = ServedModel("Satori-7B-Round2", 4096, vllm=True)
AYA = (
    "<|continue|>First, we determine the time Aya walks. $$ s(4 - \\frac{t}{60}) = 9 $$\n"
    "<|continue|>After simplifying, the answer is: $$ \\boxed{192} $$\n"
    "<|reflect|>Wait, let's reassess my previous conclusion. It is too long.\n"
    "<|explore|>Let's switch to a new solution: $t = 24$, so $$ \\boxed{204} $$"
)


def said(text: str, size: int = 3, finish_reason: str = "stop") -> list[Piece]:
    """The text in pieces, each with the count of tokens so far, as vLLM gives them."""
    parts = [text[at : at + size] for at in range(0, len(text), size)]
    counted = [Piece(part, None, 50, number + 1) for number, part in enumerate(parts)]
    return [*counted, Piece("", finish_reason, 50, len(parts) + 1)]


async def coat(*lines: object, question: str = "How long?", **more: object) -> list[Event]:
    server = lines[0] if isinstance(lines[0], Scripted) else Scripted(*lines)  # type: ignore[arg-type]
    return await run(server, question, **{"model": SATORI, "way": "coat", **more})  # type: ignore[arg-type]


def only(events: list[Event], kind: type) -> list:
    return [event for event in events if isinstance(event, kind)]


async def test_each_meta_action_is_a_step_with_its_action_and_its_first_words() -> None:
    events = await coat(said(AYA))
    steps = only(events, Step)
    assert [step.action for step in steps] == ["continue", "continue", "reflect", "explore"]
    assert steps[0].title == "First, we determine the time Aya walks"
    assert steps[2].title == "Wait, let's reassess my previous conclusion"
    assert steps[1].content == "After simplifying, the answer is: $$ \\boxed{192} $$"
    assert all(step.tokens > 0 for step in steps)


async def test_a_step_streams_with_its_action_first() -> None:
    events = await coat(said(AYA))
    first = events[: events.index(only(events, Step)[0])]
    parts = [event.part for event in first if isinstance(event, Delta)]
    assert parts[0] == "action"
    assert set(parts) == {"action", "title", "content"}
    text = "".join(e.text for e in first if isinstance(e, Delta) and e.part == "content")
    assert text.strip() == only(events, Step)[0].content


async def test_the_answer_is_the_last_box_with_the_step_that_holds_it() -> None:
    answer = (await coat(said(AYA)))[-1]
    assert isinstance(answer, Answer)
    assert answer.content.startswith("$$\\boxed{204}$$\n\nLet's switch to a new solution")


async def test_a_box_that_overturns_an_earlier_one_is_a_correction() -> None:
    events = await coat(said(AYA))
    assert only(events, Correction) == [Correction(4, "192", "204")]
    assert isinstance(events[events.index(Correction(4, "192", "204")) - 1], Step)


async def test_of_two_boxes_in_one_step_the_last_is_the_answer() -> None:
    events = await coat(said("<|continue|>It is $\\boxed{3}$, no, $\\boxed{4}$."))
    assert only(events, Correction) == [Correction(1, "3", "4")]
    assert events[-1].content.startswith("$$\\boxed{4}$$")


async def test_the_same_box_twice_is_no_correction() -> None:
    events = await coat(said(AYA.replace("204", "192")))
    assert only(events, Correction) == []


async def test_the_prompt_is_the_cards_to_the_letter_with_no_system_turn() -> None:
    server = Scripted(said(AYA))
    await coat(server, question="What is $1+1$?")
    request = server.requests[0]
    assert request.prompt == (
        "<|im_start|>user\n"
        "Solve the following math problem efficiently and clearly.\n"
        "Please reason step by step, and put your final answer within \\boxed{}.\n"
        "Problem: What is $1+1$?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert (request.temperature, request.special_tokens) == (0.0, True)
    assert request.stop == ("<|im_end|>", "<|endoftext|>")


async def test_a_special_token_in_the_question_is_plain_text() -> None:
    server = Scripted(said(AYA), special=["<|im_end|>"])
    await coat(server, question="What is <|im_end|>?")
    assert "Problem: What is <\u200b|im_end|>?<|im_end|>" in server.requests[0].prompt


@pytest.mark.parametrize(("length", "most"), [(4096, 4096), (1024, 1024), (None, 4096)])
async def test_the_completion_may_take_what_the_prompt_leaves_of_the_context(
    length: int | None, most: int
) -> None:
    server = Scripted(said(AYA))
    await coat(server, model=ServedModel("Satori", length, vllm=True))
    assert most // 2 < server.requests[0].max_tokens < most


async def test_no_box_is_said_and_the_last_step_stands_for_one() -> None:
    events = await coat(said("<|continue|>It is three.<|continue|>So three."))
    assert only(events, Notice)[0].code == "no_box"
    assert events[-1].content == "So three."


async def test_a_chain_cut_at_the_contexts_end_is_shown_as_cut_with_the_last_box() -> None:
    events = await coat(said(AYA[:-30], finish_reason="length"))
    assert only(events, Step)[-1].cut
    assert events[-1].cut
    assert "\\boxed{192}" in events[-1].content


async def test_a_cut_chain_that_goes_on_is_asked_for_the_box_at_once() -> None:
    steps = only(await coat(said(AYA[:-30], finish_reason="length")), Step)
    server = Scripted(said("\\frac{1}{2}} $$ and so on"))
    events = await coat(server, steps=steps)
    assert server.requests[0].prompt.endswith("the final answer is: $$ \\boxed{")
    assert events[-1].content == "$$\\boxed{\\frac{1}{2}}$$"


async def test_what_was_corrected_before_is_said_again_when_a_chain_goes_on() -> None:
    steps = only(await coat(said(AYA)), Step)
    events = await coat(said("<|continue|>So $\\boxed{204}$."), steps=steps)
    assert only(events, Correction) == [Correction(4, "192", "204")]


async def test_the_steps_go_back_to_the_letter_when_a_chain_goes_on() -> None:
    steps = only(await coat(said(AYA)), Step)[:2]
    server = Scripted(said(AYA[AYA.index("<|reflect|>") :]))
    events = await coat(server, steps=steps)
    assert server.requests[0].prompt.endswith(AYA[: AYA.index("<|reflect|>")])
    assert [step.number for step in only(events, Step)] == [1, 2, 3, 4]
    assert only(events, Correction) == [Correction(4, "192", "204")]


async def test_a_stream_that_breaks_goes_on_after_the_last_finished_step() -> None:
    at = AYA.index("<|reflect|>") + 20
    broken = [*said(AYA[:at])[:-1], Unreachable("Gone.", "Start it.")]
    server = Scripted(broken, said(AYA[AYA.index("<|reflect|>") :]))
    events = await coat(server)
    assert [(retry.number, retry.attempt) for retry in only(events, Retry)] == [(3, 1)]
    assert [step.content for step in only(events, Step)] == [
        step.content for step in only(await coat(said(AYA)), Step)
    ]


async def test_a_server_that_hides_the_tokens_is_read_by_its_turns_and_says_so_once() -> None:
    hidden = AYA
    for token in META_ACTIONS:
        hidden = hidden.replace(token, "\n")
    events = await coat(said(hidden))
    assert [notice.code for notice in only(events, Notice)] == ["no_tokens"]
    assert [step.action for step in only(events, Step)] == ["continue", "reflect", "explore"]
    assert "\\boxed{204}" in events[-1].content


async def test_a_model_that_writes_nothing_is_a_failure() -> None:
    events = await coat(said(""))
    assert isinstance(events[-1], Failed)


async def test_a_question_that_fills_the_context_is_too_long() -> None:
    events = await coat(said(AYA), question="why " * 500, model=ServedModel("Satori", 512))
    assert (events[-1].code, len(only(events, Step))) == ("too_long", 0)


@given(st.integers(1, 40))
async def test_the_steps_are_the_same_however_the_text_is_cut(size: int) -> None:
    events = await coat(said(AYA, size))
    assert [(s.action, s.content) for s in only(events, Step)] == [
        (s.action, s.content) for s in only(await coat(said(AYA, 10**6)), Step)
    ]
    for event in events:
        if isinstance(event, Delta | Step | Answer):
            assert "<|" not in str(event).replace("raw=", "")


async def test_time_and_tokens_of_the_steps_are_those_of_the_run() -> None:
    trace = Trace(tuple(await coat(said(AYA))))
    assert trace.tokens == len(said(AYA))


async def test_settings_of_json_steps_do_not_bound_a_satori_chain() -> None:
    events = await coat(said("<|continue|>again. " * 40), settings=Settings(max_steps=3))
    assert len(only(events, Step)) == 40
