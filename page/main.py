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
from page.asking import ask, ask_from_box, say_what_was_refused
from page.charts import history_charts
from page.choices import chosen
from page.compare import compare
from page.header import header, say_no_server, say_what_is_new
from page.keyboard import keyboard
from page.markdown import title
from page.sidebar import history
from page.site import Shown, Site, go, shown, site
from page.thread import conversation, row
from reasoning.events import Answer

STYLE = Path(__file__).with_name("page.css")
ICON = Path(__file__).with_name("icon.svg").read_text(encoding="utf-8")
SLOTS = 3  # places for a view: what one view leaves behind never shows through the next


def draw() -> None:
    """The whole page, from top to bottom."""
    here = shown()
    layout: Literal["wide", "centered"] = "wide" if here.beside else "centered"
    st.set_page_config(page_title="Stepwise", page_icon=ICON, layout=layout)
    st.html(STYLE)
    it = site()
    run, other = it.runs.get(here.run), it.runs.get(here.beside)
    say_what_is_new(it)
    history(it, here.run, on_compare=_compare_with(run))
    header(it, home=not here.run)
    _say_what_is_wrong(it, run)
    place = _view_place(here)
    bar = st.bottom.container(key="bar")
    say_what_was_refused(it.words)
    _box(it, run, here.run)
    keyboard(chosen(it).letters)
    if run is not None and other is not None:
        compare(it, run, other, place)
    elif run is not None:
        conversation(it, run, place, bar)
    elif here.run:
        place.info(it.words("unknown_run"), icon=":material/link_off:")
        new = it.words("new_question")
        row(bar).button(new, on_click=go, args=(None,), key="new")
    else:
        _home(it, place)


def _view_place(here: Shown) -> DeltaGenerator:
    """A place that holds nothing of the view before it."""
    number, last = st.session_state.get("place", (0, here))
    if last != here:
        number = (number + 1) % SLOTS
    st.session_state["place"] = (number, here)
    places = [st.container() if slot == number else st.empty() for slot in range(SLOTS)]
    place: DeltaGenerator = places[number]
    return place


def _say_what_is_wrong(site: Site, run: Run | None) -> None:
    """No server, no history: in words, on top. A run that failed says it in its own place."""
    error = site.state.error
    if error is not None and (run is None or isinstance(run.trace.end, Answer)):
        say_no_server(site.words, error)
    trouble = site.services.unkept or site.runs.trouble
    if trouble is not None:
        said = {"message": title(trouble.message), "remedy": title(trouble.remedy)}
        why = site.words.of("store", trouble.code, **said)
        st.warning(site.words("unkept", message=why), icon=":material/save:")


def _box(site: Site, run: Run | None, on: str | None) -> None:
    """`on` is the run that the address names, known or not: what is asked there is not lost."""
    busy = run is not None and not run.ended
    hint = "ask_busy" if busy else "ask_waiting" if site.state.model is None else "ask"
    if run is not None and hint == "ask":
        hint = "ask_on"
    st.chat_input(
        site.words(hint),
        key="box",  # for ever: a box that is replaced while it has the focus shifts the rest
        disabled=busy or site.state.model is None,
        on_submit=ask_from_box,
        args=(site, on),
    )


def _compare_with(run: Run | None) -> Callable[[str], None] | None:
    """What lays another run beside the one that is shown."""
    return None if run is None else lambda other: go(run.id, other)


def _home(site: Site, place: DeltaGenerator) -> None:
    words = site.words
    place.title(words("title"), anchor=False)
    place.markdown(words("about"))
    place.caption(words("examples"))
    examples = words.examples(site.own)
    for number, question in enumerate(examples, 1):
        place.button(
            question,
            key=f"example_{number}",
            disabled=site.state.model is None,
            on_click=ask,
            args=(site, question, None),
        )
    _draw_figures(site, place)


def _draw_figures(site: Site, place: DeltaGenerator) -> None:
    """How the models thought so far, for who has a history, when it is opened."""
    try:
        if not site.store.count_threads(site.owner):
            return
        box = place.expander(
            site.words("figures"), key="figures", type="compact", on_change="rerun",
            icon=":material/bar_chart:",
        )  # fmt: skip
        if box.open:
            history_charts(box, site.store.figures(site.owner), site.words)
    except StoreError:  # said on top
        return


draw()
