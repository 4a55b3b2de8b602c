"""The served model under its own name: a request and its reply go through as they are.

Only the credentials change: the client's stay here, the gateway's own are sent on. A
client that goes away closes the connection to the server, which ends its work.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing

from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from gateway.errors import from_stepwise
from gateway.streaming import run_while_connected
from reasoning.endpoint import Endpoint, RawReply
from reasoning.errors import StepwiseError

PASSED_ON = ("content-type", "accept", "accept-encoding", "traceparent", "tracestate")
PASSED_BACK = ("content-type", "content-encoding", "retry-after", "x-request-id")


async def pass_through(request: Request, endpoint: Endpoint) -> Response:
    """The server's own response, byte by byte. Raises ApiError or StepwiseError for none."""
    kept = {name: value for name in PASSED_ON if (value := request.headers.get(name))}
    kept.setdefault("accept-encoding", "identity")  # or ours would be asked for
    path, body = request.url.path.removeprefix("/v1/"), await request.body()
    sending = endpoint.forward(request.method, path, body, kept)
    reply = await run_while_connected(request, sending)
    back = {name: value for name in PASSED_BACK if (value := reply.headers.get(name))}
    ended = BackgroundTask(reply.close)  # also where nothing of it was ever read
    return StreamingResponse(_body(reply), reply.status, back, background=ended)


async def _body(reply: RawReply) -> AsyncGenerator[bytes, None]:
    """A stream that breaks off ends in an error event; any other body breaks off here too."""
    try:
        async with aclosing(reply.parts()) as parts:
            async for part in parts:
                yield part
    except StepwiseError as error:
        if "event-stream" not in reply.headers.get("content-type", ""):
            raise
        yield f"\n\ndata: {json.dumps(from_stepwise(error).body)}\n\n".encode()
    finally:
        await reply.close()
