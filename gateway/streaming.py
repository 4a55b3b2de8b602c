"""A reply that goes out while its client is there: as one result, or as server-sent events.

A stream is opened once there is something to say, then kept alive.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from typing import Any, TypeVar

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.background import BackgroundTask
from starlette.requests import Request

from gateway.errors import ApiError, ClientDisconnected, failed_itself, stopped

DONE = "[DONE]"  # the data of a stream's last event, however it ended
FAREWELL = 2.0  # seconds that a stream has for its last events when the gateway is stopped
Line = str | dict[str, str]  # the data of an event, or its name ("event") and its "data"
Lines = AsyncGenerator[Line, None]
Farewell = Callable[[ApiError], list[Line]]  # the last events of a stream that has failed
T = TypeVar("T")


async def run_while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The work's result. When the client leaves the work is cancelled; raises ClientDisconnected.

    The request's body must have been read: what comes after it is the hang-up. Raises ApiError
    when the gateway is stopped.
    """
    task, left = asyncio.ensure_future(work), asyncio.ensure_future(_disconnect(request))
    end = asyncio.ensure_future(request.app.state.gateway.stopped.wait())
    try:
        await asyncio.wait({task, left, end}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise stopped() if end.done() else ClientDisconnected
    finally:
        await _cancel(task, left, end)


async def _disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _cancel(*tasks: asyncio.Future[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def until_stopped(
    parts: AsyncGenerator[T, None], ending: asyncio.Event
) -> AsyncGenerator[T, None]:
    """The parts, which are closed with it. Raises ApiError when the gateway is stopped."""
    end = asyncio.ensure_future(ending.wait())
    part = asyncio.ensure_future(anext(parts))
    try:
        while True:
            await asyncio.wait({part, end}, return_when=asyncio.FIRST_COMPLETED)
            if end.done():  # also where parts come faster than they are sent
                raise stopped()
            yield part.result()
            part = asyncio.ensure_future(anext(parts))
    except StopAsyncIteration:
        return
    finally:
        await _cancel(part, end)
        await parts.aclose()


def event_data(values: Mapping[str, Any]) -> str:
    """The values as the data of one server-sent event."""
    return json.dumps(values, ensure_ascii=False, separators=(",", ":"))


def told_and_done(error: ApiError) -> list[Line]:
    """The end of a chat's stream that has failed."""
    return [event_data(error.body), DONE]


class EventStream:
    """The data of a reply's events, of which the first may still be under way."""

    def __init__(
        self, lines: Lines, ending: asyncio.Event, farewell: Farewell = told_and_done
    ) -> None:
        self._farewell = farewell
        self._lines = until_stopped(lines, ending)
        self._first = asyncio.ensure_future(anext(self._lines))

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
            shutdown_grace_period=FAREWELL,
            background=BackgroundTask(self.close),  # also where nothing of it was ever read
        )

    async def _events(self) -> Lines:
        """A failure after the beginning is the last event but the end."""
        try:
            yield await self._first
            async for line in self._lines:
                yield line
        except ApiError as error:
            for line in self._farewell(error):
                yield line
        except Exception:  # a bug of ours, for the log; the client is not left without an end
            for line in self._farewell(failed_itself()):
                yield line
            raise
        finally:
            await self.close()

    async def close(self) -> None:
        """Ends the work for the reply. More than once is once."""
        self._first.cancel()
        await asyncio.gather(self._first, return_exceptions=True)
        await self._lines.aclose()
