"""One reply being read: what has come of it, how long it took, and trying again.

Every way of thinking reads its replies through here, so that the model's time and
the waiting between tries are told apart in one place.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field

from reasoning.endpoint import Piece
from reasoning.events import Delta, Part, Retry
from reasoning.persistence import Pause, Sleep, persist


@dataclass(slots=True)
class Reading:
    """What came of the last try. `seconds` is the model's time over all of them.

    `spent` bounds the completion tokens of all tries that have ended: the server's count,
    or the bytes of a text that it did not count, for no token is less than one; `most` is
    what the try may take.
    """

    clock: Callable[[], float]
    text: str = ""
    refusal: str = ""
    finish_reason: str | None = None
    seconds: float = 0.0
    first_token: float | None = None
    prompt_tokens: int = 0
    tokens: int = 0
    spent: int = 0
    most: int = 2**31
    _shown: dict[Part, str] = field(default_factory=dict)
    _began: float = 0.0
    _bytes: int = 0

    def begin(self) -> None:
        """A try begins; what came of an earlier one is void."""
        self.text, self.refusal, self.finish_reason, self.first_token = "", "", None, None
        self._shown, self.tokens, self._bytes = {}, 0, 0
        self._began = self.clock()

    def end(self) -> None:
        """The try has ended, whole or not."""
        self.seconds += self.clock() - self._began
        self.spent += self.tokens or min(self._bytes, self.most)

    def take(self, piece: Piece) -> None:
        if (piece.text or piece.reasoning) and self.first_token is None:
            self.first_token = self.clock() - self._began
        self.text += piece.text
        self._bytes += len((piece.text + piece.reasoning).encode())
        self.refusal += piece.refusal
        self.finish_reason = piece.finish_reason or self.finish_reason
        self.prompt_tokens = piece.prompt_tokens or self.prompt_tokens
        self.tokens = piece.completion_tokens or self.tokens

    @property
    def cut(self) -> bool:
        """Whether the server ended the text before its end: no tokens left, or a loop."""
        return self.finish_reason in ("length", "repetition")

    def news(self, number: int, part: Part, text: str) -> Iterator[Delta]:
        """What `text` adds to what was shown of that part; nothing where it takes back."""
        shown = self._shown.get(part, "")
        if len(text) > len(shown) and text.startswith(shown):
            self._shown[part] = text
            yield Delta(number, part, text[len(shown) :])


@dataclass(slots=True)
class Tally:
    """What the attempts at one step or answer have cost together."""

    attempts: int = 0
    seconds: float = 0.0
    tokens: int = 0

    def add(self, reading: Reading) -> None:
        self.attempts += 1
        self.seconds += reading.seconds
        self.tokens += reading.tokens


async def read(
    reading: Reading, number: int, ask: Callable[[], AsyncGenerator[Piece, None]], sleep: Sleep
) -> AsyncGenerator[Piece | Retry, None]:
    """The pieces of the reply to `ask`, taken by `reading`; a Retry where the server failed.

    Raises the StepwiseError that no further try can cure.
    """

    def again() -> AsyncGenerator[Piece, None]:
        reading.begin()
        return ask()

    tries = 0
    async with aclosing(persist(again, sleep)) as items:
        try:
            async for item in items:
                if isinstance(item, Pause):
                    tries += 1
                    reading.end()
                    yield Retry(number, tries, item.error.code, str(item.error), item.wait)
                else:
                    reading.take(item)
                    yield item
        finally:
            reading.end()
