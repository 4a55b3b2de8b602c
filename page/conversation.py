"""A conversation on the page: the questions before, and the run that is shown.

A run that is still thinking is followed until it ends; then the page is drawn anew, at rest.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Literal

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from history.entries import Entry
from history.runs import Run
from history.store import StoreError
from history.tree import branches, find, follow_ups, path, together
from page.actions import answer_now, ask_again, go_on, group_of, stop, way_of
from page.charts import draw_run_charts
from page.context import PageContext
from page.export_menu import export_menu
from page.group import Group, draw_group_panel, draw_side_by_side
from page.i18n import Words
from page.markdown import plain_line
from page.navigation import go_to
from page.preferences import load_preferences
from page.run_view import RunView, replay
from page.step_menu import open_editor_if_asked, possible_steerings, step_menu
from page.streaming_markdown import StreamingMarkdown
from page.wording import total_line
from reasoning.events import Answer
from reasoning.think import find_way

SHOWN_WAIT = 2.0  # seconds; a shorter wait is no news
SHORT = 60  # characters of a question on a button


def draw_conversation(
    context: PageContext, run: Run, place: DeltaGenerator, bar: DeltaGenerator
) -> None:
    """What was asked before, then the run; `bar` stands above the question box."""
    entries = _entries(context, run)
    entry = find(entries, run.id)
    earlier = place.container()  # of its own: what is written beside it draws none of it anew
    for before in path(entries, entry)[:-1] if entry else ():
        _draw_earlier(context, before, earlier)
    place.container(key="question").text(run.question)
    if entry:
        _draw_branches(context, entries, entry, place)
    group = _group(context, entries, entry, run)
    head = place.container()
    folding = load_preferences(context).folding
    view = RunView(place, context.words, folding=folding, tools=step_menu(context, run))
    if group.ended:
        _draw_at_rest(context, run, group, view, head, place, bar)
        _draw_follow_ups(context, entries, entry, place)
    else:
        _follow_live(context, run, group, view, head, bar)


def _entries(context: PageContext, run: Run) -> list[Entry]:
    """All runs of the conversation; none while the history cannot be read, which is said above."""
    try:
        return context.store.runs_of(run.link.thread, context.owner)
    except StoreError:
        return []


def _group(context: PageContext, entries: Sequence[Entry], entry: Entry | None, run: Run) -> Group:
    others = together(entries, entry) if entry else []
    found = [run if other.id == run.id else context.run(other.id) for other in others]
    stored = [one for one in found if one] or [run]
    known = {one.id for one in stored}
    begun = [one for one in context.runs.together(group_of(run)) if one.id not in known]
    return Group((*stored, *begun), partial(context.runs.votes_on, group_of(run)))


# -- what was asked before, otherwise, and after


def _draw_earlier(context: PageContext, entry: Entry, place: DeltaGenerator) -> None:
    """An earlier question and its answer; its steps are drawn when they are asked for."""
    run = context.run(entry.id)
    if run is None:
        return
    place.container(key=f"question-{run.id}").text(run.question)
    label, key = total_line(run.trace, context.words), f"earlier-{run.id}"
    steps = place.expander(label, key=key, type="compact", on_change="rerun")
    if steps.open:
        replay(
            RunView(steps.container(), context.words, key=f"run-{run.id}"), run.trace, answer=False
        )
    if run.trace.answer:
        StreamingMarkdown(place.container(key=f"run-answer-{run.id}")).write(
            run.trace.answer.content
        )


def _draw_branches(
    context: PageContext, entries: Sequence[Entry], entry: Entry, place: DeltaGenerator
) -> None:
    """The ways that a run was steered, to switch between them; each says where it parted."""
    family = branches(entries, entry)
    if len(family) < 2:
        return
    names = {one.id: str(number) for number, one in enumerate(family, 1)}
    row = place.container(horizontal=True, vertical_alignment="center", key="branches")
    row.caption(context.words.of("branch", "head"), width="content")
    for one in family:
        row.button(
            names[one.id],
            key=f"branch-{names[one.id]}",
            help=_branch_origin(context.words, one, names),
            type="primary" if one.id == entry.id else "secondary",
            on_click=go_to,
            args=(one.id,),
        )
    row.caption(_branch_origin(context.words, entry, names))
    if entry.link.origin in names:
        compare = (entry.link.origin, entry.id)
        row.button(
            context.words.of("branch", "compare"), key="branch-compare", type="tertiary",
            icon=":material/compare_arrows:", on_click=go_to, args=compare,
        )  # fmt: skip


def _branch_origin(words: Words, entry: Entry, names: dict[str, str]) -> str:
    link = entry.link
    if not link.origin:
        return words.of("branch", "first")
    origin = names.get(link.origin, "?")
    return words.of("branch", link.how, origin=origin, number=link.parts)


def _draw_follow_ups(
    context: PageContext, entries: Sequence[Entry], entry: Entry | None, place: DeltaGenerator
) -> None:
    for one in follow_ups(entries, entry) if entry else ():
        label = context.words.of("branch", "next", question=plain_line(one.question[:SHORT]))
        place.button(label, key=f"next-{one.id}", type="tertiary", on_click=go_to, args=(one.id,))


# -- at rest


def _draw_at_rest(
    context: PageContext,
    run: Run,
    group: Group,
    view: RunView,
    head: DeltaGenerator,
    place: DeltaGenerator,
    bar: DeltaGenerator,
) -> None:
    trace, words, bar = run.trace, context.words, right_aligned_row(bar)
    draw_group_panel(context, group, run, head)
    compared = group.both_answered(run)
    replay(view, trace, answer=not compared)
    view.render_ending(trace)
    if compared and group.direct is not None:
        draw_side_by_side(context, run, group.direct, place)
    draw_run_charts(place, trace, words)
    bar.markdown(f":gray[{total_line(trace, words)}]", width="stretch")
    export_menu(context, run, bar)
    _draw_continuations(context, run, bar)
    bar.button(words("new_question"), on_click=go_to, args=(None,), key="new")
    open_editor_if_asked(context, run)


def right_aligned_row(place: DeltaGenerator) -> DeltaGenerator:
    """Elements in a line that ends at the right."""
    return place.container(
        horizontal=True, horizontal_alignment="right", vertical_alignment="center"
    )


def _draw_continuations(context: PageContext, run: Run, bar: DeltaGenerator) -> None:
    """What can be done about a run without an answer, or with one that was cut."""
    trace, words = run.trace, context.words
    answered = isinstance(trace.end, Answer)
    if trace.steps and (not answered or (trace.answer and trace.answer.cut and _concludes(run))):
        label = words("go_on", number=trace.steps[-1].number + 1)
        if _concludes(run):
            label = words("conclude")
        bar.button(label, on_click=go_on, args=(context, run), type="primary", key="go-on")
    if not answered:
        kind: Literal["primary", "secondary"] = "secondary" if trace.steps else "primary"
        label = words("ask_again")
        bar.button(label, on_click=ask_again, args=(context, run), type=kind, key="again")


def _concludes(run: Run) -> bool:
    """Whether what follows the steps is the answer at once, and not one more step."""
    way = find_way(way_of(run))
    return way is not None and way.concludes(run.trace.steps)


# -- while it thinks


def _follow_live(
    context: PageContext,
    run: Run,
    group: Group,
    view: RunView,
    head: DeltaGenerator,
    bar: DeltaGenerator,
) -> None:
    """Draws the run as it goes, and how far those asked together with it are."""
    bar.empty()  # what stood there at rest
    bar, words, pace = right_aligned_row(bar), context.words, context.services.pace
    count = bar.empty()
    if "answer" in possible_steerings(context, run):
        bar.button(words("answer_now"), on_click=answer_now, args=(context, run), key="answer-now")
    bar.button(words("stop"), on_click=stop, args=(context, run), type="primary", key="stop")
    states, seen = draw_group_panel(context, group, run, head), 0
    with pace.following():
        while not group.ended and not _is_outdated(context, group):
            events = run.events(seen, timeout=pace.seconds)
            seen += len(events)
            with pace.drawing():
                for event in events:
                    view.add(event)
                view.render()
                count.markdown(f":shimmer[{progress_line(words, run, view)}]", width="stretch")
                states.write(context, group)
            time.sleep(pace.seconds)
    st.rerun()


def _is_outdated(context: PageContext, group: Group) -> bool:
    """Whether the page shows less than there is: another model, one more chain of the vote."""
    shown = {run.id for run in group.runs}
    return context.is_outdated or not context.runs.ids_together(group_of(group.runs[0])) <= shown


def progress_line(words: Words, run: Run, view: RunView) -> str:
    """The line that counts."""
    seconds = words.seconds(run.seconds())
    if run.ended:
        return words("live_others", seconds=seconds)
    if (waiting := run.waiting()) >= SHOWN_WAIT:
        return words("live_waiting", seconds=words.seconds(waiting))
    if (queued := run.queued).place:
        return words("live_queued", place=words.place(queued), seconds=seconds)
    if view.answering:
        return words("live_answer", seconds=seconds)
    if view.writing and view.most:
        return words("live_step", number=view.writing, most=view.most, seconds=seconds)
    if view.writing:
        return words("live_open_step", number=view.writing, seconds=seconds)
    return words("live_start", seconds=seconds)
