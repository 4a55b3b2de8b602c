"""Does a step say again what an earlier one said? Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

ALIKE = 0.85  # share of common five-word runs; a step that checks the next letter stays below
_RUN = 5


def repeats(content: str, earlier: Sequence[str]) -> int | None:
    """The index of the earlier text that `content` repeats, or None.

    Case, spaces and punctuation do not make a difference; a number does.
    """
    mine = words(content)
    for index, other in enumerate(earlier):
        if _alike(mine, words(other)):
            return index
    return None


def words(text: str) -> list[str]:
    """The words, numbers and signs, in one case; of Chinese, without spaces, the characters."""
    return re.findall(r"[\u4e00-\u9fff]|[^\W_\u4e00-\u9fff]+|[-+*/=<>^%]", text.casefold())


def _alike(one: list[str], other: list[str]) -> bool:
    if one == other:
        return True
    here, there = _runs(one), _runs(other)
    return bool(here and there) and len(here & there) / len(here | there) >= ALIKE


def _runs(text: list[str]) -> set[tuple[str, ...]]:
    return {tuple(text[i : i + _RUN]) for i in range(len(text) - _RUN + 1)}
