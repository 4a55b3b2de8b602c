"""The reader's own prompts, in the place of ours: changed in a dialog, until they are reset.

They belong to a tab and are lost with it: a page that is opened anew asks as it did on
the first day. Which words may stand in a prompt is the core's to say (reasoning/prompts.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from page.i18n import Words
from page.markdown import plain_line
from reasoning.errors import BadPrompt
from reasoning.prompts import check_prompt, prompt_text

LINE, WIDTH = 24, 120  # pixels, and characters of a prompt that fit in a line
LEAST, MOST = 100, 420  # pixels


def edited_prompts(language: str, names: Sequence[str]) -> dict[str, str]:
    """The changed ones of these prompts, by name."""
    own = _edited(language)
    return {name: own[name] for name in names if name in own}


def reset_prompts() -> None:
    """All prompts are ours again."""
    st.session_state["own-prompts"] = {}


def open_prompt_editor() -> None:
    """A callback: shows the dialog until it is closed."""
    st.session_state["prompts-open"] = True


def draw_prompt_editor(words: Words, language: str, names: Sequence[str], *, busy: bool) -> None:
    """The dialog, where it is open; it stays so while the page is drawn anew.

    Its widgets wait until the page's script has come to its end, which it does not while a
    run is followed (`busy`): then the prompts can be read alone.
    """
    if st.session_state.get("prompts-open"):
        _draw_dialog(words, language, names, busy)


def _on_close() -> None:
    st.session_state["prompts-open"] = False


def _draw_dialog(words: Words, language: str, names: Sequence[str], busy: bool) -> None:
    show = st.dialog(words.of("settings", "prompts_head"), width="large", on_dismiss=_on_close)

    @show
    def draw() -> None:
        st.caption(words.of("settings", "prompts_busy" if busy else "prompts_about"))
        for name in names:
            _draw_prompt(words, language, name, busy)
        if st.button(words.of("settings", "done"), type="primary", on_click=_on_close, key="done"):
            st.rerun()

    draw()


def _draw_prompt(words: Words, language: str, name: str, busy: bool) -> None:
    ours, label = prompt_text(language, name), words.of("prompt", name, name=name)
    text = _edited(language).get(name, ours)
    key = _area_key(language, name)
    place = st.expander(label, key=f"about-{language}-{name}")
    place.text_area(
        label,
        text,
        key=key,
        height=_area_height(ours),
        label_visibility="collapsed",
        disabled=busy,
        on_change=_on_change,
        args=(language, name, key),
    )
    if text != ours:
        _draw_changed(words, language, name, place)


def _draw_changed(words: Words, language: str, name: str, place: DeltaGenerator) -> None:
    row = place.container(horizontal=True, vertical_alignment="center")
    row.badge(words.of("settings", "changed"), icon=":material/edit:", color="orange")
    label, key = words.of("settings", "reset_prompt"), f"reset-{language}-{name}"
    row.button(label, key=key, type="tertiary", on_click=_on_reset, args=(language, name))
    try:
        check_prompt(language, name, _edited(language)[name])
    except BadPrompt as error:
        said = {"message": error.message, "remedy": error.remedy}
        place.error(plain_line(words.of("failed", error.code, **said)))


def _area_height(text: str) -> int:
    lines = sum(1 + len(line) // WIDTH for line in text.splitlines())
    return min(MOST, max(LEAST, LINE * (lines + 2)))


# -- what is kept of it


def _edited(language: str) -> dict[str, str]:
    """The changed prompts in this language."""
    own: dict[str, dict[str, str]] = st.session_state.setdefault("own-prompts", {})
    return own.setdefault(language, {})


def _area_key(language: str, name: str) -> str:
    """Of the text area; another one after each reset."""
    return f"prompt-{language}-{name}-{st.session_state.get('prompts-reset', 0)}"


def _on_change(language: str, name: str, key: str) -> None:
    if key != _area_key(language, name):  # Streamlit may still tell of a replaced one
        return
    text = st.session_state[key].strip()
    if text == prompt_text(language, name):
        _on_reset(language, name)
    else:
        _edited(language)[name] = text


def _on_reset(language: str, name: str) -> None:
    """A text area shows another text by being made anew."""
    _edited(language).pop(name, None)
    st.session_state["prompts-reset"] = st.session_state.get("prompts-reset", 0) + 1
