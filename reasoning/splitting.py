"""Streamed text, cut into steps as it comes. Pure.

A splitter is fed pieces of any size and gives Openings (a step begins) and text of the
step that is open. What more text may still change is held back, so however a text is
cut into pieces, the steps are the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import regex

StepKind = Literal["continue", "reflect", "explore"]


@dataclass(frozen=True, slots=True)
class Opening:
    """A step begins here, of this kind.

    `title` is its heading's, "" where it has none; `raw` is the text of that heading.
    """

    kind: StepKind
    title: str = ""
    raw: str = ""


@dataclass(frozen=True, slots=True)
class Conclusion:
    """The answer begins here. `told` is what its heading says of it, `raw` that heading's text."""

    told: str = ""
    raw: str = ""


Cut = Opening | str


class Splitter(Protocol):
    def feed(self, text: str) -> list[Cut]: ...

    def end(self) -> list[Cut]:
        """What was held back, once no more text comes."""
        ...


# Satori's meta-actions (arXiv 2502.02508): each step starts with one.
META_ACTIONS: dict[str, StepKind] = {
    "<|continue|>": "continue",
    "<|reflect|>": "reflect",
    "<|explore|>": "explore",
}
END_TOKENS = ("<|im_end|>", "<|endoftext|>")
_META = regex.compile("|".join(map(regex.escape, META_ACTIONS)))
_END = regex.compile("|".join(map(regex.escape, END_TOKENS)))


class TokenSplitter:
    """Cuts at the meta-action tokens. An end token ends the text, whatever comes after it."""

    def __init__(self) -> None:
        self._held = ""
        self._ended = False

    def feed(self, text: str) -> list[Cut]:
        if self._ended:
            return []
        text = self._held + text
        if end := _END.search(text):
            self._ended, self._held = True, ""
            return _cut(text[: end.start()])
        whole = len(text) - _unsure(text)
        self._held = text[whole:]
        return _cut(text[:whole])

    def end(self) -> list[Cut]:
        held, self._held = self._held, ""
        return [held] if held else []


def _unsure(text: str) -> int:
    """How many last characters may be the beginning of a token."""
    start = text.rfind("<")
    tail = text[start:] if start >= 0 else ""
    unfinished = tail and any(
        t.startswith(tail) and t != tail for t in (*META_ACTIONS, *END_TOKENS)
    )
    return len(tail) if unfinished else 0


def _cut(text: str) -> list[Cut]:
    cuts: list[Cut] = []
    at = 0
    for token in _META.finditer(text):
        if token.start() > at:
            cuts.append(text[at : token.start()])
        cuts.append(Opening(META_ACTIONS[token.group()]))
        at = token.end()
    return [*cuts, text[at:]] if at < len(text) else cuts


# How models say that they turn: Satori with its tokens stripped, and models that think natively.
_TURNS: tuple[tuple[StepKind, regex.Pattern[str]], ...] = (
    (
        "explore",
        regex.compile(
            r"(?:alternatively|another (?:way|approach|method)|let(?:'|\u2019)?s (?:switch to a new"
            r"|re-?evaluate|recompute|try (?:a different|another))|换一种|另一种|或者)",
            regex.I,
        ),
    ),
    (
        "reflect",
        regex.compile(
            r"(?:(?:but |oh )?wait\b|hmm+\b|hold on|actually,|let(?:'|\u2019)?s reassess"
            r"|let me (?:re-?check|double[- ]check|verify|reconsider)|等等|等一下|不对)",
            regex.I,
        ),
    ),
)
LONG_ENOUGH = 400  # characters after which the next paragraph is a step of its own
_BREAK = regex.compile(r"\n[ \t]*\n\s*")


class TurnSplitter:
    """Cuts at paragraphs: at each that turns back or elsewhere, and when a step has grown long.

    Never inside a fence of code or a displayed formula. The first text opens a step.
    """

    def __init__(self) -> None:
        self._held = ""  # from the last paragraph break on, while it is undecided
        self._step = ""

    def feed(self, text: str) -> list[Cut]:
        return self._take(self._held + text, more=True)

    def end(self) -> list[Cut]:
        return self._take(self._held, more=False)

    def _take(self, text: str, more: bool) -> list[Cut]:
        cuts: list[Cut] = []
        self._held = ""
        if not self._step:
            text = text.lstrip()
        while text:
            gap = None if not self._step else _BREAK.search(text)
            start = gap.end() if gap else 0
            undecided = more and (gap is not None or not self._step)
            if undecided and may_turn(text[start:]):
                kept = gap.start() if gap else 0
                self._add(cuts, text[:kept])
                self._held = text[kept:]
                return cuts
            if gap is None and self._step:
                kept = len(text) - (_trailing_break(text) if more else 0)
                self._add(cuts, text[:kept])
                self._held = text[kept:]
                return cuts
            if gap:
                self._add(cuts, text[: gap.start()])
            kind = find_turn(text[start:])
            if not self._step or (self._closed() and (kind or len(self._step) >= LONG_ENOUGH)):
                cuts.append(Opening(kind or "continue"))
                self._step = ""
                text = text[start:]
            elif gap:
                self._add(cuts, gap.group())
                text = text[start:]
            text = self._first_character(cuts, text)
        return cuts

    def _first_character(self, cuts: list[Cut], text: str) -> str:
        """Moves on by one, so that what was decided here is not decided again."""
        self._add(cuts, text[:1])
        return text[1:]

    def _add(self, cuts: list[Cut], text: str) -> None:
        if not text:
            return
        self._step += text
        if cuts and isinstance(cuts[-1], str):
            cuts[-1] += text
        else:
            cuts.append(text)

    def _closed(self) -> bool:
        """Whether the open step is outside of code and displayed formulas."""
        fences = len(regex.findall(r"^\s*```", self._step, regex.M))
        opened = self._step.count("\\[") - self._step.count("\\]")
        return fences % 2 == 0 and self._step.count("$$") % 2 == 0 and opened <= 0


def find_turn(paragraph: str) -> StepKind | None:
    """How a paragraph turns back or elsewhere, where it does."""
    return next((kind for kind, words in _TURNS if words.match(paragraph)), None)


def may_turn(paragraph: str) -> bool:
    """Whether more of a paragraph may tell that it turns, or whether it does."""
    return any(is_open(words.match(paragraph, partial=True)) for _, words in _TURNS)


def is_open(found: regex.Match[str] | None) -> bool:
    """Whether more text may make, or unmake, a match that reaches to the text's end."""
    return found is not None and (found.partial or found.end() == len(found.string))


def _trailing_break(text: str) -> int:
    """How many last characters may be the beginning of a paragraph break."""
    match = regex.search(r"\n\s*\Z", text)
    return len(match.group()) if match else 0


class CoatSplitter:
    """Cuts a Satori transcript at its tokens; where its server hides them, at its turns.

    `hidden` says that the text began with words: each of Satori's steps begins with a token.
    """

    def __init__(self) -> None:
        self.hidden = False
        self._tokens = TokenSplitter()
        self._turns = TurnSplitter()
        self._begun = False

    def feed(self, text: str) -> list[Cut]:
        return [cut for found in self._tokens.feed(text) for cut in self._through(found)]

    def end(self) -> list[Cut]:
        last = [cut for found in self._tokens.end() for cut in self._through(found)]
        return last + self._turns.end()

    def _through(self, cut: Cut) -> list[Cut]:
        if isinstance(cut, Opening):
            self._begun, self.hidden = True, False
            return [*self._turns.end(), cut]
        if not self._begun and cut.strip():
            self._begun = self.hidden = True
        if self.hidden:
            return self._turns.feed(cut)
        return [cut] if self._begun else []


Voice = Literal["thought", "answer"]
_TAGS = ("<think>", "</think>")


class ThinkSplitter:
    """Tells thought from answer by <think>...</think>, or by a </think> that was never opened.

    Text before any tag is called thought; `tagged` says whether a tag came at all.
    """

    def __init__(self) -> None:
        self.tagged = False
        self._held = ""
        self._voice: Voice = "thought"

    def feed(self, text: str) -> list[tuple[Voice, str]]:
        text = self._held + text
        parts: list[tuple[Voice, str]] = []
        while self._voice == "thought" and (tag := regex.search("</?think>", text)):
            parts.append((self._voice, text[: tag.start()]))
            self.tagged, text = True, text[tag.end() :]
            self._voice = "answer" if tag.group() == "</think>" else "thought"
        start = text.rfind("<") if self._voice == "thought" else -1
        unsure = start >= 0 and any(tag.startswith(text[start:]) for tag in _TAGS)
        self._held = text[start:] if unsure else ""
        parts.append((self._voice, text[:start] if unsure else text))
        return [(voice, part) for voice, part in parts if part]

    def end(self) -> list[tuple[Voice, str]]:
        held, self._held = self._held, ""
        return [(self._voice, held)] if held else []
