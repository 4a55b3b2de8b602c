"""The top of the page: the served model, how it will think, the settings, the language."""

from __future__ import annotations

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from page.context import PageContext
from page.i18n import LANGUAGES, Words
from page.markdown import plain_line
from page.preferences import draw_settings_menu, load_preferences, set_way
from reasoning.errors import StepwiseError, Unreachable
from reasoning.think import WAYS

LOOK = 2.0  # seconds between two looks at the model's health


def draw_header(context: PageContext, home: bool) -> None:
    """One row, that a phone's width holds."""
    row = st.container(horizontal=True, vertical_alignment="center", key="header")
    if not home:
        row.container(key="brand", width="content").markdown(f"**{context.words('title')}**")
    with row.container(key="health", width="stretch"):
        _draw_health(context)
    if context.server.model is not None:
        _draw_way_menu(context, row)
    draw_settings_menu(context, row)
    other = Words(LANGUAGES[1 - LANGUAGES.index(context.words.language)])
    speak = (other.language,)
    row.button(other("name"), type="tertiary", on_click=_set_language, args=speak, key="language")


def announce_new_model(context: PageContext) -> None:
    """A model in the place of another that was served while the page was open."""
    name = context.server.name
    before = st.session_state.get("served")
    if name:
        st.session_state["served"] = name
    if name and before not in (None, name):
        said = context.words("now_served", model=plain_line(context.served.title))
        st.toast(said, icon=":material/swap_horiz:")


def draw_server_warning(words: Words, error: StepwiseError) -> None:
    key = "server_down" if isinstance(error, Unreachable) else "server_wrong"
    st.warning(words(key, message=plain_line(error.message), remedy=plain_line(error.remedy)))


def _set_language(language: str) -> None:
    st.query_params["lang"] = language


def _draw_way_menu(context: PageContext, row: DeltaGenerator) -> None:
    """How the next question is thought through: the model's own way, unless one is chosen."""
    words, name = context.words, context.server.name
    options = ["", *(way for way in WAYS if way != context.own_way)]
    wanted = load_preferences(context).way
    label = _way_name(words, wanted or context.own_way) or words("way_of_thinking")
    key = f"way-{words.language}-{context.own_way}-{name}"
    menu = row.popover(label, type="tertiary", key="way")
    menu.radio(
        words("way_help"),
        options,
        index=options.index(wanted) if wanted in options else 0,
        format_func=lambda way: _way_name(words, way) or _own_name(context),
        captions=[words.of("way_about", way or context.own_way) for way in options],
        key=key,
        on_change=lambda: set_way(context, st.session_state[key]),
    )


def _way_name(words: Words, way: str) -> str:
    return words.of("way", way, way=way) if way else ""


def _own_name(context: PageContext) -> str:
    name = _way_name(context.words, context.own_way)
    return context.words("way_own", way=name) if name else context.words("way_own_unknown")


@st.fragment(run_every=LOOK)
def _draw_health(context: PageContext) -> None:
    """The served model. What is new here is new for the whole page: it is drawn again.

    So is the page at rest when a run that its sidebar shows as thinking has ended.
    """
    if context.is_outdated or context.has_ended_runs:
        st.rerun()
    state = context.server
    if state.model is not None:
        missing = state.replicas is not None and state.replicas.up < state.replicas.all
        icon = ":material/error:" if missing else ":material/check_circle:"
        st.badge(_served_line(context), icon=icon, color="orange" if missing else "green")
    elif state.error is None:
        st.badge(context.words("looking"), icon=":material/search:", color="gray")
    else:
        st.badge(context.words("no_server"), icon=":material/cloud_off:", color="orange")


def _served_line(context: PageContext) -> str:
    """The model, what it computes in, how fast it should write, and how many of its servers
    answer where there are several; each as far as it is known.
    """
    served, words, replicas = context.served, context.words, context.server.replicas
    count = words("replicas", up=replicas.up, all=replicas.all) if replicas else ""
    parts = (plain_line(served.title), served.precision, words.rate(served.speed), count)
    return words("comma").join(part for part in parts if part)
