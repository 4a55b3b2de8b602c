"""From clicks to runs: a question, a follow-up, a branch. Callbacks, which draw nothing.

A run is started only from the view that the click was made on: a second click on a view
that is no longer there is void.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import streamlit as st

from history.request import Link, RunRequest
from history.run import new_id
from history.runs import Run
from history.store import StoreError
from history.tree import path
from page.context import PageContext
from page.navigation import current_location, go_to
from page.preferences import Preferences, load_preferences
from reasoning.errors import StepwiseError
from reasoning.events import Steer, Steering, Step, Trace, Turn
from reasoning.inquiry import edit_step
from reasoning.think import clean_question, vary_settings

DIRECT = "direct"  # the way of the plain answer beside the steps


def ask(context: PageContext, question: str, on: str | None) -> None:
    """Asks, from the view `on`: a follow-up where a run is shown, else a new conversation."""
    if not _is_still_on(on) or _refuse_while_thinking(context, on):
        return
    preferences = load_preferences(context)
    try:
        asked = _make_request(context, preferences, clean_question(question), on)
    except (StepwiseError, StoreError) as error:  # a follow-up without its history is another
        st.session_state["refused"] = error
        return
    before = context.run(on)
    link = Link(thread=before.link.thread, after=before.id) if before else Link()
    _start_with_vote(context, asked, link, preferences)


def ask_from_box(context: PageContext, on: str | None) -> None:
    ask(context, st.session_state.get("box") or "", on)


def ask_again(context: PageContext, run: Run) -> None:
    """The same question in the way chosen now, as another branch."""
    if _is_still_on(run.id) and not _refuse_while_thinking(context, run.id):
        preferences = load_preferences(context)
        asked = replace(
            run.asked, way=preferences.way, settings=preferences.settings, steps=(), steer=None
        )
        _start_with_vote(context, asked, _branch(run, 1, "again"), preferences)


def go_on(context: PageContext, run: Run) -> None:
    """On after the finished steps, in the way they were made."""
    if _is_still_on(run.id) and not _refuse_while_thinking(context, run.id):
        steps = run.trace.steps
        asked = replace(run.asked, way=way_of(run), steps=steps, steer=None, most=1)
        _go_and_start(context, asked, _branch(run, len(steps) + 1, "go_on"))


def steer(context: PageContext, run: Run, number: int, how: Steering) -> None:
    """Another branch from step `number`; a run that is still thinking is stopped for it."""
    if not _is_still_on(run.id):
        return
    step = run.trace.steps[number - 1]
    kept = run.trace.steps[: number - (how == "again")]
    wanted = Steer(how, step.content if how == "again" else "")
    _start_branch(context, run, kept, wanted, number + (how != "again"))


def go_on_from(context: PageContext, run: Run, number: int, name: str, content: str) -> None:
    """Another branch, in which step `number` says what the reader wrote."""
    step = edit_step(run.trace.steps[number - 1], name.strip(), content.strip())
    kept = (*run.trace.steps[: number - 1], step)
    _start_branch(context, run, kept, Steer("edit"), number)


def answer_now(context: PageContext, run: Run) -> None:
    """No more steps: the answer, from what is finished."""
    if run.trace.steps:
        steer(context, run, len(run.trace.steps), "answer")
    elif _is_still_on(run.id):
        st.session_state["refused"] = "no_step_yet"


def stop(context: PageContext, run: Run) -> None:
    """Ends the run, and those that were asked together with it; no chain takes their place."""
    context.runs.stop_vote(group_of(run))
    for one in context.runs.live(context.owner):
        if group_of(one) == group_of(run):
            context.runs.stop(one.id)


def way_of(run: Run) -> str:
    """The way the run was made in, which is known once it began."""
    started = run.trace.started
    return started.way if started else run.asked.way


def turn_of(trace: Trace, question: str, with_reasoning: bool) -> Turn | None:
    """What a later question is told of this one; None without an answer."""
    if trace.answer is None:
        return None
    steps = "\n\n".join(f"{step.title}: {step.content}" for step in trace.steps)
    return Turn(question, trace.answer.content, steps if with_reasoning else "")


# -- within


def _make_request(
    context: PageContext, preferences: Preferences, question: str, on: str | None
) -> RunRequest:
    return RunRequest(
        question,
        way=preferences.way,
        settings=preferences.settings,
        language=preferences.language,
        history=_earlier_turns(context, on, preferences.send_reasoning),
        prompts=preferences.prompts,
    )


def _earlier_turns(context: PageContext, on: str | None, with_reasoning: bool) -> tuple[Turn, ...]:
    entry = context.store.entry(on, context.owner) if on and context.run(on) else None
    if entry is None:
        return ()
    entries = context.store.runs_of(entry.link.thread, context.owner)
    runs = [(one.question, context.run(one.id)) for one in path(entries, entry)]
    turns = [turn_of(run.trace, question, with_reasoning) for question, run in runs if run]
    return tuple(turn for turn in turns if turn is not None)


def _start_with_vote(
    context: PageContext, asked: RunRequest, link: Link, preferences: Preferences
) -> None:
    """The run, the vote it is the first of, and the plain answer, as far as they are wanted."""
    most = preferences.chains
    several = vary_settings(asked.settings, most) if most > 1 else (asked.settings,)
    first, *others = (replace(asked, settings=one, most=most) for one in several)
    run = _go_and_start(context, first, link)
    beside = replace(link, thread=run.link.thread, origin="", how="", group=run.id)
    if others:
        context.runs.vote(run, others, beside)
    if preferences.also_direct and (asked.way or context.own_way) != DIRECT:
        context.runs.start(replace(asked, way=DIRECT), beside, context.owner)


def _start_branch(
    context: PageContext, run: Run, kept: Sequence[Step], wanted: Steer, parts: int
) -> None:
    if not run.ended:
        context.runs.stop(run.id)
    asked = replace(run.asked, way=way_of(run), steps=tuple(kept), steer=wanted, most=1)
    _go_and_start(context, asked, _branch(run, parts, wanted.how))


def _branch(run: Run, parts: int, how: str) -> Link:
    return Link(thread=run.link.thread, after=run.link.after, origin=run.id, parts=parts, how=how)


def _go_and_start(context: PageContext, asked: RunRequest, link: Link) -> Run:
    """Goes to the run, then starts it, and uses the session no more.

    Streamlit may end a callback at each use of the session and play the click again: that
    click finds the page gone from its view, and starts nothing a second time. Where somebody
    else was first to go on with an interrupted run, it goes to that one.
    """
    id = new_id()
    go_to(id)
    run = context.runs.start(asked, link, context.owner, id)
    if run.id != id:
        go_to(run.id)
    return run


def _is_still_on(on: str | None) -> bool:
    st.session_state["went"] = True
    return current_location().run == on


def _refuse_while_thinking(context: PageContext, on: str | None) -> bool:
    run = context.run(on)
    if run is None or run.ended:
        return False
    st.session_state["refused"] = "still_thinking"
    return True


def group_of(run: Run) -> str:
    """The first of the runs that were asked together with it."""
    return run.link.group or run.id
