"""A chain's events -> what a caller reads: thoughts, the answer, how it ended. Pure.

A stream cannot take back what it sent. So a step that is written anew says so, and an
answer that is written anew must begin with what was sent of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from gateway.errors import public_message
from reasoning.events import (
    Answer,
    Correction,
    Delta,
    Event,
    Failed,
    Notice,
    Retry,
    Step,
)

Finish = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Thought:
    """More text of the reasoning, in Markdown."""

    text: str


@dataclass(frozen=True, slots=True)
class Said:
    """More text of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class Done:
    """The answer is whole, or cut ("length"). `tokens` are the answer's own."""

    finish: Finish
    tokens: int = 0


Told = Thought | Said | Done


ON_THE_WAY = (Delta, Retry)  # what a reader of the whole need not be told


class ChainFailed(Exception):
    """There will be no answer."""

    def __init__(self, failed: Failed) -> None:
        super().__init__(failed.code)
        self.failed = failed


CHANGED = Failed(
    "changed",
    "The model server broke off in the middle of the answer, and then answered otherwise.",
    "Ask again.",
)


class Telling:
    """One chain, told as it is written. What comes back from `take` is to be sent on."""

    def __init__(self) -> None:
        self._title = self._held = self._content = ""  # of the step being written
        self._answer = self._sent = ""  # of the answer: this try's, and what was sent

    def take(self, event: Event) -> Iterator[Told]:
        """Raises ChainFailed where the event is the end without an answer."""
        match event:
            case Delta(part="answer"):
                yield from self._say(event.text)
            case Delta(number, "title", text):
                yield Thought(text if self._title else f"### {number}. {text}")
                self._title += text
            case Delta(part="content"):
                yield from self._think(event.text)
            case Step():
                yield from self._finish(event)
            case Retry():
                yield from self._start_anew(event)
            case Notice():
                yield Thought(f"*{event.detail}*\n\n")
            case Correction():
                yield Thought(f"*Corrected: {event.earlier} → {event.later}*\n\n")
            case Answer() | Failed():
                yield from self._end(event)

    def _think(self, text: str) -> Iterator[Thought]:
        """A step's text, behind its title; where the title is still to come it is held."""
        self._held += text
        if self._title and (more := self._held if self._content else self._held.lstrip()):
            yield Thought(more if self._content else f"\n\n{more}")
            self._content += more
            self._held = ""

    def _finish(self, step: Step) -> Iterator[Thought]:
        """What was not sent of the step yet."""
        rest = "" if self._title else f"### {step.number}. {step.title}"
        if not self._content:
            rest += f"\n\n{step.content}"
        elif step.content.startswith(self._content):
            rest += step.content[len(self._content) :]
        yield Thought(f"{rest}\n\n")
        self._title = self._held = self._content = ""

    def _start_anew(self, retry: Retry) -> Iterator[Thought]:
        if not self._sent:
            between = "\n\n" if self._title else ""
            yield Thought(f"{between}*Again: {public_message(retry.cause, retry.detail)}*\n\n")
        self._title = self._held = self._content = self._answer = ""

    def _say(self, text: str) -> Iterator[Said]:
        self._answer += text
        if self._sent.startswith(self._answer):
            return
        if not self._answer.startswith(self._sent):
            raise ChainFailed(CHANGED)
        more, self._sent = self._answer[len(self._sent) :], self._answer
        yield Said(more)

    def _end(self, event: Answer | Failed) -> Iterator[Said | Done]:
        if isinstance(event, Failed):
            if event.code != "budget":
                raise ChainFailed(event)
            yield Done("length")  # as where a model's reasoning takes all the tokens allowed
            return
        if event.content.startswith(self._sent):
            if more := event.content[len(self._sent) :]:
                yield Said(more)
        elif self._sent.strip() != event.content:
            raise ChainFailed(CHANGED)
        yield Done("length" if event.cut else "stop", event.tokens)
