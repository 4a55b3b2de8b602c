"""No steps: the plain answer, streamed. For comparison, and for models that steps make worse."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from reasoning.answering import Answering
from reasoning.endpoint import Message, Request
from reasoning.errors import TooLong
from reasoning.events import Event
from reasoning.task import MARGIN, Task, tokens_at_most

LEAST = 32  # tokens; with room for fewer no answer is asked for


async def direct(task: Task) -> AsyncGenerator[Event, None]:
    """The events of a plain answer. Raises StepwiseError."""
    question = await task.in_form(await task.plain(task.question))
    opening = await task.opening()
    needed = sum(tokens_at_most(turn["content"]) for turn in opening) + tokens_at_most(question)
    earlier, notices = await task.earlier(needed + task.context // 4)
    for notice in notices:
        yield notice
    turns: tuple[Message, ...] = (*opening, *earlier, {"role": "user", "content": question})
    async with aclosing(answer(task, turns, 1)) as events:
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
    request = Request(task.model, messages, min(task.settings.answer_tokens, room), think=False)
    async with aclosing(Answering(task, number, lambda: request).events()) as events:
        async for event in events:
            yield event
