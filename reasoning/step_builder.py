"""A streamed text that is cut into steps: from a splitter's cuts to events.

Shared by the ways in which one completion holds all the steps.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import regex

from reasoning.events import Delta, Event, Step
from reasoning.headings import strip_number
from reasoning.parsing import one_line
from reasoning.prompts import default_title
from reasoning.splitting import Cut, Opening, StepKind

TITLE_LENGTH = 60  # characters; a title is the first words of its step
_MARKS = re.compile(r"^[#>*\-\s]+|\*\*|__|`")
_LISTED = re.compile(r"\A\s*\d{1,2}[.)]\s+")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s|[。！？]|\n|\$|\\[(\[]")
_FORMULAS = re.compile(
    r"^(?:\s*(?:\$\$.+?\$\$|\$[^$\n]+\$(?!\d)|\\\[.+?\\\]|\\\(.+?\\\))[\s.,;:]*)+", re.S
)
# Of letters, numbers and signs as a line of text has them; what stands in it reads as words.
_PLAIN = r"[\w+\-*/=().,%<>](?:[\w +\-*/=().,%<>]{0,22}[\w+\-*/=().,%<>])?"
_PLAIN_FORMULA = regex.compile(
    rf"(?<!\$)\$(?!\d)({_PLAIN})\$(?=[^\d$])|\\\( ?({_PLAIN}) ?\\\)"
)  # "$5 and $6" is money
_OPEN_FORMULA = re.compile(r"\$(?!\d)|\\[(\[]")  # "$5" is money
_BLANKS = re.compile(r"[ \t]+")
_BETWEEN = " \n\t.:;,，。：；"


@dataclass(slots=True)
class StepBuilder:
    """Writes steps from `number` on. `tokens` is the count of completion tokens so far."""

    number: int
    clock: Callable[[], float]
    language: str
    steps: list[Step] = field(default_factory=list)
    text: str = ""
    kind: StepKind | None = None
    _raw: str = ""  # the heading's, where the step has one
    _title: str = ""
    _began: float = 0.0
    _tokens: int = 0  # at the end of the last step
    _first_token: float | None = None
    _paused: tuple[float, int] | None = None  # since when, and after how many tokens

    def begin(self, tokens: int = 0, seconds: float = 0.0) -> None:
        """A try begins: what is open is void, time and tokens count from here.

        `seconds` and -`tokens` are what the next step has cost already.
        """
        self._void()
        self._began, self._tokens = self.clock() - seconds, tokens

    def _void(self) -> None:
        self.text, self.kind, self._raw, self._title = "", None, "", ""
        self._paused = None

    def cost(self, tokens: int) -> tuple[float, int]:
        """Seconds and tokens since the last finished step."""
        return self.clock() - self._began, max(0, tokens - self._tokens)

    def pause(self, tokens: int) -> None:
        """What comes from now on is the open step's only if text is taken before it is closed."""
        self._paused = self._paused or (self.clock(), tokens)

    def take(self, cut: Cut, tokens: int, first_token: float | None = None) -> Iterator[Event]:
        self._first_token = first_token
        if isinstance(cut, Opening):
            yield from self.close(tokens)
            self.kind, self._title, self._raw = cut.kind, cut.title, cut.raw
            yield Delta(self.number, "action", cut.kind)
            if cut.title:
                yield Delta(self.number, "title", cut.title)
            return
        if self.kind is None:
            self.kind = "continue"
        self.text, self._paused = self.text + cut, None
        yield Delta(self.number, "content", cut)
        if not self._title and (title := self._headline(whole=False)):
            self._title = title
            yield Delta(self.number, "title", title)

    def close(self, tokens: int, cut: bool = False) -> Iterator[Step]:
        """The open step, finished; nothing when none is open or it has no text."""
        text, kind = self.text, self.kind or "continue"
        if text.strip():
            title = self._title or self._headline(whole=True)
            end, tokens = self._paused or (self.clock(), tokens)
            seconds, spent = end - self._began, max(0, tokens - self._tokens)
            step = Step(
                self.number,
                title or default_title(self.language, self.number),
                text.strip(),
                kind,
                seconds,
                spent,
                first_token=self._first_token,
                cut=cut,
                raw=self._raw + text,
            )
            self.steps.append(step)
            self.number += 1
            self._began, self._tokens = end, tokens
            yield step
        self._void()

    def _headline(self, whole: bool) -> str:
        """The first words without their number: whoever shows a step counts it already."""
        return headline(strip_number(_LISTED.sub("", self.text, count=1)), whole)


def headline(text: str, whole: bool) -> str:
    """The first words of a step, for a title; "" while more of them may come, or for none.

    A formula is no title, unless it is plain: words begin after it and end where the next begins.
    """
    words = _MARKS.sub("", text[: TITLE_LENGTH * 8]) + "\n" * whole
    words = _PLAIN_FORMULA.sub(lambda found: found[1] or found[2], words)
    words = _FORMULAS.sub("", words).lstrip(_BETWEEN)
    if _OPEN_FORMULA.match(words):
        return ""
    words = _BLANKS.sub(" ", words)
    end = _SENTENCE_END.search(words, 3)
    if end and not whole and _PLAIN_FORMULA.fullmatch(words, end.start(), partial=True):
        return ""
    words = one_line(words[: end.start()] if end else words).rstrip(_BETWEEN)
    if end is None and not whole and len(words) <= TITLE_LENGTH:
        return ""
    if len(words) <= TITLE_LENGTH:
        return words
    return words[:TITLE_LENGTH].rsplit(" ", 1)[0] + " ..."
