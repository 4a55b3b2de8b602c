"""A run as a report, from the question to the total: what every export says, in its order.

All strings are safe Markdown of one line or, where they came from a model, of one block
(page/markdown.py); the question alone is plain text. Pure; how it looks is for others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from page.i18n import Words
from page.markdown import TITLE_LENGTH, blocks, title
from page.remarks import of_correction, of_notice, of_retry, of_step
from page.run_view import total
from reasoning.events import (
    Answer,
    Correction,
    Delta,
    Failed,
    Notice,
    Retry,
    Started,
    Step,
    Stopped,
    Trace,
    Turn,
)
from reasoning.traces import compact

TURNS = ("reflect", "explore")
NOT_STARTED = Started("", "", "", "en", 0.0)


@dataclass(frozen=True, slots=True)
class ReportStep:
    """A step: its title, what it cost and who had a hand in it, what is remarked, its blocks."""

    number: int
    title: str
    facts: str
    remarks: tuple[str, ...]
    content: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ReportTurn:
    """An earlier question of the conversation and its answer."""

    question: str
    answer: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """The run. `question` is "" where the headline has all of it, `ending` after an answer."""

    headline: str
    question: str
    made: str
    earlier: tuple[ReportTurn, ...]
    steps: tuple[ReportStep, ...]
    remarks: tuple[str, ...]
    answer: tuple[str, ...]
    ending: str
    total: str


def make_report(trace: Trace, words: Words, steps: bool = True) -> Report:
    """The run in words; without its steps nothing is said of them."""
    started = trace.started or NOT_STARTED
    shown = tuple(_steps(trace, words)) if steps else ()
    return Report(
        title(started.question),
        "" if _fits_a_line(started.question) else started.question,
        _made(started, words),
        tuple(_turn(turn, steps) for turn in started.history),
        shown,
        tuple(_remarks(trace, words)) if steps else (),
        blocks(trace.answer.content if trace.answer else _draft(trace).get("answer", "")),
        _ending(trace, words),
        total(trace, words),
    )


def _fits_a_line(question: str) -> bool:
    return question.strip() == " ".join(question.split()) and len(question) <= TITLE_LENGTH


def _turn(turn: Turn, steps: bool) -> ReportTurn:
    reasoning = blocks(turn.reasoning) if steps else ()
    return ReportTurn(turn.question, (*reasoning, *blocks(turn.answer)))


def _made(started: Started, words: Words) -> str:
    """Which model thought, how, and when."""
    parts = [title(started.model), words.of("way", started.way, way=title(started.way))]
    if started.at:
        at = datetime.fromtimestamp(started.at, UTC)
        parts.append(f"{at:%Y-%m-%d %H:%M} UTC")
    if started.prompts:
        names = ", ".join(title(name) for name in sorted(started.prompts))
        parts.append(words.of("take", "prompts", names=names))
    return " \u00b7 ".join(part for part in parts if part)


def _steps(trace: Trace, words: Words) -> Iterator[ReportStep]:
    for step in trace.steps:
        name = title(step.title) or words("step", number=step.number)
        remarks = tuple(_remarks_of(step, trace, words))
        yield ReportStep(step.number, name, _facts(step, words), remarks, blocks(step.content))
    draft = _draft(trace)
    if draft.get("title") or draft.get("content"):
        number = len(trace.steps) + 1
        name = title(draft.get("title", "")) or words("step", number=number)
        yield ReportStep(number, name, words("unfinished"), (), blocks(draft.get("content", "")))


def _facts(step: Step, words: Words) -> str:
    facts = [words.of("action", step.action)] if step.action in TURNS else []
    facts.append(words.seconds(step.seconds))
    if step.tokens:
        facts.append(words.tokens(step.tokens))
    if step.attempts > 1:
        facts.append(words("attempts", attempts=step.attempts))
    if step.edited:
        facts.append(words.of("take", "edited"))
    if step.asked == "doubt":
        facts.append(words.of("take", "doubted"))
    return " \u00b7 ".join(facts)


def _remarks_of(step: Step, trace: Trace, words: Words) -> Iterator[str]:
    """What went wrong before the step, whether it is whole, and what it overturns."""
    for event in trace.events:
        if isinstance(event, Retry) and event.number == step.number:
            yield of_retry(event, words).line
    yield from (remark.line for remark in of_step(step, words) if remark.mark == "cut")
    for event in trace.events:
        if isinstance(event, Correction) and event.number == step.number:
            yield of_correction(event, words).line


def _remarks(trace: Trace, words: Words) -> Iterator[str]:
    """What is said of the run, and of attempts at what is no step."""
    for event in trace.events:
        if isinstance(event, Notice):
            yield of_notice(event, words).line
        elif isinstance(event, Retry) and event.number > len(trace.steps):
            yield of_retry(event, words).line


def _draft(trace: Trace) -> dict[str, str]:
    """What had been written of a step, or of an answer, that was never finished."""
    parts: dict[str, str] = {}
    for event in compact(trace.events):
        if isinstance(event, Delta):
            parts[event.part] = parts.get(event.part, "") + event.text
    return parts


def _ending(trace: Trace, words: Words) -> str:
    match trace.end:
        case Failed(code=code, message=message, remedy=remedy):
            return words.of("failed", code, message=title(message), remedy=title(remedy))
        case Stopped():
            return words("stopped")
        case Answer(cut=True):
            thought_cut = bool(trace.steps) and trace.steps[-1].cut
            return words("cut_thought" if thought_cut else "cut_answer")
        case None:
            return words.of("take", "unended")
    return ""
