"""The page's script: what stands where. Streamlit runs it anew at every click.

Nothing lives in here: runs live in history/runs.py and in the store, the model's health in
page/health.py, and what is shown in the address, so that a reload comes back to it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from history.runs import Run
from history.store import StoreError
from page.actions import ask, ask_from_box
from page.charts import draw_history_charts
from page.compare import draw_comparison
from page.context import PageContext, page_context, visitor_words
from page.conversation import draw_conversation, right_aligned_row
from page.header import announce_new_model, draw_header, draw_server_warning
from page.i18n import Words
from page.keyboard import listen_for_keys
from page.login import let_in
from page.navigation import Location, go_to, read_location
from page.preferences import load_preferences
from page.sidebar import draw_sidebar
from page.wording import failure_line
from reasoning.errors import StepwiseError
from reasoning.events import Answer

STYLE = Path(__file__).with_name("page.css")
ICON = Path(__file__).with_name("icon.svg").read_text(encoding="utf-8")
SLOTS = 3  # places for a view: what one view leaves behind never shows through the next


def draw() -> None:
    """The whole page, from top to bottom."""
    location = read_location()
    layout: Literal["wide", "centered"] = "wide" if location.beside else "centered"
    st.set_page_config(page_title="Stepwise", page_icon=ICON, layout=layout)
    st.html(STYLE)
    if not let_in(visitor_words()):
        return
    context = page_context()
    run, other = context.run(location.run), context.run(location.beside)
    announce_new_model(context)
    draw_sidebar(context, location.run, on_compare=_compare_with(run))
    draw_header(context, home=not location.run)
    _draw_warnings(context, run)
    place = _view_place(location)
    bar = st.bottom.container(key="bar")
    _draw_refusal(context.words)
    _draw_question_box(context, run, location.run)
    listen_for_keys(load_preferences(context).letters)
    if run is not None and other is not None:
        draw_comparison(context, run, other, place)
    elif run is not None:
        draw_conversation(context, run, place, bar)
    elif location.run:
        place.info(context.words("unknown_run"), icon=":material/link_off:")
        new = context.words("new_question")
        right_aligned_row(bar).button(new, on_click=go_to, args=(None,), key="new")
    else:
        _draw_home(context, place)


def _view_place(location: Location) -> DeltaGenerator:
    """A place that holds nothing of the view before it."""
    number, last = st.session_state.get("place", (0, location))
    if last != location:
        number = (number + 1) % SLOTS
    st.session_state["place"] = (number, location)
    places = [st.container() if slot == number else st.empty() for slot in range(SLOTS)]
    place: DeltaGenerator = places[number]
    return place


def _draw_warnings(context: PageContext, run: Run | None) -> None:
    """No server, no history: in words, on top. A run that failed says it in its own place."""
    error = context.server.error
    if error is not None and (run is None or isinstance(run.trace.end, Answer)):
        draw_server_warning(context.words, error)
    trouble = context.services.unkept or context.runs.trouble
    if trouble is not None:
        why = failure_line(trouble, context.words, "store")
        st.warning(context.words("unkept", message=why), icon=":material/save:")
    if (damaged := context.store.set_aside) is not None:
        st.warning(failure_line(damaged, context.words, "store"), icon=":material/save:")


def _draw_refusal(words: Words) -> None:
    """Above the question box, once: why the last click started nothing (page/actions.py)."""
    place = st.bottom.empty()  # always there: what comes and goes would shift the box
    refused = st.session_state.pop("refused", None)
    if isinstance(refused, StoreError):
        place.warning(failure_line(refused, words, "store"))
    elif isinstance(refused, StepwiseError):
        place.warning(failure_line(refused, words))
    elif refused:
        place.warning(words(refused))


def _draw_question_box(context: PageContext, run: Run | None, on: str | None) -> None:
    """`on` is the run that the address names, known or not: what is asked there is not lost."""
    busy = run is not None and not run.ended
    hint = "ask_busy" if busy else "ask_waiting" if context.server.model is None else "ask"
    if run is not None and hint == "ask":
        hint = "ask_on"
    st.chat_input(
        context.words(hint),
        key="box",  # for ever: a box that is replaced while it has the focus shifts the rest
        disabled=busy or context.server.model is None,
        on_submit=ask_from_box,
        args=(context, on),
    )


def _compare_with(run: Run | None) -> Callable[[str], None] | None:
    """What lays another run beside the one that is shown."""
    return None if run is None else lambda other: go_to(run.id, other)


def _draw_home(context: PageContext, place: DeltaGenerator) -> None:
    words = context.words
    place.title(words("title"), anchor=False)
    place.markdown(words("about"))
    place.caption(words("examples"))
    examples = words.examples(context.own_way)
    for number, question in enumerate(examples, 1):
        place.button(
            question,
            key=f"example_{number}",
            disabled=context.server.model is None,
            on_click=ask,
            args=(context, question, None),
        )
    _draw_figures(context, place)


def _draw_figures(context: PageContext, place: DeltaGenerator) -> None:
    """How the models thought so far, for who has a history, when it is opened."""
    try:
        if not context.store.count_threads(context.owner):
            return
        box = place.expander(
            context.words("figures"), key="figures", type="compact", on_change="rerun",
            icon=":material/bar_chart:",
        )  # fmt: skip
        if box.open:
            draw_history_charts(box, context.store.figures(context.owner), context.words)
    except StoreError:  # said on top
        return


draw()
