"""What is said in small about a step or a run: a short line, and a tooltip that explains it.

Pure: no Streamlit. A remark stands as a line where its thing happened, and as a mark in the
label of its step: a small picture with the same tooltip, so that a folded step hides nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote

from page.i18n import Words
from page.markdown import safe, title
from reasoning.events import Correction, Notice, Retry, Step

Mark = Literal["", "retry", "cut", "corrected", "edited", "doubt"]
LONGEST_FORMULA = 200  # characters of a corrected value that is drawn as mathematics
ORANGE, VIOLET, BLUE = "#c77d1e", "#8a6fe0", "#3b8bb0"  # they stand out on light and on dark
MARKS: dict[Mark, tuple[str, str]] = {  # a colour, and lines on a ground of 16 by 16
    "retry": (ORANGE, "M13 8a5 5 0 1 1-1.6-3.7M13.2 1.8v3h-3"),
    "cut": (ORANGE, "M2.5 4h11M2.5 8h11M2.5 12h3.5M10 10.5l3 3M13 10.5l-3 3"),
    "corrected": (VIOLET, "M3 6h10M3 10h10M11 2.5l-6 11"),
    "edited": (BLUE, "M3 13l.8-3.2L11 2.6l2.4 2.4-7.2 7.2z"),
    "doubt": (BLUE, "M5.4 5.8a2.6 2.6 0 1 1 3.9 2.2C8.3 8.6 8 9.1 8 10M8 12.8v.2"),
}
_PICTURE = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16" width="16" height="16" '
    'fill="none" stroke="{colour}" stroke-width="1.7" stroke-linecap="round" '
    'stroke-linejoin="round">'
    '<path d="{lines}"/></svg>'
)


@dataclass(frozen=True, slots=True)
class Remark:
    """A line of safe Markdown, what explains it, and the mark it leaves in a step's label."""

    line: str
    help: str
    mark: Mark = ""


def of_retry(retry: Retry, words: Words) -> Remark:
    values = {"attempt": retry.attempt, "detail": title(retry.detail)}
    if retry.wait:
        seconds = words.seconds(retry.wait)
        line = words.of("retry", "wait", seconds=seconds, **values)
        return Remark(line, words.of("retry_help", "wait"), "retry")
    line = words.of("retry", retry.cause, **values)
    return Remark(line, words.of("retry_help", retry.cause), "retry")


def of_notice(notice: Notice, words: Words) -> Remark:
    line = words.of("notice", notice.code, detail=title(notice.detail))
    return Remark(line, words.of("notice_help", notice.code))


def of_correction(correction: Correction, words: Words) -> Remark:
    earlier, later = value(correction.earlier), value(correction.later)
    line = words("corrected", earlier=earlier, later=later)
    return Remark(line, words("corrected_help"), "corrected")


def of_step(step: Step, words: Words) -> Iterator[Remark]:
    """Whose words a step's are, who asked for it, and whether it is whole."""
    if step.edited:
        yield Remark(*_both("edited", words), "edited")
    if step.asked == "doubt":
        yield Remark(*_both("doubt", words), "doubt")
    if step.cut:
        code = "cut_tries" if step.attempts > 1 else "cut_step"
        yield Remark(words(code), words.of("remark", f"{code}_help"), "cut")


def _both(code: str, words: Words) -> tuple[str, str]:
    return words.of("remark", code), words.of("remark", f"{code}_help")


def marks(remarks: Iterable[Remark], words: Words) -> str:
    """The remarks' marks for a label, each kind once, with the tooltip of its first."""
    first: dict[Mark, Remark] = {}
    for remark in remarks:
        first.setdefault(remark.mark, remark)
    pictures: Sequence[str] = [
        _picture(mark, words.of("remark", mark), remark.help)
        for mark, remark in first.items()
        if mark
    ]
    return " ".join(pictures)


def _picture(mark: Mark, name: str, tooltip: str) -> str:
    """A picture in Markdown: the one thing in a label that may have a tooltip."""
    colour, lines = MARKS[mark]
    drawn = quote(_PICTURE.format(colour=colour, lines=lines))
    said = f"{name}: {tooltip}".replace("\\", "").replace('"', "'")
    return f'![{name}](data:image/svg+xml,{drawn} "{said}")'


def value(text: str) -> str:
    """A value that a model named, on one line: as mathematics when it looks like LaTeX."""
    line = " ".join(text.split())
    if any(sign in line for sign in "\\^_{}") and len(line) <= LONGEST_FORMULA:
        return safe(f"\\({line}\\)")
    return title(line)
