"""The served model under its own name: a request and its reply go through as they are.

Only the credentials change: the client's stay here, the gateway's own are sent on. A
client that goes away closes the connection to the server, which ends its work.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing

from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from gateway.errors import ApiError, from_stepwise
from gateway.streaming import DONE, event_data, run_while_connected, until_stopped
from gateway.upstream import GatewayState
from reasoning.endpoint import RawReply
from reasoning.errors import StepwiseError

Parts = AsyncGenerator[bytes, None]
EVENT_END = re.compile(rb"\n\n|\r\r|\r\n\r\n")
MOST_HELD = 2**20  # bytes of an event that is not whole
PASSED_ON = (
    *("content-type", "accept", "accept-encoding", "traceparent", "tracestate"),
    "x-session-id",  # a client's own word for a router behind us
)
PASSED_BACK = ("content-type", "content-encoding", "retry-after", "x-request-id")


async def pass_through(request: Request, state: GatewayState) -> Response:
    """The server's own response, byte by byte. Raises ApiError or StepwiseError for none."""
    kept = {name: value for name in PASSED_ON if (value := request.headers.get(name))}
    kept.setdefault("accept-encoding", "identity")  # or ours would be asked for
    path, body = request.url.path.removeprefix("/v1/"), await request.body()
    sending = state.upstream.endpoint.forward(request.method, path, body, kept)
    reply = await run_while_connected(request, sending)
    back = {name: value for name in PASSED_BACK if (value := reply.headers.get(name))}
    ended = BackgroundTask(reply.close)  # also where nothing of it was ever read
    parts = until_stopped(reply.parts(), state.stopped)
    if "event-stream" in reply.headers.get("content-type", "") and "content-encoding" not in back:
        parts = _events(parts)
    return StreamingResponse(_body(parts, reply), reply.status, back, background=ended)


async def _body(parts: Parts, reply: RawReply) -> Parts:
    try:
        async with aclosing(parts):
            async for part in parts:
                yield part
    finally:
        await reply.close()


async def _events(parts: Parts) -> Parts:
    """The parts of an event stream, which ends in an error event where it breaks off.

    Of an event that is not whole nothing is sent: a client would read the error as its end.
    """
    held = b""
    try:
        async with aclosing(parts):
            async for part in parts:
                held += part
                if whole := _length_of_whole(held):
                    yield held[:whole]
                    held = held[whole:]
        yield held
    except (StepwiseError, ApiError) as error:
        told = error if isinstance(error, ApiError) else from_stepwise(error)
        yield f"data: {event_data(told.body)}\n\ndata: {DONE}\n\n".encode()


def _length_of_whole(held: bytes) -> int:
    if len(held) > MOST_HELD:
        return len(held)
    return max((end.end() for end in EVENT_END.finditer(held)), default=0)
