"""A reply as server-sent events: opened once there is something to say, then kept alive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.background import BackgroundTask

from gateway.chunks import data
from gateway.problems import Problem

Lines = AsyncGenerator[str, None]


class Stream:
    """The data of a reply's events, of which the first may still be under way."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self._first = asyncio.ensure_future(anext(lines))

    async def open(self, keep_alive: float) -> EventSourceResponse:
        """The response, with a comment every `keep_alive` seconds.

        As long is waited for the first event before it begins, so that what fails soon
        fails with an HTTP status of its own. Raises Problem.
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
        except Problem as problem:
            yield data(problem.body)
        finally:
            await self.close()

    async def close(self) -> None:
        """Ends the work for the reply. More than once is once."""
        self._first.cancel()
        await asyncio.gather(self._first, return_exceptions=True)
        await self._lines.aclose()
