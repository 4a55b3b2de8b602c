"""What a way of thinking is given: what is asked, the server, the bounds, and time."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from string import Template
from typing import TypeVar

from reasoning.attempt import Again, Attempt, Take, read
from reasoning.budget import ENDLESS, NEARLY_SPENT, Budget
from reasoning.endpoint import Message, Piece, Request, ServedModel
from reasoning.errors import BudgetSpent, RequestError, TooLong
from reasoning.events import Emit, Notice, Step
from reasoning.fallback import Fallback
from reasoning.inquiry import Inquiry
from reasoning.metering import Meter
from reasoning.parsing import clean_text
from reasoning.prompts import AS_JSON, BY_SCHEMA, prompt
from reasoning.retry import Sleep
from reasoning.special_tokens import as_plain_text

T = TypeVar("T")
Cure = Callable[[RequestError], Notice | None]


@dataclass(slots=True)
class Task:
    """An inquiry to think about: where to ask, what is left of its budget, and time."""

    inquiry: Inquiry
    server: Meter
    model: ServedModel
    clock: Callable[[], float] = time.monotonic
    sleep: Sleep = asyncio.sleep
    budget: Budget = field(init=False)
    fallback: Fallback = field(init=False)

    def __post_init__(self) -> None:
        before = sum(step.tokens for step in self.inquiry.steps)
        self.budget = Budget(self.inquiry.settings, self.server, before)
        self.fallback = Fallback(self.server.capabilities, goes_on=self.model.vllm)

    def prompt(self, name: str, **variables: object) -> str:
        """The prompt filled in: the reader's text, which `check_prompt` has seen, or our file."""
        if name in self.inquiry.prompts:
            return Template(self.inquiry.prompts[name].strip()).substitute(variables)
        return prompt(self.inquiry.language, name, **variables)

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
        return self.model.max_model_len or ENDLESS

    async def read(
        self,
        attempt: Attempt,
        request: Callable[[], Request],
        take: Take,
        again: Again,
        cure: Cure = lambda error: None,
    ) -> None:
        """Reads a reply; each try asks `request` anew for what to send.

        `take` gets each piece, `again` why another try follows: the Retry where the server
        failed, the Notice of what it refused, or the one that `cure` has for another error.
        Raises StepwiseError.
        """
        sent: Request | None = None

        def ask() -> AsyncGenerator[Piece, None]:
            nonlocal sent
            sent = request()
            return self._ask(sent)

        while True:
            try:
                await read(attempt, ask, take, again, self.sleep, self._restart_wait)
                return self.fallback.replied()
            except RequestError as error:
                if (notice := (sent and self.fallback.cure(error, sent)) or cure(error)) is None:
                    raise
                await again(notice)

    def _restart_wait(self) -> float:
        return self.server.restart_wait

    def _ask(self, request: Request) -> AsyncGenerator[Piece, None]:
        """What holds for every request of a chain: the budget, and top_p."""
        tokens = self.budget.allowed(request.max_tokens)
        top_p = self.inquiry.settings.top_p
        return self.server.chat(replace(request, max_tokens=tokens, top_p=top_p))

    # -- the conversation

    async def opening(self) -> tuple[Message, ...]:
        """The caller's instructions as a system turn, where a way has none of its own."""
        if not self.inquiry.instructions:
            return ()
        return ({"role": "system", "content": await self.plain(self.inquiry.instructions)},)

    async def in_form(self, text: str) -> str:
        """What asks for the answer, with a sentence more where that must be JSON."""
        form = self.inquiry.answer_form
        if form.format == "text":
            return text
        words = [text, AS_JSON[self.inquiry.language]]
        if form.schema is not None:
            schema = json.dumps(form.schema, ensure_ascii=False, separators=(",", ":"))
            words.append(BY_SCHEMA[self.inquiry.language] + await self.plain(schema))
        return "\n\n".join(words)

    async def earlier(
        self, needed: int, context: int = 0
    ) -> tuple[tuple[Message, ...], tuple[Notice, ...]]:
        """The earlier turns as messages, and a Notice where the oldest are left out.

        They get half of the context, and never what the question and its thought need.
        The steps so far play no part: a chain that goes on is told the same as before.
        """
        context = context or self.context
        room = min(context // 2, context - needed)
        messages: list[Message] = []
        for turn in reversed(self.inquiry.history):
            pair = [await self._said("user", turn.question)]
            pair += [await self._said("assistant", f"{turn.reasoning}\n\n{turn.answer}")]
            room -= sum(tokens_at_most(message["content"]) for message in pair)
            if room < 0:
                return tuple(messages), (Notice("history", "The oldest turns do not fit."),)
            messages[:0] = pair
        return tuple(messages), ()

    async def _said(self, role: str, text: str) -> Message:
        return {"role": role, "content": await self.plain(clean_text(text))}


MARGIN = 16  # tokens that a chat template adds to a turn, rounded up


async def within_bounds(work: Awaitable[T], steps: Sequence[Step], emit: Emit) -> T | None:
    """What thinking on after these steps comes to; None where it has no room, which is told.

    Without any step the context that is full is the question's own, and TooLong is raised.
    """
    try:
        return await work
    except TooLong:
        if not steps:
            raise
        await emit(Notice("context", "The context is full."))
    except BudgetSpent:  # on tries that broke off; the answer's share is left
        await emit(NEARLY_SPENT)
    return None


# Each attempt differs from the last: at temperature 0 the same request fails the same way.
WARMER = (0.0, 0.5, 0.9)


def raised_temperature(tried: int) -> float:
    """The least temperature of an attempt, the first of which is 0."""
    return WARMER[min(tried, len(WARMER) - 1)]


def tokens_at_most(text: str) -> int:
    """A bound that English and Chinese keep: three bytes of UTF-8 a token, and a margin."""
    return len(text.encode("utf-8", "replace")) // 3 + MARGIN
