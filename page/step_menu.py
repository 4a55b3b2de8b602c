"""Steering: what a reader can do at a finished step, and the dialog to edit one."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from history.runs import Run
from page.actions import go_on_from, steer, way_of
from page.context import PageContext
from reasoning.events import Steering, Step
from reasoning.think import find_way

LONGEST_TITLE = 200  # characters
LONGEST_STEP = 8_000  # characters, as of a question


def step_menu(context: PageContext, run: Run) -> Callable[[DeltaGenerator, Step], None]:
    """What draws the steering menu of a step, for a RunView."""

    def draw(place: DeltaGenerator, step: Step) -> None:
        possible = possible_steerings(context, run)
        if not possible:
            return
        key = f"steer-{run.id}-{step.number}"
        place.menu_button(
            context.words.of("steer", "menu"),
            possible,
            key=key,
            type="tertiary",
            icon=":material/alt_route:",
            help=context.words.of("steer", "menu_help"),
            format_func=lambda how: context.words.of("steer", how),
            on_click=_on_choice,
            args=(context, run, step.number, key),
        )

    return draw


def possible_steerings(context: PageContext, run: Run) -> list[Steering]:
    """What this run's way of thinking can do with its finished steps, in our order."""
    way = find_way(way_of(run) or context.own_way)
    return [how for how in get_args(Steering) if way and how in way.steers]


def open_editor_if_asked(context: PageContext, run: Run) -> None:
    """Opens the dialog that a click on "edit" asked for."""
    number = st.session_state.pop("editing", {}).get(run.id)
    if number is not None and number <= len(run.trace.steps):
        st.dialog(context.words.of("steer", "edit_title", number=number), width="medium")(
            _draw_editor
        )(context, run, run.trace.steps[number - 1])


def _draw_editor(context: PageContext, run: Run, step: Step) -> None:
    words, key = context.words, f"edit-{run.id}-{step.number}"
    title = st.text_input(
        words.of("steer", "title"), step.title, key=f"{key}-title", max_chars=LONGEST_TITLE
    )
    content = st.text_area(
        words.of("steer", "content"), step.content, height=260, key=f"{key}-content",
        max_chars=LONGEST_STEP,
    )  # fmt: skip
    st.caption(words.of("steer", "edit_about", number=step.number))
    if st.button(words.of("steer", "edit_go"), type="primary", key=f"{key}-go"):
        if not content.strip():
            st.warning(words.of("steer", "empty"))
            return
        go_on_from(context, run, step.number, title, content)
        st.rerun()


def _on_choice(context: PageContext, run: Run, number: int, key: str) -> None:
    how: Steering | None = st.session_state.get(key)
    if how == "edit":
        st.session_state["editing"] = {run.id: number}
        if not run.ended:
            context.runs.stop(run.id)
    elif how:
        steer(context, run, number, how)
