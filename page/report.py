"""A run as a report, from the question to the total: what every export says, in its order.

All strings are safe Markdown of one line or, where they came from a model, of one block
(page/markdown.py); the question alone is plain text. Pure; how it looks is for others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from page.i18n import Words
from page.markdown import TITLE_LENGTH, plain_line, safe_blocks
from page.path_chart import TURNS
from page.wording import (
    SEPARATOR,
    answer_text,
    ending,
    notice_remark,
    retry_remark,
    step_cost,
    step_name,
    step_remarks,
    total_line,
)
from reasoning.events import (
    Correction,
    Delta,
    Notice,
    Retry,
    Started,
    Step,
    Trace,
    Turn,
)
from reasoning.traces import compact

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
        plain_line(started.question),
        "" if _fits_a_line(started.question) else started.question,
        _made(started, words),
        tuple(_turn(turn, steps) for turn in started.history),
        shown,
        tuple(_remarks(trace, words)) if steps else (),
        safe_blocks(answer_text(trace) if trace.answer else _draft(trace).get("answer", "")),
        _ending(trace, words),
        total_line(trace, words),
    )


def _fits_a_line(question: str) -> bool:
    return question.strip() == " ".join(question.split()) and len(question) <= TITLE_LENGTH


def _turn(turn: Turn, steps: bool) -> ReportTurn:
    reasoning = safe_blocks(turn.reasoning) if steps else ()
    return ReportTurn(turn.question, (*reasoning, *safe_blocks(turn.answer)))


def _made(started: Started, words: Words) -> str:
    """Which model thought, how, and when."""
    parts = [plain_line(started.model), words.of("way", started.way, way=plain_line(started.way))]
    if started.at:
        at = datetime.fromtimestamp(started.at, UTC)
        parts.append(f"{at:%Y-%m-%d %H:%M} UTC")
    if started.prompts:
        names = ", ".join(plain_line(name) for name in sorted(started.prompts))
        parts.append(words.of("take", "prompts", names=names))
    return SEPARATOR.join(part for part in parts if part)


def _steps(trace: Trace, words: Words) -> Iterator[ReportStep]:
    for step in trace.steps:
        name = step_name(step.number, step.title, words)
        remarks = tuple(_remarks_of(step, trace, words))
        yield ReportStep(step.number, name, _facts(step, words), remarks, safe_blocks(step.content))
    draft = _draft(trace)
    title = draft.get("title", "")
    content = draft.get("content", "") + draft.get("tentative", "")
    if title or content:
        number = len(trace.steps) + 1
        name = step_name(number, title, words)
        yield ReportStep(number, name, words("unfinished"), (), safe_blocks(content))


def _facts(step: Step, words: Words) -> str:
    facts = [words.of("action", step.action)] if step.action in TURNS else []
    facts.append(step_cost(step, words))
    if step.edited:
        facts.append(words.of("take", "edited"))
    if step.asked == "doubt":
        facts.append(words.of("take", "doubted"))
    return SEPARATOR.join(facts)


def _remarks_of(step: Step, trace: Trace, words: Words) -> Iterator[str]:
    """What is remarked of the step; a reader's hand in it stands among its facts."""
    events, number = trace.events, step.number
    retries = [it for it in events if isinstance(it, Retry) and it.number == number]
    corrections = [it for it in events if isinstance(it, Correction) and it.number == number]
    for remark in step_remarks(step, retries, corrections, words):
        if remark.mark not in ("edited", "doubt"):
            yield remark.line


def _remarks(trace: Trace, words: Words) -> Iterator[str]:
    """What is said of the run, and of attempts at what is no step."""
    for event in trace.events:
        if isinstance(event, Notice):
            yield notice_remark(event, words).line
        elif isinstance(event, Retry) and event.number > len(trace.steps):
            yield retry_remark(event, words).line


def _draft(trace: Trace) -> dict[str, str]:
    """What had been written of a step, or of an answer, that was never finished."""
    parts: dict[str, str] = {}
    for event in compact(trace.events):
        if isinstance(event, Delta):
            parts[event.part] = parts.get(event.part, "") + event.text
    return parts


def _ending(trace: Trace, words: Words) -> str:
    remark = ending(trace, words, words.of("take", "unended"))
    return remark.line if remark else ""
