"""The budget: what a chain may cost in completion tokens, in each way of thinking."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasoning.budget import LEAST_ANSWER, LEAST_STEP, SHORT_STEP
from reasoning.coat import ROOM_TO_CONCLUDE
from reasoning.endpoint import Endpoint, Piece, Request, ServedModel
from reasoning.errors import ServerFault
from reasoning.events import Answer, Event, Failed, Notice, Retry, Settings, Step, Trace
from reasoning.inquiry import Inquiry
from reasoning.think import WAYS, think
from tests.real_servers import Server
from tests.reciter import BERRY
from tests.reciter_steps import SUM
from tests.scripted import Scripted, good, pieces, run

THOUGHT = "Three and four are to be added. They are seven, as fingers show. And so on, and on."
MODEL = ServedModel("scripted", 10**6, vllm=True)


def only(events: list[Event], kind: type) -> list:
    return [event for event in events if isinstance(event, kind)]


def codes(events: list[Event]) -> list[str]:
    return [notice.code for notice in only(events, Notice)]


@dataclass
class Meter(Scripted):
    """A server on which each reply wants so many tokens, and gets no more than it is allowed.

    It counts what it wrote, broken replies included: what a bill would say.
    """

    wants: Callable[[Request], int]
    breaks: Callable[[int], bool] = lambda nth: False
    counts: bool = True

    def __post_init__(self) -> None:
        Scripted.__init__(self)
        self.spent = 0
        self._numbers = count(1)

    def text(self, request: Request) -> str:
        number = next(self._numbers)
        if request.prompt:
            return f"<|continue|>Work {number}. "
        return good(number) if request.schema else f"The answer is {number}. "

    async def chat(self, request: Request) -> AsyncGenerator[Piece, None]:
        self.requests.append(request)
        assert request.max_tokens >= 1
        wanted = self.wants(request)
        tokens = min(wanted, request.max_tokens)
        self.spent += tokens
        whole = self.text(request)
        text = whole if tokens == wanted else whole[: len(whole) // 2]
        shown = text + " " * max(0, tokens - len(text))
        yield Piece(shown, None, 50, tokens if self.counts else None)
        if self.breaks(len(self.requests)):
            raise ServerFault("The connection broke.", "Try again.")
        yield Piece("", "stop" if tokens == wanted else "length")


async def chain(server: Any, way: str, budget: int, **settings: Any) -> list[Event]:
    bounds = Settings(budget=budget, **settings)
    return await run(server, way=way, model=MODEL, settings=bounds)


# -- it holds


@given(
    st.sampled_from(list(WAYS)),
    st.integers(1, 3000),
    st.lists(st.integers(1, 900), min_size=1, max_size=8),
    st.sets(st.integers(1, 12), max_size=4),
)
async def test_no_chain_costs_more_than_its_budget(
    way: str, budget: int, sizes: list[int], broken: set[int]
) -> None:
    """Whatever replies cost, and however many break off and are tried again."""
    nth = count()
    server = Meter(lambda request: sizes[next(nth) % len(sizes)], lambda number: number in broken)
    events = await chain(server, way, budget)
    assert server.spent <= budget
    assert Trace(tuple(events)).tokens <= budget
    assert isinstance(events[-1], (Answer, Failed))


@pytest.mark.parametrize("way", list(WAYS))
async def test_a_server_that_counts_nothing_is_held_to_it_by_the_length_of_its_text(
    way: str,
) -> None:
    server = Meter(lambda request: 200, counts=False)
    await chain(server, way, 1000)
    assert 0 < server.spent <= 1000


async def test_attempts_that_gave_no_step_count_too() -> None:
    server = Meter(lambda request: 300 if request.schema else 50)
    server.text = lambda request: "nonsense" if request.schema else "The answer."  # type: ignore[method-assign]
    events = await chain(server, "json_steps", 700)
    assert server.spent <= 700
    assert len(only(events, Retry)) < Settings().attempts - 1
    assert codes(events) == ["budget"]
    assert isinstance(events[-1], Answer)


# -- the answer gets its share


async def test_an_endless_chain_asks_for_the_answer_while_there_is_room_for_it() -> None:
    server = Meter(lambda request: 100)
    events = await chain(server, "json_steps", 1000)
    assert codes(events) == ["budget"]
    assert 5 <= len(only(events, Step)) <= 8
    assert not any(step.cut for step in only(events, Step)[:-1])
    assert isinstance(events[-1], Answer)
    assert not events[-1].cut
    assert server.requests[-1].max_tokens >= 1000 // 4


async def test_no_step_takes_the_answers_share() -> None:
    server = Meter(lambda request: 10**6 if request.schema else 50)
    events = await chain(server, "json_steps", 1000, step_tokens=5000)
    assert server.requests[-1].max_tokens >= 1000 // 4
    assert events[-1] == Answer(events[-1].content, 0.0, 50, 0.0)


async def test_a_chain_that_concludes_in_time_hears_nothing_of_its_budget() -> None:
    final = [good(1), good(2), good(3, "final_answer"), "The answer."]
    rich, free = Scripted(*final), Scripted(*final)
    events = await chain(rich, "json_steps", 100_000)
    await run(free, model=MODEL)
    assert codes(events) == []
    assert [r.max_tokens for r in rich.requests] == [r.max_tokens for r in free.requests]


@pytest.mark.parametrize("way", [way for way in WAYS if way != "direct"])
async def test_a_budget_that_holds_no_step_gives_the_answer_at_once(way: str) -> None:
    server = Scripted("7} $$" if way == "coat" else "It is 7.")
    events = await chain(server, way, 90)
    assert only(events, Step) == []
    assert codes(events) == ["budget"]
    assert isinstance(events[-1], Answer)
    assert [request.max_tokens for request in server.requests] == [90]


@pytest.mark.parametrize("way", [way for way in WAYS if way != "direct"])
@pytest.mark.parametrize("budget", [2 * SHORT_STEP, 120, 200])
async def test_a_small_budget_is_halved_between_one_step_and_the_answer(
    way: str, budget: int
) -> None:
    """Whoever asks a model that thinks for few tokens has it think a little."""
    server = Meter(lambda request: 10**6 if len(server.requests) == 1 else 10)
    thought = json.dumps({"title": "Add", "content": THOUGHT}) if way == "json_steps" else THOUGHT
    server.text = lambda request: thought if len(server.requests) == 1 else "7} $$"  # type: ignore[method-assign]
    events = await chain(server, way, budget)
    assert [step.content.strip() != "" for step in only(events, Step)] == [True]
    assert isinstance(events[-1], Answer)
    assert "7" in events[-1].content
    first, answer = (request.max_tokens for request in server.requests)
    assert first >= SHORT_STEP
    assert answer >= min(budget // 2, ROOM_TO_CONCLUDE)
    assert server.spent <= budget


@pytest.mark.parametrize("way", list(WAYS))
async def test_an_answer_that_does_not_fit_is_cut(way: str) -> None:
    server = Scripted(pieces("It is a num", "length"))
    events = await chain(server, way, 20)
    assert events[-1].cut
    assert server.requests[0].max_tokens == 20


async def test_a_native_thought_leaves_room_for_its_answer() -> None:
    server = Meter(lambda request: 10**6 if request.think else 40)
    server.text = lambda request: "<think>And on." if request.think else "Seven."  # type: ignore[method-assign]
    events = await chain(server, "native", 1000)
    assert [request.max_tokens for request in server.requests] == [750, 250]
    assert codes(events) == ["budget"]
    assert (events[-1].content, events[-1].cut) == ("Seven.", False)


async def test_a_satori_chain_without_a_box_is_asked_for_one_while_there_is_room() -> None:
    nth = count()
    server = Meter(lambda request: 10**6 if next(nth) == 0 else 20)
    server.text = lambda request: (  # type: ignore[method-assign]
        "<|continue|>And on and on and on." if len(server.requests) == 1 else "7} $$"
    )
    events = await chain(server, "coat", 400)
    assert codes(events) == ["budget"]
    assert events[-1].content == "$$\\boxed{7}$$"
    assert server.spent <= 400


async def test_a_budget_that_is_spent_on_broken_tries_is_a_named_failure() -> None:
    server = Meter(lambda request: 50, lambda nth: True)
    events = await chain(server, "direct", 80)
    assert isinstance(events[-1], Failed)
    assert (events[-1].code, server.spent) == ("budget", 80)
    assert "80 tokens" in events[-1].message


async def test_finished_steps_that_a_chain_goes_on_after_have_had_their_share() -> None:
    step = Step(1, "T", "C", "continue", 1.0, 900, raw=good(1))
    server = Scripted("The answer.")
    settings = Settings(budget=1000)
    await run(server, model=MODEL, steps=[step], settings=settings)
    assert [request.max_tokens for request in server.requests] == [100]


# -- the settings themselves


@pytest.mark.parametrize("wrong", [{"budget": 0}, {"budget": -5}, {"top_p": 0}, {"top_p": 1.5}])
def test_a_bound_that_cannot_hold_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        Settings(**wrong)


@pytest.mark.parametrize("way", list(WAYS))
async def test_top_p_is_on_every_request_and_nowhere_without_one(way: str) -> None:
    for top_p in (0.9, None):
        server = Meter(lambda request: 60)
        await run(server, way=way, model=MODEL, settings=Settings(top_p=top_p, max_steps=3))
        assert {request.top_p for request in server.requests} == {top_p}


def test_a_step_and_an_answer_of_the_least_size_are_a_budget() -> None:
    assert LEAST_STEP + LEAST_ANSWER <= 256  # below it the first step may be shorter


# -- the real server


@pytest.mark.parametrize(
    ("way", "question", "budget"),
    [("json_steps", SUM, 280), ("cot", SUM, 280), ("direct", BERRY, 6)],
)
async def test_a_real_chain_costs_no_more_than_its_budget(
    reciter: Server, way: str, question: str, budget: int
) -> None:
    endpoint = Endpoint(reciter.base_url)
    told: list[int] = []

    class Counted:
        capabilities = endpoint.capabilities
        count, special_tokens = endpoint.count, endpoint.special_tokens

        async def chat(self, request: Request) -> AsyncGenerator[Piece, None]:
            told.append(0)
            async for piece in endpoint.chat(request):
                told[-1] = piece.completion_tokens or told[-1]
                yield piece

    try:
        model = await endpoint.model()
        settings = Settings(budget=budget, seed=5)
        inquiry = Inquiry(question, way, settings)
        chain = think(inquiry, endpoint=Counted(), model=model)
        events = [event async for event in chain]
    finally:
        await endpoint.close()
    assert isinstance(events[-1], Answer)
    assert 0 < sum(told) <= budget
    assert Trace(tuple(events)).tokens <= sum(told)
