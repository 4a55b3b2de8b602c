"""The guard at a server's door: which calls there are, who may make them, how long they may be.

One ASGI middleware for two servers. The gateway builds `Gate` with its own calls; vLLM,
whose own key check leaves /invocations, /tokenize, /metrics and more open to everybody and
whose front end takes a body of any size, is given `VLLMGate` by serve.sh (--middleware).

What is not named here does not pass, and what passes was looked at as the router will see
it: by method and path, never by the Host that a client claims. No call is made from other
origins' pages: there is no OPTIONS and no CORS header. A body is read whole before it is
handed on, so that nothing behind the gate ever sees one that is too long. Who takes too long
over the head of a request or its body is hung up on: else some hundred connections that send
a byte a second hold the server's descriptors for ever.

Standard library alone: vLLM imports it into its own process.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import os
import sys
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from contextlib import suppress
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Header = tuple[bytes, bytes]
Calls = Mapping[str, frozenset[str]]  # the methods of each path; "/x/*" is all below /x/

KEY = "VLLM_API_KEY"  # the variable that holds the key which clients must send
MAX_BODY = 8 * 2**20  # bytes: a million tokens of text; vLLM takes 75 times as much memory
HEAD_SECONDS = 20.0  # from a connection's first moment, or a request's first byte
BODY_SECONDS = 60.0  # 8 MiB at 1.1 Mbit/s
LINGER = 5.0  # seconds given to a client that was refused to finish what it is sending
LONGEST_NUMBER = 20  # digits; int() refuses thousands of them
POLICY_VIOLATION = 1008  # RFC 6455, section 7.4.1
ANYBODY = ("GET", "/health")  # a load balancer has no key

GET, POST = frozenset({"GET"}), frozenset({"POST"})
# OpenAI's own calls as far as vLLM has them, and what Stepwise and a monitor ask for.
VLLM_CALLS: Calls = {
    "/health": GET,
    "/metrics": GET,
    "/version": GET,
    "/tokenize": POST,
    "/detokenize": POST,
    "/v1/models": GET,
    "/v1/chat/completions": POST,
    "/v1/completions": POST,
    "/v1/responses": POST,
    "/v1/embeddings": POST,
    "/v1/audio/transcriptions": POST,
    "/v1/audio/translations": POST,
}


class Refused(Exception):
    """A call that does not pass, and the answer it gets."""

    def __init__(self, status: int, code: str, message: str, *headers: Header) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.headers = status, code, message, headers


class Gone(Exception):
    """The client hung up before its request was whole."""


class Gate:
    """Lets the named calls through to `app`, with the key where there is one.

    `most` is the longest body in bytes, `slowest` the seconds that it may take. Answers 401,
    404, 405, 408 and 413 itself, in OpenAI's error shape; refuses every WebSocket.
    """

    def __init__(
        self,
        app: App,
        calls: Calls,
        key: str = "",
        most: int = MAX_BODY,
        slowest: float = BODY_SECONDS,
    ) -> None:
        self._app, self._calls, self._most, self._slowest = app, calls, most, slowest
        self._key = _digest(key.encode()) if key else b""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":  # before the first connection
            hang_up_on_slow_heads()
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": POLICY_VIOLATION})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._check(scope["method"], path_of(scope), list(scope["headers"]))
            body = await whole_body(receive, self._most, self._slowest)
        except Refused as refused:
            await refuse(refused, receive, send)
        except Gone:
            return
        else:
            await self._app(scope, replay_body(body, receive), send)

    def _check(self, method: str, path: str, headers: Sequence[Header]) -> None:
        """Raises Refused. The key comes first: without it nobody learns what there is."""
        if self._key and (method, path) != ANYBODY:
            self._check_key(headers)
        methods = self._methods(path)
        if not methods:
            raise Refused(404, "unknown_url", self._unknown(method, path))
        if method not in methods:
            raise _not_allowed(method, path, methods)
        if _declared(headers) > self._most:
            raise _too_long(self._most)

    def _check_key(self, headers: Sequence[Header]) -> None:
        if not hmac.compare_digest(_digest(_bearer(headers)), self._key):
            raise Refused(
                401,
                "invalid_api_key",
                "Expected the server's key in the header `Authorization: Bearer KEY`, got none "
                f"or another. It is the one that the server was started with, in {KEY}.",
                (b"www-authenticate", b"Bearer"),
            )

    def _methods(self, path: str) -> frozenset[str]:
        if path in self._calls and not path.endswith("*"):
            return self._calls[path]
        above = [name for name in self._calls if name.endswith("/*") and _is_below(path, name)]
        return self._calls[above[0]] if above else frozenset()

    def _unknown(self, method: str, path: str) -> str:
        there_is = [f"{' '.join(sorted(self._calls[name]))} {name}" for name in self._calls]
        return f"Expected one of {', '.join(there_is)}, got {method} {path[:200]}."


class VLLMGate(Gate):
    """The gate as vLLM makes it: with nothing but the app."""

    def __init__(self, app: App) -> None:
        super().__init__(app, VLLM_CALLS, os.environ.get(KEY, ""))


def path_of(scope: Scope) -> str:
    """The path as Starlette's router matches it: without the root_path of a proxy."""
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    if root and path.startswith(root) and path[len(root) :][:1] in ("", "/"):
        return path[len(root) :]
    return path


def _is_below(path: str, name: str) -> bool:
    above = name.removesuffix("*")
    return path.startswith(above) and path != above


def _digest(key: bytes) -> bytes:
    """Of one length, so that comparing takes one time whatever the key."""
    return hashlib.sha256(key).digest()


def _bearer(headers: Sequence[Header]) -> bytes:
    given = next((value for name, value in headers if name == b"authorization"), b"")
    scheme, _, key = given.partition(b" ")
    return key.strip() if scheme.lower() == b"bearer" else b""


def _declared(headers: Sequence[Header]) -> int:
    """The body's length as its header tells it, 0 where none does: it is counted then."""
    told = [value for name, value in headers if name == b"content-length" and value.isdigit()]
    return max((int(value[:LONGEST_NUMBER]) for value in told), default=0)


def _not_allowed(method: str, path: str, methods: frozenset[str]) -> Refused:
    allowed = ", ".join(sorted(methods))
    message = f"Expected {allowed} for {path[:200]}, got {method}."
    return Refused(405, "method_not_allowed", message, (b"allow", allowed.encode()))


def _too_long(most: int) -> Refused:
    message = f"Expected a body of at most {most:,} bytes, got a longer one. Send less text."
    return Refused(413, "body_too_long", message)


async def whole_body(receive: Receive, most: int, slowest: float = BODY_SECONDS) -> bytes:
    """The request's body. Raises Gone when it breaks off, and Refused once it is longer than
    `most` bytes or takes longer than `slowest` seconds.
    """
    try:
        async with asyncio.timeout(slowest):
            return await _read_body(receive, most)
    except TimeoutError:
        message = f"Expected the whole body within {slowest:g} s, got a part of it."
        raise Refused(408, "body_too_slow", message) from None


async def _read_body(receive: Receive, most: int) -> bytes:
    body = bytearray()
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Gone
        body += message.get("body", b"")
        if len(body) > most:
            raise _too_long(most)
        more = message.get("more_body", False)
    return bytes(body)


def replay_body(body: bytes, receive: Receive) -> Receive:
    """A `receive` that tells of the body first, then of what comes: a client that leaves."""
    told = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def next_message() -> Message:
        return next(told, None) or await receive()

    return next_message


async def refuse(refused: Refused, receive: Receive, send: Send) -> None:
    """The answer, and the end of the connection: what is still being sent is no next request."""
    error = {"message": refused.message, "type": "invalid_request_error", "param": None}
    body = json.dumps({"error": {**error, "code": refused.code}}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
        *refused.headers,
    ]
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    await drain(receive)
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def drain(receive: Receive) -> None:
    """Takes and drops what still comes: closing on it would reset the answer away, unread."""
    with suppress(TimeoutError):
        async with asyncio.timeout(LINGER):
            while (await receive()).get("more_body", False):
                pass


# -- the head of a request, which comes before any call of an application


PROTOCOLS = (
    ("uvicorn.protocols.http.httptools_impl", "HttpToolsProtocol"),
    ("uvicorn.protocols.http.h11_impl", "H11Protocol"),
)


def hang_up_on_slow_heads(seconds: float = HEAD_SECONDS) -> None:
    """Has uvicorn, which waits for a request's head for ever, close the connection by then.

    It has no setting for it, and in vLLM's process no class of ours: so its own are changed.
    """
    for module, name in PROTOCOLS:
        if module in sys.modules:
            _bound_head(getattr(sys.modules[module], name), seconds)


def _bound_head(protocol: Any, seconds: float) -> None:
    if hasattr(protocol, "head_seconds"):
        protocol.head_seconds = seconds
        return
    protocol.head_seconds, protocol.head_timer = seconds, None
    made, received, lost = (
        protocol.connection_made,
        protocol.data_received,
        protocol.connection_lost,
    )

    def connection_made(self: Any, transport: Any) -> None:
        made(self, transport)
        _set_timer(self, wanted=True)

    def data_received(self: Any, data: bytes) -> None:
        received(self, data)
        answering = self.cycle is not None and not self.cycle.response_complete
        upgraded = self.transport.get_protocol() is not self  # to a WebSocket
        _set_timer(self, wanted=not answering and not upgraded)

    def connection_lost(self: Any, error: Exception | None) -> None:
        _set_timer(self, wanted=False)
        lost(self, error)

    protocol.connection_made = connection_made
    protocol.data_received = data_received
    protocol.connection_lost = connection_lost


def _set_timer(connection: Any, wanted: bool) -> None:
    """One that runs goes on: each byte that drips in would set it back."""
    if not wanted and connection.head_timer is not None:
        connection.head_timer.cancel()
        connection.head_timer = None
    elif wanted and connection.head_timer is None:
        loop, close = asyncio.get_running_loop(), connection.transport.close
        connection.head_timer = loop.call_later(connection.head_seconds, close)
