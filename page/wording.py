"""What is said of a run in words: its total, a step's cost and remarks, how it ended.

Pure: no Streamlit. The page and every export say the same, each in its own form. All strings
are safe Markdown of one line (page/markdown.py), but for the answer, which is as it was written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

from page.i18n import Words
from page.markdown import plain_line, safe_block
from reasoning.events import Answer, Correction, Failed, Notice, Retry, Step, Stopped, Trace

Mark = Literal["", "retry", "cut", "corrected", "edited", "doubt"]
LONGEST_FORMULA = 200  # characters of a corrected value that is drawn as mathematics
LEAST_WAIT = 0.05  # seconds: less would round to 0.0 s
SEPARATOR = " \u00b7 "


@dataclass(frozen=True, slots=True)
class Remark:
    """A line, what explains it in a tooltip, and the mark it leaves in its step's label."""

    line: str
    help: str = ""
    mark: Mark = ""


class Failure(Protocol):
    """An error or the event of one: what went wrong, and what to do."""

    @property
    def code(self) -> str: ...
    @property
    def message(self) -> str: ...
    @property
    def remedy(self) -> str: ...


# -- a run


def total_line(trace: Trace, words: Words) -> str:
    """The total thinking time in words, and what was waited beside it."""
    said = words("total", seconds=words.seconds(trace.seconds))
    if trace.steps:
        said = words("total_steps", total=said, steps=words.steps(len(trace.steps)))
    if trace.tokens:
        said = words("total_tokens", total=said, tokens=words.tokens(trace.tokens))
    if rate := trace.tokens_per_second:
        said = words.of("remark", "rate", total=said, rate=f"{rate:.{0 if rate >= 10 else 1}f}")
    if trace.waited >= LEAST_WAIT:
        said += SEPARATOR + words("waited", seconds=words.seconds(trace.waited))
    return said


def ending(trace: Trace, words: Words, unended: str) -> Remark | None:
    """How the run ended, unless with a whole answer. `unended` is said where it has no end."""
    match trace.end:
        case Failed() as failed:
            return Remark(failure_line(failed, words))
        case Stopped():
            return Remark(words("stopped"))
        case Answer(cut=True):
            thought_cut = bool(trace.steps) and trace.steps[-1].cut
            code = "cut_thought" if thought_cut else "cut_answer"
            return Remark(words(code), words.of("remark", f"{code}_help"))
        case None:
            return Remark(unended)
    return None


def failure_line(failure: Failure, words: Words, table: str = "failed") -> str:
    """What went wrong and what to do, in the words of the table for its code."""
    message, remedy = plain_line(failure.message), plain_line(failure.remedy)
    return words.of(table, failure.code, message=message, remedy=remedy)


def answer_text(trace: Trace) -> str:
    """What the run answered, as it was written; "" without an answer."""
    return trace.answer.content if trace.answer else ""


# -- a step


def step_name(number: int, name: str, words: Words) -> str:
    """A step's title, or its number where it has none yet."""
    return plain_line(name) or words("step", number=number)


def step_cost(step: Step, words: Words) -> str:
    """Seconds, tokens where they are known, attempts where there were several."""
    parts = [words.seconds(step.seconds)]
    if step.tokens:
        parts.append(words.tokens(step.tokens))
    if step.attempts > 1:
        parts.append(words("attempts", attempts=step.attempts))
    return SEPARATOR.join(parts)


def step_remarks(
    step: Step, retries: Iterable[Retry], corrections: Iterable[Correction], words: Words
) -> Iterator[Remark]:
    """All that is remarked of a step: what failed before it, the step itself, what it overturns."""
    yield from (retry_remark(retry, words) for retry in retries)
    yield from own_remarks(step, words)
    yield from (correction_remark(correction, words) for correction in corrections)


def own_remarks(step: Step, words: Words) -> Iterator[Remark]:
    """Whose words a step's are, who asked for it, and whether it is whole."""
    if step.edited:
        yield Remark(*_with_help("edited", words), "edited")
    if step.asked == "doubt":
        yield Remark(*_with_help("doubt", words), "doubt")
    if step.cut:
        code = "cut_tries" if step.attempts > 1 else "cut_step"
        yield Remark(words(code), words.of("remark", f"{code}_help"), "cut")


def result_remark(number: int, words: Words) -> Remark:
    """Of an answer whose reasoning is step `number`, which is not written out twice."""
    line, why = (words.of("remark", it, number=number) for it in ("from_step", "from_step_help"))
    return Remark(line, why)


def _with_help(code: str, words: Words) -> tuple[str, str]:
    return words.of("remark", code), words.of("remark", f"{code}_help")


# -- an event


def retry_remark(retry: Retry, words: Words) -> Remark:
    values = {"attempt": retry.attempt, "detail": plain_line(retry.detail)}
    if retry.wait:
        seconds = words.seconds(retry.wait)
        line = words.of("retry", "wait", seconds=seconds, **values)
        return Remark(line, words.of("retry_help", "wait"), "retry")
    line = words.of("retry", retry.cause, **values)
    return Remark(line, words.of("retry_help", retry.cause), "retry")


def notice_remark(notice: Notice, words: Words) -> Remark:
    line = words.of("notice", notice.code, detail=plain_line(notice.detail))
    return Remark(line, words.of("notice_help", notice.code))


def correction_remark(correction: Correction, words: Words) -> Remark:
    earlier, later = value_line(correction.earlier), value_line(correction.later)
    line = words("corrected", earlier=earlier, later=later)
    return Remark(line, words("corrected_help"), "corrected")


def value_line(text: str) -> str:
    """A value that a model named, on one line: as mathematics when it looks like LaTeX."""
    line = " ".join(text.split())
    if any(sign in line for sign in "\\^_{}") and len(line) <= LONGEST_FORMULA:
        return safe_block(f"\\({line}\\)")
    return plain_line(line)
