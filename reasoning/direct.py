"""No steps: the plain answer, streamed. For comparison, and for models that steps make worse."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from reasoning.endpoint import Message, Piece, Request
from reasoning.errors import EmptyAnswer, TooLong
from reasoning.events import Answer, Event
from reasoning.reading import Reading, read
from reasoning.task import MARGIN, Task

LEAST = 32  # tokens; with room for fewer no answer is asked for


async def direct(task: Task) -> AsyncGenerator[Event, None]:
    """The events of a plain answer. Raises StepwiseError."""
    question: Message = {"role": "user", "content": await task.plain(task.question)}
    async with aclosing(answer(task, (question,), 1)) as events:
        async for event in events:
            yield event


async def answer(
    task: Task, messages: tuple[Message, ...], number: int
) -> AsyncGenerator[Event, None]:
    """The model's plain reply to the messages, without thinking, as the answer."""
    used = sum([await task.tokens(turn["content"]) for turn in messages])
    room = task.context - used - MARGIN * (len(messages) + 1)
    if room < LEAST:
        raise TooLong("The question leaves no room in the model's context.", "Ask a shorter one.")
    tokens = min(task.settings.answer_tokens, room)
    request = Request(task.model, messages, tokens, task.settings.temperature, think=False)
    reading = Reading(task.clock)

    def ask() -> AsyncGenerator[Piece, None]:
        return task.server.chat(request)

    async with aclosing(read(reading, number, ask, task.sleep)) as items:
        async for item in items:
            if not isinstance(item, Piece):
                yield item
                continue
            for delta in reading.news(number, "answer", reading.text.lstrip()):
                yield delta
    content = reading.text.strip() or reading.refusal
    if not content:
        raise EmptyAnswer("The model gave no answer.", "Ask again, or serve another model.")
    cut = reading.finish_reason in ("length", "repetition")
    yield Answer(content, reading.seconds, reading.tokens, reading.first_token, cut)
