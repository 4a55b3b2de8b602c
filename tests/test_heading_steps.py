"""Steps under Markdown headings: reading them, and the loop that asks for them."""

from __future__ import annotations

from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasoning.endpoint import Endpoint
from reasoning.events import Answer, Delta, Event, Notice, Retry, Settings, Steer, Step
from reasoning.heading_steps import RUNS_ON, answer_of, draft_of, read_step, written
from reasoning.inquiry import Inquiry
from reasoning.replies import BadReply, Reply
from reasoning.steering import edited
from reasoning.think import think
from tests.real_servers import Server
from tests.scripted import Scripted, pieces, run

SENTENCE = "Half of 8 is 4."


def under(number: int, word: str = "continue") -> str:
    return f"## Title {number}\n\nWork number {number} of the chain.\n\nNext: {word}"


FINAL = [under(1), under(2), under(3, "final answer"), "The answer."]


async def headings(server: Scripted, **more: object) -> list[Event]:
    return await run(server, **{"way": "heading_steps", **more})  # type: ignore[arg-type]


def only(events: list[Event], kind: type) -> list:
    return [event for event in events if isinstance(event, kind)]


# -- reading a reply

READ = [
    ("## Halve it\n\nHalf of 8 is 4.\n\nNext: continue", "Halve it", "continue"),
    ("## Halve it\n\nHalf of 8 is 4.\n\nNext: final answer", "Halve it", "final_answer"),
    ("## Halve it\nHalf of 8 is 4.\n**Next:** Final Answer.", "Halve it", "final_answer"),
    (
        "## Halve it\n\nHalf of 8 is 4.\n- Next action: the final answer",
        "Halve it",
        "final_answer",
    ),
    ("## Halve it\n\nHalf of 8 is 4.\n\n下一步：最终答案", "Halve it", "final_answer"),
    ("## Halve it\n\nHalf of 8 is 4.", "Halve it", "continue"),
    ("# Halve it\n\nHalf of 8 is 4.", "Halve it", "continue"),
    ("#### Step 3: Halve it ####\n\nHalf of 8 is 4.", "Halve it", "continue"),
    ("**Halve it**\n\nHalf of 8 is 4.", "Halve it", "continue"),
    ("**Step 3: Halve it**\nHalf of 8 is 4.", "Halve it", "continue"),
    ("Step 3: Halve it\n\nHalf of 8 is 4.", "Halve it", "continue"),
    ("## 第3步：Halve it\n\nHalf of 8 is 4.", "Halve it", "continue"),
    ("## Step 3\n\nHalf of 8 is 4.", "", "continue"),
    ("##\n\nHalf of 8 is 4.", "", "continue"),
    ("Sure, here is step 3:\n\n## Halve it\n\nHalf of 8 is 4.", "Halve it", "continue"),
    ("Half of 8 is 4.", "", "continue"),
    ("Half of 8 is 4.\nNext: final answer", "", "final_answer"),
    ("## Halve it\n\nHalf of 8 is 4.\n## And again\n\nIt is 2.\n", "Halve it", "continue"),
    ("## Halve it\n\nHalf of 8 is 4.\n\nNext: continue\n\nMore.", "Halve it", "continue"),
]


@pytest.mark.parametrize(("text", "title", "action"), READ)
def test_a_step_is_read_however_it_is_headed(text: str, title: str, action: str) -> None:
    assert read_step(text) == Reply(title, SENTENCE, action)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "finish_reason", "cause"),
    [
        ("", "stop", "empty"),
        (" \n", "stop", "empty"),
        ("## Halve it", "stop", "no_content"),
        ("## Halve it\n\nNext: continue", "stop", "no_content"),
        ("Sure, here is step 3:\n", "stop", "no_content"),
        ("## Halve it\n\nHalf of 8", "length", "cut"),
        ("## Halve it\n\nHalf, half, half", "repetition", "loop"),
    ],
)
def test_what_is_no_step_is_named(text: str, finish_reason: str, cause: str) -> None:
    outcome = read_step(text, finish_reason)
    assert isinstance(outcome, BadReply)
    assert outcome.cause == cause


def test_a_reply_that_was_broken_off_after_it_said_what_comes_next_is_whole() -> None:
    assert read_step(f"{FINAL[0]}\n\nAnd", "length") == read_step(FINAL[0])


def test_a_line_in_the_step_that_begins_with_next_is_not_its_end() -> None:
    reply = read_step("## Plan\n\nNext: we add 3.\nNextly, 4.\n\nNext: continue")
    assert reply == Reply("Plan", "Next: we add 3.\nNextly, 4.", "continue")


def test_latex_needs_one_backslash() -> None:
    reply = read_step("## Halve\n\nSo $\\frac{1}{2}\\times 8 = 4$.\n\nNext: continue")
    assert isinstance(reply, Reply)
    assert "\\frac{1}{2}\\times" in reply.content


FRAGMENTS = st.sampled_from(
    ["\n", "\n\n", "## ", "#", "# T\n", "**T**\n", "Step 2: ", "Next: ", "Next: continue", "ne",
     "final answer", "第2步：", "下一步：继续", "word ", "x" * 90, " ", "*", ":"]
)  # fmt: skip
TEXTS = st.text() | st.lists(FRAGMENTS | st.text(max_size=3)).map("".join)


@given(TEXTS, st.sampled_from(["stop", "length", "repetition", None]))
def test_any_text_is_a_reply_or_a_bad_reply(text: str, finish_reason: str | None) -> None:
    outcome = read_step(text, finish_reason)
    assert isinstance(outcome, (Reply, BadReply))
    assert isinstance(outcome, BadReply) or outcome.content.strip()


@given(TEXTS)
def test_a_draft_only_grows_and_begins_the_finished_step(text: str) -> None:
    outcome = read_step(text)
    last = outcome if isinstance(outcome, Reply) else outcome.draft
    for end in range(len(text) + 1):
        draft = draft_of(text[:end])
        assert last.title == draft.title or not draft.title
        assert last.content.startswith(draft.content)


@given(TEXTS)
def test_a_draft_of_an_answer_begins_the_answer(text: str) -> None:
    whole = answer_of(text, True)
    assert all(whole.startswith(answer_of(text[:end], False)) for end in range(len(text) + 1))


@pytest.mark.parametrize("action", ["continue", "final_answer"])
def test_a_step_that_is_written_is_read_the_same(action: str) -> None:
    reply = Reply("Halve it", SENTENCE, action)  # type: ignore[arg-type]
    assert read_step(written(reply)) == reply


# -- the loop


async def test_a_chain_of_headings_is_stepped_and_answered_and_no_format_is_asked_for() -> None:
    server = Scripted(*FINAL)
    events = await headings(server)
    assert [(s.title, s.action) for s in only(events, Step)] == [
        ("Title 1", "continue"), ("Title 2", "continue"), ("Title 3", "final_answer"),
    ]  # fmt: skip
    assert events[-1].content == "The answer."
    assert {(r.format, r.schema) for r in server.requests} == {("text", None)}
    assert server.requests[1].messages[1]["content"] == FINAL[0]


async def test_what_is_shown_of_a_step_is_what_it_becomes() -> None:
    events = await headings(Scripted(*FINAL))
    first = events[: events.index(only(events, Step)[0])]
    shown = {part: "".join(d.text for d in only(first, Delta) if d.part == part)
             for part in ("title", "content")}  # fmt: skip
    assert shown == {"title": "Title 1", "content": "Work number 1 of the chain."}


async def test_bounds_of_steps_hold_although_no_grammar_does() -> None:
    numbers = count(1)
    hasty = Scripted(lambda request: under(next(numbers), "final answer"))
    events = await headings(hasty, settings=Settings(min_steps=2))
    assert [step.action for step in only(events, Step)] == ["continue", "final_answer"]
    endless = Scripted(lambda request: under(next(numbers)))
    events = await headings(endless, settings=Settings(min_steps=1, max_steps=4))
    assert [step.action for step in only(events, Step)] == ["continue"] * 3 + ["final_answer"]


async def test_the_next_heading_stops_a_step_and_never_a_second_attempt_or_the_answer() -> None:
    server = Scripted("Sure, here is step 1:", *FINAL)
    events = await headings(server)
    assert [request.stop for request in server.requests] == [
        (RUNS_ON,), (), (RUNS_ON,), (RUNS_ON,), (),
    ]  # fmt: skip
    assert [retry.cause for retry in only(events, Retry)] == ["no_content"]
    assert '"## " heading' in server.requests[1].messages[-1]["content"]


async def test_another_attempt_is_told_what_was_wrong_and_never_of_json() -> None:
    server = Scripted(pieces("## T\n\nHalf", "length"), *FINAL)
    await headings(server)
    said = server.requests[1].messages[-1]["content"]
    assert "cut off" in said
    assert "JSON" not in said


async def test_an_answer_in_the_form_of_a_step_loses_its_last_line() -> None:
    events = await headings(Scripted(*FINAL[:3], "It is 3.\n\nNext: final answer"))
    assert events[-1].content == "It is 3."
    assert "".join(d.text for d in only(events, Delta) if d.part == "answer").strip() == "It is 3."


async def test_after_an_edit_the_model_reads_a_step_in_its_own_form() -> None:
    steps = only(await headings(Scripted(*FINAL)), Step)
    server = Scripted(under(3, "final answer"), "The answer.")
    kept = (steps[0], edited(steps[1], "Mine", "What I say."))
    events = await headings(server, steps=kept, steer=Steer("edit"))
    assert server.requests[0].messages[-2]["content"] == (
        f"{FINAL[0]}\n\n## Mine\n\nWhat I say.\n\nNext: continue"
    )
    assert isinstance(events[-1], Answer)


async def test_a_step_can_be_doubted_and_thought_again() -> None:
    steps = only(await headings(Scripted(*FINAL)), Step)
    doubting = Scripted(under(4, "final answer"), "The answer.")
    events = await headings(doubting, steps=steps, steer=Steer("doubt"))
    assert only(events, Step)[-1].asked == "doubt"
    again = Scripted(under(2), under(7), under(8, "final answer"), "The answer.")
    events = await headings(again, steps=steps[:1], steer=Steer("again", steps[1].content))
    assert [retry.cause for retry in only(events, Retry)] == ["repeat"]


async def test_chinese_questions_get_chinese_prompts_and_the_same_last_line() -> None:
    server = Scripted(*FINAL)
    await headings(server, question="有几个苹果？")
    system = server.requests[0].messages[0]["content"]
    assert "请逐步思考" in system
    assert '"Next: continue"' in system


async def test_a_real_model_thinks_under_headings(reciter: Server) -> None:
    """Whatever so small a model writes: one or two steps, and an answer after them."""
    endpoint = Endpoint(reciter.base_url)
    settings = Settings(
        max_steps=2, min_steps=1, step_tokens=60, answer_tokens=30, attempts=2, seed=1
    )
    try:
        inquiry = Inquiry("What is 2+2?", "heading_steps", settings)
        chain = think(inquiry, endpoint=endpoint, model=await endpoint.model())
        events = [event async for event in chain]
    finally:
        await endpoint.close()
    assert 1 <= len(only(events, Step)) <= 2 or only(events, Notice)
    assert isinstance(events[-1], Answer)
    assert not any(RUNS_ON in step.content for step in only(events, Step))
