"""A reply, cut into steps at the structure that its model gives it, as it comes. Pure.

Nobody asks for a structure: models that think step by step write headings, "Step 2: ...",
numbered items, or paragraphs that begin with "First," and "Next,". A step begins at each. The
paragraph that concludes ("Therefore, ...") is the answer where nothing follows it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from reasoning.conclusions import find_answer
from reasoning.headings import (
    ANSWER_LINE,
    LONGEST_LINE,
    begins_step,
    bold_lead,
    concludes,
    is_numbered,
    is_sentence,
    is_thought,
    may_be_heading,
    may_be_item,
    may_begin,
    parse_answer_heading,
    parse_heading,
    parse_item,
)
from reasoning.splitting import LONG_ENOUGH, Conclusion, Opening, StepKind, find_turn, may_turn

PREAMBLE = 200  # characters before the first step that are none: "Sure, let us think:"
LONGEST_TITLE = 80  # characters of a numbered item that names a step and does not begin it
LONGEST_CONCLUSION = 400  # characters; more is thought

Cut = Opening | Conclusion | str
Kind = Literal["chapter", "sentence", "item", "conclusion", "answer", "paragraph", "body", "end"]
_LINES = re.compile(r"[^\n]*\n|[^\n]+")
_COLONS = (":", "：")


@dataclass(slots=True)
class Waiting:
    """Text whose place the next line decides: what heads a step, or what may be the answer.

    `title` is a head's; an item may open a list (`first`) and say that more follows (`leads`).
    """

    kind: Kind
    text: str
    title: str = ""
    first: bool = False
    leads: bool = False
    apart: bool = False  # an empty line came after it

    def heads(self, kind: Kind, line: str) -> bool:
        """Whether the line stands under it."""
        if self.kind == "item":
            near = kind == "body" and not self.apart
            return self.leads or near or line[0].isspace()
        return self.kind == "chapter" or (self.kind == "sentence" and kind != "conclusion")

    def takes(self, kind: Kind) -> bool:
        """Whether a conclusion goes on with a line of that kind."""
        more = not self.apart or self.text.rstrip().endswith(_COLONS)
        return self.kind == "conclusion" and kind == "body" and more


class OutlineSplitter:
    """Cuts outside of code and displayed formulas; what follows "Answer:" is it, to the end.

    A head waits for the first word under it. A heading with nothing under it is a chapter's and
    gives way to the next; numbered items with nothing under them are one step together, mostly
    a plan. A short text without any of this is the answer, unless it tells one at its end.
    """

    def __init__(self) -> None:
        self._held = ""  # a line, while what it begins is not sure
        self._line = ""  # the line as far as it is read
        self._before = ""  # what comes before the first step
        self._chapters = ""  # headings that gave way to the next
        self._chapter = ""  # the title of the last
        self._waiting: Waiting | None = None
        self._plain: str | None = None  # the open step's text where a paragraph may end it
        self._open = self._headed = self._listed = self._within = self._concluded = False
        self._code = self._dollars = False
        self._brackets = 0
        self._gap = True  # an empty line, or nothing, is above

    @property
    def undecided(self) -> bool:
        """Whether text is held that may belong to another step than the open one."""
        return self._waiting is not None or bool(self._held.strip())

    @property
    def tentative(self) -> str:
        """What of it can be read already: what no step has begun with, what may conclude."""
        waits = self._waiting
        return self._before + (waits.text if waits and waits.kind == "conclusion" else "")

    def feed(self, text: str) -> list[Cut]:
        return self._take(self._held + text, more=True)

    def end(self, cut: bool = False) -> list[Cut]:
        """What was held back; `cut` says that the reply is not whole: then it still thought."""
        cuts, waits = self._take(self._held, more=False), self._waiting
        if waits and waits.kind == "conclusion":
            self._waiting = None
            cuts += self._spoken()
            return [*cuts, Conclusion("", f"{self._before}{self._chapters}"), waits.text]
        cuts += self._resolved("end")
        if self._open or self._concluded or not self._before.strip():
            return cuts
        thinks = cut or find_answer(self._before) not in ("", self._before.strip())
        return [*cuts, Opening("continue") if thinks else Conclusion(), self._before]

    def _take(self, text: str, more: bool) -> list[Cut]:
        cuts: list[Cut] = []
        self._held = ""
        for line in _LINES.findall(text):
            decided = self._within or self._concluded
            if more and not (decided or line.endswith("\n")) and _undecided(line):
                self._held = line
                break
            cuts += self._text(line) if decided else self._begun(line)
            self._passed(line)
        return cuts

    def _passed(self, text: str) -> None:
        """What a line opens and closes, once it has ended; an empty one closes a formula."""
        self._line += text
        self._within = not text.endswith("\n")
        if self._within:
            return
        line, self._line = self._line.strip(), ""
        self._gap = not line
        self._code ^= line.startswith("```")
        self._brackets = max(0, self._brackets + line.count("\\[") - line.count("\\]"))
        self._dollars ^= line.count("$$") % 2 == 1
        if self._gap or self._code:
            self._brackets, self._dollars = 0, False

    # -- a line

    def _begun(self, line: str) -> list[Cut]:
        """A line, or as much of it as tells what it begins."""
        words = line.strip()
        if not words:
            return self._blank(line)
        if self._code or self._brackets or self._dollars or words.startswith("```"):
            return self._under("body", line)
        if not _is_long(line) and (title := parse_heading(words)) is not None:
            return self._heading(line, words, title)
        if found := ANSWER_LINE.match(line):
            return self._answered(line[: found.end()], line[found.end() :])
        if _is_long(line) and is_numbered(line):
            return [*self._resolved("sentence"), *self._opened("", line, plain=True)]
        if listed := parse_item(line):
            return self._itemised(line, *listed)
        if concludes(line):
            return self._under("conclusion", line)
        return self._under("paragraph" if self._is_step(line) else "body", line)

    def _blank(self, line: str) -> list[Cut]:
        if self._waiting is None:
            return self._text(line)
        self._waiting.text += line
        self._waiting.apart = True
        return []

    def _heading(self, line: str, words: str, title: str) -> list[Cut]:
        if (told := parse_answer_heading(title)) is not None:
            return self._answered(line, told=told)
        return self._wait(Waiting("sentence" if is_sentence(words) else "chapter", line, title))

    def _itemised(self, line: str, number: int, words: str) -> list[Cut]:
        if self._is_inside():
            return self._under("body", line)
        if _is_long(line):  # it begins its step and does not name it
            return [*self._resolved("item"), *self._listing(line, number == 1)]
        bare = words.replace("**", "").rstrip(":： ")
        title = "" if len(bare) > LONGEST_TITLE or "\\" in bare else bare
        return self._wait(Waiting("item", line, title, number == 1, words.endswith(_COLONS)))

    def _is_inside(self) -> bool:
        """Whether an item is a part of the step that a heading opens, not one beside it."""
        waits = self._waiting
        if waits is None or waits.kind not in ("chapter", "sentence"):
            return self._headed
        return self._open or is_numbered(waits.text.lstrip("# *"))

    def _is_step(self, line: str) -> bool:
        """Whether a paragraph is a step of its own."""
        if self._headed or not line[0].isalpha():
            return False
        plain = (self._plain or "").rstrip()
        grown = len(plain) >= LONG_ENOUGH and not plain.endswith(_COLONS)
        return self._gap and (grown or begins_step(line) or find_turn(line) is not None)

    def _wait(self, waiting: Waiting) -> list[Cut]:
        cuts = self._resolved(waiting.kind)
        self._waiting = waiting
        return cuts

    def _answered(self, head: str, text: str = "", told: str = "") -> list[Cut]:
        waits, leads = self._waiting, ""
        if waits and waits.kind == "conclusion" and waits.text.rstrip().endswith(_COLONS):
            leads, self._waiting = waits.text, None  # "Therefore, the answer is:"
        cuts = [*self._resolved("answer"), *self._spoken()]
        self._concluded = True
        conclusion = Conclusion(told, f"{self._before}{self._chapters}{leads}{head}")
        return [*cuts, conclusion, *([text] if text else [])]

    # -- what waits, and what follows it

    def _under(self, kind: Kind, line: str) -> list[Cut]:
        """A line of text, and what becomes of what waits for it."""
        waits = self._waiting
        if waits and waits.heads(kind, line):
            self._waiting = None
            if waits.kind == "item" and not waits.title:
                return self._opened("", waits.text + line)
            return self._opened(waits.title, line, waits.text, headed=waits.kind != "item")
        if waits and waits.takes(kind):
            return self._text(line)
        if kind == "conclusion":
            return self._wait(Waiting(kind, line))
        cuts = self._resolved(kind)
        if kind == "paragraph" and (self._open or self._before.strip()):
            return [*cuts, *self._opened("", line, plain=True, kind=find_turn(line) or "continue")]
        return [*cuts, *self._text(line)]

    def _resolved(self, by: Kind) -> list[Cut]:
        """What waits, where the line that follows is nothing under it."""
        waits, self._waiting = self._waiting, None
        if waits is None:
            return []
        if waits.kind == "chapter":
            self._chapters += "" if by == "end" else waits.text
            self._chapter = waits.title
            return []
        if waits.kind == "sentence":
            return self._opened(waits.title, waits.text, headed=True)
        if waits.kind == "item":
            return self._listing(waits.text, waits.first)
        return self._text(waits.text)

    def _listing(self, text: str, first: bool) -> list[Cut]:
        """An item with nothing under it: one step with those right above it, or a thought."""
        if is_thought(text):
            return self._opened(bold_lead(text), text, plain=True)
        if self._listed and not first:
            return self._text(text)
        if not self._chapters:  # what comes before names the list better than its first item
            text, self._before = f"{self._before}{text}", ""
        cuts = self._opened(self._chapter, text, plain=True)
        self._listed = True
        return cuts

    def _opened(
        self,
        title: str,
        text: str,
        head: str = "",
        plain: bool = False,
        headed: bool = False,
        kind: StepKind = "continue",
    ) -> list[Cut]:
        opening = Opening(kind, title, f"{self._before}{self._chapters}{head}")
        self._open, self._headed, self._listed = True, headed, False
        self._plain = text if plain else None
        self._before = self._chapters = self._chapter = ""
        return [opening, text]

    def _spoken(self) -> list[Cut]:
        """What was said before any step, as one."""
        if not self._before.strip():
            return []
        chapters, self._chapters = self._chapters, ""  # they came after it
        said, self._before = self._before, ""
        cuts = self._opened("", said)
        self._chapters = chapters
        return cuts

    def _text(self, text: str) -> list[Cut]:
        waits = self._waiting
        if waits is not None:
            waits.text += text
            return self._resolved("body") if len(waits.text) > LONGEST_CONCLUSION else []
        if self._open or self._concluded:
            self._listed &= not text.strip() or parse_item(text) is not None
            self._plain = None if self._plain is None else self._plain + text
            return [text]
        self._before += text
        if len(self._before.strip()) <= PREAMBLE:
            return []
        said, self._before = self._before, ""
        return self._opened("", said, plain=True)


def _undecided(line: str) -> bool:
    """Whether more of a line may change what it begins."""
    start = line.lstrip()
    may_head = may_be_heading(start) or may_be_item(line) or "```".startswith(start[:3])
    return may_begin(line) or may_turn(line) or (may_head and not _is_long(line))


def _is_long(line: str) -> bool:
    return len(line.lstrip().removesuffix("\n").removesuffix("\r")) > LONGEST_LINE
