"""The front door of the core: an inquiry in, events out.

async for event in think(Inquiry(question), endpoint=endpoint, model=await endpoint.model()):
    ...
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial

from reasoning.coat import COAT
from reasoning.cot import COT
from reasoning.deadline import Deadlines, keep_deadlines
from reasoning.detection import DEFAULT
from reasoning.direct import DIRECT
from reasoning.endpoint import ServedModel
from reasoning.errors import BadQuestion, CannotSteer, FormRefused, StepwiseError, UnknownWay
from reasoning.events import (
    Answer,
    Emit,
    Event,
    Failed,
    Notice,
    Queued,
    Retry,
    Settings,
    Steering,
    Step,
)
from reasoning.inquiry import Inquiry
from reasoning.json_steps import JSON_STEPS
from reasoning.metering import Meter, ModelServer
from reasoning.native import NATIVE
from reasoning.parsing import clean_text
from reasoning.prompts import LANGUAGES, check_prompt, language_of
from reasoning.retry import Sleep
from reasoning.stream import stream
from reasoning.task import Task
from reasoning.way import Way

# The ways of thinking, by the word that a catalogue entry names. Each emits the same events.
WAYS: dict[str, Way] = {
    "json_steps": JSON_STEPS,
    "cot": COT,
    "coat": COAT,
    "native": NATIVE,
    "direct": DIRECT,
}
RETIRED = {"heading_steps": "cot"}  # ways that were, of kept chains, and what goes on with them

MAX_QUESTION = 8_000  # characters; about 2,000 tokens, which leaves room in a context of 4,096
VOTE = 0.7  # self-consistency samples at 0.5 to 0.7 (arXiv 2203.11171); colder chains are all one


def clean_question(text: str) -> str:
    """The question without what no model should get: control characters, lone surrogates.

    Raises BadQuestion when nothing is left or when it is longer than MAX_QUESTION.
    """
    question = clean_text(text)
    if not question:
        raise BadQuestion("The question is empty.", "Write a question.")
    if len(question) > MAX_QUESTION:
        raise BadQuestion(
            f"The question has {len(question):,} characters.",
            f"At most {MAX_QUESTION:,} are taken.",
        )
    return question


def vary_settings(settings: Settings, chains: int) -> tuple[Settings, ...]:
    """The settings of several chains for one question: a seed each, and warm enough to differ.

    Without a seed in the settings the seeds are new ones each time.
    """
    first = random.getrandbits(31) if settings.seed is None else settings.seed
    warmth = max(settings.temperature, VOTE)
    return tuple(
        replace(settings, seed=first + number, temperature=warmth) for number in range(chains)
    )


async def think(
    inquiry: Inquiry,
    *,
    endpoint: ModelServer,
    model: ServedModel,
    clock: Callable[[], float] = time.monotonic,
    sleep: Sleep = asyncio.sleep,
) -> AsyncGenerator[Event, None]:
    """Think about a question; the last event is an Answer or a Failed, never an exception.

    An inquiry that names no way is thought about in JSON steps. The steps that it brings
    come again as events. Whoever reads what the chain costs gives its Meter as the endpoint.
    Closing the iterator ends the server's work.
    """
    inquiry = _named(inquiry)
    yield inquiry.started(model.name, at=time.time())
    for step in inquiry.steps:
        yield step
    unfinished = Stopwatch(clock)
    try:
        task = Task(_cleaned(inquiry), Meter.of(endpoint), model, clock, sleep)
        deadlines, number = Deadlines.of(inquiry.settings), len(inquiry.steps) + 1
        async with aclosing(stream(partial(_think_in_line, task))) as events:
            timely = keep_deadlines(events, deadlines, clock, number)
            async with aclosing(timely):
                async for event in timely:
                    unfinished.note(event)
                    yield event
    except StepwiseError as error:
        yield Failed(error.code, error.message, error.remedy, unfinished.seconds())


async def _think_in_line(task: Task, emit: Emit) -> Answer:
    """By the inquiry's way; where the server is full, with the place in its queue."""

    async def queued(place: int) -> None:
        await emit(Queued(place))

    task.server.queued = queued
    return await _way(task.inquiry).think(task, emit)


def find_way(word: str) -> Way | None:
    """The way of that name, or the one that goes on with its chains; None for no way."""
    return WAYS.get(RETIRED.get(word, word))


def _named(inquiry: Inquiry) -> Inquiry:
    """With its way and its language named."""
    known = inquiry.language in LANGUAGES
    language = inquiry.language if known else language_of(inquiry.question)
    way = inquiry.way or DEFAULT
    return replace(inquiry, way=RETIRED.get(way, way), language=language)


def _cleaned(inquiry: Inquiry) -> Inquiry:
    """With texts that a model may be sent. Raises BadQuestion."""
    return replace(
        inquiry,
        question=clean_question(inquiry.question),
        prompts={name: clean_text(text) for name, text in inquiry.prompts.items()},
        instructions=clean_text(inquiry.instructions),
    )


def _way(inquiry: Inquiry) -> Way:
    """The way, if there is one and it can do what is asked for."""
    word = inquiry.way
    if word not in WAYS:
        known = ", ".join(WAYS)
        raise UnknownWay(f"There is no way of thinking called {word}.", f"There are: {known}.")
    way = WAYS[word]
    for name in way.prompts:
        if name in inquiry.prompts:
            check_prompt(inquiry.language, name, inquiry.prompts[name])
    if inquiry.answer_form.format != "text" and not way.answers_json:
        message = f"A chain of the way {word} ends in its own form and cannot answer in JSON."
        raise FormRefused(message, "Ask for text, or choose another way.")
    if inquiry.steer is not None:
        _check_steer(word, way, inquiry.steer.how, inquiry.steps)
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
