"""No steps: the plain answer, streamed. For comparison, and for models that steps make worse."""

from __future__ import annotations

from reasoning.answering import Answering
from reasoning.endpoint import Message, Request
from reasoning.errors import TooLong
from reasoning.events import Answer, Emit
from reasoning.task import MARGIN, Task, tokens_at_most
from reasoning.way import OF_ONE_REPLY, Way

LEAST = 32  # tokens; with room for fewer no answer is asked for


async def direct(task: Task, emit: Emit) -> Answer:
    """A plain answer. Raises StepwiseError."""
    question = await task.in_form(await task.plain(task.inquiry.question))
    opening = await task.opening()
    needed = sum(tokens_at_most(turn["content"]) for turn in opening) + tokens_at_most(question)
    earlier, notices = await task.earlier(needed + task.context // 4)
    await emit(*notices)
    turns: tuple[Message, ...] = (*opening, *earlier, {"role": "user", "content": question})
    return await answer(task, turns, 1, emit)


async def answer(task: Task, messages: tuple[Message, ...], number: int, emit: Emit) -> Answer:
    """The model's plain reply to the messages, without thinking, as the answer."""
    used = sum([await task.tokens(turn["content"]) for turn in messages])
    room = task.context - used - MARGIN * (len(messages) + 1)
    if room < LEAST:
        raise TooLong("The question leaves no room in the model's context.", "Ask a shorter one.")
    tokens = min(task.inquiry.settings.answer_tokens, room)
    request = Request(task.model, messages, tokens, think=False)
    return await Answering(task, number, lambda: request).answer(emit)


DIRECT = Way(direct, settings=OF_ONE_REPLY)
