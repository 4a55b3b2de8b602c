"""Steering and following up on a real vLLM, and what of each prompt it has in its cache."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import pytest

from reasoning.endpoint import Endpoint, Piece, Request
from reasoning.events import Answer, Settings, Steer, Step, Trace, Turn
from reasoning.inquiry import edit_step
from reasoning.repeats import find_repeat
from reasoning.task import MARGIN
from tests.real_servers import Server
from tests.reciter_steps import APPLES, APPLES_AGAIN, APPLES_DOUBT
from tests.test_real_server import collect

BLOCK = 32  # tokens; the server caches whole blocks, on a GPU smaller ones
CHAIN = Settings(min_steps=2, max_steps=2, step_tokens=80, answer_tokens=30)


@dataclass(slots=True)
class Asked:
    """A request, and how many of its prompt's tokens the server had to read anew."""

    request: Request
    prompt: int = 0
    cached: int = 0

    @property
    def read_anew(self) -> int:
        return self.prompt - self.cached


class Noting(Endpoint):
    """The real server, and what it says of each prompt: its tokens, and those it had cached."""

    def __init__(self, base_url: str) -> None:
        super().__init__(base_url)
        self.asked: list[Asked] = []

    async def chat(self, request: Request) -> AsyncGenerator[Piece, None]:
        self.asked.append(Asked(request))
        async with aclosing(super().chat(request)) as pieces:
            async for piece in pieces:
                yield piece

    async def _pieces(self, stream: Any, began: float) -> AsyncGenerator[Piece, None]:
        async with aclosing(super()._pieces(self._noted(stream), began)) as pieces:
            async for piece in pieces:
                yield piece

    async def _noted(self, stream: Any) -> AsyncIterator[Any]:
        async for chunk in stream:
            if details := (usage := chunk.get("usage") or {}).get("prompt_tokens_details"):
                self.asked[-1].prompt = usage["prompt_tokens"]
                self.asked[-1].cached = details["cached_tokens"] or 0
            yield chunk

    async def new_since(self, earlier: Request, later: Request) -> int:
        """Tokens, at most, of the turns that the later request has and the earlier had not."""
        pairs = zip(earlier.messages, later.messages, strict=False)
        same = next((at for at, (a, b) in enumerate(pairs) if a != b), len(earlier.messages))
        counts = [await self.count(turn["content"]) for turn in later.messages[same:]]
        return sum((count or 0) + MARGIN for count in counts)


@dataclass(frozen=True, slots=True)
class Whole:
    """A chain to steer, and what was asked for it: its steps, then the answer."""

    steps: tuple[Step, ...]
    asked: tuple[Asked, ...]


@pytest.fixture(scope="module")
def whole(reciter: Server) -> Whole:
    async def think_it() -> Whole:
        endpoint = Noting(reciter.base_url)
        trace = Trace(tuple(await collect(endpoint, APPLES, settings=CHAIN)))
        await endpoint.close()
        return Whole(trace.steps, tuple(endpoint.asked))

    chain = asyncio.run(think_it())
    assert len(chain.steps) == 2, "the model repeats itself; the chain is too short to steer"
    return chain


@pytest.fixture
async def endpoint(reciter: Server) -> AsyncIterator[Noting]:
    endpoint = Noting(reciter.base_url)
    yield endpoint
    await endpoint.close()


async def test_a_normal_step_reads_only_what_is_new_of_its_prompt(
    endpoint: Noting, whole: Whole
) -> None:
    """What the next test compares with."""
    for earlier, later in zip(whole.asked, whole.asked[1:], strict=False):
        new = await endpoint.new_since(earlier.request, later.request)
        assert 0 < later.read_anew <= new + BLOCK


@pytest.mark.parametrize("how", ["edit", "again", "doubt", "answer"])
async def test_a_steered_chain_reads_no_more_anew_than_a_normal_step(
    endpoint: Noting, whole: Whole, how: str
) -> None:
    """So its first token comes as fast: whatever was steered, the chain before it is cached."""
    before = whole.asked[-1].request
    kept = list(whole.steps[:1])
    if how == "edit":
        kept[-1] = edit_step(kept[-1], "Eaten", "12 apples minus 3 apples are 9 apples.")
    steer = Steer(how, whole.steps[1].content)  # type: ignore[arg-type]
    events = await collect(endpoint, APPLES, settings=CHAIN, steps=kept, steer=steer)
    first = endpoint.asked[0]
    assert 0 < first.read_anew <= await endpoint.new_since(before, first.request) + BLOCK
    assert first.cached > first.prompt / 2
    check(how, Trace(tuple(events)), kept, whole.steps[1])


def check(how: str, trace: Trace, kept: list[Step], old: Step) -> None:
    """That the chain did what was asked of it."""
    assert isinstance(trace.end, Answer)
    assert list(trace.steps[:1]) == kept
    new = trace.steps[1:]
    if how == "answer":
        assert new == ()
        return
    assert len(new) == 1
    if how == "doubt":
        assert (new[0].asked, new[0].content) == ("doubt", APPLES_DOUBT[1])
    if how == "again":
        assert new[0].content == APPLES_AGAIN[1]
        assert find_repeat(new[0].content, [old.content]) is None


async def test_a_follow_up_knows_the_conversation_and_keeps_the_system_prompt_cached(
    endpoint: Noting, whole: Whole
) -> None:
    talk = (Turn(APPLES, "Tom has 14 apples."),)
    events = await collect(endpoint, "And if he eats 4 more?", settings=CHAIN, history=talk)
    first = endpoint.asked[0]
    roles = [turn["role"] for turn in first.request.messages]
    assert roles == ["user", "assistant", "user"]
    new = await endpoint.new_since(whole.asked[0].request, first.request)
    assert first.read_anew <= new + BLOCK
    assert isinstance(events[-1], Answer)
