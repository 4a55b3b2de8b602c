"""What a mathematical text puts in \\boxed{}: its answers so far. Pure."""

from __future__ import annotations

import re

_BRACES = re.compile(r"(?P<box>\\f?boxed\s*\{)|\\.|(?P<open>\{)|(?P<close>\})", re.S)
_SAME = re.compile(
    r"\\(?:text|mathrm|left|right|displaystyle|,|;|!|\s)|[\s{}$]|(?<=\d),(?=\d{3})|\.$"
)


def find_boxes(text: str) -> list[str]:
    r"""The contents of all balanced \boxed{...}, in order; an unfinished one is none.

    Braces nest (\boxed{\frac{1}{2}}); an escaped brace is no brace.
    """
    found: dict[int, str] = {}  # by where they begin
    opened: list[int | None] = []  # where a box's content begins; None for another brace
    for brace in _BRACES.finditer(text):
        if brace["box"] or brace["open"]:
            opened.append(brace.end() if brace["box"] else None)
        elif brace["close"] and opened and (start := opened.pop()) is not None:
            found[start] = text[start : brace.start()].strip()
    return [found[start] for start in sorted(found)]


def same_answer(one: str, other: str) -> bool:
    """Whether two boxes say the same but for spaces, braces and a thousands' comma."""
    return _SAME.sub("", one).casefold() == _SAME.sub("", other).casefold()
