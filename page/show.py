"""Showing a run: events in, Streamlit elements out. Live drawing and replay are the same.

`View.show(event)` is the one function that takes in an event; `View.paint()` draws
what changed since the last painting. A run that is followed paints twenty times a
second, a run that has ended once. What is finished is sent once; only the last
block of the text being written is sent again.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from streamlit.delta_generator import DeltaGenerator
from streamlit.elements.lib.mutable_status_container import StatusContainer

from page.markdown import blocks, safe, title
from page.path import dot, has_turns
from page.words import Words
from reasoning.events import (
    Answer,
    Correction,
    Delta,
    Event,
    Failed,
    Notice,
    Retry,
    Started,
    Step,
    Stopped,
    Trace,
)

DONE_ICON = ":material/check_circle:"
BROKEN_ICON = ":material/error:"
BADGES: dict[str, str] = {
    "continue": ":gray-badge[:material/arrow_forward: {}]",
    "reflect": ":orange-badge[:material/undo: {}]",
    "explore": ":violet-badge[:material/alt_route: {}]",
}
LONGEST_FORMULA = 200  # characters of a corrected value that is drawn as mathematics
_LATEX = re.compile(r"[\\^_{}]")


class Flow:
    """Markdown that grows in one place."""

    def __init__(self, place: DeltaGenerator) -> None:
        self._slot = place.empty()
        self._reset()

    def write(self, text: str) -> None:
        """Shows the text as it is now; blocks that stand already are not sent again."""
        parts = blocks(text)
        kept = len(self._standing) - 1
        if self._standing[:kept] != list(parts[:kept]) or len(parts) < len(self._standing):
            self._reset()
        for number, part in enumerate(parts):
            self._put(number, part)

    def _put(self, number: int, part: str) -> None:
        if number == len(self._standing):
            self._last = self._place.empty()
            self._standing.append("")
        if self._standing[number] != part:
            self._last.markdown(part, anchors=False)
            self._standing[number] = part

    def _reset(self) -> None:
        self._slot.empty()  # else the old blocks stay until the script ends
        self._place = self._slot.container(gap="xsmall")
        self._standing: list[str] = []
        self._last = self._place


@dataclass(slots=True)
class Page:
    """A step on the page: what is known of it, and where it is drawn once it is."""

    number: int
    action: str = ""
    title: str = ""
    content: str = ""
    step: Step | None = None
    retries: list[Retry] = field(default_factory=list)
    corrections: list[Correction] = field(default_factory=list)
    dropped: bool = False
    box: DeltaGenerator | None = None
    notes: DeltaGenerator | None = None
    after: DeltaGenerator | None = None
    flow: Flow | None = None
    drawn: tuple[Any, ...] = ()

    @property
    def empty(self) -> bool:
        return self.step is None and not (self.title or self.content)

    def clear(self) -> None:
        """What was written of it is void: it is written anew."""
        self.action = self.title = self.content = ""
        self.step = None
        self.corrections = []


class View:
    """A run on the page, from its first event to its last."""

    def __init__(self, place: DeltaGenerator, words: Words) -> None:
        self._words = words
        self._place = place
        self._timeline: DeltaGenerator | None = None
        self._opened = False
        self._started: Started | None = None
        self._steps: dict[int, Page] = {}
        self._retries: list[Retry] = []
        self._notices: list[Notice] = []
        self._answer = ""
        self._answer_flow: Flow | None = None
        self._end: Answer | Failed | Stopped | None = None
        self._noted: tuple[int, int] = (0, 0)
        self._names_every_step = False
        self.most = 0  # steps; 0 where the way of thinking has no bound of its own

    def show(self, event: Event) -> None:
        """Takes in what happened. Nothing is drawn before `paint`."""
        match event:
            case Started():
                self._started = event
                self._names_every_step = event.way == "coat"
                self.most = event.settings.max_steps if event.way == "json_steps" else 0
            case Delta(part="answer"):
                self._drop_unfinished()
                self._answer += event.text
            case Delta():
                self._write(event)
            case Step():
                self._step(event.number).step = event
            case Correction():
                self._step(event.number).corrections.append(event)
            case Retry():
                self._retry(event)
            case Notice():
                self._notices.append(event)
            case Answer():
                self._drop_unfinished()
                self._answer, self._end = event.content, event
            case Failed() | Stopped():
                self._end = event

    @property
    def answering(self) -> bool:
        return bool(self._answer)

    @property
    def writing(self) -> int:
        """The number of the step being written; 0 where no step is to be seen yet."""
        finished = sum(page.step is not None for page in self._steps.values())
        return finished + 1 if self.most or self._steps else 0

    def paint(self) -> None:
        """Draws what changed."""
        if not self._opened:
            self._open()
        if self._started is not None:
            self._paint_made(self._started)
        for page in self._steps.values():
            self._paint_step(page)
        self._paint_notes()
        if self._answer or self._answer_flow is not None:
            self._paint_answer()

    def close(self, trace: Trace) -> None:
        """Draws how the run ended, once."""
        words, end = self._words, trace.end
        if isinstance(end, Answer) and has_turns(trace.steps):
            self._draw_path(trace.steps)
        if isinstance(end, Failed):
            said = {"message": title(end.message), "remedy": title(end.remedy)}
            self._ending.error(words.of("failed", end.code, **said), icon=BROKEN_ICON)
        elif isinstance(end, Stopped):
            self._ending.info(words("stopped"), icon=":material/stop_circle:")
        elif isinstance(end, Answer) and end.cut:
            thought_cut = bool(trace.steps) and trace.steps[-1].cut
            self._ending.caption(words("cut_thought" if thought_cut else "cut_answer"))

    def _draw_path(self, steps: Sequence[Step]) -> None:
        place = self._ending.container(key="path", gap="xsmall")
        place.graphviz_chart(dot(steps), width="content", alt=self._words("path"))
        place.caption(self._words("path_legend"))

    # -- taking in

    def _step(self, number: int) -> Page:
        page = self._steps.setdefault(number, Page(number))
        if self._retries:
            page.retries += self._retries
            self._retries = []
        return page

    def _write(self, event: Delta) -> None:
        page = self._step(event.number)
        if page.step is not None:
            page.clear()
        if event.part == "action":
            page.action = event.text
        elif event.part == "title":
            page.title += event.text
        else:
            page.content += event.text

    def _retry(self, event: Retry) -> None:
        """Drafts are void. It is told at the step that is tried again: the draft, or the next."""
        drafts = [page for page in self._steps.values() if page.step is None]
        for page in drafts:
            page.clear()
        (drafts[-1].retries if drafts else self._retries).append(event)
        self._answer = ""

    def _drop_unfinished(self) -> None:
        for page in self._steps.values():
            page.dropped = page.step is None

    # -- drawing

    def _open(self) -> None:
        """The parts from top to bottom: how it was made, steps, what is said, answer, ending."""
        self._opened = True
        self._made = self._place.empty()
        self._steps_place = self._place.container(gap=None)
        self._remarks = self._place.empty()
        self._answer_place = self._place.container(gap="xsmall")
        self._ending = self._place.container()

    def _paint_made(self, started: Started) -> None:
        """Which model thinks, and how: true of this run, whatever is served or chosen now."""
        way = self._words.of("way", started.way, way=started.way)
        self._made.caption(f"{title(started.model)} \u00b7 {way}")
        self._started = None

    def _paint_step(self, page: Page) -> None:
        now = (
            (page.action, page.title, page.step, page.dropped, self._end),
            page.content,
            len(page.retries),
            len(page.corrections),
        )
        if now == page.drawn or (page.box is None and (page.empty or page.dropped)):
            return
        first = page.box is None
        if first:
            self._open_step(page)
        self._paint_retries(page, page.drawn[2] if page.drawn else 0)
        if page.flow is not None:
            page.flow.write(page.step.content if page.step else page.content)
        if isinstance(page.box, StatusContainer) and page.drawn[:1] != now[:1]:
            self._update_step(page, page.box)
        self._paint_after(page, page.drawn[3] if page.drawn else 0)
        page.drawn = now

    def _paint_after(self, page: Page, drawn: int) -> None:
        """What is said under a finished step."""
        if page.after is None or page.step is None:
            return
        if page.step.cut and not (page.drawn and page.drawn[0][2]):
            page.after.caption(self._words("cut_tries" if page.step.attempts > 1 else "cut_step"))
        for correction in page.corrections[drawn:]:
            earlier, later = value(correction.earlier), value(correction.later)
            said = self._words("corrected", earlier=earlier, later=later)
            page.after.caption(said, help=self._words("corrected_help"))

    def _open_step(self, page: Page) -> None:
        if self._timeline is None:
            head = self._words("steps_head")
            icon = ":material/psychology:"
            steps = self._steps_place.expander(head, type="compact", expanded=True, icon=icon)
            self._timeline = steps.container(gap=None)
        timeline = self._timeline
        if page.step is not None or self._end is not None:
            icon = DONE_ICON if page.step else BROKEN_ICON
            page.box = timeline.expander(self._label(page), type="step", expanded=True, icon=icon)
        else:
            page.box = timeline.status(self._label(page), type="step", expanded=True)
        page.notes = page.box.container(gap=None)
        page.flow = Flow(page.box)
        page.after = page.box.container(gap=None)

    def _update_step(self, page: Page, box: StatusContainer) -> None:
        """A new label opens the step again: so it is sent only when it is new."""
        label = self._label(page)
        state = "complete" if page.step else "error" if page.dropped or self._end else "running"
        box.update(label=label, state=state, expanded=not page.dropped)  # type: ignore[arg-type]

    def _label(self, page: Page) -> str:
        words, step = self._words, page.step
        if page.dropped:
            return words("discarded")
        name = title(step.title if step else page.title) or words("step", number=page.number)
        label = f"**{page.number}**\u2002{self._badge(page)}{name}"
        if step is not None:
            return f"{label} :small[:gray[{self._cost(step)}]]"
        return f"{label} :small[:gray[{words('unfinished')}]]" if self._end else label

    def _badge(self, page: Page) -> str:
        """What kind of step it is. To go on is worth a word only where the model says so."""
        action = page.step.action if page.step else page.action
        if action not in BADGES or (action == "continue" and not self._names_every_step):
            return ""
        return BADGES[action].format(self._words.of("action", action)) + " "

    def _cost(self, step: Step) -> str:
        words = self._words
        parts = [words.seconds(step.seconds)]
        if step.tokens:
            parts.append(words.tokens(step.tokens))
        if step.attempts > 1:
            parts.append(words("attempts", attempts=step.attempts))
        return " \u00b7 ".join(parts)

    def _paint_retries(self, page: Page, drawn: int) -> None:
        for retry in page.retries[drawn:]:
            if page.notes is not None:
                page.notes.caption(self._said(retry))

    def _said(self, retry: Retry) -> str:
        values = {"attempt": retry.attempt, "detail": title(retry.detail)}
        if retry.wait:
            seconds = self._words.seconds(retry.wait)
            return self._words.of("retry", "wait", seconds=seconds, **values)
        return self._words.of("retry", retry.cause, **values)

    def _paint_notes(self) -> None:
        now = (len(self._retries), len(self._notices))
        if now == self._noted:
            return
        lines = [
            self._words.of("notice", notice.code, detail=title(notice.detail))
            for notice in self._notices
        ]
        lines += [self._said(retry) for retry in self._retries]
        self._remarks.caption("\n\n".join(lines))
        self._noted = now

    def _paint_answer(self) -> None:
        if self._answer_flow is None:
            self._answer_place.markdown(f"#### {self._words('answer')}", anchors=False)
            self._answer_flow = Flow(self._answer_place)
        self._answer_flow.write(self._answer)


def value(text: str) -> str:
    """A value that a model named, on one line: as mathematics when it looks like LaTeX."""
    line = " ".join(text.split())
    if _LATEX.search(line) and len(line) <= LONGEST_FORMULA:
        return safe(f"\\({line}\\)")
    return title(line)


def total(trace: Trace, words: Words) -> str:
    """The total thinking time in words, and what was waited beside it."""
    parts = [words("total", seconds=words.seconds(trace.seconds))]
    if trace.steps:
        parts[0] = words("total_steps", total=parts[0], steps=words.steps(len(trace.steps)))
    if trace.tokens:
        parts[0] = words("total_tokens", total=parts[0], tokens=words.tokens(trace.tokens))
    if trace.waited >= 0.05:  # what would not round to 0.0 s
        parts.append(words("waited", seconds=words.seconds(trace.waited)))
    return " \u00b7 ".join(parts)
