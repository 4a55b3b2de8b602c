"""One event of a streamed reply, read: OpenAI's shapes, and what other servers make of them. Pure.

Text comes as text, or in content parts; figures that are none are not told. Whatever else
stands where text belongs is a ServerFault that says what was expected and what came.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

from reasoning.errors import ServerFault
from reasoning.parsing import printable

LOOK = "Look at the server's log, then try again."
MOST = 2**31  # of whatever a server counts
TOLD = 300  # characters of a server's own words that are shown


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of the reply: its text, or the reasoning that a server tells apart.

    The finish_reason comes with the last text; token counts come with each piece
    from vLLM (so far) and with the last from other servers. `cached_tokens` are those
    of the prompt that the server had read before, where it tells.
    """

    text: str = ""
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    refusal: str = ""
    reasoning: str = ""
    cached_tokens: int | None = None


def read_chunk(event: object) -> Piece:
    """The piece that an event holds. Raises ServerFault."""
    whole = _object("an event", event)
    choice = _choice(whole.get("choices"))
    delta, usage = _object("delta", choice.get("delta")), whole.get("usage")
    finish = _text("finish_reason", choice.get("finish_reason")) or None
    if finish in ("abort", "error"):
        raise ServerFault(f"The server gave up on the reply ({finish}).", LOOK)
    content = _parts("content", delta.get("content"))
    # vLLM's name for it now, and the older name that other servers keep
    thought = delta.get("reasoning") or delta.get("reasoning_content")
    return Piece(
        content.text or _text("text", choice.get("text")),
        finish,
        count_of(usage, "prompt_tokens"),
        count_of(usage, "completion_tokens"),
        content.refusal or _text("refusal", delta.get("refusal")),
        content.reasoning or _parts("reasoning", thought).text,
        count_of(_value(usage, "prompt_tokens_details"), "cached_tokens"),
    )


def count_of(values: object, name: str) -> int | None:
    """The count of that name; None where there is none that could be one."""
    found = _value(values, name)
    return found if type(found) is int and 0 <= found <= MOST else None


def waiting_of(figures: str) -> int | None:
    """How many requests wait at a vLLM, by what it tells Prometheus; None where it is no vLLM.

    Of several queues, of replicas or of engines, the mean, for nobody knows in which one waits.
    """
    queues = [float(found) for found in _WAITING.findall(figures)]
    return ceil(sum(queues) / len(queues)) if queues else None


_WAITING = re.compile(r"^vllm:num_requests_waiting(?:\{.*\})? ([0-9]{1,9}(?:\.[0-9]+)?)$", re.M)


def server_words(body: object) -> str:
    """The server's own words in one line, in any of the three shapes that errors come in."""
    if isinstance(body, dict):
        inner = body.get("error", body.get("detail", body))
        body = inner.get("message", inner) if isinstance(inner, dict) else inner
    if body is None:
        return ""
    try:
        told = body if isinstance(body, str) else json.dumps(body, default=str)
    except (RecursionError, ValueError):  # nested too deep to be words
        return ""
    line = " ".join(printable(told[: TOLD * 10]).split())
    return line if len(line) <= TOLD else line[:TOLD] + "..."


# -- what stands where


def _choice(choices: object) -> Mapping[str, Any]:
    """The first choice, the only one that is asked for; an event with none tells figures."""
    if choices is None or choices == []:
        return {}
    if not isinstance(choices, list):
        raise _unexpected("a list of choices", choices)
    return _object("a choice", choices[0])


def _object(what: str, found: object) -> Mapping[str, Any]:
    if found is None and what == "delta":
        return {}
    if not isinstance(found, dict):
        raise _unexpected(f"an object for {what}", found)
    return found


def _text(what: str, found: object) -> str:
    if found is None:
        return ""
    if not isinstance(found, str):
        raise _unexpected(f"text for {what}", found)
    return printable(found)


def _parts(what: str, content: object) -> Piece:
    """A text, or a list of content parts; one part may stand for a list of one."""
    if content is None or isinstance(content, str):
        return Piece(_text(what, content))
    text = refusal = reasoning = ""
    for part in content if isinstance(content, list) else [content]:
        told = {"text": part} if isinstance(part, str) else part
        if not isinstance(told, dict) or not told.keys() & _KINDS:
            raise _unexpected(f"text for {what}", part)
        text += _text("text", told.get("text"))
        refusal += _text("refusal", told.get("refusal"))
        reasoning += _thought(told.get("thinking"))
    return Piece(text, refusal=refusal, reasoning=reasoning)


_KINDS = {"text", "refusal", "thinking"}  # what a part may hold for a reader


def _thought(found: object) -> str:
    """Mistral's part for a thought holds text parts of its own."""
    parts = found if isinstance(found, list) else [found]
    return "".join(_text("thinking", _value(part, "text", part)) for part in parts)


def _value(values: object, name: str, other: object = None) -> object:
    return values.get(name) if isinstance(values, dict) else other


def _unexpected(expected: str, found: object) -> ServerFault:
    return ServerFault(f"Expected {expected} in the reply, got {_named(found)}.", LOOK)


def _named(found: object) -> str:
    kinds = {dict: "an object", list: "a list", str: "text", bool: "true or false"}
    return "nothing" if found is None else kinds.get(type(found), "a number")
