"""A reply that goes out while its client is there: as one result, or as server-sent events.

A stream is opened once there is something to say, then kept alive.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Coroutine, Mapping
from typing import Any, TypeVar

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.background import BackgroundTask
from starlette.requests import Request

from gateway.errors import ApiError, ClientDisconnected

Lines = AsyncGenerator[str, None]
T = TypeVar("T")


async def run_while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The work's result. When the client leaves the work is cancelled; raises ClientDisconnected.

    The request's body must have been read: what comes after it is the hang-up.
    """
    task, left = asyncio.ensure_future(work), asyncio.ensure_future(_disconnect(request))
    try:
        await asyncio.wait({task, left}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientDisconnected
    finally:
        task.cancel()
        left.cancel()
        await asyncio.gather(task, left, return_exceptions=True)


async def _disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def event_data(values: Mapping[str, Any]) -> str:
    """The values as the data of one server-sent event."""
    return json.dumps(values, ensure_ascii=False, separators=(",", ":"))


class EventStream:
    """The data of a reply's events, of which the first may still be under way."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self._first = asyncio.ensure_future(anext(lines))

    async def open(self, keep_alive: float) -> EventSourceResponse:
        """The response, with a comment every `keep_alive` seconds.

        As long is waited for the first event before it begins, so that what fails soon
        fails with an HTTP status of its own. Raises ApiError.
        """
        try:
            done, _ = await asyncio.wait({self._first}, timeout=keep_alive)
            for first in done:
                first.result()
        except BaseException:  # a cancelled wait, too: nobody else ends the work
            await self.close()
            raise
        return EventSourceResponse(
            self._events(),
            sep="\n",
            ping=keep_alive,
            ping_message_factory=lambda: ServerSentEvent(comment="keep-alive", sep="\n"),
            background=BackgroundTask(self.close),  # also where nothing of it was ever read
        )

    async def _events(self) -> Lines:
        """A failure after the beginning is the last event."""
        try:
            yield await self._first
            async for line in self._lines:
                yield line
        except ApiError as error:
            yield event_data(error.body)
        finally:
            await self.close()

    async def close(self) -> None:
        """Ends the work for the reply. More than once is once."""
        self._first.cancel()
        await asyncio.gather(self._first, return_exceptions=True)
        await self._lines.aclose()
