"""The events of chains -> what a caller reads: reasoning, the answer, how it ended. Pure.

Reasoning and answer hold the model's words alone: clients send both back in the next turn, and
a model takes for its own what it finds there. What is to be said of a chain is a Remark.

A stream cannot take back what it sent. So a remark says that a step is written anew, and an
answer that is written anew must begin with what was sent of it.

The chains of a vote think at the same time, and one text cannot hold five that grow. So a
remark tells of each chain as it ends, then come the steps of the one that stands for the majority.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

from gateway.errors import public_message
from gateway.schema import ChatRequest
from reasoning.capabilities import Format
from reasoning.events import (
    ENDS,
    Answer,
    Correction,
    Delta,
    Event,
    Failed,
    Notice,
    Queued,
    Retry,
    Step,
    Trace,
)
from reasoning.parsing import Draft
from reasoning.self_consistency import Vote, count_needed, rank_answers
from reasoning.titles import make_title
from reasoning.voting import final_answer

SHOWN = 200  # characters of an answer in the remark that says how a chain ended
FinishReason = Literal["stop", "length", "tool_calls"]


@dataclass(frozen=True, slots=True)
class ReasoningText:
    """More text of the reasoning, in Markdown."""

    text: str


@dataclass(frozen=True, slots=True)
class AnswerText:
    """More text of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class AnswerEnd:
    """The answer is whole, or cut ("length"). `tokens` are the answer's own."""

    finish: FinishReason
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Remark:
    """What is to be said of the chain, at step `step` of it: our words, `code` a stable one."""

    code: str
    message: str
    step: int | None = None


ReplyPart = ReasoningText | AnswerText | AnswerEnd | Remark
TRANSIENT = (Delta, Retry, Queued)  # what a reader of the whole need not be told


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


NOTICES = {  # in our own words where the core's are few
    "format": "The model server does not take the schema; the steps are asked for as {}.",
}
UNTHOUGHT = Remark("no_steps", "The tokens allowed hold no step of thought beside the answer.")


class ChainRenderer:
    """One chain, told as it is written. What comes back from `render` is to be sent on."""

    def __init__(self) -> None:
        self._headed, self._content = False, ""  # what was sent of the step being written
        self._tentative = ""  # what was sent before the first step and may be it
        self._answer = self._sent = ""  # of the answer: this try's, and what was sent
        self._steps, self._spent = 0, False  # finished ones; whether the budget ended them

    def render(self, event: Event) -> Iterator[ReplyPart]:
        """Raises ChainFailed where the event is the end without an answer."""
        match event:
            case Delta(part="answer"):
                yield from self._check_thought()
                yield from self._add_answer(event.text)
            case Delta(part="tentative"):
                yield from self._add_tentative(event.text)
            case Delta(number, "title", text):
                yield from self._add_title(number, text)
            case Delta(number, "content", text):
                yield from self._add_content(number, text)
            case Step():
                yield from self._finish_step(event)
            case Retry():
                yield from self._restart(event)
            case Queued() if event.place:
                yield Remark("queued", f"The model server is full: {event.ordinal} in line.")
            case Notice(code, detail):
                self._spent |= code == "budget"
                yield Remark(code, NOTICES.get(code, "{}").format(detail))
            case Correction(number, earlier, later):
                yield Remark("correction", f"Corrected: {earlier} → {later}", number)
            case Answer() | Failed():
                yield from self._check_thought()
                yield from self._finish(event)

    def _add_tentative(self, text: str) -> Iterator[ReasoningText]:
        """Behind a step nothing waits long, and is told with its place."""
        if not (self._steps or self._headed):
            self._tentative += text
            yield ReasoningText(text)

    def _add_title(self, number: int, text: str) -> Iterator[ReasoningText]:
        """Nothing, once the step's text has begun: then the title is the text's first words."""
        if not self._content:
            yield ReasoningText(text if self._headed else f"{self._apart()}### {number}. {text}")
            self._headed = True

    def _apart(self) -> str:
        """What parts a heading from what was said before the first step."""
        said, self._tentative = self._tentative, ""
        return "\n\n" if said else ""

    def _add_content(self, number: int, text: str) -> Iterator[ReasoningText]:
        if self._tentative and text.lstrip().startswith(self._tentative):
            self._headed, self._content, self._tentative = True, self._tentative, ""
            text = text.lstrip()[len(self._content) :]
        if more := text if self._content else text.lstrip():
            heading = "" if self._headed else f"{self._apart()}### {number}."
            yield ReasoningText(more if self._content else f"{heading}\n\n{more}")
            self._headed, self._content = True, self._content + more

    def _finish_step(self, step: Step) -> Iterator[ReasoningText]:
        """What was not sent of the step yet."""
        rest = "" if self._headed else self._apart() + _heading(step)
        if not self._content:
            rest += f"\n\n{step.content}"
        elif step.content.startswith(self._content):
            rest += step.content[len(self._content) :]
        yield ReasoningText(f"{rest}\n\n")
        self._headed, self._content = False, ""
        self._steps += 1

    def _restart(self, retry: Retry) -> Iterator[ReasoningText | Remark]:
        if self._headed or self._tentative:
            yield ReasoningText("\n\n")
        if not self._sent:
            why = public_message(retry.cause, retry.detail)
            yield Remark("again", f"Written anew: {why}", retry.number)
        self._headed, self._content, self._answer, self._tentative = False, "", "", ""

    def _check_thought(self) -> Iterator[Remark]:
        """Says once, before the answer, that nothing was thought for want of tokens."""
        if self._spent and not self._steps:
            yield UNTHOUGHT
        self._spent = False

    def _add_answer(self, text: str) -> Iterator[AnswerText]:
        self._answer += text
        if self._sent.startswith(self._answer):
            return
        if not self._answer.startswith(self._sent):
            raise ChainFailed(CHANGED)
        more, self._sent = self._answer[len(self._sent) :], self._answer
        yield AnswerText(more)

    def _finish(self, event: Answer | Failed) -> Iterator[AnswerText | AnswerEnd]:
        if isinstance(event, Failed):
            if event.code != "budget":
                raise ChainFailed(event)
            yield AnswerEnd("length")  # as where a model's reasoning takes all the tokens allowed
            return
        if event.content.startswith(self._sent):
            if more := event.content[len(self._sent) :]:
                yield AnswerText(more)
        elif self._sent.strip() != event.content:
            raise ChainFailed(CHANGED)
        yield AnswerEnd("length" if event.cut else "stop", event.tokens)


def _heading(step: Step) -> str:
    """With the title, unless it is made of the step's own first words."""
    derived = step.title == make_title(Draft(content=step.content), "", whole=True)
    return f"### {step.number}." + ("" if derived else f" {step.title}")


# -- a vote


class VoteRenderer:
    """A vote of at most `chains`, told until it is decided; then nothing more is.

    Chains without an answer do not vote; unclear answers agree with none.
    """

    def __init__(self, chains: int, format: Format = "text") -> None:
        self._format = format
        self._events: list[list[Event]] = [[] for _ in range(chains)]
        self._ended: list[Trace] = []
        self._votes: list[Vote] = []

    def render(self, chain: int, event: Event) -> Iterator[ReplyPart]:
        """An event of chain number `chain`, from 0. Raises ChainFailed if none answers."""
        most = len(self._events)
        if not count_needed(self._votes, most):
            return
        self._events[chain].append(event)
        if isinstance(event, ENDS):
            self._ended.append(Trace(tuple(self._events[chain])))
            self._votes.append(vote_of(self._ended[-1], self._format))
            end = self._describe_end(event)
            yield Remark("chain", f"Chain {chain + 1} of at most {most}: {end}")
            if not count_needed(self._votes, most):
                yield from self._render_winner()

    def _describe_end(self, end: Event) -> str:
        if isinstance(end, Answer):
            value = end.content if self._format != "text" else final_answer(end.content)
            return " ".join(value.split())[:SHOWN] or "no clear answer"
        return f"no answer ({end.code})" if isinstance(end, Failed) else "stopped"

    def _render_winner(self) -> Iterator[ReplyPart]:
        if ranked := rank_answers(self._votes):
            share = f"{len(ranked[0])} of {len(self._ended)} chains"
            if len(self._ended) < len(self._events):
                share += f", of at most {len(self._events)},"
            yield Remark("majority", f"{share} agree on the answer of this one.")
        renderer = ChainRenderer()
        for event in self._ended[ranked[0][0]].events if ranked else self._without_majority():
            if not isinstance(event, TRANSIENT):
                yield from renderer.render(event)

    def _without_majority(self) -> tuple[Event, ...]:
        """Where nothing was voted for: the first chain that answers, else why none does."""
        answers = (trace.events for trace in self._ended if trace.answer is not None)
        return next(answers, self._ended[0].events[-1:])


def vote_of(trace: Trace, format: Format) -> Vote:
    """What a chain that has ended votes for; answers in JSON agree when they say the same."""
    answer = trace.answer.content if trace.answer else ""
    return Vote(final_answer(answer) if format == "text" else _same_json(answer), trace.tokens)


def _same_json(answer: str) -> str:
    """One text for JSON that says the same; "" for what is none."""
    try:
        return json.dumps(json.loads(answer), sort_keys=True)
    except (ValueError, RecursionError):
        return ""


# -- a request


@dataclass(frozen=True, slots=True)
class ChoiceRenderer:
    """Renders the events of one chain: what choice number `choice` gets of them.

    Raises ChainFailed where that choice will have no answer.
    """

    choice: int
    render: Callable[[Event], Iterator[ReplyPart]]


def choice_renderers(request: ChatRequest, votes: int) -> list[ChoiceRenderer]:
    """One for each chain: each is a choice, or up to `votes` of them make one."""
    if votes == 1:
        return [ChoiceRenderer(choice, ChainRenderer().render) for choice in range(request.choices)]
    ballots = [VoteRenderer(votes, request.answer_form.format) for _ in range(request.choices)]
    return [
        ChoiceRenderer(choice, partial(vote.render, chain))
        for choice, vote in enumerate(ballots)
        for chain in range(votes)
    ]
