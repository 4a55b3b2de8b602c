"""A server made ready for its first question: grammars compiled, prompts read.

A new grammar costs the server a second, a new prompt on a CPU several. What the first question
needs comes first; the rest is short requests, one after the other, that share the server with
whoever asks by then.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import aclosing

from reasoning.endpoint import Endpoint, Request, ServedModel
from reasoning.json_steps import SCHEMAS, begin_step
from reasoning.prompts import LANGUAGES, prompt

LOCALE = ("LC_ALL", "LC_MESSAGES", "LANG")  # the first that is set counts


def reader_language(environment: Mapping[str, str] = os.environ) -> str:
    """The language that this machine's locale speaks, of those we have; else English."""
    locale = next((value for name in LOCALE if (value := environment.get(name))), "")
    return locale[:2] if locale[:2] in LANGUAGES else LANGUAGES[0]


async def warm(endpoint: Endpoint, language: str, ready: Callable[[], None] = lambda: None) -> None:
    """Warm all; `ready` is called as soon as a first question in that language meets no wait.

    Raises a StepwiseError when the server cannot be asked.
    """
    first, *rest = warming_requests(await endpoint.model(), language)
    await _ask(endpoint, first)
    ready()
    for request in rest:
        await _ask(endpoint, request)


async def _ask(endpoint: Endpoint, request: Request) -> None:
    async with aclosing(endpoint.chat(request)) as pieces:
        async for _ in pieces:
            pass


def warming_requests(model: ServedModel, language: str) -> Iterator[Request]:
    """For a token each: the first step in the language, the later steps' grammars, the others.

    A grammar needs no prompt to be compiled: reading thirty tokens takes a CPU as long as writing
    ten.
    """
    yield _first_step(model, language)
    for schema in SCHEMAS[1:]:
        yield _step(Request(model, (), 1, prompt="?", format="json_schema", schema=schema))
    for other in LANGUAGES:
        if other != language:
            yield _first_step(model, other)


def _first_step(model: ServedModel, language: str) -> Request:
    asked = prompt(language, "step", question="?")
    turns = ({"role": "user", "content": asked},)
    return _step(Request(model, turns, 1, format="json_schema", schema=SCHEMAS[0]))


def _step(request: Request) -> Request:
    """As a chain asks for it."""
    return begin_step(request) if request.model.vllm else request
