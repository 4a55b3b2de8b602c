"""The messages of a request -> instructions, earlier turns, the question. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from gateway.errors import ApiError
from gateway.schema import Message
from reasoning.events import Turn
from reasoning.think import clean_question

SYSTEM = ("system", "developer")
# What earlier gateways wrote between the steps in words of their own: kept talks hold it still,
# and a model that finds a notice in its reasoning answers with it.
OUR_LINES = re.compile(r"^\*[^*\s].*\*\n*", re.M)


@dataclass(frozen=True, slots=True)
class Conversation:
    """`instructions` are the caller's system prompt, `history` the turns before the question."""

    question: str
    history: tuple[Turn, ...] = ()
    instructions: str = ""


def read_conversation(messages: Sequence[Message]) -> Conversation:
    """The conversation that ends in the question. Raises ApiError, or BadQuestion for its length.

    System and developer messages are joined, wherever they stand; so are several turns of
    one side in a row. What a tool says is on the user's side.
    """
    told = [one.text for one in messages if one.role in SYSTEM]
    turns = [one for one in messages if one.role not in SYSTEM]
    sides = [(side, list(group)) for side, group in groupby(turns, key=_side)]
    if not sides or sides[-1][0] != "user":
        raise _bad_messages("the last message must be the user's")
    if sides[0][0] != "user":
        raise _bad_messages("the first turn must be the user's")
    pairs = zip(sides[:-1:2], sides[1::2], strict=True)
    history = tuple(_turn(asked, answered) for (_, asked), (_, answered) in pairs)
    return Conversation(clean_question(_text(sides[-1][1])), history, "\n\n".join(told))


def _side(message: Message) -> str:
    return "assistant" if message.role == "assistant" else "user"


def _turn(asked: Sequence[Message], answered: Sequence[Message]) -> Turn:
    thoughts = [_thought(one.reasoning or one.reasoning_content or "") for one in answered]
    return Turn(_text(asked), _text(answered), "\n\n".join(filter(None, thoughts)))


def _thought(reasoning: str) -> str:
    """What of it is the model's own."""
    return OUR_LINES.sub("", reasoning).strip()


def _text(messages: Sequence[Message]) -> str:
    return "\n\n".join(one.text for one in messages)


def _bad_messages(said: str) -> ApiError:
    return ApiError(400, "invalid_value", f"messages: {said}.", "messages")
