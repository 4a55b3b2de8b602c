"""Models that think by themselves: their thought becomes steps, their answer the answer.

The thought comes in a field of its own (`reasoning`, or `reasoning_content` from older
servers), or in the text between <think> and </think>, or before a lone </think>.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

from reasoning.attempt import Attempt
from reasoning.budget import NEARLY_SPENT
from reasoning.direct import LEAST, answer
from reasoning.endpoint import Message, Piece, Request
from reasoning.errors import BudgetSpent, TooLong
from reasoning.events import Answer, Delta, Emit, Event, Notice, Retry, Step
from reasoning.inquiry import AnswerForm
from reasoning.splitting import ThinkSplitter, TurnSplitter, Voice
from reasoning.step_builder import StepBuilder
from reasoning.task import MARGIN, Task, tokens_at_most
from reasoning.way import OF_ONE_REPLY, Way

MAX_THINKING = 16_384  # tokens of thought and answer; a context is often smaller
TEMPERATURE = 0.6  # what Qwen3's and DeepSeek-R1's cards ask for: greedy thought goes in circles
KEPT_TO_CONCLUDE = 6_000  # characters of the end of a thought that was cut


async def native(task: Task, emit: Emit) -> Answer:
    """A model's own thinking, and its answer. Raises StepwiseError."""
    return await Native(task, emit).answer()


class Native:
    """One thought and its answer."""

    def __init__(self, task: Task, emit: Emit) -> None:
        self._task, self._emit = task, emit
        self._attempt = Attempt(task.clock, len(task.inquiry.steps) + 1)
        self._finished: list[Step] = []  # of tries that broke off: a finished step stays
        self._earlier: tuple[Message, ...] = ()
        # the thought must be free of what the answer is held to, so they are two requests
        self._apart = task.inquiry.answer_form != AnswerForm()
        self._fresh(len(task.inquiry.steps) + 1)

    def _fresh(self, number: int) -> None:
        """A try begins: nothing of an earlier one counts."""
        self._builder = StepBuilder(number, self._task.clock, self._task.inquiry.language)
        self._voices, self._turns = ThinkSplitter(), TurnSplitter()
        self._field = False
        self._answering = False
        self._answer, self._answer_began, self._thought_tokens = "", 0.0, 0
        self._builder.begin()

    async def answer(self) -> Answer:
        await self._emit(*await self._open())
        if not self._task.inquiry.steps and self._task.budget.may_think:
            await self._thought()
        if self._answer.strip():
            return self._answered()
        if not self._task.budget.may_think:
            await self._emit(NEARLY_SPENT)
        return await self._conclude()

    async def _open(self) -> tuple[Notice, ...]:
        """The turns before the question, and what is to be said of them."""
        opening = await self._task.opening()
        needed = sum(tokens_at_most(turn["content"]) for turn in opening)
        needed += tokens_at_most(self._task.inquiry.question) + self._task.context // 4
        earlier, notices = await self._task.earlier(needed)
        self._earlier = (*opening, *earlier)
        return notices

    async def _thought(self) -> None:
        with suppress(BudgetSpent):  # on tries that broke off; the answer's share is left
            await self._thinking()
        await self._emit(*self._ended())

    async def _thinking(self) -> None:
        most = await self._request()

        def request() -> Request:
            return replace(most, max_tokens=min(most.max_tokens, self._task.budget.left_to_think))

        await self._task.read(self._attempt, request, self._take, self._again)

    async def _take(self, piece: Piece) -> bool:
        await self._emit(*self._taken(piece))
        self._attempt.turn_to(self._builder.number)
        return self._apart and self._answering

    async def _again(self, why: Retry | Notice) -> None:
        """Another try begins; the steps that this one has finished stay."""
        await self._emit(why)
        self._finished += self._builder.steps
        self._fresh(self._builder.number)

    async def _request(self) -> Request:
        task = self._task
        turns = await self._turns_to(task.inquiry.question)
        used = sum([await task.tokens(turn["content"]) + MARGIN for turn in turns])
        room = task.context - used - MARGIN
        if room < LEAST:
            raise TooLong("The question leaves no room to think.", "Ask a shorter one.")
        warmth = max(task.inquiry.settings.temperature, TEMPERATURE)
        return Request(task.model, turns, min(room, MAX_THINKING), warmth, task.inquiry.seed())

    async def _turns_to(self, text: str) -> tuple[Message, ...]:
        return (*self._earlier, {"role": "user", "content": await self._task.plain(text)})

    def _taken(self, piece: Piece) -> Iterator[Event]:
        if piece.reasoning:
            self._field = True
            yield from self._say("thought", piece.reasoning)
        if piece.text:
            parts = [("answer", piece.text)] if self._field else self._voices.feed(piece.text)
            for voice, text in parts:
                yield from self._say(voice, text)  # type: ignore[arg-type]

    def _say(self, voice: Voice, text: str) -> Iterator[Event]:
        if voice == "thought":
            for cut in self._turns.feed(text):
                first = self._attempt.first_token if not self._builder.steps else None
                yield from self._builder.take(cut, self._attempt.tokens, first)
            return
        if not self._answering:
            self._answering = True
            yield from self._thought_ends()
        if self._apart:
            return
        if not self._answer:
            text = text.lstrip()
        self._answer += text
        if text:
            yield Delta(self._builder.number, "answer", text)

    def _thought_ends(self, cut: bool = False) -> Iterator[Event]:
        for last in self._turns.end():
            yield from self._builder.take(last, self._attempt.tokens)
        yield from self._builder.close(self._attempt.tokens, cut)
        self._answer_began, self._thought_tokens = self._task.clock(), self._attempt.tokens

    def _ended(self) -> Iterator[Event]:
        """What was held back; a text that told no thought apart was an answer all along."""
        for voice, text in self._voices.end():
            yield from self._say(voice, text)
        if self._answer:
            return
        cut = self._attempt.cut
        if not self._answering:
            yield from self._thought_ends(cut)
        if not (cut or self._field or self._voices.tagged) and self._builder.steps:
            yield Notice("no_thinking", "The model told no thought of its own apart.")
            self._answer = "" if self._apart else self._attempt.text

    def _answered(self) -> Answer:
        seconds = self._task.clock() - self._answer_began
        tokens = max(0, self._attempt.tokens - self._thought_tokens)
        return Answer(self._answer.strip(), seconds, tokens, cut=self._attempt.cut)

    async def _conclude(self) -> Answer:
        """The thought so far is given back for an answer without more of it."""
        steps = (*self._task.inquiry.steps, *self._finished, *self._builder.steps)
        thought = "\n\n".join(step.content for step in steps)[-KEPT_TO_CONCLUDE:]
        text = self._task.inquiry.question
        if steps:
            text = f"{text}\n\n{thought}\n\n{self._task.prompt('answer')}"
        turns = await self._turns_to(await self._task.in_form(text))
        return await answer(self._task, turns, len(steps) + 1, self._emit)


NATIVE = Way(
    native,
    prompts=("answer",),
    steers=frozenset({"edit", "answer"}),
    settings=OF_ONE_REPLY,
    ends=lambda last: True,
)
