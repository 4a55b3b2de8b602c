"""Models that think by themselves, and the plain answer, against a scripted server."""

from __future__ import annotations

import pytest

from reasoning.endpoint import Piece, ServedModel
from reasoning.errors import Unreachable
from reasoning.events import Answer, Delta, Event, Failed, Notice, Retry, Step
from tests.scripted import Scripted, Time, run

MODEL = ServedModel("Qwen3-8B", 8192, vllm=True)
THOUGHT = (
    "Okay, the word is strawberry. I count its letters.\n\nThere are two, I think.\n\n"
    "Wait, let me look again. s-t-r-a-w-b-e-r-r-y.\n\nAlternatively, count from the end."
)
ANSWER = "There are **three**."


def told(thought: str = THOUGHT, answer: str = ANSWER, finish_reason: str = "stop") -> list[Piece]:
    """Thought and answer apart, as a server with a reasoning parser sends them."""
    parts = [Piece(reasoning=thought[i : i + 4]) for i in range(0, len(thought), 4)]
    parts += [Piece(answer[i : i + 4]) for i in range(0, len(answer), 4)]
    counted = [Piece(p.text, None, 20, n + 1, reasoning=p.reasoning) for n, p in enumerate(parts)]
    return [*counted, Piece("", finish_reason, 20, len(parts) + 1)]


def written(text: str, finish_reason: str = "stop", size: int = 3) -> list[Piece]:
    parts = [text[i : i + size] for i in range(0, len(text), size)]
    counted = [Piece(part, None, 20, n + 1) for n, part in enumerate(parts)]
    return [*counted, Piece("", finish_reason, 20, len(parts) + 1)]


async def native(server: Scripted, **more: object) -> list[Event]:
    return await run(server, "How many?", **{"model": MODEL, "way": "native", **more})  # type: ignore[arg-type]


def only(events: list[Event], kind: type) -> list:
    return [event for event in events if isinstance(event, kind)]


TAGGED = [
    pytest.param(told(), id="a field of its own"),
    pytest.param(written(f"<think>\n{THOUGHT}\n</think>\n\n{ANSWER}"), id="tags"),
    pytest.param(written(f"{THOUGHT}\n</think>\n\n{ANSWER}"), id="a tag that only closes"),
    pytest.param(written(f"<think>{THOUGHT}</think>{ANSWER}", size=10**6), id="at once"),
    pytest.param(written(f"<think>{THOUGHT}</think>{ANSWER}", size=1), id="a letter at a time"),
]


@pytest.mark.parametrize("pieces", TAGGED)
async def test_thought_becomes_steps_and_the_answer_stays_apart(pieces: list[Piece]) -> None:
    events = await native(Scripted(pieces))
    steps = only(events, Step)
    assert [step.action for step in steps] == ["continue", "reflect", "explore"]
    assert steps[0].title == "Okay, the word is strawberry"
    assert steps[0].content.endswith("There are two, I think.")
    assert isinstance(events[-1], Answer)
    assert events[-1].content == ANSWER
    assert only(events, Notice) == []


@pytest.mark.parametrize("pieces", TAGGED)
async def test_no_tag_and_no_thought_reach_the_answer(pieces: list[Piece]) -> None:
    deltas = only(await native(Scripted(pieces)), Delta)
    assert "".join(d.text for d in deltas if d.part == "answer").strip() == ANSWER
    assert not any("think>" in d.text for d in deltas)


async def test_thinking_time_is_in_the_steps_and_tokens_add_up() -> None:
    time = Time()

    def slowly(request: object) -> list[Piece]:
        return told()

    events = await native(Scripted(slowly), time=time)
    steps, answer = only(events, Step), events[-1]
    assert sum(step.tokens for step in steps) + answer.tokens == len(told())
    assert all(step.tokens > 0 for step in steps)


async def test_a_thought_that_is_cut_is_given_back_for_the_answer() -> None:
    cut = told(answer="", finish_reason="length")
    server = Scripted(cut, ANSWER)
    events = await native(server)
    assert only(events, Step)[-1].cut
    assert events[-1].content == ANSWER
    assert "count from the end" in server.requests[1].messages[0]["content"]
    assert not server.requests[1].think


async def test_a_model_that_tells_no_thought_apart_is_said_to() -> None:
    events = await native(Scripted(written(ANSWER)))
    assert only(events, Notice)[0].code == "no_thinking"
    assert events[-1].content == ANSWER


async def test_a_broken_stream_begins_anew_and_its_draft_is_void() -> None:
    broken = [*told()[:5], Unreachable("Gone.", "Start it.")]
    events = await native(Scripted(broken, told()))
    assert len(only(events, Retry)) == 1
    assert [step.number for step in only(events, Step)] == [1, 2, 3]


async def test_a_step_that_was_finished_before_the_break_stays() -> None:
    at = next(i for i, p in enumerate(told()) if "Alt" in p.reasoning)
    broken = [*told()[: at + 9], Unreachable("Gone.", "Start it.")]
    events = await native(Scripted(broken, told()))
    assert [step.number for step in only(events, Step)] == [1, 2, 3, 4, 5]
    assert only(events, Retry)[0].number == 3
    assert events[-1].content == ANSWER


async def test_nothing_at_all_is_a_failure() -> None:
    events = await native(Scripted(written("")))
    assert isinstance(events[-1], Failed)


async def test_native_thought_is_sampled_warm_however_cold_the_settings() -> None:
    """Qwen3's and DeepSeek-R1's cards warn of greedy decoding: it goes in circles."""
    server = Scripted(told())
    await native(server)
    assert server.requests[0].temperature == 0.6


# -- direct


async def test_the_plain_answer_has_no_steps_and_streams() -> None:
    server = Scripted(written(ANSWER))
    events = await run(server, "How many?", model=MODEL, way="direct")
    assert only(events, Step) == []
    assert "".join(d.text for d in only(events, Delta)) == ANSWER
    assert events[-1].content == ANSWER
    assert server.requests[0].messages == ({"role": "user", "content": "How many?"},)
    assert not server.requests[0].think


async def test_a_plain_answer_whose_tokens_ended_is_marked_cut() -> None:
    events = await run(Scripted(written("It is", "length")), "How many?", way="direct")
    assert events[-1].cut


async def test_an_empty_plain_answer_is_a_failure() -> None:
    events = await run(Scripted(written(" ")), "How many?", way="direct")
    assert isinstance(events[-1], Failed)
