"""The step loop: a chain of requests, each for one JSON step, then the answer.

The schema is the controller: which `next_action` a step may end in decides how long
the chain is, so at least `min_steps` and at most `max_steps` hold by grammar where
the server constrains the model, and by this loop where it does not.

It yields events and holds no connection of its own: the server is a protocol.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass

from reasoning.endpoint import Format, Message, Piece, Request
from reasoning.errors import EmptyAnswer, FormatRefused, TooLong
from reasoning.events import Answer, Event, Notice, Retry, Step
from reasoning.prompts import prompt, untitled
from reasoning.reading import Reading, read
from reasoning.repeats import repeats
from reasoning.replies import (
    BadReply,
    Reply,
    Schema,
    answer_text,
    parse_reply,
    read_partial,
    step_schema,
)
from reasoning.task import MARGIN, Task, tokens_at_most

GO_ON = step_schema("continue")
DECIDE = step_schema("continue", "final_answer")
CONCLUDE = step_schema("final_answer")
SCHEMAS = (GO_ON, DECIDE, CONCLUDE)  # constant, so that a server compiles each grammar once

# Each attempt differs from the last: at temperature 0 the same request fails the same way.
MORE_TOKENS = (1.0, 1.5, 2.0)
WARMER = (0.0, 0.5, 0.9)
HINTS = {"cut": "retry_cut", "loop": "retry_repeat", "repeat": "retry_repeat"}
LOWER: dict[Format, Format] = {"json_schema": "json_object", "json_object": "text"}


def json_steps(task: Task) -> AsyncGenerator[Event, None]:
    """The events of a chain of JSON steps. Raises StepwiseError."""
    return JsonSteps(task).events()


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


class JsonSteps:
    """One chain. `steps` grows; a chain given finished steps goes on after them."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self.settings, self.language = task.settings, task.language
        self.steps: list[Step] = []
        self.format = task.server.format
        self._turns: list[Message] = []
        self._used = 0  # tokens of the context that the turns take, at most
        self._counted = 0  # the same by the server's own count, 0 where it gives none
        self._step_tokens = min(task.settings.step_tokens, task.context // 8)
        self._answer_tokens = min(task.settings.answer_tokens, task.context // 4)

    async def events(self) -> AsyncGenerator[Event, None]:
        """What happens from the next step to the answer. Raises StepwiseError."""
        await self._open()
        async with aclosing(self._chain()) as events:
            async for event in events:
                yield event
        async with aclosing(self._answer()) as events:
            async for event in events:
                yield event

    # -- the turns

    async def _open(self) -> None:
        bounds = {"min_steps": self.settings.min_steps, "max_steps": self.settings.max_steps}
        self._say("system", prompt(self.language, "step", **bounds))
        self._say("user", await self._task.plain(self._task.question))
        for step in self._task.steps:
            await self._append(step)

    async def _append(self, step: Step) -> None:
        """The step becomes a turn of the model's, to the letter: so the prefix cache holds."""
        if self.steps:
            self._say("user", self._next(step.number))
        self._say("assistant", await self._task.plain(step.raw or step.content))
        self.steps.append(step)

    def _say(self, role: str, text: str) -> None:
        self._turns.append({"role": role, "content": text})
        self._used += tokens_at_most(text)

    def _next(self, number: int) -> str:
        return prompt(self.language, "next", number=number, max_steps=self.settings.max_steps)

    def _room(self) -> int:
        """Tokens that the context still holds for a turn of ours and a reply to it."""
        return self._task.context - self._used - 4 * MARGIN

    def _forget_the_middle(self) -> bool:
        """Drops the middle half of the steps' turns; False when there are too few."""
        pairs = (len(self._turns) - 1) // 2  # after the system turn: user and assistant
        if pairs < 4:
            return False
        del self._turns[1 + 2 * (pairs // 4) : 1 + 2 * (pairs - pairs // 4)]
        self._used = sum(tokens_at_most(turn["content"]) for turn in self._turns)
        return True

    # -- the steps

    async def _chain(self) -> AsyncGenerator[Event, None]:
        """Step after step, until one is final or there is no room for another."""
        while not self._concluded():
            if self._room() < self._step_tokens + self._answer_tokens:
                yield Notice("context", "The context is nearly full.")
                return
            event: Event | None = None
            try:
                async with aclosing(self._step(len(self.steps) + 1)) as events:
                    async for event in events:
                        yield event
            except TooLong:
                if not self.steps:
                    raise
                yield Notice("context", "The context is full.")
                return
            if not isinstance(event, Step):
                return
            await self._append(event)
            self._used = self._counted or self._used

    def _concluded(self) -> bool:
        if not self.steps:
            return False
        last = self.steps[-1]
        return last.cut or last.action == "final_answer" or last.number >= self.settings.max_steps

    async def _step(self, number: int) -> AsyncGenerator[Event, None]:
        """The attempts at a step. Ends in the Step, or in the Notice why there is none."""
        tally, bad = Tally(), BadReply("empty", "")
        while tally.attempts < self.settings.attempts:
            reading = Reading(self._task.clock)
            async with aclosing(self._read_step(number, tally.attempts, bad, reading)) as events:
                async for event in events:
                    yield event
            tally.add(reading)
            outcome = self._judge(reading)
            if isinstance(outcome, Reply):
                yield self._finished(number, outcome, reading, tally)
                return
            bad = outcome
            if tally.attempts < self.settings.attempts:
                yield Retry(number, tally.attempts, bad.cause, bad.detail)
        yield self._given_up(number, bad, reading, tally)

    async def _read_step(
        self, number: int, attempt: int, bad: BadReply, reading: Reading
    ) -> AsyncGenerator[Event, None]:
        def request() -> Request:
            return self._step_request(number, attempt, bad)

        async with aclosing(self._reply(number, request, reading)) as items:
            async for item in items:
                if not isinstance(item, Piece):
                    yield item
                    continue
                draft = read_partial(reading.text)
                for delta in reading.news(number, "title", draft.title):
                    yield delta
                for delta in reading.news(number, "content", draft.content):
                    yield delta

    def _step_request(self, number: int, attempt: int, bad: BadReply) -> Request:
        turns = list(self._turns)
        if self.steps:
            turns.append({"role": "user", "content": self._next(number)})
        if attempt:
            hint = prompt(self.language, HINTS.get(bad.cause, "retry_format"), number=number)
            turns[-1] = {"role": "user", "content": f"{turns[-1]['content']}\n\n{hint}"}
        level = min(attempt, len(WARMER) - 1)
        return Request(
            self._task.model,
            tuple(turns),
            max_tokens=min(int(self._step_tokens * MORE_TOKENS[level]), max(1, self._room())),
            temperature=max(self.settings.temperature, WARMER[level]),
            seed=attempt or None,
            format=self.format,
            schema=self._schema(number),
        )

    def _schema(self, number: int) -> Schema:
        if number >= self.settings.max_steps:
            return CONCLUDE
        return GO_ON if number < self.settings.min_steps else DECIDE

    def _judge(self, reading: Reading) -> Reply | BadReply:
        outcome = parse_reply(reading.text, reading.finish_reason)
        if isinstance(outcome, BadReply):
            return outcome
        again = repeats(outcome.content, [step.content for step in self.steps])
        if again is None:
            return outcome
        return BadReply("repeat", f"The reply repeats step {again + 1}.")

    def _finished(self, number: int, reply: Reply, reading: Reading, tally: Tally) -> Step:
        self._counted = reading.prompt_tokens and reading.prompt_tokens + reading.tokens
        allowed = self._schema(number)["properties"]["next_action"]["enum"]
        return Step(
            number,
            reply.title or untitled(self.language, number),
            reply.content,
            reply.action if reply.action in allowed else allowed[0],
            tally.seconds,
            tally.tokens,
            tally.attempts,
            reading.first_token,
            raw=reading.text,
        )

    def _given_up(
        self, number: int, bad: BadReply, reading: Reading, tally: Tally
    ) -> Step | Notice:
        """What was readable, as a step marked cut; else why the answer is asked for now."""
        if bad.cause == "repeat":
            detail = "The model repeats itself."
            return Notice("repeat", detail, tally.seconds, tally.tokens)
        if not bad.draft.content.strip():
            return Notice("unreadable", bad.detail, tally.seconds, tally.tokens)
        return Step(
            number,
            bad.draft.title or untitled(self.language, number),
            bad.draft.content,
            "final_answer",
            tally.seconds,
            tally.tokens,
            tally.attempts,
            reading.first_token,
            cut=True,
        )

    # -- the answer

    async def _answer(self) -> AsyncGenerator[Event, None]:
        """The answer in free text. An empty one is asked for again, then it is a failure."""
        tally, number = Tally(), len(self.steps) + 1
        while tally.attempts < self.settings.attempts:
            reading = Reading(self._task.clock)
            async with aclosing(self._read_answer(number, tally.attempts, reading)) as events:
                async for event in events:
                    yield event
            tally.add(reading)
            content = answer_text(reading.text).strip() or reading.refusal
            if content:
                cut = reading.finish_reason in ("length", "repetition")
                yield Answer(content, tally.seconds, tally.tokens, reading.first_token, cut)
                return
            if tally.attempts < self.settings.attempts:
                yield Retry(number, tally.attempts, "empty", "The answer is empty.")
        raise EmptyAnswer("The model gave no answer.", "Ask again, or serve another model.")

    async def _read_answer(
        self, number: int, attempt: int, reading: Reading
    ) -> AsyncGenerator[Event, None]:
        def request() -> Request:
            ask: Message = {"role": "user", "content": prompt(self.language, "answer")}
            tokens = max(1, min(self._answer_tokens, self._room()))
            warmth = max(self.settings.temperature, WARMER[min(attempt, len(WARMER) - 1)])
            return Request(
                self._task.model, (*self._turns, ask), tokens, warmth, seed=attempt or None
            )

        async with aclosing(self._reply(number, request, reading)) as items:
            async for item in items:
                if not isinstance(item, Piece):
                    yield item
                    continue
                text = answer_text(reading.text).lstrip()
                for delta in reading.news(number, "answer", text):
                    yield delta

    # -- one reply

    async def _reply(
        self, number: int, request: Callable[[], Request], reading: Reading
    ) -> AsyncGenerator[Piece | Retry | Notice, None]:
        """The pieces of a reply. What can be cured by asking in another form is cured here.

        A refused format is lowered for the rest of the chain, and for the server's
        next ones once the lower one has worked.
        """
        while True:
            try:
                async with aclosing(self._ask(number, request, reading)) as items:
                    async for item in items:
                        yield item
            except FormatRefused:
                self.format = LOWER[self.format]
                yield Notice("format", self.format)
            except TooLong:
                if not self._forget_the_middle():
                    raise
                yield Notice("context", "The steps in the middle were left out.")
            else:
                self._task.server.format = self.format
                return

    def _ask(
        self, number: int, request: Callable[[], Request], reading: Reading
    ) -> AsyncGenerator[Piece | Retry, None]:
        return read(reading, number, lambda: self._task.server.chat(request()), self._task.sleep)
