"""The front door of the core: a question in, events out.

async for event in think(question, endpoint=endpoint, model=await endpoint.model()):
    ...
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

from reasoning.coat import coat
from reasoning.direct import direct
from reasoning.endpoint import Endpoint, Request, ServedModel
from reasoning.errors import BadQuestion, StepwiseError, UnknownWay
from reasoning.events import Answer, Event, Failed, Notice, Retry, Settings, Started, Step
from reasoning.json_steps import SCHEMAS, json_steps
from reasoning.native import native
from reasoning.persistence import Sleep
from reasoning.prompts import language_of, prompt
from reasoning.replies import whole_characters
from reasoning.task import Server, Task, Way

# The ways of thinking, by the word that a catalogue entry names. Each yields the same events.
WAYS: dict[str, Way] = {
    "json_steps": json_steps,
    "coat": coat,
    "native": native,
    "direct": direct,
}

MAX_QUESTION = 8_000  # characters; about 2,000 tokens, which leaves room in a context of 4,096
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def clean_question(text: str) -> str:
    """The question without what no model should get: control characters, lone surrogates.

    Raises BadQuestion when nothing is left or when it is longer than MAX_QUESTION.
    """
    question = _CONTROL.sub("", whole_characters(text)).strip()
    if not question:
        raise BadQuestion("The question is empty.", "Write a question.")
    if len(question) > MAX_QUESTION:
        raise BadQuestion(
            f"The question has {len(question):,} characters.",
            f"At most {MAX_QUESTION:,} are taken.",
        )
    return question


async def think(
    question: str,
    *,
    endpoint: Server,
    model: ServedModel,
    way: str = "json_steps",
    settings: Settings = Settings(),
    language: str | None = None,
    steps: Sequence[Step] = (),
    clock: Callable[[], float] = time.monotonic,
    sleep: Sleep = asyncio.sleep,
) -> AsyncGenerator[Event, None]:
    """Think about a question; the last event is an Answer or a Failed, never an exception.

    `way` is a key of WAYS. `steps` are finished steps to go on after: they come again
    as events, and the model is asked for the next one. Closing the iterator ends the
    server's work.
    """
    language = language or language_of(question)
    yield Started(question, model.name, way, language, time.time(), settings)
    for step in steps:
        yield step
    unfinished = Stopwatch(clock)
    try:
        task = Task(
            clean_question(question),
            endpoint,
            model,
            settings,
            language,
            tuple(steps),
            clock,
            sleep,
        )
        async with aclosing(_way(way)(task)) as events:
            async for event in events:
                unfinished.note(event)
                yield event
    except StepwiseError as error:
        yield Failed(error.code, error.message, error.remedy, unfinished.seconds())


def _way(word: str) -> Way:
    if word not in WAYS:
        known = ", ".join(WAYS)
        raise UnknownWay(f"There is no way of thinking called {word}.", f"There are: {known}.")
    return WAYS[word]


class Stopwatch:
    """The model's time since the last finished step: what a failed or stopped run owns up to."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since = clock()

    def note(self, event: Event) -> None:
        if isinstance(event, (Step, Answer)) or (isinstance(event, Notice) and event.seconds):
            self._since = self._clock()
        elif isinstance(event, Retry):
            self._since += event.wait

    def seconds(self) -> float:
        return max(0.0, self._clock() - self._since)


async def warm(endpoint: Endpoint) -> None:
    """Have the server compile the step grammars and cache the prompts before the first question.

    The first request with a new schema takes about a second more than the next.
    Raises a StepwiseError when the server cannot be asked.
    """
    model = await endpoint.model()
    bounds = {"min_steps": Settings().min_steps, "max_steps": Settings().max_steps}
    for language, schemas in (("en", SCHEMAS), ("zh", SCHEMAS[:1])):
        system = {"role": "system", "content": prompt(language, "step", **bounds)}
        turns = (system, {"role": "user", "content": "?"})
        for schema in schemas:
            request = Request(model, turns, 1, format="json_schema", schema=schema)
            async with aclosing(endpoint.chat(request)) as pieces:
                async for _ in pieces:
                    pass
