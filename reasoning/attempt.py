"""An attempt at a reply: what has come of it, how long it took, and trying again.

Every way of thinking reads its replies through here, so that the model's time and
the waiting between tries are told apart in one place.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field

from reasoning.endpoint import Piece
from reasoning.errors import StepwiseError
from reasoning.events import Delta, Notice, Part, Retry
from reasoning.retry import Sleep, retry

Take = Callable[[Piece], Awaitable[bool | None]]  # True: no more of the reply is wanted
Again = Callable[[Retry | Notice], Awaitable[None]]  # what came of the reply is void


@dataclass(slots=True)
class Attempt:
    """What came of the last try. `seconds` is the model's time over all of them.

    `number` is that of the step, or of the answer behind the last one, that is written now;
    `failed` counts the attempts at it that came to nothing, the server's fault or the model's.
    """

    clock: Callable[[], float]
    number: int
    failed: int = 0
    text: str = ""
    refusal: str = ""
    finish_reason: str | None = None
    seconds: float = 0.0
    first_token: float | None = None
    prompt_tokens: int = 0
    tokens: int = 0
    _shown: dict[Part, str] = field(default_factory=dict)
    _began: float = 0.0

    def begin(self) -> None:
        """A try begins; what came of an earlier one is void."""
        self.text, self.refusal, self.finish_reason, self.first_token = "", "", None, None
        self._shown, self.tokens = {}, 0
        self._began = self.clock()

    def end(self) -> None:
        """The try has ended, whole or not."""
        self.seconds += self.clock() - self._began

    def take(self, piece: Piece) -> None:
        if (piece.text or piece.reasoning) and self.first_token is None:
            self.first_token = self.clock() - self._began
        self.text += piece.text
        self.refusal += piece.refusal
        self.finish_reason = piece.finish_reason or self.finish_reason
        self.prompt_tokens = piece.prompt_tokens or self.prompt_tokens
        self.tokens = piece.completion_tokens or self.tokens

    def fail(self, cause: str, detail: str, wait: float = 0.0) -> Retry:
        """It came to nothing, and another follows: the Retry that tells so."""
        self.failed += 1
        return Retry(self.number, self.failed, cause, detail, wait)

    def turn_to(self, number: int) -> None:
        """What is written from now on is that step's, at which nothing has failed yet."""
        if number != self.number:
            self.number, self.failed = number, 0

    @property
    def cut(self) -> bool:
        """Whether the server ended the text before its end: no tokens left, or a loop."""
        return self.finish_reason in ("length", "repetition")

    def show(self, part: Part, text: str) -> None:
        """A reader has seen so much of that part already."""
        self._shown[part] = text

    def shown(self, part: Part) -> str:
        """What a reader has seen of that part."""
        return self._shown.get(part, "")

    def news(self, part: Part, text: str) -> Iterator[Delta]:
        """What `text` adds to what was shown of that part; nothing where it takes back."""
        shown = self.shown(part)
        if len(text) > len(shown) and text.startswith(shown):
            self._shown[part] = text
            yield Delta(self.number, part, text[len(shown) :])


@dataclass(slots=True)
class Tally:
    """What the attempts at one step or answer have cost together."""

    attempts: int = 0
    seconds: float = 0.0
    tokens: int = 0

    def add(self, attempt: Attempt) -> None:
        self.attempts += 1
        self.seconds += attempt.seconds
        self.tokens += attempt.tokens


async def read(
    attempt: Attempt,
    ask: Callable[[], AsyncGenerator[Piece, None]],
    take: Take,
    again: Again,
    sleep: Sleep,
    restart_wait: Callable[[], float] = lambda: 0.0,
) -> None:
    """Reads the reply to `ask`, which is asked for anew where the server failed.

    `take` gets each piece when `attempt` has it, `again` the Retry before the wait;
    `restart_wait` is for how many seconds the server may be gone.
    Raises the StepwiseError that no further try can cure.
    """

    async def once() -> None:
        attempt.begin()
        try:
            async with aclosing(ask()) as pieces:
                async for piece in pieces:
                    attempt.take(piece)
                    if await take(piece):
                        return
        finally:
            attempt.end()

    async def pause(error: StepwiseError, wait: float) -> None:
        await again(attempt.fail(error.code, str(error), wait))
        await sleep(wait)

    await retry(once, pause, restart_wait)
