"""Chain of thought in one voice, against a scripted server: one message, cut into steps."""

from __future__ import annotations

import asyncio
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.render import ChainRenderer
from reasoning.endpoint import Endpoint, Piece, Request, ServedModel
from reasoning.errors import Refused, TooLong, Unreachable
from reasoning.events import (
    Answer,
    Delta,
    Event,
    Failed,
    Notice,
    Retry,
    Settings,
    Steer,
    Step,
    Trace,
    Turn,
)
from reasoning.inquiry import AnswerForm, Inquiry, edit_step
from reasoning.think import think
from tests.real_servers import Server
from tests.reciter_steps import SUM, SUM_ANSWER, SUM_STEPS
from tests.scripted import Scripted, Time, pieces, run

VLLM = ServedModel("Qwen2.5-1.5B-Instruct", 8192, vllm=True)
OTHER = ServedModel("elsewhere", 8192)
APPLES = (
    "### Count the apples\n\nAnn has 3 apples and Bob has 4.\n\n"
    "### Add them\n\nTogether they have $3 + 4 = 7$ apples.\n\n"
    "### Check\n\nTaking 4 from 7 leaves 3, as Ann has.\n\n"
    "### Answer\n\nThey have **7** apples."
)
HASTY = "### Add them\n\nTogether 3 + 4 = 7.\n\n### Answer\n\nSeven."


def counted(text: str, finish_reason: str = "stop", size: int = 4) -> list[Piece]:
    """The text in pieces, a token each, with the count so far, as vLLM gives them."""
    parts = [text[at : at + size] for at in range(0, len(text), size)]
    return [
        *(Piece(part, None, 50, number) for number, part in enumerate(parts, 1)),
        Piece("", finish_reason, 50, len(parts) + 1),
    ]


def part(number: int) -> str:
    return f"### Part {number}\n\nWork number {number} of {number * 7} in all.\n\n"


async def cot(server: Any, *lines: Any, **more: Any) -> list[Event]:
    server = server if isinstance(server, Scripted) else Scripted(server, *lines)
    return await run(server, **{"way": "cot", "model": VLLM, **more})


def only(events: list[Event], kind: type) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


def codes(events: list[Event]) -> list[str]:
    return [notice.code for notice in only(events, Notice)]


def titles(events: list[Event]) -> list[str]:
    return [step.title for step in only(events, Step)]


def sent(request: Request) -> list[str]:
    return [message["content"] for message in request.messages]


# -- a chain


async def test_a_chain_is_one_request_with_its_steps_and_its_answer() -> None:
    server = Scripted(counted(APPLES))
    events = await cot(server)
    assert [(s.title, s.action) for s in only(events, Step)] == [
        ("Count the apples", "continue"), ("Add them", "continue"), ("Check", "final_answer"),
    ]  # fmt: skip
    assert events[-1].content == "They have **7** apples."
    assert len(server.requests) == 1
    assert (codes(events), only(events, Retry)) == ([], [])


async def test_it_is_asked_without_an_example_the_question_first() -> None:
    server = Scripted(counted(APPLES))
    await cot(server, question="How many apples?")
    (request,) = server.requests
    assert [message["role"] for message in request.messages] == ["user"]
    assert sent(request)[0].startswith("How many apples?\n\nThink step by step, then")
    assert (request.format, request.go_on, request.stop) == ("text", False, ())


async def test_tokens_and_seconds_add_up() -> None:
    time = Time()

    class Slow(Scripted):
        async def chat(self, request: Request) -> Any:
            async for piece in super().chat(request):
                time.now += 0.5
                yield piece

    told = counted(APPLES)
    events = await cot(Slow(told), time=time)
    trace = Trace(tuple(events))
    assert trace.tokens == len(told)
    assert trace.seconds == pytest.approx(len(told) * 0.5)
    assert all(step.tokens > 0 for step in trace.steps)


async def test_what_waits_for_its_place_costs_what_it_becomes() -> None:
    steps = "1. Add:\n   3 + 4 = 7\n\n2. Count:\n   They are 7.\n\n"
    said = f"{steps}Therefore, they have 7 apples."
    events = await cot(counted(said, size=1))
    first, second = only(events, Step)
    answer = events[-1]
    assert answer.content == "Therefore, they have 7 apples."
    assert len(answer.content) <= answer.tokens <= len(answer.content) + 2
    assert first.tokens < said.index("2. Count") + 2
    assert first.tokens + second.tokens + answer.tokens == len(said) + 1


async def test_what_is_shown_of_a_step_begins_what_it_becomes_title_first() -> None:
    for size in (1, 3, 1000):
        events = await cot(Scripted(counted(APPLES, size=size)))
        for step in only(events, Step):
            shown = [d for d in only(events, Delta) if d.number == step.number]
            parts = [d.part for d in shown if d.part in ("title", "content")]
            assert parts[0] == "title"
            text = {p: "".join(d.text for d in shown if d.part == p) for p in parts}
            assert (text["title"], text["content"].strip()) == (step.title, step.content)
        answer = "".join(d.text for d in only(events, Delta) if d.part == "answer")
        assert answer.strip() == events[-1].content


def tentative(events: list[Event]) -> list[str]:
    """The texts that a reader saw before they had a place, each as long as it became."""
    told = [""]
    for event in events:
        if isinstance(event, Delta) and event.part == "tentative":
            told[-1] += event.text
        else:
            told.append("")
    return [text for text in told if text]


async def test_what_comes_before_the_first_step_is_seen_as_it_is_written() -> None:
    lead = "To know it, we need to add:"
    events = await cot(counted(f"{lead}\n\n{APPLES}"))
    assert tentative(events)[0].strip() == lead
    first = only(events, Delta)[0].text
    assert len(first) < 12  # characters: as few as tell that it is no heading
    assert titles(events)[0] == "Count the apples"


async def test_an_answer_without_a_step_is_seen_as_it_is_written() -> None:
    events = await cot(counted("The capital of France is Paris."))
    assert tentative(events) == [events[-1].content] == ["The capital of France is Paris."]


async def test_a_conclusion_is_seen_before_it_is_known_to_be_the_answer() -> None:
    events = await cot(counted(f"{part(1)}{part(2)}Therefore, they have 7 apples."))
    assert tentative(events) == [events[-1].content] == ["Therefore, they have 7 apples."]


async def test_the_raw_steps_are_the_message_to_the_letter() -> None:
    steps = only(await cot(counted(APPLES)), Step)
    assert "".join(step.raw for step in steps) == APPLES[: APPLES.index("### Answer")]


async def test_a_title_that_is_none_is_the_first_words_of_its_step() -> None:
    text = APPLES.replace("Count the apples", "Step 1").replace("### Add them", "### ...")
    events = await cot(counted(text.replace("They have **7**", "Seven")))
    assert titles(events) == [
        "Ann has 3 apples and Bob has 4", "Together they have", "Check",
    ]  # fmt: skip
    same = await cot(counted(APPLES.replace("### Check", "### Add them")))
    assert titles(same)[1:] == ["Add them", "Taking 4 from 7 leaves 3, as Ann has"]


@pytest.mark.parametrize(
    ("end", "answer"),
    [
        ("### Answer: 7 apples", "7 apples"),
        ("**Answer: 7 apples**\n\nAll of them.", "7 apples\n\nAll of them."),
        ("So they have 7.\n\nAnswer: 7 apples", "7 apples"),
        ("Therefore:\n\n$\\boxed{7}$", "Therefore:\n\n$\\boxed{7}$"),
        ("It is as many:\n\n$\\boxed{7}$", "$\\boxed{7}$"),
        ("So the answer is:\nAnswer: 7 apples", "7 apples"),
    ],
)
async def test_an_answer_is_told_in_many_ways(end: str, answer: str) -> None:
    server = Scripted(counted(APPLES[: APPLES.index("### Answer")] + end))
    events = await cot(server)
    assert (events[-1].content, len(server.requests)) == (answer, 1)


async def test_a_chain_that_tells_no_answer_is_led_to_it() -> None:
    server = Scripted(counted(APPLES[: APPLES.index("\n\n### Answer")]), counted("They have 7."))
    events = await cot(server)
    last = server.requests[-1]
    assert (last.go_on, last.messages[-1]["role"]) == (True, "assistant")
    assert sent(last)[-1].endswith("as Ann has.\n\n### Answer\n\n")
    assert events[-1].content == "They have 7."


async def test_an_answer_that_is_announced_again_is_read_without_it() -> None:
    thought = counted(APPLES[: APPLES.index("\n\n### Answer")])
    events = await cot(Scripted(thought, "### Answer\n\nThey have 7."))
    assert events[-1].content == "They have 7."
    shown = "".join(d.text for d in only(events, Delta) if d.part == "answer")
    assert shown == "They have 7."


async def test_chinese_questions_get_chinese_words() -> None:
    server = Scripted("### 相加\n\n3 加 4 等于 7。", "7。")
    events = await cot(server, question="一共有几个苹果？")
    assert "请一步一步思考" in sent(server.requests[0])[0]
    assert sent(server.requests[1])[-1].endswith("### 答案\n\n")
    assert events[-1].content == "7。"


# -- where the loop steps in


async def test_an_early_answer_is_left_alone() -> None:
    """A check that a model is made to write repeats what stands there."""
    events = await cot(server := Scripted(counted(HASTY)))
    assert (titles(events), events[-1].content) == (["Add them"], "Seven.")
    assert len(server.requests) == 1


async def test_a_step_that_repeats_is_cut_out_and_the_model_goes_on_warmer() -> None:
    again = part(1) + part(2) + part(1).replace("Part 1", "Anew") + part(3)
    server = Scripted(counted(again), counted(part(4) + "### Answer\n\nSeven."))
    events = await cot(server)
    assert titles(events) == ["Part 1", "Part 2", "Part 4"]
    assert [(r.number, r.cause) for r in only(events, Retry)] == [(3, "repeat")]
    assert sent(server.requests[1])[-1] == part(1) + part(2)
    assert server.requests[1].temperature == 0.5
    assert server.closed == 2
    assert only(events, Step)[-1].attempts == 2
    assert events[-1].content == "Seven."


async def test_what_was_cut_out_is_counted_with_the_step_in_its_place() -> None:
    read: list[int] = []

    class Counting(Scripted):
        async def chat(self, request: Request) -> Any:
            read.append(0)
            async for piece in super().chat(request):
                read[-1] = piece.completion_tokens or read[-1]
                yield piece

    again = part(1) + part(2) + part(1).replace("Part 1", "Anew") + part(3)
    server = Counting(counted(again), counted(part(4) + "### Answer\n\nSeven."))
    assert Trace(tuple(await cot(server))).tokens == sum(read)


async def test_a_second_repetition_leads_to_the_answer() -> None:
    again = part(1) + part(2) + part(2) + part(3)
    server = Scripted(counted(again), counted(part(2)), counted("Seven."))
    events = await cot(server)
    assert titles(events) == ["Part 1", "Part 2"]
    assert codes(events) == ["repeat"]
    assert len(only(events, Retry)) == 1
    assert sent(server.requests[2])[-1] == part(1) + part(2) + "### Answer\n\n"
    assert events[-1].content == "Seven."


async def test_a_reply_that_goes_round_in_circles_is_cut_out_too() -> None:
    loop = counted(part(1) + "### On\n\n" + "and on " * 20, "repetition")
    server = Scripted(loop, counted(part(2) + part(3) + "### Answer\n\nSeven."))
    events = await cot(server)
    assert [retry.cause for retry in only(events, Retry)] == ["loop"]
    assert titles(events) == ["Part 1", "Part 2", "Part 3"]


async def test_no_chain_has_more_steps_than_it_may() -> None:
    server = Scripted(counted("".join(part(n) for n in range(1, 40))), counted("Seven."))
    events = await cot(server)
    assert len(only(events, Step)) == 25
    assert only(events, Step)[-1].action == "final_answer"
    assert sent(server.requests[1])[-1].endswith("### Answer\n\n")
    assert server.closed == 2
    assert events[-1].content == "Seven."


@pytest.mark.parametrize("model", [VLLM, OTHER])
async def test_a_step_over_its_tokens_is_cut_and_leads_to_the_answer(model: ServedModel) -> None:
    long = part(1) + "### On\n\n" + "".join(f"and {n} " for n in range(400))
    read = counted(long) if model.vllm else pieces(long)
    server = Scripted([*read[:-2], AssertionError("read to the end")], "Seven.")
    events = await cot(server, model=model, settings=Settings(step_tokens=100))
    last = only(events, Step)[-1]
    assert (last.title, last.cut) == ("On", True)
    assert len(last.content) < 450
    assert events[-1].content == "Seven."


async def test_an_answer_over_its_tokens_is_cut() -> None:
    read = counted(APPLES + " and so on" * 200)
    server = Scripted([*read[:-2], AssertionError("read to the end")])
    events = await cot(server, settings=Settings(answer_tokens=50))
    assert events[-1].cut
    assert events[-1].content.startswith("They have **7** apples.")


async def test_a_reply_whose_tokens_ended_leads_to_the_answer() -> None:
    server = Scripted(counted(part(1) + "### On\n\nAnd th", "length"), counted("Seven."))
    events = await cot(server)
    assert [step.cut for step in only(events, Step)] == [False, True]
    assert codes(events) == ["context"]
    assert sent(server.requests[1])[-1].endswith("And th\n\n### Answer\n\n")
    assert events[-1].content == "Seven."


async def test_a_nearly_full_context_leads_to_the_answer() -> None:
    small = ServedModel("small", 1024, vllm=True)
    text = part(1) + "word " * 200
    steps = [Step(n, f"T{n}", text, "continue", 1.0, 9, raw=text) for n in (1, 2)]
    server = Scripted(counted("Seven."))
    events = await cot(server, model=small, steps=steps)
    assert (codes(events), events[-1].content) == (["context"], "Seven.")
    assert server.requests[0].go_on


async def test_a_context_that_is_full_leads_to_the_answer() -> None:
    steps = only(await cot(counted(APPLES)), Step)[:2]
    server = Scripted(TooLong("too long", "r"), counted("Seven."))
    events = await cot(server, steps=steps)
    assert (codes(events), events[-1].content) == (["context"], "Seven.")


async def test_a_budget_leads_to_the_answer_while_there_is_room_for_it() -> None:
    numbers = count(1)

    def endless(request: Request) -> list[Piece]:
        if sent(request)[-1].endswith("### Answer\n\n"):
            return counted("Seven.")
        parts = (part(next(numbers)) + f"{next(numbers)} more. " * 9 for _ in range(50))
        text = "".join(parts)[: request.max_tokens * 4]
        return [*counted(text)[:-1], Piece("", "length", 50, request.max_tokens)]

    server = Scripted(endless)
    events = await cot(server, settings=Settings(budget=400))
    assert (codes(events), events[-1].content) == (["budget"], "Seven.")
    assert server.requests[0].max_tokens == 400 - 128
    assert Trace(tuple(events)).tokens <= 400


async def test_an_answer_that_the_budgets_first_share_cuts_goes_on_where_it_ends() -> None:
    server = Scripted(counted(APPLES[:-8], "length"), counted(" apples."))
    events = await cot(server, settings=Settings(budget=1000))
    assert sent(server.requests[1])[-1] == APPLES[:-8]
    assert (events[-1].content, events[-1].cut) == ("They have **7** apples.", False)
    shown = "".join(d.text for d in only(events, Delta) if d.part == "answer")
    assert (shown.strip(), only(events, Retry)) == (events[-1].content, [])


async def test_an_answer_in_which_the_connection_breaks_twice_is_shown_whole() -> None:
    gone = Unreachable("Gone.", "Start it.")
    server = Scripted(counted(APPLES[:-8], "length"), [Piece(" app"), gone], counted(" apples."))
    events = await cot(server, settings=Settings(budget=1000))
    after = events[events.index(only(events, Retry)[0]) :]
    assert "".join(d.text for d in only(after, Delta)) == events[-1].content
    assert events[-1].content == "They have **7** apples."


async def test_a_connection_that_breaks_behind_the_last_step_makes_no_further_one() -> None:
    """What answers another try may begin anew; then the answer is asked for."""
    broken = [*pieces(HASTY), Unreachable("Gone.", "Start it.")]
    server = Scripted(
        broken, pieces("2 so. Add\n\nadd.\n\n\nTherefore, it is 7."), pieces("Seven.")
    )
    events = await cot(server, model=OTHER, settings=Settings(max_steps=1))
    assert [step.number for step in only(events, Step)] == [1]
    assert (events[-1].content, len(server.requests)) == ("Seven.", 3)


async def test_such_an_answer_goes_on_without_a_heading_of_its_own() -> None:
    begun = APPLES[:-8].replace("They have", "### Final answer\n\nThey have")
    server = Scripted(counted(begun, "length"), counted(" apples."))
    events = await cot(server, settings=Settings(budget=1000))
    assert sent(server.requests[1])[-1] == begun
    shown = "".join(d.text for d in only(events, Delta) if d.part == "answer")
    assert shown == events[-1].content == "They have **7** apples."


async def test_such_an_answer_stays_cut_where_the_server_cannot_go_on() -> None:
    server = Scripted(pieces(APPLES[:-8], "length"))
    events = await cot(server, model=OTHER, settings=Settings(budget=1000))
    assert (events[-1].content, events[-1].cut) == ("They have **7**", True)
    assert len(server.requests) == 1


# -- servers


AGAIN = part(1) + part(2) + part(1).replace("Part 1", "Anew")  # so it must go on
REST = part(4) + "### Answer\n\nSeven indeed."


async def test_a_server_that_cannot_go_on_is_asked_in_a_turn_of_its_own() -> None:
    server = Scripted(AGAIN, REST)
    events = await cot(server, model=OTHER)
    roles = [message["role"] for message in server.requests[1].messages]
    assert roles == ["user", "assistant", "user"]
    assert sent(server.requests[1])[1] == (part(1) + part(2)).rstrip()
    assert "Go on where" in sent(server.requests[1])[2]
    assert not any(request.go_on for request in server.requests)
    assert titles(events) == ["Part 1", "Part 2", "Part 4"]
    assert (codes(events), events[-1].content) == ([], "Seven indeed.")


async def test_a_server_that_refuses_to_go_on_is_noticed_once() -> None:
    def refuses(request: Request) -> Any:
        if request.go_on:
            return Refused("The server refused the request (400).", "")
        return counted(REST if len(request.messages) > 1 else AGAIN)

    server = Scripted(refuses)
    events = await cot(server)
    assert codes(events) == ["no_going_on"]
    assert [request.go_on for request in server.requests] == [False, True, False]
    assert events[-1].content == "Seven indeed."
    later = await cot(server)
    assert codes(later) == []
    assert not any(request.go_on for request in server.requests[3:])


async def test_a_refusal_that_comes_only_at_the_answer_is_remembered_too() -> None:
    done = Step(1, "Read it", "It is seven.", "final_answer", 1.0, 9)
    server = Scripted(Refused("No.", "r"), counted("Seven indeed."))
    await cot(server, steps=(done,))
    assert [request.go_on for request in server.requests] == [True, False]
    assert not server.capabilities.goes_on


async def test_another_refusal_is_not_taken_for_that() -> None:
    server = Scripted(counted(AGAIN), Refused("No top_p here.", ""))
    events = await cot(server)
    assert (events[-1].code, server.capabilities.goes_on) == ("refused", True)


async def test_a_server_that_begins_anew_instead_of_going_on_is_noticed_in_the_chain() -> None:
    def ignores(request: Request) -> list[Piece]:
        return counted("Seven." if "final answer" in sent(request)[-1] else AGAIN)

    events = await cot(server := Scripted(ignores))
    assert [request.go_on for request in server.requests] == [False, True, False]
    assert [retry.cause for retry in only(events, Retry)] == ["repeat"]
    assert events[-1].content == "Seven."


async def test_a_broken_connection_goes_on_after_the_steps_that_were_finished() -> None:
    time = Time()
    at = len(APPLES[: APPLES.index("### Check") + 24]) // 4
    broken = [*counted(APPLES)[:at], Unreachable("Gone.", "Start it.")]
    server = Scripted(broken, counted("### Check\n\n7 less 4.\n\n### Answer\n\nSeven."))
    events = await cot(server, time=time)
    assert [(r.number, r.cause) for r in only(events, Retry)] == [(3, "unreachable")]
    assert titles(events) == ["Count the apples", "Add them", "Check"]
    assert sent(server.requests[1])[-1] == APPLES[: APPLES.index("### Check")]
    assert (events[-1].content, Trace(tuple(events)).seconds) == ("Seven.", 0.0)


async def test_attempts_are_counted_from_one_at_each_step() -> None:
    """Whether the server fails or the reply, and where one reply holds several steps."""
    gone = Unreachable("Gone.", "Start it.")
    broken = [*counted(part(1) + part(2))[:-1], gone]
    lines = [gone, broken, gone, counted(part(1))]
    events = await cot(Scripted(*lines, counted(part(2) + "### Answer\n\nSeven.")))
    assert [(r.number, r.attempt, r.cause) for r in only(events, Retry)] == [
        (1, 1, "unreachable"),
        (2, 1, "unreachable"),
        (2, 2, "unreachable"),
        (2, 3, "repeat"),
    ]


async def test_a_server_that_stays_away_is_a_failure_and_the_steps_stay() -> None:
    at = APPLES.index("### Check") // 4 + 6
    gone = Unreachable("Gone.", "r")
    server = Scripted([*counted(APPLES)[:at], gone], gone)
    events = await cot(server)
    assert events[-1].code == "unreachable"
    assert len(only(events, Step)) == 2


async def test_an_empty_reply_is_asked_for_again_warmer() -> None:
    server = Scripted(counted(" \n"), counted(APPLES))
    events = await cot(server)
    assert [retry.cause for retry in only(events, Retry)] == ["empty"]
    assert [request.temperature for request in server.requests] == [0.2, 0.5]
    assert events[-1].content == "They have **7** apples."


async def test_nothing_but_empty_replies_is_a_failure() -> None:
    events = await cot(Scripted(counted("")))
    assert isinstance(events[-1], Failed)
    assert events[-1].code == "empty"


async def test_a_refusal_is_the_answer() -> None:
    server = Scripted([Piece("", "stop", 9, 3, refusal="I cannot help with that.")])
    events = await cot(server, model=OTHER)
    assert events[-1].content == "I cannot help with that."


async def test_closing_the_chain_closes_the_stream() -> None:
    from reasoning.think import think

    server = Scripted(counted(APPLES))
    chain = think(Inquiry("Why?", "cot"), endpoint=server, model=VLLM)
    async for event in chain:
        if isinstance(event, Step):
            break
    assert server.closed == 0
    await chain.aclose()
    assert server.closed == 1


async def test_cancelling_the_chain_closes_the_stream() -> None:
    hangs = asyncio.Event()

    class Silent(Scripted):
        async def chat(self, request: Request) -> Any:
            try:
                yield Piece("### Wait\n\nHm")
                hangs.set()
                await asyncio.Event().wait()
            finally:
                self.closed += 1

    server = Silent("")
    running = asyncio.create_task(cot(server))
    await hangs.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert server.closed == 1


# -- a reader who steers


async def steps_of() -> list[Step]:
    return only(await cot(counted(APPLES)), Step)


async def test_a_chain_goes_on_from_the_message_that_its_steps_make() -> None:
    steps = (await steps_of())[:2]
    server = Scripted(counted("### Check\n\n7 less 4 is 3.\n\n### Answer\n\nSeven."))
    events = await cot(server, steps=steps)
    assert sent(server.requests[0])[1] == APPLES[: APPLES.index("### Check")]
    assert server.requests[0].go_on
    assert titles(events) == ["Count the apples", "Add them", "Check"]
    assert events[-1].content == "Seven."


async def test_a_concluded_chain_is_led_to_its_answer() -> None:
    server = Scripted(counted("Seven."))
    events = await cot(server, steps=await steps_of())
    assert sent(server.requests[0])[-1].endswith("as Ann has.\n\n### Answer\n\n")
    assert (len(only(events, Step)), events[-1].content) == (3, "Seven.")


async def test_after_an_edit_the_message_says_what_the_reader_says() -> None:
    steps = await steps_of()
    server = Scripted(counted("### Check\n\n8 less 4 is 4.\n\n### Answer\n\nEight."))
    kept = (steps[0], edit_step(steps[1], "Mine", "It is 8."))
    events = await cot(server, steps=kept, steer=Steer("edit"))
    assert sent(server.requests[0])[1].endswith("has 4.\n\n### Mine\n\nIt is 8.\n\n")
    assert events[-1].content == "Eight."


async def test_another_step_is_warmer_and_not_the_same() -> None:
    steps = await steps_of()
    same = "### Add them\n\n" + steps[1].content + "\n\n### Check\n\nSo.\n\n"
    server = Scripted(
        counted(same), counted("### Draw\n\nIIIIIII\n\n" + part(3)), counted("Seven.")
    )
    events = await cot(server, steps=steps[:1], steer=Steer("again", steps[1].content))
    assert [request.temperature for request in server.requests[:2]] == [0.5, 0.5]
    assert server.requests[0].seed != server.requests[1].seed
    assert [retry.cause for retry in only(events, Retry)] == ["repeat"]
    assert titles(events) == ["Count the apples", "Draw", "Part 3"]


async def test_a_first_step_can_be_another() -> None:
    server = Scripted(counted(APPLES))
    events = await cot(server, steer=Steer("again", "We count."))
    assert (server.requests[0].temperature, len(sent(server.requests[0]))) == (0.5, 1)
    assert isinstance(events[-1], Answer)


@pytest.mark.parametrize("model", [VLLM, OTHER])
async def test_a_doubt_examines_the_last_step_also_of_a_concluded_chain(model: ServedModel) -> None:
    steps = await steps_of()
    server = Scripted(counted("4 and 3 more is 7.\n\n### Answer\n\nIt holds: seven."))
    settings = Settings(max_steps=3)
    events = await cot(server, steps=steps, steer=Steer("doubt"), model=model, settings=settings)
    assert "step 3" in sent(server.requests[0])[-1]
    assert [step.asked for step in only(events, Step)][-1:] == ["doubt"]
    assert events[-1].content == "It holds: seven."


async def test_no_more_steps_is_the_answer_at_once() -> None:
    steps = (await steps_of())[:1]
    events = await cot(server := Scripted(counted("Seven.")), steps=steps, steer=Steer("answer"))
    assert sent(server.requests[0])[-1].endswith("has 4.\n\n### Answer\n\n")
    assert (len(only(events, Step)), events[-1].content) == (1, "Seven.")


# -- what is around the question


async def test_a_conversation_and_instructions_stand_before_the_question() -> None:
    server = Scripted(counted(APPLES))
    turn = Turn("Who was first?", "Ann was.")
    await cot(server, history=[turn], instructions="Be brief.")
    assert [message["role"] for message in server.requests[0].messages] == [
        "system", "user", "assistant", "user",
    ]  # fmt: skip
    assert sent(server.requests[0])[:3] == ["Be brief.", "Who was first?", "Ann was."]


async def test_an_answer_in_form_is_asked_for_apart_and_not_waited_for() -> None:
    thought = counted(APPLES)
    server = Scripted([*thought[:-3], AssertionError("read on")], "7 END")
    events = await cot(server, answer_form=AnswerForm(stop=("END",)))
    assert [request.stop for request in server.requests] == [(), ("END",)]
    assert server.requests[1].messages[-1]["role"] == "user"
    assert len(only(events, Step)) == 3


async def test_a_refused_answer_in_form_is_not_taken_for_a_refusal_to_go_on() -> None:
    server = Scripted(counted(APPLES), Refused("No stop here.", ""))
    events = await cot(server, answer_form=AnswerForm(stop=("END",)))
    assert (codes(events), events[-1].code, len(server.requests)) == ([], "refused", 2)


async def test_a_special_token_in_a_step_is_plain_text_when_it_is_sent_again() -> None:
    step = Step(1, "T", "<|im_end|>", "continue", 1.0, 9, raw="### T\n\n<|im_end|>\n\n")
    server = Scripted(counted("Seven."), special=["<|im_end|>"])
    await cot(server, steps=[step], steer=Steer("answer"))
    assert "<\u200b|im_end|>" in sent(server.requests[0])[1]


LINES = st.sampled_from(
    [part(1), part(2), part(3), "### Answer\n\n", "Answer: 7\n", "It is 7.", "", "\n", "### ",
     "word " * 30, "Step 1: go.\n", "```\n", "\\boxed{7}"]
)  # fmt: skip
REPLIES = st.tuples(
    st.lists(LINES, max_size=6).map("".join), st.sampled_from(["stop", "length", "repetition"])
)


@given(
    st.lists(REPLIES, min_size=1, max_size=6),
    st.sampled_from([VLLM, OTHER, ServedModel("tiny", 512, vllm=True)]),
    st.sampled_from([None, 64, 300, 2000]),
    st.sets(st.integers(0, 8), max_size=3),
)
async def test_whatever_a_model_says_the_chain_ends_in_an_answer_or_a_failure(
    replies: list[tuple[str, str]], model: ServedModel, budget: int | None, broken: set[int]
) -> None:
    nth = count()

    def says(request: Request) -> list[Any]:
        number = next(nth)
        text, reason = replies[number % len(replies)]
        said: list[Any] = counted(text, reason)[-request.max_tokens - 1 :]
        return [*said[: len(said) // 2], Unreachable("Gone.", "r")] if number in broken else said

    server = Scripted(says)
    events = await cot(server, model=model, settings=Settings(budget=budget, max_steps=4))
    assert isinstance(events[-1], (Answer, Failed))
    steps = only(events, Step)
    assert [step.number for step in steps] == list(range(1, len(steps) + 1))
    assert len(steps) <= 4
    assert len(server.requests) <= 30
    assert all(any(seen in text for text, _ in replies) for seen in tentative(events))
    if not broken:  # else the answer may truly change
        renderer = ChainRenderer()
        assert all(list(renderer.render(event)) or True for event in events[:-1])
        if isinstance(events[-1], Answer):
            list(renderer.render(events[-1]))  # raises where what was sent is not the answer


async def test_a_second_heading_over_the_answer_is_no_part_of_it() -> None:
    text = part(1) + part(2) + part(3) + "### Step 4: Write the answer\n### Answer\n**8**"
    events = await cot(counted(text))
    assert [answer.content for answer in only(events, Answer)] == ["**8**"]
    assert not any("#" in delta.text for delta in only(events, Delta) if delta.part == "answer")


async def test_a_chain_of_a_way_that_is_no_more_goes_on_in_one_voice() -> None:
    raw = "## Add\n\n3 + 4 is 7.\n\nNext: continue"
    kept = Step(1, "Add", "3 + 4 is 7.", "continue", 1.0, 9, raw=raw)
    server = Scripted(counted("Therefore, they have 7 apples."))
    events = await cot(server, way="heading_steps", steps=[kept])
    assert events[0].way == "cot"
    assert sent(server.requests[0])[-1].startswith("## Add\n\n3 + 4 is 7.")
    assert events[-1].content == "Therefore, they have 7 apples."


# -- the real server


async def test_a_real_model_thinks_in_one_voice(reciter: Server) -> None:
    endpoint = Endpoint(reciter.base_url)
    try:
        inquiry = Inquiry(SUM, "cot")
        chain = think(inquiry, endpoint=endpoint, model=await endpoint.model())
        events = [event async for event in chain]
    finally:
        await endpoint.close()
    told = [(step.title, step.content) for step in only(events, Step)]
    assert told == list(SUM_STEPS[:2])
    assert events[-1].content == f"Therefore, {SUM_ANSWER[0].lower()}{SUM_ANSWER[1:]}"
