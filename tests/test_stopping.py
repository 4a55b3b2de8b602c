"""A chain that nobody wants any more ends its work on the server at once, in every way.

Closing the events, cancelling the task that reads them, leaving the loop: each closes the HTTP
stream, which makes vLLM abort the request. Nothing is thought ahead of who reads.
"""

from __future__ import annotations

import asyncio
import gc
import json
import traceback
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from reasoning.endpoint import Endpoint, Piece, Request, ServedModel
from reasoning.errors import Busy
from reasoning.events import Delta, Event, Retry
from reasoning.inquiry import Inquiry
from reasoning.parsing import BEGUN
from reasoning.think import WAYS, think
from tests.scripted import MODEL, Scripted

VLLM = ServedModel("hanging", 8192, vllm=True)
BEGINS = {
    "json_steps": '{"title":"A start","content":"First',
    "cot": "### A start\n\nFirst of all,",
    "coat": "First of all, this is what is to be found out. Then it is found out. And so on.",
    "native": "<think>\nFirst of all, this is what is to be found out. Then it is found out. So on",
    "direct": "First of all,",
}
every_way = pytest.mark.parametrize("way", WAYS)


class Hanging:
    """An HTTP server that begins each reply and never ends it; `left` when its client has."""

    def __init__(self, text: str) -> None:
        self._chunk = {"choices": [{"index": 0, "text": text, "delta": {"content": text}}]}
        self.left = asyncio.Event()
        self.url = ""

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            if b"completions" in head:
                break
            writer.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\n{}")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
        writer.write(b"data: " + json.dumps(self._chunk).encode() + b"\n\n")
        if await reader.read() == b"":
            self.left.set()
        writer.close()


@asynccontextmanager
async def hanging(way: str) -> AsyncIterator[tuple[Hanging, AsyncGenerator[Event, None]]]:
    """The server, and a chain that asks it."""
    server = Hanging(BEGINS[way].removeprefix(BEGUN))  # a vLLM goes on from there
    listening = await asyncio.start_server(server.answer, "127.0.0.1", 0)
    endpoint = Endpoint(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1")
    async with asyncio.timeout(60):  # of a busy machine; a stream that stays open never ends
        yield server, think(Inquiry("Why?", way), endpoint=endpoint, model=VLLM)
        await server.left.wait()
    listening.close()
    await endpoint.close()


async def shown(events: AsyncIterator[Event]) -> None:
    """Reads until the model has said something."""
    async for event in events:
        if isinstance(event, Delta) and event.part in ("content", "answer"):
            return


@every_way
async def test_closing_the_events_closes_the_http_stream(way: str) -> None:
    async with hanging(way) as (server, events):
        await shown(events)
        assert not server.left.is_set()
        await events.aclose()


@every_way
async def test_cancelling_the_reader_closes_the_http_stream(way: str) -> None:
    async def all_of(events: AsyncGenerator[Event, None]) -> None:
        async with aclosing(events):
            await shown(events)
            begun.set()
            await shown(aiter(events))  # which waits for more, in vain

    begun = asyncio.Event()
    async with hanging(way) as (_, events):
        reading = asyncio.create_task(all_of(events))
        await begun.wait()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading


@every_way
async def test_cancelling_a_reader_that_does_something_else_closes_it_too(way: str) -> None:
    async def slowly(events: AsyncGenerator[Event, None]) -> None:
        async with aclosing(events):
            await shown(events)
            begun.set()
            await asyncio.Event().wait()

    begun = asyncio.Event()
    async with hanging(way) as (_, events):
        reading = asyncio.create_task(slowly(events))
        await begun.wait()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading


@every_way
async def test_leaving_the_loop_closes_the_http_stream(way: str) -> None:
    async def leaves(thinking: list[AsyncGenerator[Event, None]]) -> None:
        async for event in thinking.pop():
            if isinstance(event, Delta):
                break

    async with hanging(way) as (server, events):
        thinking = [events]
        del events
        await leaves(thinking)
        gc.collect()
        await server.left.wait()


class Counted(Scripted):
    """Counts the pieces that were taken from it."""

    taken = 0

    async def chat(self, request: Request) -> Any:
        async with aclosing(super().chat(request)) as pieces:
            async for piece in pieces:
                self.taken += 1
                yield piece


@every_way
async def test_nothing_is_read_ahead_of_who_reads(way: str) -> None:
    """As long as an event is looked at, the model's next piece is not."""
    server = Counted([Piece(BEGINS[way])] + [Piece(f" word {n}") for n in range(99)])
    async with aclosing(think(Inquiry("Why?", way), endpoint=server, model=MODEL)) as events:
        await shown(events)
        taken = server.taken
        for _ in range(20):
            await asyncio.sleep(0)
        assert server.taken == taken < 19
    assert server.closed == 1


@every_way
async def test_a_chain_that_waits_for_another_try_can_be_stopped(way: str) -> None:
    async def for_ever(seconds: float) -> None:
        await asyncio.Event().wait()

    async def waiting(events: AsyncGenerator[Event, None]) -> None:
        async with aclosing(events):
            async for event in events:
                if isinstance(event, Retry):
                    asked.set()

    asked, server = asyncio.Event(), Scripted(Busy("Busy.", "Wait."))
    chain = think(Inquiry("Why?", way), endpoint=server, model=MODEL, sleep=for_ever)
    reading = asyncio.create_task(waiting(chain))
    await asked.wait()
    reading.cancel()
    async with asyncio.timeout(60):  # of a busy machine; a stream that stays open never ends
        with pytest.raises(asyncio.CancelledError):
            await reading
    assert (len(server.requests), server.closed) == (1, 1)


class Bug(Exception):
    """A mistake of ours."""


@every_way
async def test_a_mistake_of_ours_keeps_its_type_and_its_traceback(way: str) -> None:
    server = Scripted(Bug("here"))
    with pytest.raises(Bug, match="here") as caught:
        async for _ in think(Inquiry("Why?", way), endpoint=server, model=MODEL):
            pass
    frames = traceback.extract_tb(caught.value.__traceback__)
    assert frames[-1].name == "chat"
    assert {"think.py", "attempt.py"} <= {Path(frame.filename).name for frame in frames}
    assert server.closed == 1


async def test_a_chain_that_was_never_begun_asks_nothing() -> None:
    server = Scripted("")
    events = think(Inquiry("Why?"), endpoint=server, model=MODEL)
    await events.aclose()
    assert server.requests == []
