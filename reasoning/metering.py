"""What a chain's requests cost: the one count of it, between a way of thinking and its server."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import aclosing
from dataclasses import replace
from typing import Protocol

from reasoning.capabilities import Capabilities
from reasoning.endpoint import Piece, Request
from reasoning.errors import Busy

LOOK = 1.0  # seconds without a piece before the server is asked who waits there, and between two
Place = Callable[[int], Awaitable[None]]


class ModelServer(Protocol):
    """What a way needs of an endpoint."""

    @property
    def capabilities(self) -> Capabilities: ...

    @property
    def restart_wait(self) -> float: ...

    def chat(self, request: Request) -> AsyncGenerator[Piece, None]: ...

    async def count(self, text: str) -> int | None: ...

    async def special_tokens(self, candidates: Iterable[str]) -> frozenset[str]: ...

    async def waiting(self) -> int | None: ...


class Meter:
    """A server for one chain, whose requests a router knows by their `session`.

    Tokens are the server's counts so far over the chain's requests. `cached_tokens` is None
    where the server does not tell of its cache; `retry_after` is what a busy server asked for
    last, in seconds. `spent` bounds the completion tokens of the requests that have ended: the
    server's count, or the bytes of a text that it did not count, for no token is less than one.
    `queued` is told the place of a request that waits at a full server, and 0 when its turn has
    come; `look` is for how many seconds without a piece nothing is asked.
    """

    def __init__(self, server: ModelServer, look: float = LOOK) -> None:
        self._server, self.session = server, uuid.uuid4().hex
        self.prompt_tokens = self.completion_tokens = self.spent = 0
        self.cached_tokens: int | None = None
        self.retry_after: float | None = None
        self._answered = False
        self.queued: Place | None = None
        self._look = look

    @classmethod
    def of(cls, server: ModelServer) -> Meter:
        """The server, metered; itself where it is a meter, which somebody else reads."""
        return server if isinstance(server, Meter) else cls(server)

    @property
    def capabilities(self) -> Capabilities:
        return self._server.capabilities

    @property
    def restart_wait(self) -> float:
        """Seconds to wait for a server that is gone: none for one that this chain never heard."""
        return self._server.restart_wait if self._answered else 0.0

    async def chat(self, request: Request) -> AsyncGenerator[Piece, None]:
        last, size = Piece(), 0
        asked = replace(request, session=self.session)
        watching = asyncio.create_task(self._watch_queue(request))
        try:
            async with aclosing(self._server.chat(asked)) as pieces:
                async for piece in pieces:
                    self._answered = True
                    watching.cancel()
                    last = self._counted(piece, last)
                    size += len((piece.text + piece.reasoning).encode())
                    yield piece
        except Busy as error:
            self.retry_after = error.retry_after
            raise
        finally:
            watching.cancel()
            self.spent += last.completion_tokens or min(size, request.max_tokens)

    async def _watch_queue(self, request: Request) -> None:
        """Tells of its place in the queue, by the server's own numbers, until its turn has come.

        Who comes later waits behind it: so it is never more than it was. Where nobody waits it
        is not in the queue, and will not be.
        """
        place = 0
        while request.model.vllm and self.queued is not None:
            await asyncio.sleep(self._look)
            waiting = await self._server.waiting() or 0
            if waiting < place or (waiting and not place):
                place = waiting
                await self.queued(place)
            if not waiting:
                return

    def _counted(self, piece: Piece, last: Piece) -> Piece:
        """Adds what the request has cost beyond `last`; gives what it has cost until now."""
        now = Piece(
            prompt_tokens=max(piece.prompt_tokens or 0, last.prompt_tokens or 0),
            completion_tokens=max(piece.completion_tokens or 0, last.completion_tokens or 0),
            cached_tokens=last.cached_tokens
            if piece.cached_tokens is None
            else piece.cached_tokens,
        )
        self.prompt_tokens += (now.prompt_tokens or 0) - (last.prompt_tokens or 0)
        self.completion_tokens += (now.completion_tokens or 0) - (last.completion_tokens or 0)
        if now.cached_tokens is not None:
            more = now.cached_tokens - (last.cached_tokens or 0)
            self.cached_tokens = (self.cached_tokens or 0) + more
        return now

    async def count(self, text: str) -> int | None:
        return await self._server.count(text)

    async def special_tokens(self, candidates: Iterable[str]) -> frozenset[str]:
        return await self._server.special_tokens(candidates)

    async def waiting(self) -> int | None:
        return await self._server.waiting()
