"""Which line of a text is a heading, and what it says. Pure.

A heading is a line with Markdown's marks, a line that is nothing but bold, or one that
begins with "Step 3:". What a line may still become is told from its beginning, so that
the rest of a text need not wait.
"""

from __future__ import annotations

import re

from reasoning.replies import one_line

LONGEST_LINE = 120  # characters of a line without marks that is a heading

_DIGITS = r"[\d一二三四五六七八九十]"
_NUMBER = rf"(?:step\s*\d+|步骤\s*{_DIGITS}+|第\s*{_DIGITS}+\s*步)"
_AFTER = "[:：.)—-]"
_LISTED = r"(?:\d{1,2}[.)][ \t]+)?"  # "1. **Title**"
_MARKED = re.compile(r"#{1,6}(?:[ \t]+(\S.*)|[ \t]*)")
_BOLD = re.compile(rf"{_LISTED}\*\*([^*]+)\*\*[:：]?\s*")
_NUMBERED = re.compile(rf"{_NUMBER}\s*{_AFTER}\s*(\S.*)", re.I)
_LEADING_NUMBER = re.compile(rf"{_NUMBER}\s*(?:{_AFTER}\s*|$)", re.I)
_MAY_BE_MARKED = re.compile(r"#{0,6}|#{1,6}[ \t].*")
_MAY_BE_BARE = re.compile(
    rf"\d{{0,2}}|\d{{1,2}}[.)][ \t]*|{_LISTED}\*(?:\*(?:[^*]+(?:\*(?:\*[:：]?\s*)?)?)?)?"
    rf"|s(?:t(?:e(?:p\s*\d*\s*(?:{_AFTER}.*)?)?)?)?"
    rf"|步(?:骤\s*{_DIGITS}*\s*(?:{_AFTER}.*)?)?"
    rf"|第\s*{_DIGITS}*\s*(?:步\s*(?:{_AFTER}.*)?)?",
    re.I,
)
_ANSWER = re.compile(
    r"(?:(?:give|state|provide|write)\s+)?(?:the\s+|my\s+)?"
    r"(?:final\s+(?:answer|result|conclusion)|answer(?:\s+(?:to\s+)?the\s+question)?|conclusion)"
    r"\s*(?:\.|[:：]\s*(?P<told>.*))?"
    r"|(?:给出)?(?:(?:最终|最后)?(?:答案|结论)|最终结果)\s*(?:[:：]\s*(?P<zh>.*))?",
    re.I,
)


def heading(line: str) -> str | None:
    """The words of a heading without its number, "" for a mere number; None for another line."""
    words = marked(line)
    if words is None and len(line) <= LONGEST_LINE:
        found = _BOLD.fullmatch(line) or _NUMBERED.fullmatch(line)
        words = _words(found[1]) if found else None
    return words


def marked(line: str) -> str | None:
    """The same for a line with Markdown's marks alone."""
    found = _MARKED.fullmatch(line)
    return _words(found[1] or "") if found else None


def unnumbered(words: str) -> str:
    """Without "Step 3:" before them: whoever shows a step counts it already."""
    return _LEADING_NUMBER.sub("", words, count=1)


def is_sentence(line: str) -> bool:
    """Whether a heading's line may be all that there is of its step: "Step 1: 3 + 4 = 7"."""
    if marked(line) is not None:
        return False
    return bool(_NUMBERED.fullmatch(line)) or bool(re.search(r"\d", heading(line) or ""))


def may_be_heading(line: str) -> bool:
    """Whether a line that is being written can become a heading; of a heading, always."""
    return may_be_marked(line) or (
        len(line) <= LONGEST_LINE and _MAY_BE_BARE.fullmatch(line) is not None
    )


def may_be_marked(line: str) -> bool:
    return _MAY_BE_MARKED.fullmatch(line) is not None


def answer_in(words: str) -> str | None:
    """What a heading tells of the answer, "" where it only announces it; None for a step's."""
    found = _ANSWER.fullmatch(words)
    return (found["told"] or found["zh"] or "").strip() if found else None


def _words(text: str) -> str:
    """What is there to read of a heading; punctuation alone is nothing."""
    bare = text.strip("# *").rstrip(":：").strip("# *")
    words = one_line(unnumbered(bare)).rstrip(":：")
    return words if re.search(r"\w", words) else ""
