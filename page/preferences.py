"""A reader's preferences: how the next question is thought through, and how it is shown.

They are remembered for their owner, and the way of thinking for each model. The widgets
show what is remembered, so that two tabs agree. Changed prompts hold in their tab alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from math import isfinite
from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from history.store import StoreError
from page.context import PageContext
from page.i18n import Words
from page.keyboard import FOCUS, NEW, STOP
from page.navigation import current_location
from page.prompt_editor import draw_prompt_editor, edited_prompts, open_prompt_editor, reset_prompts
from page.run_view import Folding
from reasoning.detection import DEFAULT
from reasoning.events import Settings
from reasoning.prompts import LANGUAGES, prompt_text
from reasoning.think import VOTE, WAYS

FOLDINGS: tuple[Folding, ...] = ("current", "all", "folded")
BOUNDS: dict[str, tuple[float, float]] = {
    "max_steps": (1, 50),
    "min_steps": (1, 50),
    "step_tokens": (100, 4000),
    "temperature": (0.0, 1.5),
    "chains": (1, 16),
    "step_seconds": (0, 86_400),
    "chain_seconds": (0, 86_400),
}
OPTIONS: dict[str, tuple[str, ...]] = {"language": ("", *LANGUAGES), "folding": FOLDINGS}
_SINGLE = ("folding", "step_tokens", "temperature", "chains", "also_direct", "send_reasoning")
_SECONDS = ("step_seconds", "chain_seconds")
WIDGETS: dict[str, tuple[str, ...]] = {  # the choices that each of them shows
    "steps": ("min_steps", "max_steps"),
    **{name: (name,) for name in (*_SINGLE, *_SECONDS, "language", "letters")},
}
_PLAIN = Settings()


@dataclass(frozen=True, slots=True)
class Preferences:
    """What holds for the next question. The defaults are the core's."""

    way: str = ""  # "": the model's own
    language: str = ""  # of the prompts; "": the question's
    folding: Folding = "current"
    max_steps: int = _PLAIN.max_steps
    min_steps: int = _PLAIN.min_steps
    step_tokens: int = _PLAIN.step_tokens
    temperature: float = _PLAIN.temperature
    step_seconds: int = 0  # 0: as the environment has it, else the core
    chain_seconds: int = 0
    chains: int = 1
    also_direct: bool = False
    send_reasoning: bool = False
    letters: bool = True  # whether "/" alone does something
    prompts: dict[str, str] = field(default_factory=dict)  # those that were changed, by name

    @property
    def settings(self) -> Settings:
        return Settings(
            max_steps=self.max_steps,
            min_steps=self.min_steps,
            step_tokens=self.step_tokens,
            temperature=self.temperature,
            step_seconds=self.step_seconds or None,
            chain_seconds=self.chain_seconds or None,
        )


def parse_preferences(values: Mapping[str, Any]) -> Preferences:
    """What was remembered, as far as it can be understood; numbers are brought into bounds."""
    plain = _stored_values(Preferences())
    given = {name: _parse(name, values.get(name), plain[name]) for name in plain}
    given["min_steps"] = min(given["min_steps"], given["max_steps"])
    return Preferences(**given)


def _stored_values(preferences: Preferences) -> dict[str, Any]:
    """What is remembered for every model alike."""
    return {name: it for name, it in asdict(preferences).items() if name not in ("way", "prompts")}


def _parse(name: str, value: Any, plain: Any) -> Any:
    if name in OPTIONS:
        return value if value in OPTIONS[name] else plain
    if isinstance(plain, bool):
        return value if isinstance(value, bool) else plain
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not isfinite(value):
        return plain
    low, high = BOUNDS[name]
    return type(plain)(min(max(value, low), high))


# -- what is remembered


def load_preferences(context: PageContext) -> Preferences:
    """What holds now for this visitor."""
    values = _load(context)
    ways = values.get("ways")
    wanted = ways.get(_model_name(context)) if isinstance(ways, dict) else ""
    preferences = replace(parse_preferences(values), way=wanted if wanted in WAYS else "")
    return replace(preferences, prompts=edited_prompts(*_sent_prompts(context, preferences)))


def set_way(context: PageContext, way: str) -> None:
    """A callback: how the served model is to think from now on; "" as it does by itself."""
    values = _load(context)
    ways = values.get("ways")
    known = ways if isinstance(ways, dict) else {}
    _store(context, {**values, "ways": {**known, _model_name(context): way}})


def _model_name(context: PageContext) -> str:
    """A server that is away for a moment changes nothing."""
    return context.server.name or str(st.session_state.get("served", ""))


def _current_way(context: PageContext, preferences: Preferences) -> str:
    """The way the next question will go. Where a model's own is not known it is the usual one."""
    return preferences.way or context.own_way or DEFAULT


def _sent_prompts(context: PageContext, preferences: Preferences) -> tuple[str, tuple[str, ...]]:
    """The language and names of what will be sent: the page's, where the question's decides."""
    prompts = WAYS[_current_way(context, preferences)].prompts
    return preferences.language or context.words.language, prompts


def _load(context: PageContext) -> dict[str, Any]:
    """What is stored, and what the widgets say since; what cannot be stored holds for the visit."""
    unstored: dict[str, Any] = st.session_state.get("unstored", {})
    try:
        values = {**context.store.preferences(context.owner), **unstored}
    except StoreError:
        values = unstored
    changed = _changed_in_widgets()
    return _store(context, {**values, **changed}) if changed else values


def _changed_in_widgets() -> dict[str, Any]:
    """What the widgets say and were not told to.

    They have no callbacks: the next quick click would end one in its middle, at any use of
    the session's state, and what it was to remember would be lost.
    """
    told: dict[str, tuple[Any, ...]] = st.session_state.get("told", {})
    changed: dict[str, Any] = {}
    for widget, before in told.items():
        now = st.session_state.get(_widget_key(widget), before[0] if len(before) == 1 else before)
        values = now if len(before) > 1 else (now,)
        if values != before:
            changed |= zip(WIDGETS[widget], values, strict=True)
    return changed


def _store(context: PageContext, values: dict[str, Any]) -> dict[str, Any]:
    """These, in the place of all; gives them back."""
    try:
        context.store.prefer(context.owner, values)
        st.session_state.pop("unstored", None)
    except StoreError:
        st.session_state["unstored"] = values
    return values


# -- the menu


def draw_settings_menu(context: PageContext, place: DeltaGenerator) -> None:
    """Few settings, in a popover that is drawn while it is open."""
    menu = place.popover(
        context.words.of("settings", "head"), key="settings", icon=":material/tune:",
        type="tertiary", on_change="rerun",
    )  # fmt: skip
    if menu.open:
        _draw_settings(context, menu)
    prompts = _sent_prompts(context, load_preferences(context))
    draw_prompt_editor(context.words, *prompts, busy=_is_following_run(context))


def _draw_settings(context: PageContext, menu: DeltaGenerator) -> None:
    """What the way does not heed is grey."""
    words, preferences = context.words, load_preferences(context)
    _draw_choice(
        words, menu, "folding", preferences, lambda it: words.of("settings", f"folding_{it}")
    )
    _draw_sliders(context, menu, preferences)
    _draw_seconds(words, menu, preferences)
    _draw_chains(context, menu, preferences)
    _draw_switch(words, menu, "send_reasoning", preferences)
    _draw_choice(
        words, menu, "language", preferences,
        lambda it: Words(it)("name") if it else words.of("settings", "language_question"),
        disabled=not _depend_on_language(_sent_prompts(context, preferences)[1]),
    )  # fmt: skip
    _draw_switch(words, menu, "letters", preferences)
    keys = {"focus": FOCUS, "stop": STOP, "new": NEW}
    menu.container(key="keys-hint").caption(words.of("settings", "keys", **keys))
    row = menu.container(horizontal=True, horizontal_alignment="distribute")
    prompts = words.of("settings", "prompts")
    row.button(prompts, key="prompts", icon=":material/edit_note:", on_click=_open_prompt_editor)
    row.button(words.of("settings", "reset"), key="reset", on_click=_reset, args=(context,))


def _draw_sliders(context: PageContext, menu: DeltaGenerator, preferences: Preferences) -> None:
    """The numbers of Settings, each as far as the way heeds it."""
    words, way = context.words, _current_way(context, preferences)
    heeds = WAYS[way].settings
    for widget, step in (("steps", 1), ("step_tokens", 100), ("temperature", 0.1)):
        _draw_slider(words, menu, widget, preferences, step, not heeds & {*WIDGETS[widget]})
    if not heeds >= {"min_steps", "max_steps", "step_tokens", "temperature"}:
        menu.caption(words.of("settings", "grey", way=words.of("way", way, way=way)))


def _draw_seconds(words: Words, menu: DeltaGenerator, preferences: Preferences) -> None:
    """The deadlines, side by side; no way is without them."""
    row = menu.container(horizontal=True)
    for widget in _SECONDS:
        low, high = (int(bound) for bound in BOUNDS[widget])
        label, about = words.of("settings", widget), words.of("settings", f"{widget}_help")
        value, key = _widget_value(widget, preferences)
        row.number_input(label, low, high, value, 30, key=key, help=about)


def _draw_chains(context: PageContext, menu: DeltaGenerator, preferences: Preferences) -> None:
    words, direct = context.words, _current_way(context, preferences) == "direct"
    _draw_slider(words, menu, "chains", preferences, 1, False)
    if preferences.chains > 1 and preferences.temperature < VOTE:
        menu.caption(words.of("settings", "warmer", temperature=VOTE))
    _draw_switch(words, menu, "also_direct", preferences, disabled=direct)


def _depend_on_language(names: tuple[str, ...]) -> bool:
    """Whether these prompts differ from language to language."""
    return any(len({prompt_text(it, name) for it in LANGUAGES}) > 1 for name in names)


def _is_following_run(context: PageContext) -> bool:
    run = context.run(current_location().run)
    return run is not None and not run.ended


def _open_prompt_editor() -> None:
    """A callback: the menu would cover the dialog."""
    st.session_state["settings"] = False
    open_prompt_editor()


def _reset(context: PageContext) -> None:
    """A callback: all as on the first day, but for the way, which has a menu of its own."""
    _store(context, {**_load(context), **_stored_values(Preferences())})
    reset_prompts()


# -- its widgets: each shows what is remembered


def _draw_slider(
    words: Words,
    menu: DeltaGenerator,
    widget: str,
    preferences: Preferences,
    step: float,
    disabled: bool,
) -> None:
    """One number, or a range of two that cannot pass each other."""
    low, high = BOUNDS[WIDGETS[widget][0]]
    label, about = words.of("settings", widget), words.of("settings", f"{widget}_help")
    value, key = _widget_value(widget, preferences)
    menu.slider(label, low, high, value, step, key=key, disabled=disabled, help=about)


def _draw_switch(
    words: Words,
    menu: DeltaGenerator,
    widget: str,
    preferences: Preferences,
    disabled: bool = False,
) -> None:
    label, about = words.of("settings", widget), words.of("settings", f"{widget}_help")
    value, key = _widget_value(widget, preferences)
    menu.toggle(label, value, key=key, help=about, disabled=disabled)


def _draw_choice(
    words: Words,
    menu: DeltaGenerator,
    widget: str,
    preferences: Preferences,
    say: Callable[[str], str],
    disabled: bool = False,
) -> None:
    value, key = _widget_value(widget, preferences)
    menu.segmented_control(
        words.of("settings", widget), OPTIONS[widget], default=value, key=key,
        format_func=say, required=True, disabled=disabled, width="stretch",
    )  # fmt: skip


def _widget_key(widget: str) -> str:
    return f"choice-{widget}-{st.session_state.get('made', {}).get(widget, 0)}"


def _widget_value(widget: str, preferences: Preferences) -> tuple[Any, str]:
    """What the widget is to show, and its key; one that shows something else is made anew.

    Setting its value would reach neither a menu that opens later nor one that opens again.
    """
    values = tuple(getattr(preferences, name) for name in WIDGETS[widget])
    value = values if len(values) > 1 else values[0]
    if st.session_state.get(_widget_key(widget), value) != value:
        made = st.session_state.setdefault("made", {})
        made[widget] = made.get(widget, 0) + 1
    st.session_state.setdefault("told", {})[widget] = values
    return value, _widget_key(widget)
