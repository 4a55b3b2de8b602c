"""Does a step say again what an earlier one said, or what it has said itself? Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

ALIKE = 0.85  # share of common five-word runs; a step that checks the next letter stays below
ROUND = 0.5  # share of new five-word runs under which a text goes round; sums keep above 0.8
LEAST_ROUND = 60  # words: a short table is no circle
_RUN = 5


def find_repeat(content: str, earlier: Sequence[str]) -> int | None:
    """The index of the earlier text that `content` repeats, or None.

    Case, spaces and punctuation do not make a difference; a number does.
    """
    mine = split_words(content)
    for index, other in enumerate(earlier):
        if _alike(mine, split_words(other)):
            return index
    return None


def goes_round(text: str) -> bool:
    """Whether a text says the same over and over, as one does that never ends."""
    mine = split_words(text)
    return len(mine) >= LEAST_ROUND and len(_runs(mine)) < ROUND * (len(mine) - _RUN + 1)


def split_words(text: str) -> list[str]:
    """The words, numbers and signs, in one case; of Chinese, without spaces, the characters."""
    return re.findall(r"[\u4e00-\u9fff]|[^\W_\u4e00-\u9fff]+|[-+*/=<>^%]", text.casefold())


def _alike(one: list[str], other: list[str]) -> bool:
    if one == other:
        return True
    here, there = _runs(one), _runs(other)
    return bool(here and there) and len(here & there) / len(here | there) >= ALIKE


def _runs(text: list[str]) -> set[tuple[str, ...]]:
    return {tuple(text[i : i + _RUN]) for i in range(len(text) - _RUN + 1)}
