"""Does a step say what its prompts say, in place of thought? Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from reasoning.repeats import split_words

# Weights, so that a text may mix scripts: a Chinese word has 1.7 characters on average.
WORD, CHARACTER = 5, 3
RUN = 6 * WORD  # of words in a row that nobody chooses twice by chance; 10 characters
TITLE = 3 * WORD  # "Final answer" is anybody's; 5 characters

_VARIABLE = re.compile(r"\$\{?[a-z_]+\}?")
_CHINESE = re.compile(r"[\u4e00-\u9fff]")


def copied(title: str, content: str, prompts: Sequence[str], question: str) -> bool:
    """Whether six words in a row of a step, or its whole title, stand in a prompt.

    What the question says too is no copy, nor is a title of one or two words. Of Chinese
    ten characters count for six words and five for a title. Case and punctuation make no
    difference, and one number is like another: `prompts` may still have their $variables.
    """
    told = [_line(_terms(_VARIABLE.sub(" 0 ", text))) for text in prompts]
    asked = _line(_terms(question))
    return any(
        run not in asked and any(run in text for text in told)
        for run in map(_line, _runs_of_step(_terms(title), _terms(content)))
    )


def _terms(text: str) -> list[str]:
    """The words without signs; a number is "0"."""
    return ["0" if word.isdecimal() else word for word in split_words(text) if word.isalnum()]


def _line(terms: Sequence[str]) -> str:
    return f" {' '.join(terms)} "


def _runs_of_step(title: list[str], content: list[str]) -> Iterator[list[str]]:
    if _weight(title) >= TITLE:
        yield title
    yield from _runs(title)
    yield from _runs(content)


def _runs(terms: list[str]) -> Iterator[list[str]]:
    """At each term the shortest run from it on that is long enough."""
    end = 0
    for start in range(len(terms)):
        while _weight(terms[start:end]) < RUN:
            if end == len(terms):
                return
            end += 1
        yield terms[start:end]


def _weight(terms: Sequence[str]) -> int:
    return sum(CHARACTER if _CHINESE.fullmatch(term) else WORD for term in terms)
