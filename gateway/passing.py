"""The served model under its own name: a request and its reply go through as they are.

Only the credentials change: the client's stay here, the gateway's own are sent on. A
client that goes away closes the connection to the server, which ends its work.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import httpx2
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from gateway.errors import upstream_error
from gateway.streaming import run_while_connected
from reasoning.endpoint import Endpoint, Patience

PASSED_ON = ("content-type", "accept", "accept-encoding", "traceparent", "tracestate")
PASSED_BACK = ("content-type", "content-encoding", "retry-after", "x-request-id")
BROKE_OFF = "The connection to the model server broke. Try again."


class Passing:
    """Requests to one server, on connections of its own."""

    def __init__(self, endpoint: Endpoint, patience: Patience = Patience()) -> None:
        local = urlsplit(endpoint.base_url).hostname in ("127.0.0.1", "localhost", "::1")
        key = {"authorization": f"Bearer {endpoint.api_key}"} if endpoint.api_key else {}
        self._client = httpx2.AsyncClient(
            base_url=endpoint.base_url,
            headers=key,
            timeout=httpx2.Timeout(patience.whole, connect=patience.connect),
            limits=httpx2.Limits(max_connections=None),
            trust_env=not local,  # this machine is not beyond its HTTP_PROXY
        )

    async def close(self) -> None:
        await self._client.aclose()

    async def models(self) -> list[dict[str, object]]:
        """The server's list of models, as it is. Raises ApiError."""
        with _named():
            response = await self._client.get("models")
            listed = response.json() if response.is_success else None
        self._check_key(response)
        list_entries = listed.get("data") if isinstance(listed, dict) else None
        if not isinstance(list_entries, list):
            raise upstream_error("not_openai", "")
        return [entry for entry in list_entries if isinstance(entry, dict)]

    async def send(self, request: Request) -> Response:
        """The server's own response, byte by byte. Raises ApiError where there is none."""
        kept = {name: value for name in PASSED_ON if (value := request.headers.get(name))}
        kept.setdefault("accept-encoding", "identity")  # or ours would be asked for
        path, body = request.url.path.removeprefix("/v1/"), await request.body()
        asked = self._client.build_request("POST", path, content=body, headers=kept)
        with _named():
            response = await run_while_connected(request, self._client.send(asked, stream=True))
        self._check_key(response)
        back = {name: value for name in PASSED_BACK if (value := response.headers.get(name))}
        return StreamingResponse(_bytes(response), response.status_code, back)

    def _check_key(self, response: httpx2.Response) -> None:
        if response.status_code in (401, 403):  # it was ours, not the client's
            raise upstream_error("key", "")


async def _bytes(response: httpx2.Response) -> AsyncGenerator[bytes, None]:
    """A stream that breaks off ends in an error event; any other body breaks off here too."""
    try:
        async for part in response.aiter_raw():
            yield part
    except httpx2.TransportError:
        if "event-stream" not in response.headers.get("content-type", ""):
            raise
        error = upstream_error("fault", BROKE_OFF)
        yield f"\n\ndata: {json.dumps(error.body)}\n\n".encode()
    finally:
        await response.aclose()


@contextmanager
def _named() -> Iterator[None]:
    """Whatever the connection does wrong becomes an ApiError."""
    try:
        yield
    except (httpx2.ConnectError, httpx2.ConnectTimeout):
        raise upstream_error("unreachable", "") from None
    except httpx2.TimeoutException:
        raise upstream_error("silent", "") from None
    except httpx2.TransportError:
        raise upstream_error("fault", BROKE_OFF) from None
    except ValueError:  # a body that is no JSON
        raise upstream_error("not_openai", "") from None
