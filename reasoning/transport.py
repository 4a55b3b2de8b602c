"""What a server's response must keep to before any of it is read: no packing, no endless bodies.

A hook of the HTTP client's, for the endpoint alone. What is packed small can be endless when it
is unpacked, and unpacking it stops the event loop: so nothing packed is read.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

import httpx2

from reasoning.chunks import LOOK
from reasoning.errors import NotOpenAI, ServerFault

MOST = 64 * 2**20  # bytes of a reply: 128,000 tokens, in an event each
MOST_AT_ONCE = 4 * 2**20  # of an event, and of a body that is none: it is parsed as one
SLICE = 4 * 2**10  # is read at once: 2,000 lines of a flood, some milliseconds
MOST_OF_ERROR = 64 * 2**10  # enough for a sentence; more is not read
AS_IT_IS = "stepwise_as_it_is"  # a request whose response is somebody else's to read

_BETWEEN = (b"\n\n", b"\r\r", b"\r\n\r\n")  # events


async def guard(response: httpx2.Response) -> None:
    """Has the response keep to the bounds as it is read. Raises a StepwiseError for one that
    leads elsewhere or is packed."""
    if AS_IT_IS in response.request.extensions:
        return
    _check_redirect(response)
    body, packing = response.stream, response.headers.get("content-encoding", "").strip()
    assert isinstance(body, httpx2.AsyncByteStream)
    if packing.lower() in ("", "identity"):
        response.stream = BoundedBody(body, MOST_OF_ERROR if response.status_code >= 400 else None)
    elif response.status_code >= 400:  # its number says what matters
        del response.headers["content-encoding"]
        response.stream = BoundedBody(body, 0)
    else:
        raise ServerFault(
            f"The server packs its reply ({packing:.20}), which was not asked for.",
            "Have what stands before it leave replies as they are.",
        )


class BoundedBody(httpx2.AsyncByteStream):
    """A body that ends after `most` bytes, or fails where it goes beyond what any reply needs."""

    def __init__(self, body: httpx2.AsyncByteStream, most: int | None = None) -> None:
        self._body, self._most = body, most

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._most is not None:
            async for part in _beginning(self._body, self._most):
                yield part
            return
        size = Size()
        async for part in self._body:
            for start in range(0, len(part), SLICE):
                size.add(part[start : start + SLICE])
                yield part[start : start + SLICE]
                await asyncio.sleep(0)  # a flood of lines leaves the loop its timers

    async def aclose(self) -> None:
        await self._body.aclose()


async def _beginning(body: httpx2.AsyncByteStream, left: int) -> AsyncGenerator[bytes, None]:
    if left <= 0:
        return
    async for part in body:
        yield part[:left]
        left -= len(part)
        if left <= 0:
            return


class Size:
    """How much has come: in all, and since the last event ended."""

    def __init__(self) -> None:
        self._all = self._since = 0
        self._tail = b""

    def add(self, part: bytes) -> None:
        """Raises ServerFault where it is too much."""
        seen = self._tail + part
        ends = [found + len(mark) for mark in _BETWEEN if (found := seen.rfind(mark)) >= 0]
        self._all += len(part)
        self._since = len(seen) - max(ends) if ends else self._since + len(part)
        self._tail = seen[-3:]
        if self._since > MOST_AT_ONCE or self._all > MOST:
            raise ServerFault("The server's reply has no end.", LOOK)


def _check_redirect(response: httpx2.Response) -> None:
    """Raises NotOpenAI where the question would go to another server."""
    if not response.has_redirect_location:
        return
    here, goal = response.request.url, response.headers["location"]
    try:
        there = here.join(goal)
    except (httpx2.InvalidURL, ValueError):
        message = f"The server at {_place(here)} redirects to {goal[:100]!r}, which is no address."
        raise NotOpenAI(message, "Check OPENAI_BASE_URL: it usually ends in /v1.") from None
    secured = (there.scheme, there.host, there.port) == ("https", here.host, None)
    if _origin(there) != _origin(here) and not (secured and here.port is None):
        raise NotOpenAI(
            f"The server at {_place(here)} redirects to {_place(there)}, which is another one.",
            "Name that one in OPENAI_BASE_URL if the questions are to go there.",
        )


def _origin(url: httpx2.URL) -> tuple[str, str, int | None]:
    usual = {"http": 80, "https": 443}.get(url.scheme)
    return url.scheme, url.host, url.port or usual


def _place(url: httpx2.URL) -> str:
    """Where it is, without a name and password that may stand in it."""
    return f"{url.scheme}://{url.netloc.decode('ascii', 'replace').rpartition('@')[2]}"
