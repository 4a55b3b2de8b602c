"""Models that think by themselves: their thought becomes steps, their answer the answer.

The thought comes in a field of its own (`reasoning`, or `reasoning_content` from older
servers), or in the text between <think> and </think>, or before a lone </think>.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import replace

from reasoning.direct import LEAST, answer
from reasoning.endpoint import Message, Piece, Request
from reasoning.errors import EmptyAnswer, TooLong
from reasoning.events import Answer, Delta, Event, Notice, Step
from reasoning.prompts import prompt
from reasoning.reading import Reading, read
from reasoning.splitting import ThinkSplitter, TurnSplitter, Voice
from reasoning.task import MARGIN, Task
from reasoning.writing import Writer

MAX_THINKING = 16_384  # tokens of thought and answer; a context is often smaller
TEMPERATURE = 0.6  # what Qwen3's and DeepSeek-R1's cards ask for: greedy thought goes in circles
KEPT_TO_CONCLUDE = 6_000  # characters of the end of a thought that was cut


def native(task: Task) -> AsyncGenerator[Event, None]:
    """The events of a model's own thinking. Raises StepwiseError."""
    return Native(task).events()


class Native:
    """One thought and its answer."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._reading = Reading(task.clock)
        self._finished: list[Step] = []  # of tries that broke off: a finished step stays
        self._fresh(len(task.steps) + 1)

    def _fresh(self, number: int) -> None:
        """A try begins: nothing of an earlier one counts."""
        self._writer = Writer(number, self._task.clock, self._task.language)
        self._voices, self._turns = ThinkSplitter(), TurnSplitter()
        self._field = False
        self._answering = False
        self._answer, self._answer_began, self._thought_tokens = "", 0.0, 0
        self._writer.begin()

    async def events(self) -> AsyncGenerator[Event, None]:
        if self._task.steps:
            async with aclosing(self._conclude(self._task.steps)) as events:
                async for event in events:
                    yield event
            return
        async with aclosing(self._thinking()) as events:
            async for event in events:
                yield event
        for event in self._ended():
            yield event
        if self._answer.strip() or not self._writer.steps:
            yield self._answered()
            return
        async with aclosing(self._conclude((*self._finished, *self._writer.steps))) as events:
            async for event in events:
                yield event

    async def _thinking(self) -> AsyncGenerator[Event, None]:
        request = await self._request()
        number = self._writer.number

        def ask() -> AsyncGenerator[Piece, None]:
            return self._task.server.chat(request)

        async with aclosing(read(self._reading, number, ask, self._task.sleep)) as items:
            async for item in items:
                if isinstance(item, Piece):
                    for event in self._taken(item):
                        yield event
                else:
                    yield replace(item, number=self._writer.number)
                    self._finished += self._writer.steps
                    self._fresh(self._writer.number)

    async def _request(self) -> Request:
        question = await self._task.plain(self._task.question)
        turns: tuple[Message, ...] = ({"role": "user", "content": question},)
        room = self._task.context - await self._task.tokens(question) - 2 * MARGIN
        if room < LEAST:
            raise TooLong("The question leaves no room to think.", "Ask a shorter one.")
        warmth = max(self._task.settings.temperature, TEMPERATURE)
        return Request(self._task.model, turns, min(room, MAX_THINKING), warmth)

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
                first = self._reading.first_token if not self._writer.steps else None
                yield from self._writer.take(cut, self._reading.tokens, first)
            return
        if not self._answering:
            self._answering = True
            yield from self._thought_ends()
        if not self._answer:
            text = text.lstrip()
        self._answer += text
        if text:
            yield Delta(self._writer.number, "answer", text)

    def _thought_ends(self, cut: bool = False) -> Iterator[Event]:
        for last in self._turns.end():
            yield from self._writer.take(last, self._reading.tokens)
        yield from self._writer.close(self._reading.tokens, cut)
        self._answer_began, self._thought_tokens = self._task.clock(), self._reading.tokens

    def _ended(self) -> Iterator[Event]:
        """What was held back; a text that told no thought apart was an answer all along."""
        for voice, text in self._voices.end():
            yield from self._say(voice, text)
        if self._answer:
            return
        cut = self._reading.finish_reason in ("length", "repetition")
        if not self._answering:
            yield from self._thought_ends(cut)
        if not (cut or self._field or self._voices.tagged) and self._writer.steps:
            yield Notice("no_thinking", "The model told no thought of its own apart.")
            self._answer = self._reading.text

    def _answered(self) -> Answer:
        seconds = self._task.clock() - self._answer_began
        tokens = max(0, self._reading.tokens - self._thought_tokens)
        if not self._answer.strip():
            raise EmptyAnswer("The model gave no answer.", "Ask again, or serve another model.")
        cut = self._reading.finish_reason in ("length", "repetition")
        return Answer(self._answer.strip(), seconds, tokens, cut=cut)

    async def _conclude(self, steps: tuple[Step, ...]) -> AsyncGenerator[Event, None]:
        """A thought that was cut, or stopped, is given back for an answer without more of it."""
        thought = "\n\n".join(step.content for step in steps)[-KEPT_TO_CONCLUDE:]
        ask = prompt(self._task.language, "answer")
        text = f"{self._task.question}\n\n{thought}\n\n{ask}"
        turns: tuple[Message, ...] = ({"role": "user", "content": await self._task.plain(text)},)
        async with aclosing(answer(self._task, turns, steps[-1].number + 1)) as events:
            async for event in events:
                yield event
