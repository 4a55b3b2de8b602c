"""What a way of thinking is given: the question, the server, the bounds, and time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from reasoning.endpoint import Format, Piece, Request, ServedModel
from reasoning.events import Event, Settings, Step
from reasoning.persistence import Sleep
from reasoning.special_tokens import as_plain_text


class Server(Protocol):
    """What a way needs of an endpoint. `format` is the strictest one it is known to take."""

    format: Format

    def chat(self, request: Request) -> AsyncGenerator[Piece, None]: ...

    async def count(self, text: str) -> int | None: ...

    async def special_tokens(self, candidates: Iterable[str]) -> frozenset[str]: ...


@dataclass(slots=True)
class Task:
    """One question to think about. `steps` are finished ones to go on after."""

    question: str
    server: Server
    model: ServedModel
    settings: Settings = field(default_factory=Settings)
    language: str = "en"
    steps: tuple[Step, ...] = ()
    clock: Callable[[], float] = time.monotonic
    sleep: Sleep = asyncio.sleep

    async def plain(self, text: str) -> str:
        """The text with no special token in it, to be sent to the model."""
        return await as_plain_text(text, self.server.special_tokens)

    async def tokens(self, text: str) -> int:
        """How many tokens the text is, by the server's count, else a bound."""
        counted = await self.server.count(text)
        return tokens_at_most(text) if counted is None else counted

    @property
    def context(self) -> int:
        """The model's context in tokens; practically endless where the server tells none."""
        return self.model.max_model_len or 2**31


Way = Callable[[Task], AsyncGenerator[Event, None]]

MARGIN = 16  # tokens that a chat template adds to a turn, rounded up


def tokens_at_most(text: str) -> int:
    """A bound that English and Chinese keep: three bytes of UTF-8 a token, and a margin."""
    return len(text.encode("utf-8", "replace")) // 3 + MARGIN
