"""Showing a run: events in, Streamlit elements out. Live drawing and replay are the same.

`RunView.add(event)` is the one function that takes in an event; `RunView.render()` draws
what changed since the last rendering. A run that is followed renders as often as page/pace.py
lets it, a run that has ended once. Of the text being written only the last block is sent
again; a finished step is its label, and its text is sent while it stands open.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from streamlit.delta_generator import DeltaGenerator
from streamlit.elements.lib.mutable_expander_container import ExpanderContainer
from streamlit.elements.lib.mutable_status_container import StatusContainer

from page.copy_button import copy_button
from page.i18n import Words
from page.markdown import plain_line, safe_blocks
from page.path_chart import has_turns, path_dot
from page.step_marks import draw_marks
from page.streaming_markdown import StreamingMarkdown
from page.wording import (
    SEPARATOR,
    Remark,
    correction_remark,
    ending,
    notice_remark,
    own_remarks,
    result_remark,
    retry_remark,
    step_cost,
    step_name,
    step_remarks,
)
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
    voids_tentative,
)
from reasoning.think import find_way

Folding = Literal["all", "current", "folded"]  # which steps stand open
Tools = Callable[[DeltaGenerator, Step], None]

TOGETHER = 5  # steps: a word draws anew the labels in its own container, and no others
ELLIPSIS = "\u2026"
DONE_ICON = ":material/check_circle:"
BROKEN_ICON = ":material/error:"
BADGES: dict[str, str] = {
    "continue": ":gray-badge[:material/arrow_forward: {}]",
    "reflect": ":orange-badge[:material/undo: {}]",
    "explore": ":violet-badge[:material/alt_route: {}]",
}


@dataclass(slots=True)
class StepView:
    """A step on the page: what is known of it, and where it is drawn once it is."""

    number: int
    action: str = ""
    title: str = ""
    content: str = ""
    step: Step | None = None
    retries: list[Retry] = field(default_factory=list)
    corrections: list[Correction] = field(default_factory=list)
    dropped: bool = False
    slot: DeltaGenerator | None = None
    draft: Draft | None = None
    finished: tuple[str, bool] | None = None  # its label, and whether it was drawn open
    after: DeltaGenerator | None = None  # what is said of a finished step that stands open
    told: int = 0  # corrections of it

    @property
    def empty(self) -> bool:
        return self.step is None and not (self.title or self.content)

    def clear(self) -> None:
        """What was written of it is void: it is written anew."""
        self.action = self.title = self.content = ""


@dataclass(slots=True)
class Draft:
    """The box of a step that is being written, and what of it was sent."""

    box: StatusContainer
    notes: DeltaGenerator
    text: StreamingMarkdown
    label: str
    retries: int = 0


class RunView:
    """A run on the page, from its first event to its last.

    Several may stand on a view, each with a `key` of its own that begins with "run".
    `tools` draws what can be done with a finished step, at its foot.
    """

    def __init__(
        self,
        place: DeltaGenerator,
        words: Words,
        *,
        folding: Folding = "current",
        tools: Tools | None = None,
        key: str = "run",
    ) -> None:
        self._words = words
        self._place = place
        self._folding = folding
        self._tools = tools
        self._key = key
        self._timeline: DeltaGenerator | None = None
        self._parts: dict[int, DeltaGenerator] = {}
        self._opened = False
        self._ended = False
        self._started: Started | None = None
        self._steps: dict[int, StepView] = {}
        self._changed: set[int] = set()  # numbers of the steps to draw
        self._retries: list[Retry] = []
        self._notices: list[Notice] = []
        self._tentative = self._tentative_shown = ""
        self._tentative_place: DeltaGenerator | None = None
        self._answer = ""
        self._answer_text: StreamingMarkdown | None = None
        self._answered = False
        self._end: Answer | Failed | Stopped | None = None
        self._noted: tuple[int, int] = (0, 0)
        self._names_every_step = False
        self.most = 0  # steps; 0 where the way of thinking has no bound of its own

    def add(self, event: Event) -> None:
        """Takes in what happened. Nothing is drawn before `render`."""
        if voids_tentative(event):
            self._tentative = ""
        match event:
            case Started():
                self._start(event)
            case Delta(part="tentative"):
                self._tentative += event.text
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
                self.end()
            case Failed() | Stopped():
                self._end = event
                self.end()

    def end(self) -> None:
        """Nothing more will come, whether or not there was an end."""
        self._ended = True
        self._changed |= {view.number for view in self._unfinished()}

    @property
    def answering(self) -> bool:
        return bool(self._answer)

    @property
    def writing(self) -> int:
        """The number of the step being written; 0 where no step is to be seen yet."""
        finished = len(self._steps) - len(self._unfinished())
        return finished + 1 if self.most or self._steps else 0

    def render(self) -> None:
        """Draws what changed."""
        if not self._opened:
            self._open()
        if self._started is not None:
            self._render_made(self._started)
        for number in sorted(self._changed):
            self._render_step(self._steps[number])
        self._changed.clear()
        self._render_notes()
        self._render_tentative()
        if self._answer or self._answer_text is not None:
            self._render_answer()

    def render_ending(self, trace: Trace) -> None:
        """Draws how the run ended, once."""
        if isinstance(trace.end, Answer) and has_turns(trace.steps):
            self._draw_path(trace.steps)
        remark = ending(trace, self._words, self._words.of("remark", "interrupted"))
        if remark is None:
            return
        match trace.end:
            case Failed():
                self._ending.error(remark.line, icon=BROKEN_ICON)
            case Stopped():
                self._ending.info(remark.line, icon=":material/stop_circle:")
            case None:
                self._ending.warning(remark.line, icon=":material/power_off:")
            case Answer():
                self._ending.caption(remark.line, help=remark.help)

    def _draw_path(self, steps: Sequence[Step]) -> None:
        place = self._ending.container(key=self._key_for("path"), gap="xsmall")
        place.graphviz_chart(path_dot(steps), width="content", alt=self._words("path"))
        place.caption(self._words("path_legend"))

    def _key_for(self, name: str) -> str:
        """A key on the page: "path" where this is the page's run, "path-..." where another."""
        return name + self._key.removeprefix("run")

    # -- taking in

    def _start(self, event: Started) -> None:
        """What is known of its way of thinking: a stored run may have one that is no more."""
        self._started, way = event, find_way(event.way)
        if way is not None:
            self._names_every_step = way.names_actions
            self.most = event.settings.max_steps if "max_steps" in way.settings else 0

    def _step(self, number: int) -> StepView:
        view = self._steps.setdefault(number, StepView(number))
        self._changed.add(number)
        if self._retries:
            view.retries += self._retries
            self._retries = []
        return view

    def _write(self, event: Delta) -> None:
        view = self._step(event.number)
        if event.part == "action":
            view.action = event.text
        elif event.part == "title":
            view.title += event.text
        else:
            view.content += event.text

    def _retry(self, event: Retry) -> None:
        """Drafts are void. It is told at the step that is tried again: the draft, or the next."""
        drafts = self._unfinished()
        for view in drafts:
            view.clear()
            self._changed.add(view.number)
        (drafts[-1].retries if drafts else self._retries).append(event)
        self._answer = ""

    def _drop_unfinished(self) -> None:
        for view in self._unfinished():
            view.dropped = True
            self._changed.add(view.number)

    def _unfinished(self) -> list[StepView]:
        return [view for view in self._steps.values() if view.step is None]

    # -- drawing

    def _open(self) -> None:
        """The parts from top to bottom: how it was made, steps, what is said, answer, ending."""
        self._opened = True
        place = self._place.container(key=self._key)
        self._made = place.empty()
        self._steps_place = place.container(gap=None)
        self._remarks = place.empty()
        self._answer_place = place.container(gap="xsmall")
        self._ending = place.container()

    def _render_made(self, started: Started) -> None:
        """Which model thinks, and how: true of this run, whatever is served or chosen now."""
        way = self._words.of("way", started.way, way=plain_line(started.way))
        self._made.caption(f"{plain_line(started.model)}{SEPARATOR}{way}")
        self._started = None

    def _render_step(self, view: StepView) -> None:
        if view.slot is None and (view.empty or view.dropped):
            return
        if view.step is None and not (view.dropped or self._ended):
            self._render_draft(view)
        else:
            self._render_finished(view)

    def _render_draft(self, view: StepView) -> None:
        draft = view.draft or self._open_draft(view)
        label = self._label(view)
        if label != draft.label:  # a new one overturns what the reader opened or closed
            draft.label = label
            draft.box.update(label=label, state="running", expanded=self._is_open(view))
        self._draw_retries(draft.notes, view.retries[draft.retries :])
        draft.retries = len(view.retries)
        draft.text.write(view.content)

    def _open_draft(self, view: StepView) -> Draft:
        label = self._label(view)
        view.slot = self._place_for(view.number).empty()
        place = view.slot.container()  # else an expander would take over what stands in this box
        box = place.status(label, type="step", expanded=self._is_open(view))
        view.draft = Draft(box, box.container(gap=None), StreamingMarkdown(box), label)
        return view.draft

    def _render_finished(self, view: StepView) -> None:
        """Its label; the text only where it stands open: to open it runs the page anew.

        What is said of it later finds its way into the label of one that was seen being written.
        """
        appearance = self._label(view), self._is_open(view)
        if view.after is not None:
            self._draw_corrections(view, view.after)
        elif view.finished is None or (view.slot is not None and view.finished != appearance):
            view.finished = appearance
            box = self._open_finished(view, *appearance)
            if box.open:
                self._fill(box, view)
            else:
                box.caption(ELLIPSIS)  # for the moment until its text comes; without it none opens

    def _open_finished(self, view: StepView, label: str, expanded: bool) -> ExpanderContainer:
        return (view.slot or self._place_for(view.number)).expander(
            label, type="step", expanded=expanded, icon=DONE_ICON if view.step else BROKEN_ICON,
            key=f"{self._key_for('step')}-{view.number}-{len(view.corrections)}", on_change="rerun",
        )  # fmt: skip

    def _fill(self, box: DeltaGenerator, view: StepView) -> None:
        self._draw_retries(box.container(gap=None), view.retries)
        StreamingMarkdown(box).write(view.step.content if view.step else view.content)
        view.after = box.container(gap=None)
        if view.step is not None:
            self._draw_remarks(view.after, own_remarks(view.step, self._words))
            self._draw_corrections(view, view.after)
            self._draw_tools(box, view.step)

    def _draw_corrections(self, view: StepView, place: DeltaGenerator) -> None:
        new, view.told = view.corrections[view.told :], len(view.corrections)
        self._draw_remarks(place, [correction_remark(one, self._words) for one in new])

    def _draw_tools(self, box: DeltaGenerator, step: Step) -> None:
        """The foot of a finished step: what can be done with it."""
        row = box.container(horizontal=True, vertical_alignment="center", gap="small")
        self._draw_copy(row, step.content, "copy_step", str(step.number))
        if self._tools is not None:
            self._tools(row, step)

    def _place_for(self, number: int) -> DeltaGenerator:
        """A container of a few steps, in that of all steps, which can be folded together."""
        if self._timeline is None:
            head = self._words("steps_head")
            icon = ":material/psychology:"
            steps = self._steps_place.expander(head, type="compact", expanded=True, icon=icon)
            self._timeline = steps.container(gap=None)
        part = (number - 1) // TOGETHER
        if part not in self._parts:
            self._parts[part] = self._timeline.container(gap=None)
        return self._parts[part]

    def _draw_copy(self, row: DeltaGenerator, text: str, label: str, part: str) -> None:
        words, key = self._words, f"{self._key_for('copy')}-{part}"
        named = words.of("remark", label, number=part)
        copy_button(row, text, named, key, words.of("remark", "copied"))

    def _is_open(self, view: StepView) -> bool:
        """Without an answer the last thing that was written is what a reader looks for."""
        if view.dropped or self._folding == "folded":
            return False
        if self._folding == "all" or view.step is None:
            return True
        unanswered = self._ended and not isinstance(self._end, Answer)
        return unanswered and view.number == self._last_written()

    def _last_written(self) -> int:
        return max(view.number for view in self._steps.values() if not view.empty)

    def _label(self, view: StepView) -> str:
        words, step = self._words, view.step
        if view.dropped:
            return words("discarded")
        name = step_name(view.number, step.title if step else view.title, words)
        label = f"**{view.number}**\u2002{self._badge(view)}{name}"
        if step is not None:
            parts = [label, self._marks(view, step), f":small[:gray[{step_cost(step, words)}]]"]
            return "\u2002".join(part for part in parts if part)
        return f"{label}\u2002:small[:gray[{words('unfinished')}]]" if self._ended else label

    def _marks(self, view: StepView, step: Step) -> str:
        remarks = step_remarks(step, view.retries, view.corrections, self._words)
        return draw_marks(remarks, self._words)

    def _badge(self, view: StepView) -> str:
        """What kind of step it is. To go on is worth a word only where the model says so."""
        action = view.step.action if view.step else view.action
        if action not in BADGES or (action == "continue" and not self._names_every_step):
            return ""
        return BADGES[action].format(self._words.of("action", action)) + " "

    def _draw_retries(self, place: DeltaGenerator, retries: Iterable[Retry]) -> None:
        self._draw_remarks(place, [retry_remark(retry, self._words) for retry in retries])

    def _draw_remarks(self, place: DeltaGenerator, remarks: Iterable[Remark]) -> None:
        for remark in remarks:
            place.caption(remark.line, help=remark.help)

    def _render_notes(self) -> None:
        now = (len(self._retries), len(self._notices))
        if now == self._noted:
            return
        self._noted, words = now, self._words
        self._remarks.empty()
        notes = [notice_remark(notice, words) for notice in self._notices]
        place = self._remarks.container(gap=None)
        self._draw_remarks(place, notes)
        self._draw_retries(place, self._retries)

    def _render_tentative(self) -> None:
        """In small letters where the answer will stand, for that is what it mostly becomes."""
        if self._tentative == self._tentative_shown:
            return
        self._tentative_shown = self._tentative
        place = self._tentative_place = self._tentative_place or self._answer_place.empty()
        if self._tentative:
            place.caption("\n\n".join(safe_blocks(self._tentative)))
        else:
            place.empty()

    def _render_answer(self) -> None:
        if self._answer_text is None:
            self._answer_place.markdown(f"#### {self._words('answer')}", anchors=False)
            self._answer_text = StreamingMarkdown(self._answer_place)
        if not isinstance(self._end, Answer):
            self._answer_text.write(self._answer)
        elif not self._answered:
            self._answered = True
            self._finish_answer(self._answer_text, self._answer)

    def _finish_answer(self, text: StreamingMarkdown, answer: str) -> None:
        result, number = self._result(answer)
        text.write(result)
        row = self._answer_place.container(horizontal=True, vertical_alignment="center")
        self._draw_copy(row, answer, "copy_answer", "answer")
        if number:
            self._draw_remarks(row, [result_remark(number, self._words)])

    def _result(self, answer: str) -> tuple[str, int]:
        """A result that is followed by a whole step: the result alone, and the step's number."""
        for view in reversed(self._steps.values()):
            told = view.step.content if view.step else ""
            result = answer.removesuffix(f"\n\n{told}")
            if told and result != answer and result.startswith("$$") and result.endswith("$$"):
                return result, view.number
        return answer, 0


def replay(view: RunView, trace: Trace, answer: bool = True) -> None:
    """Draws what there is of a run, at once; without its answer where that stands elsewhere."""
    for event in trace.events:
        if answer or not isinstance(event, (Delta, Answer)):
            view.add(event)
        elif isinstance(event, Answer):
            view.add(replace(event, content=""))
        elif event.part != "answer":
            view.add(event)
    view.end()
    view.render()
