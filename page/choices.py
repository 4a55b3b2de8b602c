"""What a reader chooses: how the next question is thought through, and how it is shown.

Choices are remembered for their owner, and the way of thinking for each model. The widgets
show what is remembered, so that two tabs agree. Changed prompts hold in their tab alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from math import isfinite
from typing import Any, Literal

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from history.store import StoreError
from page.context import PageContext
from page.keyboard import FOCUS, NEW, STOP
from page.navigation import current_location
from page.own_prompts import forget_prompts, open_prompts, own_prompts, say_prompts
from page.words import Words
from reasoning.detection import DEFAULT
from reasoning.events import Settings
from reasoning.prompts import LANGUAGES, prompt_text
from reasoning.think import VOTE, WAYS

Folding = Literal["all", "current", "folded"]
FOLDINGS: tuple[Folding, ...] = ("current", "all", "folded")
BOUNDS: dict[str, tuple[float, float]] = {
    "max_steps": (1, 50),
    "min_steps": (1, 50),
    "step_tokens": (100, 4000),
    "temperature": (0.0, 1.5),
    "chains": (1, 16),
}
OPTIONS: dict[str, tuple[str, ...]] = {"language": ("", *LANGUAGES), "folding": FOLDINGS}
_ALONE = ("folding", "step_tokens", "temperature", "chains", "also_direct", "send_reasoning")
WIDGETS: dict[str, tuple[str, ...]] = {  # the choices that each of them shows
    "steps": ("min_steps", "max_steps"),
    **{name: (name,) for name in (*_ALONE, "language", "letters")},
}
_PLAIN = Settings()


@dataclass(frozen=True, slots=True)
class Choices:
    """What holds for the next question. The defaults are the core's."""

    way: str = ""  # "": the model's own
    language: str = ""  # of the prompts; "": the question's
    folding: Folding = "current"
    max_steps: int = _PLAIN.max_steps
    min_steps: int = _PLAIN.min_steps
    step_tokens: int = _PLAIN.step_tokens
    temperature: float = _PLAIN.temperature
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
        )


def read(values: Mapping[str, Any]) -> Choices:
    """What was remembered, as far as it can be understood; numbers are brought into bounds."""
    plain = _values(Choices())
    given = {name: _read(name, values.get(name), plain[name]) for name in plain}
    given["min_steps"] = min(given["min_steps"], given["max_steps"])
    return Choices(**given)


def _values(choices: Choices) -> dict[str, Any]:
    """What is remembered for every model alike."""
    return {name: it for name, it in asdict(choices).items() if name not in ("way", "prompts")}


def _read(name: str, value: Any, plain: Any) -> Any:
    if name in OPTIONS:
        return value if value in OPTIONS[name] else plain
    if isinstance(plain, bool):
        return value if isinstance(value, bool) else plain
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not isfinite(value):
        return plain
    low, high = BOUNDS[name]
    return type(plain)(min(max(value, low), high))


# -- what is remembered


def chosen(context: PageContext) -> Choices:
    """What holds now for this visitor."""
    values = _remembered(context)
    ways = values.get("ways")
    wanted = ways.get(_model(context)) if isinstance(ways, dict) else ""
    choices = replace(read(values), way=wanted if wanted in WAYS else "")
    return replace(choices, prompts=own_prompts(*_prompts(context, choices)))


def changed_prompts(context: PageContext) -> bool:
    """Whether the next question is asked with other prompts than ours."""
    return bool(chosen(context).prompts)


def choose_way(context: PageContext, way: str) -> None:
    """A callback: how the served model is to think from now on; "" as it does by itself."""
    values = _remembered(context)
    ways = values.get("ways")
    known = ways if isinstance(ways, dict) else {}
    _remember(context, {**values, "ways": {**known, _model(context): way}})


def _model(context: PageContext) -> str:
    """A server that is away for a moment changes nothing."""
    return context.server.name or str(st.session_state.get("served", ""))


def _way(context: PageContext, choices: Choices) -> str:
    """The way the next question will go. Where a model's own is not known it is the usual one."""
    return choices.way or context.own_way or DEFAULT


def _prompts(context: PageContext, choices: Choices) -> tuple[str, tuple[str, ...]]:
    """The language and names of what will be sent: the page's, where the question's decides."""
    return choices.language or context.words.language, WAYS[_way(context, choices)].prompts


def _remembered(context: PageContext) -> dict[str, Any]:
    """What is stored, and what the widgets say since; what cannot be stored holds for the visit."""
    unstored: dict[str, Any] = st.session_state.get("unstored", {})
    try:
        values = {**context.store.preferences(context.owner), **unstored}
    except StoreError:
        values = unstored
    changed = _changed()
    return _remember(context, {**values, **changed}) if changed else values


def _changed() -> dict[str, Any]:
    """What the widgets say and were not told to.

    They have no callbacks: the next quick click would end one in its middle, at any use of
    the session's state, and what it was to remember would be lost.
    """
    told: dict[str, tuple[Any, ...]] = st.session_state.get("told", {})
    changed: dict[str, Any] = {}
    for widget, before in told.items():
        now = st.session_state.get(_key(widget), before[0] if len(before) == 1 else before)
        values = now if len(before) > 1 else (now,)
        if values != before:
            changed |= zip(WIDGETS[widget], values, strict=True)
    return changed


def _remember(context: PageContext, values: dict[str, Any]) -> dict[str, Any]:
    """These, in the place of all; gives them back."""
    try:
        context.store.prefer(context.owner, values)
        st.session_state.pop("unstored", None)
    except StoreError:
        st.session_state["unstored"] = values
    return values


# -- the menu


def settings_menu(context: PageContext, place: DeltaGenerator) -> None:
    """Few settings, in a popover that is drawn while it is open."""
    menu = place.popover(
        context.words.of("settings", "head"), key="settings", icon=":material/tune:",
        type="tertiary", on_change="rerun",
    )  # fmt: skip
    if menu.open:
        _settings(context, menu)
    say_prompts(context.words, *_prompts(context, chosen(context)), busy=_follows(context))


def _settings(context: PageContext, menu: DeltaGenerator) -> None:
    """What the way does not heed is grey."""
    words, choices = context.words, chosen(context)
    _choice(words, menu, "folding", choices, lambda it: words.of("settings", f"folding_{it}"))
    _bounds(context, menu, choices)
    _chains(context, menu, choices)
    _switch(words, menu, "send_reasoning", choices)
    _choice(
        words, menu, "language", choices,
        lambda it: Words(it)("name") if it else words.of("settings", "language_question"),
        disabled=not _speaks(_prompts(context, choices)[1]),
    )  # fmt: skip
    _switch(words, menu, "letters", choices)
    keys = {"focus": FOCUS, "stop": STOP, "new": NEW}
    menu.container(key="keys-hint").caption(words.of("settings", "keys", **keys))
    row = menu.container(horizontal=True, horizontal_alignment="distribute")
    prompts = words.of("settings", "prompts")
    row.button(prompts, key="prompts", icon=":material/edit_note:", on_click=_open_prompts)
    row.button(words.of("settings", "reset"), key="reset", on_click=_reset, args=(context,))


def _bounds(context: PageContext, menu: DeltaGenerator, choices: Choices) -> None:
    """The numbers of Settings, each as far as the way heeds it."""
    words, way = context.words, _way(context, choices)
    heeds = WAYS[way].settings
    for widget, step in (("steps", 1), ("step_tokens", 100), ("temperature", 0.1)):
        _slider(words, menu, widget, choices, step, not heeds & {*WIDGETS[widget]})
    if not heeds >= {"min_steps", "max_steps", "step_tokens", "temperature"}:
        menu.caption(words.of("settings", "grey", way=words.of("way", way, way=way)))


def _chains(context: PageContext, menu: DeltaGenerator, choices: Choices) -> None:
    words, direct = context.words, _way(context, choices) == "direct"
    _slider(words, menu, "chains", choices, 1, False)
    if choices.chains > 1 and choices.temperature < VOTE:
        menu.caption(words.of("settings", "warmer", temperature=VOTE))
    _switch(words, menu, "also_direct", choices, disabled=direct)


def _speaks(names: tuple[str, ...]) -> bool:
    """Whether these prompts differ from language to language."""
    return any(len({prompt_text(it, name) for it in LANGUAGES}) > 1 for name in names)


def _follows(context: PageContext) -> bool:
    run = context.runs.get(current_location().run)
    return run is not None and not run.ended


def _open_prompts() -> None:
    """A callback: the menu would cover the dialog."""
    st.session_state["settings"] = False
    open_prompts()


def _reset(context: PageContext) -> None:
    """A callback: all as on the first day, but for the way, which has a menu of its own."""
    _remember(context, {**_remembered(context), **_values(Choices())})
    forget_prompts()


# -- its widgets: each shows what is remembered


def _slider(
    words: Words, menu: DeltaGenerator, widget: str, choices: Choices, step: float, disabled: bool
) -> None:
    """One number, or a range of two that cannot pass each other."""
    low, high = BOUNDS[WIDGETS[widget][0]]
    label, about = words.of("settings", widget), words.of("settings", f"{widget}_help")
    value, key = _tell(widget, choices)
    menu.slider(label, low, high, value, step, key=key, disabled=disabled, help=about)


def _switch(
    words: Words, menu: DeltaGenerator, widget: str, choices: Choices, disabled: bool = False
) -> None:
    label, about = words.of("settings", widget), words.of("settings", f"{widget}_help")
    value, key = _tell(widget, choices)
    menu.toggle(label, value, key=key, help=about, disabled=disabled)


def _choice(
    words: Words,
    menu: DeltaGenerator,
    widget: str,
    choices: Choices,
    say: Callable[[str], str],
    disabled: bool = False,
) -> None:
    value, key = _tell(widget, choices)
    menu.segmented_control(
        words.of("settings", widget), OPTIONS[widget], default=value, key=key,
        format_func=say, required=True, disabled=disabled, width="stretch",
    )  # fmt: skip


def _key(widget: str) -> str:
    return f"choice-{widget}-{st.session_state.get('made', {}).get(widget, 0)}"


def _tell(widget: str, choices: Choices) -> tuple[Any, str]:
    """What the widget is to show, and its key; one that shows something else is made anew.

    Setting its value would reach neither a menu that opens later nor one that opens again.
    """
    values = tuple(getattr(choices, name) for name in WIDGETS[widget])
    value = values if len(values) > 1 else values[0]
    if st.session_state.get(_key(widget), value) != value:
        made = st.session_state.setdefault("made", {})
        made[widget] = made.get(widget, 0) + 1
    st.session_state.setdefault("told", {})[widget] = values
    return value, _key(widget)
