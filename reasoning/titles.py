"""A step's title: the model's own, or the step's first words where it gave none. Pure.

A grammar can ask for a title, not for one that says something: models write "", "," or
"Step 3", or the last step's title again. Of "Step 3: Halve it" only "Halve it" is new. While a
reply is being written, what may still turn out to be none is not shown, so that what is shown of
a title only grows.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import regex

from reasoning.headings import ORDINALS, strip_number
from reasoning.parsing import Draft
from reasoning.repeats import split_words
from reasoning.step_builder import headline

SENTENCES = 3  # of a step that may give it a title; later ones do not say what it is about

_WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_NUMBER = rf"(?:\d+(?:[./]\d+)*|[一二三四五六七八九十百]+|{'|'.join(_WORDS)})"
_ORDINAL = rf"(?:the[\W_]+)?(?:{'|'.join(ORDINALS)})[\W_]+step"
_NUMBERED = regex.compile(
    rf"[\W_]*(?:(?:step|步骤|第)[\W_]*)?{_NUMBER}[\W_]*(?:of[\W_]*{_NUMBER}[\W_]*|步[\W_]*)?"
    rf"|[\W_]*{_ORDINAL}[\W_]*",
    regex.I,
)
_SENTENCE = regex.compile(r"(?<=[.!?])\s+|[。！？]\s*|\s*\n\s*")


def is_title(text: str, last: str = "") -> bool:
    """Whether the text names a step: not its number alone, nor what the `last` one was called."""
    if not any(character.isalnum() for character in text) or _NUMBERED.fullmatch(text):
        return False
    return not last or _words(text) != _words(last)


def make_title(draft: Draft, last: str, whole: bool) -> str:
    """The title of a step as far as it is sure; "" while it is not, and where there is none.

    `last` is the title of the step before. Of a text that grows, with `whole` at its end,
    each title begins the next.
    """
    title = strip_number(draft.title)
    if not whole and not draft.titled:
        undecided = _may_be_none(draft.title, last) or _may_be_none(title, last)
        return "" if undecided else title
    if is_title(title, last):
        return title
    return _first_words(draft.content, last, whole)


def _may_be_none(text: str, last: str) -> bool:
    """Whether a title that begins with this text can turn out to be none."""
    if not any(character.isalnum() for character in text):
        return True
    if last and "".join(_words(last)).startswith("".join(_words(text))):
        return True
    return _NUMBERED.fullmatch(text, partial=True) is not None


def _words(text: str) -> list[str]:
    """Without what makes them bold."""
    return [word for word in split_words(text) if word != "*"]


def _first_words(content: str, last: str, whole: bool) -> str:
    """The first words of the first sentence that give a title, once they are sure."""
    for start in islice(_sentences(content), SENTENCES):
        title = headline(content[start:], whole)
        if is_title(title, last):
            return title
        if not title and not whole:  # its words are still to come
            return ""
    return ""


def _sentences(text: str) -> Iterator[int]:
    """Where sentences begin."""
    yield 0
    for end in _SENTENCE.finditer(text):
        yield end.end()
