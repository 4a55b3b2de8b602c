"""The sidebar: a new question, the conversations so far, and what can be done with them.

It asks the store for the lines it shows, however many there are. It draws outside of
fragments: a fragment's click would wait until a run that is followed has ended.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone, tzinfo
from itertools import groupby

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from history.entries import Thread
from history.store import StoreError
from page.context import PageContext
from page.exports import read_trace
from page.keyboard import NEW
from page.login import draw_logout
from page.markdown import plain_line
from page.navigation import go_to

LINES_AT_A_TIME = 30  # that are asked for
MOST_MEGABYTES = 20  # that a trace to be shown may have
LONGEST_NAME = 120  # characters of a name that is given
WEEK = 7  # days
Compare = Callable[[str], None] | None


def draw_sidebar(context: PageContext, shown: str | None, on_compare: Compare = None) -> None:
    """Draws the sidebar; `shown` is the run on the page, beside which another can be laid."""
    with st.sidebar:
        st.button(
            context.words("new_question"), key="new-question", icon=":material/edit_square:",
            width="stretch", shortcut=NEW, on_click=_open_run, args=(None,),
        )  # fmt: skip
        try:
            _draw_threads(context, shown, on_compare)
        except StoreError as error:
            st.warning(plain_line(str(error)))
        _draw_import(context)
        draw_logout(context.words)


def period(at: float, now: float, zone: tzinfo | None) -> str:
    """The heading under which something stands that was touched then: days of the calendar."""
    day, today = (datetime.fromtimestamp(it, zone).date() for it in (at, now))
    days = (today - day).days
    return ("today", "yesterday")[max(0, days)] if days < 2 else "week" if days <= WEEK else "older"


# -- the lines


def _draw_threads(context: PageContext, shown: str | None, on_compare: Compare) -> None:
    words = context.words
    search = st.text_input(
        words.of("history", "search"), key="search", type="search", on_change=_on_search,
        placeholder=words.of("history", "search"), label_visibility="collapsed",
    )  # fmt: skip
    _draw_notices(context, shown)
    limit = st.session_state.get("lines", LINES_AT_A_TIME)
    threads = context.store.threads(context.owner, search, limit + 1)
    if not threads:
        st.caption(words.of("history", "nothing" if search else "empty"))
    place = st.container(key="threads", gap=None)
    run, zone, now = context.run(shown), _visitor_zone(), time.time()
    open_thread, live = run and run.link.thread, {it.link.thread for it in context.live_runs}

    def heading(thread: Thread) -> str:
        return "pinned" if thread.pinned else period(thread.touched, now, zone)

    for head, lines in groupby(threads[:limit], key=heading):
        place.caption(words.of("history", head))
        for thread in lines:
            line = ThreadLine(
                context, thread, shown, thread.id == open_thread, thread.id in live, on_compare
            )
            line.draw(place)
    if len(threads) > limit:
        place.button(words.of("history", "more"), key="more", type="tertiary", on_click=_show_more)


def _visitor_zone() -> tzinfo | None:
    """The visitor's zone as his browser tells it; None is this machine's."""
    offset = st.context.timezone_offset
    return None if offset is None else timezone(timedelta(minutes=-offset))


@dataclass(frozen=True, slots=True)
class ThreadLine:
    """A conversation's line in the sidebar, and what its menu does."""

    context: PageContext
    thread: Thread
    shown: str | None  # the run on the page
    is_open: bool  # whether that run belongs to this conversation
    is_live: bool  # whether a run of it is thinking
    on_compare: Compare

    def draw(self, place: DeltaGenerator) -> None:
        key = "shown-thread" if self.is_open else f"thread-{self.thread.id}"
        row = place.container(horizontal=True, vertical_alignment="center", gap=None, key=key)
        if st.session_state.get("renaming") == self.thread.id:
            self._draw_name(row)
        else:
            self._draw_link(row)
            self._draw_menu(row)

    def _draw_link(self, row: DeltaGenerator) -> None:
        icon, about = self._state()
        row.button(
            plain_line(self.thread.name), key=f"open-{self.thread.id}", icon=icon, help=about,
            type="secondary" if self.is_open else "tertiary", width="stretch", wrap=False,
            on_click=_open_run, args=(self.thread.last,),
        )  # fmt: skip

    def _state(self) -> tuple[str | None, str | None]:
        words = self.context.words
        if self.is_live:
            return "spinner", words.of("history", "thinking")
        if self.thread.pinned:
            return ":material/keep:", None
        return None, None

    def _draw_menu(self, row: DeltaGenerator) -> None:
        words, key = self.context.words, f"menu-{self.thread.id}"
        row.menu_button(
            words.of("history", "menu", name=plain_line(self.thread.name)),
            self._offers(), format_func=lambda it: words.of("history", it),
            key=key, icon=":material/more_horiz:", type="tertiary",
            on_click=self._act, args=(key,),
        )  # fmt: skip

    def _offers(self) -> list[str]:
        compare = ["compare"] if self.on_compare and not self.is_open else []
        return ["rename", "unpin" if self.thread.pinned else "pin", *compare, "delete"]

    def _draw_name(self, row: DeltaGenerator) -> None:
        words, key = self.context.words, f"name-{self.thread.id}"
        if key not in st.session_state:
            st.session_state[key] = self.thread.name
        row.text_input(
            words.of("history", "name"), key=key, max_chars=LONGEST_NAME,
            label_visibility="collapsed", on_change=self._rename, args=(key,),
        )  # fmt: skip
        row.button(
            words.of("history", "cancel"), key="cancel", icon=":material/close:", type="tertiary",
            on_click=_stop_renaming,
        )  # fmt: skip

    # -- callbacks

    def _act(self, key: str) -> None:
        act = st.session_state[key]
        _forget_deleted()
        if act == "rename":
            st.session_state["renaming"] = self.thread.id
        elif act == "compare" and self.on_compare:
            self.on_compare(self.thread.last)
        elif act == "delete":
            self._delete()
        elif act is not None:
            _try(lambda: self.context.store.pin(self.thread.id, act == "pin", self.context.owner))

    def _rename(self, key: str) -> None:
        """No name is the first question again: the store knows it."""
        name = " ".join(st.session_state[key].split())
        _try(lambda: self.context.store.rename(self.thread.id, name, self.context.owner))
        _stop_renaming()

    def _delete(self) -> None:
        """What is still thinking in it is stopped; a page that shows it shows the first page."""
        for run in self.context.runs.live(self.context.owner):
            if run.link.thread == self.thread.id:
                self.context.runs.stop(run.id)
        if _try(lambda: self.context.store.delete(self.thread.id, self.context.owner)):
            if self.is_open:
                go_to(None)
            left = None if self.is_open else self.shown
            st.session_state["deleted"] = (self.thread, left)


# -- what a click does


def _open_run(id: str | None) -> None:
    _forget_deleted()
    go_to(id)


def _on_search() -> None:
    _forget_deleted()
    st.session_state.pop("lines", None)


def _show_more() -> None:
    st.session_state["lines"] = st.session_state.get("lines", LINES_AT_A_TIME) + LINES_AT_A_TIME


def _stop_renaming() -> None:
    st.session_state.pop("renaming", None)


def _forget_deleted() -> None:
    st.session_state.pop("deleted", None)


def _try(act: Callable[[], None]) -> bool:
    """Whether the store did it; why it did not stands above the lines."""
    try:
        act()
    except StoreError as error:
        st.session_state["refused-by-store"] = str(error)
        return False
    return True


def _restore(context: PageContext, thread: Thread) -> None:
    _forget_deleted()
    _try(lambda: context.store.restore(thread.id, context.owner))


def _draw_notices(context: PageContext, shown: str | None) -> None:
    """What the store refused, once; what was deleted, until something else is done."""
    if refused := st.session_state.pop("refused-by-store", ""):
        st.warning(plain_line(refused))
    thread, left = st.session_state.get("deleted", (None, None))
    if thread is None or left != shown:
        _forget_deleted()
        return
    row = st.container(horizontal=True, vertical_alignment="center", gap="xsmall", key="deleted")
    row.caption(
        context.words.of("history", "deleted", name=plain_line(thread.name)), width="stretch"
    )
    undo = context.words.of("history", "undo")
    row.button(undo, key="undo", icon=":material/undo:", on_click=_restore, args=(context, thread))


# -- a trace from a file


def _draw_import(context: PageContext) -> None:
    """Shows a trace that was exported here or elsewhere: a conversation of its own."""
    words, number = context.words, st.session_state.get("imports", 0)
    place = st.popover(
        words.of("history", "import"), key="import", icon=":material/upload_file:",
        type="tertiary", width="stretch",
    )  # fmt: skip
    key = f"import-{number}"  # an uploader is emptied by making it anew
    place.file_uploader(
        words.of("history", "import_about"), type="json", key=key, max_upload_size=MOST_MEGABYTES,
        on_change=_on_import, args=(context, key),
    )  # fmt: skip
    if why := st.session_state.pop("import-refused", ""):
        place.error(plain_line(why))


def _on_import(context: PageContext, key: str) -> None:
    file = st.session_state[key]
    if file is None:
        return
    try:
        run = context.runs.put(read_trace(file.getvalue().decode()), context.owner)
    except UnicodeDecodeError:
        st.session_state["import-refused"] = context.words.of("history", "not_text")
    except ValueError as error:
        st.session_state["import-refused"] = str(error)
    else:
        st.session_state["imports"] = st.session_state.get("imports", 0) + 1
        _open_run(run.id)
