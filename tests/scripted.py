"""A server of the core's that replies from a script, with a memory. No socket, no clock."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable
from typing import Any

from reasoning.capabilities import Capabilities
from reasoning.endpoint import Piece, Request, ServedModel
from reasoning.events import Event, Settings
from reasoning.inquiry import Inquiry
from reasoning.think import think
from tests.stub import step_text

MODEL = ServedModel("scripted", 8192)
Line = str | Exception | list[Piece] | Callable[[Request], Any]


def good(number: int, action: str = "continue") -> str:
    return step_text(f"Title {number}", f"Work number {number} of the chain.", action)


def pieces(text: str, finish_reason: str = "stop", prompt_tokens: int = 100) -> list[Piece]:
    parts = [Piece(text[i : i + 5]) for i in range(0, len(text), 5)]
    return [
        *parts,
        Piece("", finish_reason),
        Piece("", None, prompt_tokens, max(1, len(text) // 4)),
    ]


class Scripted:
    """Says its lines in order, the last for ever; an exception is raised, in its place."""

    def __init__(self, *lines: Line, special: Iterable[str] = ()) -> None:
        self.lines = list(lines)
        self.special = frozenset(special)
        self.requests: list[Request] = []
        self.capabilities = Capabilities()
        self.restart_wait = 0.0
        self.closed = 0

    async def chat(self, request: Request) -> AsyncGenerator[Piece, None]:
        self.requests.append(request)
        line = self.lines[min(len(self.requests), len(self.lines)) - 1]
        said = line(request) if callable(line) else line
        try:
            for piece in (
                pieces(said)
                if isinstance(said, str)
                else [said]
                if isinstance(said, Exception)
                else said
            ):
                if isinstance(piece, Exception):
                    raise piece
                yield piece
        finally:
            self.closed += 1

    async def count(self, text: str) -> int | None:
        return None

    async def waiting(self) -> int | None:
        return None

    async def special_tokens(self, candidates: Iterable[str]) -> frozenset[str]:
        return self.special & set(candidates)


class Time:
    """A clock that a test moves, and that a sleep moves too."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


async def run(
    server: Scripted,
    question: str = "Why?",
    *,
    model: ServedModel = MODEL,
    time: Time | None = None,
    settings: Settings = Settings(),
    **more: Any,
) -> list[Event]:
    time = time or Time()
    given: dict[str, Any] = {
        name: tuple(it) if isinstance(it, list) else it for name, it in more.items()
    }
    inquiry = Inquiry(question, settings=settings, **given)
    events = think(inquiry, endpoint=server, model=model, clock=time, sleep=time.sleep)
    return [event async for event in events]
