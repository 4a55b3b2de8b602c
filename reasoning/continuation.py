"""One reply of a chain of thought, cut into steps as it comes.

It is fed the reply's pieces and gives events; `end` says why no more of it is wanted. Whether
another reply follows is the chain's to decide (cot.py). It asks for nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal, Protocol

from reasoning.attempt import Attempt
from reasoning.conclusions import strip_heading
from reasoning.endpoint import Piece
from reasoning.events import Delta, Event, Step
from reasoning.outline import OutlineSplitter
from reasoning.prompts import format_heading
from reasoning.splitting import Conclusion, Cut, Opening
from reasoning.step_builder import StepBuilder
from reasoning.titles import is_title

BYTES_PER_TOKEN = 4  # of English, while a server has counted nothing yet

# Why a reply has ended: it came to nothing ("repeat", "loop", "empty"), by itself, for want of
# steps, of a step's own tokens or of any, or because the answer that it begins is asked for apart.
End = Literal["", "repeat", "loop", "empty", "stop", "steps", "long", "full", "told"]
Cost = tuple[float, int]  # seconds and tokens


class ReplyChain(Protocol):
    """What a reply must know of its chain."""

    steps: list[Step]
    step_tokens: int
    answer_tokens: int
    apart: bool

    @property
    def number(self) -> int: ...

    @property
    def most(self) -> int: ...

    def is_repeated(self, step: Step) -> bool: ...

    def keep(self, step: Step, final: bool) -> Step: ...


class Continuation:
    """One try at a reply. `answer` is its text where one has begun, `dropped` what the step
    that was taken out has cost. `heading`: what the reply goes on under, where it is led.
    """

    def __init__(
        self, chain: ReplyChain, attempt: Attempt, builder: StepBuilder, heading: str = ""
    ) -> None:
        self._chain, self._attempt, self.builder = chain, attempt, builder
        self._splitter = OutlineSplitter()
        if heading:
            self._splitter.feed(format_heading(heading))
        self._counted = 0  # tokens when the open step or the answer began
        self._tentative = ""  # what was told of text that has no place yet
        self.dropped: Cost = (0.0, 0)
        self.answer: str | None = None
        self.end: End = ""

    @property
    def cost(self) -> Cost:
        """Seconds and tokens that no finished step has told of."""
        return add_costs(self.dropped, self.builder.cost(self._attempt.tokens))

    def taken(self, piece: Piece) -> Iterator[Event]:
        """What the piece, which the attempt has already, adds."""
        told = self._tentative
        for event in self._placed(piece):
            told = ""  # it is void
            yield event
        self._tentative = "" if self.end else self._splitter.tentative.lstrip()
        if news := self._tentative.removeprefix(told):
            yield Delta(self._chain.number, "tentative", news)

    def _placed(self, piece: Piece) -> Iterator[Event]:
        """What of it is known to be a step's, or the answer."""
        for cut in self._splitter.feed(piece.text):
            yield from self._written(cut)
            if self.end:
                return
        if self._splitter.undecided:
            self.builder.pause(self._attempt.tokens)
        if self._attempt.finish_reason is None:
            yield from self._bounded()

    def ended(self) -> Iterator[Event]:
        """What was held back, and why the reply has ended where that is not known yet."""
        for cut in () if self.end else self._splitter.end(self._attempt.cut):
            yield from self._written(cut)
        if self.end:
            return
        attempt, thinks = self._attempt, self.answer is None
        if thinks and attempt.finish_reason == "repetition":
            self.end = "loop"
            return
        if thinks:
            yield from self._close(attempt.cut, final=not attempt.cut)
        if thinks and not self._chain.steps and not self.end:
            self.answer, thinks = attempt.refusal or None, not attempt.refusal
        empty = thinks and not self._chain.steps and not attempt.cut
        self.end = self.end or ("empty" if empty else "full" if attempt.cut else "stop")

    def _written(self, cut: Cut | Conclusion) -> Iterator[Event]:
        if isinstance(cut, str) and self.answer is not None:
            yield from self._say(cut)
        elif isinstance(cut, str) and len(self._chain.steps) >= self._chain.most:
            self.end = "steps"  # the try before this one broke behind the last that there may be
        elif isinstance(cut, str):
            yield from self._take(cut)
        else:
            chain = self._chain
            final = isinstance(cut, Conclusion) or chain.number >= chain.most
            yield from self._close(final=final)
            if not self.end:
                yield from self._opened(cut)

    def _opened(self, cut: Opening | Conclusion) -> Iterator[Event]:
        steps = self._chain.steps
        if isinstance(cut, Opening):
            if len(steps) >= self._chain.most:
                self.end = "steps"
                return
            last = steps[-1].title if steps else ""
            title = cut.title if is_title(cut.title, last) else ""  # else the step's first words
            yield from self._take(replace(cut, title=title))
        elif self._chain.apart:
            self.end = "told"
        else:
            self.answer = ""
            yield from self._say(f"{cut.told}\n")

    def _take(self, cut: Cut) -> Iterator[Event]:
        first = None if self.builder.steps else self._attempt.first_token
        yield from self.builder.take(cut, self._attempt.tokens, first)

    def _say(self, text: str) -> Iterator[Event]:
        """A model may write a heading of its own under the one that announces the answer."""
        shown = strip_heading(self.answer or "", whole=False)
        self.answer = f"{self.answer}{text if self.answer else text.lstrip()}"
        if news := strip_heading(self.answer, whole=False)[len(shown) :]:
            yield Delta(self._chain.number, "answer", news)

    def _bounded(self) -> Iterator[Event]:
        """Ends the reply where a step, or the answer, has more tokens than it may."""
        if self.answer is not None:
            if self._spent(self.answer) > self._chain.answer_tokens:
                self.end = "long"
        elif self._spent(self.builder.text) > self._chain.step_tokens:
            yield from self._close(cut=True)
            self.end = self.end or "long"

    def _spent(self, text: str) -> int:
        if self._attempt.tokens:
            return self._attempt.tokens - self._counted
        return len(text.encode()) // BYTES_PER_TOKEN

    def _close(self, cut: bool = False, final: bool = False) -> Iterator[Step]:
        """The open step, finished; one that repeats another ends the reply and is none."""
        for step in self.builder.close(self._attempt.tokens, cut):
            self._counted = self._attempt.tokens
            if self._chain.is_repeated(step):
                self.end, self.dropped = "repeat", (step.seconds, step.tokens)
            else:
                yield self._chain.keep(step, final)


def add_costs(one: Cost, other: Cost) -> Cost:
    return one[0] + other[0], one[1] + other[1]
