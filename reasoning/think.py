"""The front door of the core: a question in, events out.

async for event in think(question, endpoint=endpoint, model=await endpoint.model()):
    ...
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from types import MappingProxyType

from reasoning.coat import COAT
from reasoning.cot import COT
from reasoning.direct import DIRECT
from reasoning.endpoint import ServedModel
from reasoning.errors import BadQuestion, CannotSteer, FormRefused, StepwiseError, UnknownWay
from reasoning.events import (
    Answer,
    Event,
    Failed,
    Notice,
    Retry,
    Settings,
    Started,
    Steer,
    Steering,
    Step,
    Turn,
)
from reasoning.heading_steps import HEADING_STEPS
from reasoning.json_steps import JSON_STEPS
from reasoning.metering import Meter, Server
from reasoning.native import NATIVE
from reasoning.persistence import Sleep
from reasoning.prompts import LANGUAGES, check_prompt, language_of
from reasoning.replies import clean
from reasoning.stream import stream
from reasoning.task import AnswerForm, Task
from reasoning.way import Way

# The ways of thinking, by the word that a catalogue entry names. Each emits the same events.
WAYS: dict[str, Way] = {
    "json_steps": JSON_STEPS,
    "heading_steps": HEADING_STEPS,
    "cot": COT,
    "coat": COAT,
    "native": NATIVE,
    "direct": DIRECT,
}

MAX_QUESTION = 8_000  # characters; about 2,000 tokens, which leaves room in a context of 4,096
VOTE = 0.7  # self-consistency samples at 0.5 to 0.7 (arXiv 2203.11171); colder chains are all one


def clean_question(text: str) -> str:
    """The question without what no model should get: control characters, lone surrogates.

    Raises BadQuestion when nothing is left or when it is longer than MAX_QUESTION.
    """
    question = clean(text)
    if not question:
        raise BadQuestion("The question is empty.", "Write a question.")
    if len(question) > MAX_QUESTION:
        raise BadQuestion(
            f"The question has {len(question):,} characters.",
            f"At most {MAX_QUESTION:,} are taken.",
        )
    return question


def varied(settings: Settings, chains: int) -> tuple[Settings, ...]:
    """The settings of several chains for one question: a seed each, and warm enough to differ.

    Without a seed in the settings the seeds are new ones each time.
    """
    first = random.getrandbits(31) if settings.seed is None else settings.seed
    warmth = max(settings.temperature, VOTE)
    return tuple(
        replace(settings, seed=first + number, temperature=warmth) for number in range(chains)
    )


async def think(
    question: str,
    *,
    endpoint: Server,
    model: ServedModel,
    way: str = "json_steps",
    settings: Settings = Settings(),
    language: str | None = None,
    steps: Sequence[Step] = (),
    history: Sequence[Turn] = (),
    steer: Steer | None = None,
    prompts: Mapping[str, str] = MappingProxyType({}),
    instructions: str = "",
    answer_form: AnswerForm = AnswerForm(),
    clock: Callable[[], float] = time.monotonic,
    sleep: Sleep = asyncio.sleep,
) -> AsyncGenerator[Event, None]:
    """Think about a question; the last event is an Answer or a Failed, never an exception.

    `way` is a key of WAYS. `steps` are finished steps to go on after: they come again
    as events, and the model is asked for the next one, or for what `steer` says.
    `history` are the conversation's earlier turns, oldest first. `prompts` are texts in
    the place of ours, by name; `instructions` is the caller's own system prompt, which
    stands behind ours. `answer_form` is what the answer must look like. Whoever reads
    what the chain costs gives its Meter as the endpoint. Closing the iterator ends the
    server's work.
    """
    language = language if language in LANGUAGES else language_of(question)
    at, told, own = time.time(), tuple(history), dict(prompts)
    yield Started(question, model.name, way, language, at, settings, told, steer, own, instructions)
    for step in steps:
        yield step
    unfinished = Stopwatch(clock)
    try:
        task = Task(
            clean_question(question),
            Meter.of(endpoint),
            model,
            settings,
            language,
            tuple(steps),
            told,
            steer,
            {name: clean(text) for name, text in prompts.items()},
            clean(instructions),
            answer_form,
            clock,
            sleep,
        )
        async with aclosing(stream(partial(_way(way, task).think, task))) as events:
            async for event in events:
                unfinished.note(event)
                yield event
    except StepwiseError as error:
        yield Failed(error.code, error.message, error.remedy, unfinished.seconds())


def _way(word: str, task: Task) -> Way:
    """The way, if there is one and it can do what the task asks for."""
    if word not in WAYS:
        known = ", ".join(WAYS)
        raise UnknownWay(f"There is no way of thinking called {word}.", f"There are: {known}.")
    way = WAYS[word]
    for name in way.prompts:
        if name in task.prompts:
            check_prompt(task.language, name, task.prompts[name])
    if task.answer_form.format != "text" and not way.answers_json:
        message = f"A chain of the way {word} ends in its own form and cannot answer in JSON."
        raise FormRefused(message, "Ask for text, or choose another way.")
    if task.steer is not None:
        _check_steer(word, way, task.steer.how, task.steps)
    return way


def _check_steer(word: str, way: Way, how: Steering, steps: Sequence[Step]) -> None:
    if how not in way.steers:
        can = ", ".join(sorted(way.steers)) or "nothing of the kind"
        message = f'A chain of the way {word} cannot be steered by "{how}".'
        raise CannotSteer(message, f"It can do: {can}.")
    if not steps and how != "again":
        message = f'"{how}" needs a finished step, and there is none.'
        raise CannotSteer(message, "Wait for the first step, or ask again.")


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
