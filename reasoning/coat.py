"""Satori's chain of action and thought: one completion, cut at its meta-action tokens.

Prompt, sampling and stop tokens are those of the model card of
Satori-reasoning/Satori-7B-Round2 (paper: arXiv 2502.02508): no system turn,
temperature 0. The answer is the last balanced box.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import replace

from reasoning.boxes import boxes, same_answer
from reasoning.endpoint import Piece, Request
from reasoning.errors import EmptyAnswer, TooLong
from reasoning.events import Answer, Correction, Event, Notice, Step
from reasoning.prompts import plain_prompt
from reasoning.reading import Reading, read
from reasoning.splitting import END_TOKENS, META_ACTIONS, CoatSplitter, Cut
from reasoning.task import MARGIN, Task
from reasoning.writing import Writer

TOKENS: dict[str, str] = {kind: token for token, kind in META_ACTIONS.items()}
DEFAULT_CONTEXT = 4096  # Qwen2.5-Math's; the card says no more
MAX_TOKENS = 4096  # the card's
ROOM_TO_CONCLUDE = 96  # tokens for a box
CONCLUSION = "Therefore, the final answer is: $$ \\boxed{"


async def coat(task: Task) -> AsyncGenerator[Event, None]:
    """The events of a Satori chain. Raises StepwiseError.

    Given finished steps, the completion goes on after them; given ones that end
    where the context ended, it is asked for the box at once.
    """
    chain = Coat(task)
    for step in task.steps:
        for correction in chain.keep(step):
            yield correction
    concluding = bool(task.steps) and task.steps[-1].cut
    async with aclosing(chain.conclude() if concluding else chain.think()) as events:
        async for event in events:
            yield event


class Coat:
    """One chain: the steps so far, and how the transcript reads as a prompt."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._context = task.model.max_model_len or DEFAULT_CONTEXT
        self._steps: list[Step] = []
        self._reading = Reading(task.clock)
        self._writer = Writer(len(task.steps) + 1, task.clock, task.language)
        self._hidden_said = bool(task.steps)

    async def think(self) -> AsyncGenerator[Event, None]:
        async with aclosing(self._transcript()) as events:
            async for event in events:
                yield event
        cut = self._reading.finish_reason in ("length", "repetition")
        for step in self._writer.close(self._reading.tokens, cut):
            yield step
            for event in self.keep(step):
                yield event
        if not self._steps:
            raise EmptyAnswer("The model wrote nothing.", "Ask again, or serve another model.")
        async for event in self._answer(cut):
            yield event

    async def _transcript(self) -> AsyncGenerator[Event, None]:
        """The completion, read into steps; a try that breaks off goes on after the last one."""
        splitter, request = CoatSplitter(), await self._request()
        self._writer.begin()

        def ask() -> AsyncGenerator[Piece, None]:
            return self._task.server.chat(request)

        number = self._writer.number
        async with aclosing(read(self._reading, number, ask, self._task.sleep)) as items:
            async for item in items:
                if not isinstance(item, Piece):
                    yield replace(item, number=self._writer.number)
                    splitter, request = CoatSplitter(), await self._request()
                    self._writer.begin()
                    continue
                for event in self._written(splitter.feed(item.text)):
                    yield event
                if splitter.hidden and not self._hidden_said:
                    self._hidden_said = True
                    yield Notice("no_tokens", "The server hides the model's step tokens.")
        for event in self._written(splitter.end()):
            yield event

    def _written(self, cuts: list[Cut]) -> Iterator[Event]:
        for cut in cuts:
            first = self._reading.first_token if not self._writer.steps else None
            for event in self._writer.take(cut, self._reading.tokens, first):
                yield event
                if isinstance(event, Step):
                    yield from self.keep(event)

    def keep(self, step: Step) -> Iterator[Correction]:
        """The step is the chain's; what it overturns of an earlier answer is said."""
        earlier = [box for done in self._steps for box in boxes(done.content)]
        self._steps.append(step)
        for box in boxes(step.content):
            if earlier and not same_answer(earlier[-1], box):
                yield Correction(step.number, earlier[-1], box)
            earlier.append(box)

    async def _request(self, ending: str = "") -> Request:
        question = await self._task.plain(self._task.question)
        text = plain_prompt("satori", question=question) + "\n" + self._so_far() + ending
        room = self._context - await self._task.tokens(text) - MARGIN
        if room < ROOM_TO_CONCLUDE:
            raise TooLong(
                f"The question leaves no room in the model's context of {self._context:,} tokens.",
                "Ask a shorter one.",
            )
        return Request(
            self._task.model,
            (),
            min(room, MAX_TOKENS),
            prompt=text,
            stop=END_TOKENS,
            special_tokens=True,
        )

    def _so_far(self) -> str:
        return "".join(TOKENS[_kind(step)] + step.raw for step in self._steps)

    # -- the answer

    async def _answer(self, cut: bool) -> AsyncGenerator[Event, None]:
        """The last box with the step that holds it; without one, the last step."""
        tokens = self._reading.tokens - sum(step.tokens for step in self._writer.steps)
        for step in reversed(self._steps):
            if found := boxes(step.content):
                content = f"{_boxed(found[-1])}\n\n{step.content}"
                yield Answer(content, 0.0, max(0, tokens), cut=cut)
                return
        yield Notice("no_box", "The model named no answer in a box; this is its last step.")
        yield Answer(self._steps[-1].content, 0.0, max(0, tokens), cut=cut)

    async def conclude(self) -> AsyncGenerator[Event, None]:
        """The box alone, after as much of the chain as leaves room for it."""
        request = await self._conclusion()
        reading, number = self._reading, self._writer.number

        def ask() -> AsyncGenerator[Piece, None]:
            return self._task.server.chat(request)

        async with aclosing(read(reading, number, ask, self._task.sleep)) as items:
            async for item in items:
                if not isinstance(item, Piece):
                    yield item
        found = boxes("\\boxed{" + reading.text)
        if not found:
            raise EmptyAnswer("The model named no answer.", "Ask again, perhaps in other words.")
        yield Answer(_boxed(found[0]), reading.seconds, reading.tokens, reading.first_token)

    async def _conclusion(self) -> Request:
        while True:
            try:
                request = await self._request(TOKENS["continue"] + CONCLUSION)
            except TooLong:
                if len(self._steps) < 2:
                    raise
                del self._steps[len(self._steps) // 2]
            else:
                return replace(request, max_tokens=min(request.max_tokens, ROOM_TO_CONCLUDE))


def _boxed(answer: str) -> str:
    return f"$$\\boxed{{{answer}}}$$"


def _kind(step: Step) -> str:
    return step.action if step.action in TOKENS else "continue"
