"""Where a text that thinks tells its answer, and what that is. Pure."""

from __future__ import annotations

import re

from reasoning.boxes import find_boxes
from reasoning.headings import ANSWER_LINE, may_be_heading, parse_answer_heading, parse_heading

_PARAGRAPH = re.compile(r"\n[ \t]*\n")


def find_answer(text: str) -> str:
    """What follows the last line "Answer:", else the paragraph of the last box, to the end.

    "" where the text tells no answer in any of these.
    """
    if lines := list(ANSWER_LINE.finditer(text)):
        return text[lines[-1].end() :].strip()
    if not (found := find_boxes(text)):
        return ""
    at = text.rindex(found[-1])
    return text[max((gap.end() for gap in _PARAGRAPH.finditer(text, 0, at)), default=0) :].strip()


def strip_heading(text: str, whole: bool) -> str:
    """An answer, whole or as far as it is written, without a heading that announces it."""
    line, newline, rest = text.lstrip().partition("\n")
    if not newline and not whole and may_be_heading(line):
        return ""
    told = parse_answer_heading(parse_heading(line.rstrip()) or "")
    return text.lstrip() if told is None else f"{told}{newline}{rest}".lstrip()
