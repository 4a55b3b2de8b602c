"""What a mathematical text puts in \\boxed{}: its answers so far. Pure."""

from __future__ import annotations

import re

_OPENING = re.compile(r"\\f?boxed\s*\{")
_SAME = re.compile(
    r"\\(?:text|mathrm|left|right|displaystyle|,|;|!|\s)|[\s{}$]|(?<=\d),(?=\d{3})|\.$"
)


def boxes(text: str) -> list[str]:
    r"""The contents of all balanced \boxed{...}, in order; an unfinished one is none.

    Braces nest (\boxed{\frac{1}{2}}); an escaped brace is no brace.
    """
    found = []
    for opening in _OPENING.finditer(text):
        end = _closing(text, opening.end())
        if end is not None:
            found.append(text[opening.end() : end].strip())
    return found


def _closing(text: str, start: int) -> int | None:
    depth, at = 1, start
    while at < len(text):
        if text[at] == "\\":
            at += 1
        elif text[at] in "{}":
            depth += 1 if text[at] == "{" else -1
            if depth == 0:
                return at
        at += 1
    return None


def same_answer(one: str, other: str) -> bool:
    """Whether two boxes say the same but for spaces, braces and a thousands' comma."""
    return _SAME.sub("", one).casefold() == _SAME.sub("", other).casefold()
