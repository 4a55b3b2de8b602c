"""A question and one message that answers it, as a server is sent them.

The message grows by finished steps, to the letter: so the server's prefix cache holds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from reasoning.endpoint import Message
from reasoning.events import Notice, Step
from reasoning.prompts import format_heading
from reasoning.task import MARGIN, Task, tokens_at_most

LEAST_FORGOTTEN = 4  # steps; of fewer none is left out


@dataclass(frozen=True, slots=True)
class Voice:
    """How a way writes: the prompt that holds the question, a step's text, what parts two."""

    prompt: str
    write: Callable[[Step], str]
    gap: str = "\n\n"


class Transcript:
    """What came before the question, the question, and the message so far."""

    def __init__(self, task: Task, voice: Voice) -> None:
        self._task, self._voice = task, voice
        self._before: tuple[Message, ...] = ()
        self._earlier: tuple[Message, ...] = ()
        self._question = ""
        self._texts: list[str] = []
        self._forgotten = 0  # steps in the middle that are left out

    async def open(self, room: int) -> tuple[Notice, ...]:
        """The turns before the message; `room` is the tokens that thought and answer need."""
        question = await self._task.plain(self._task.inquiry.question)
        self._question = self._task.prompt(self._voice.prompt, question=question)
        self._before = await self._task.opening()
        needed = room + tokens_at_most(self._question)
        needed += sum(tokens_at_most(turn["content"]) for turn in self._before)
        self._earlier, notices = await self._task.earlier(needed)
        return notices

    async def add(self, steps: Sequence[Step]) -> None:
        """Takes those of the chain's steps that it has not had yet."""
        for step in steps[len(self._texts) + self._forgotten :]:
            self._texts.append(await self._task.plain(self._voice.write(step)))

    @property
    def message(self) -> str:
        """The model's message so far, without white space at its end."""
        whole = ""
        for text in self._texts:
            whole += text if not whole or whole.endswith("\n") else f"{self._voice.gap}{text}"
        return whole.rstrip()

    @property
    def is_led(self) -> bool:
        """Whether the server is asked to go on from the message, and not by our words."""
        return self._task.fallback.goes_on and bool(self.message)

    def asking(self, words: str = "") -> tuple[Message, ...]:
        """The turns, the last one ours; before any step our words go into the question's.

        Some chat templates refuse two turns of the same side in a row.
        """
        if self.message:
            return (*self._asked(), _said("assistant", self.message), _said("user", words))
        return self._asked(words)

    def going_on(self, heading: str = "", text: str = "") -> tuple[Message, ...]:
        """The turns, the last one the model's own, to be gone on with under that heading.

        `text` is what it has written there already.
        """
        message = self.message
        if heading:
            message += ("\n\n" if message else "") + format_heading(heading) + text
        elif message:
            message += self._voice.gap
        return (*self._asked(), _said("assistant", message))

    def _asked(self, words: str = "") -> tuple[Message, ...]:
        text = "\n\n".join(filter(None, (self._question, words)))
        return (*self._before, *self._earlier, _said("user", text))

    async def used(self) -> int:
        """Tokens of the context that it takes, by the server's count, else at most."""
        counts = [await self._task.tokens(turn["content"]) + MARGIN for turn in self._turns()]
        return sum(counts)

    @property
    def used_at_most(self) -> int:
        """The same, without asking the server."""
        return sum(tokens_at_most(turn["content"]) for turn in self._turns())

    def _turns(self) -> tuple[Message, ...]:
        return (*self._asked(), _said("assistant", self.message))

    def forget(self) -> Notice | None:
        """Drops the earlier turns, next the middle half of the steps; None when few are left."""
        count = len(self._texts)
        if self._earlier:
            self._earlier = ()
            return Notice("history", "The earlier turns do not fit.")
        if count < LEAST_FORGOTTEN:
            return None
        middle = slice(count // 4, count - count // 4)
        self._forgotten += len(self._texts[middle])
        del self._texts[middle]
        return Notice("context", "The steps in the middle were left out.")


def _said(role: str, text: str) -> Message:
    return {"role": role, "content": text}
