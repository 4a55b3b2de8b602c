"""The page's script: what stands where. Streamlit runs it anew at every click.

Nothing lives in here: runs live in page/runs.py, the model's health in page/health.py,
and which run is shown in the address (?run=...), so that a reload comes back to it.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from page.health import Health, State
from page.markdown import title
from page.runs import Loop, Run, Runs
from page.show import View, total
from page.words import LANGUAGES, Words, language_of
from reasoning.choosing import way_of
from reasoning.endpoint import Endpoint
from reasoning.errors import StepwiseError, Unreachable
from reasoning.events import Answer, Event, Step
from reasoning.think import clean_question, think, warm
from serving.catalogue import ways

STYLE = Path(__file__).with_name("page.css")
ICON = Path(__file__).with_name("icon.svg").read_text(encoding="utf-8")
TICK = 0.05  # seconds: twenty paintings a second
LOOK = 2.0  # seconds between two looks at the model's health
EXAMPLES = ("example_1", "example_2", "example_3")
SLOTS = 3  # places for a view: what one view leaves behind never shows through the next


@st.cache_resource
def services() -> tuple[Runs, Health]:
    """What all pages of this process share: one loop, the runs on it, one health."""
    loop = Loop()
    endpoint = Endpoint.from_environment()
    known: dict[str, str] = {}  # ways of thinking by model: a model is asked for its own once

    async def thinker(question: str, steps: Sequence[Step]) -> AsyncIterator[Event]:
        model = await endpoint.model()
        if model.name not in known:
            known[model.name] = await way_of(endpoint, model, ways())
        way = known[model.name]
        chain = think(question, endpoint=endpoint, model=model, way=way, steps=steps)
        async with aclosing(chain) as events:
            async for event in events:
                yield event

    async def greet() -> None:
        if (await endpoint.model()).vllm:  # others compile no grammars, and some are paid for
            await warm(endpoint)

    health = Health(endpoint.model, greet)
    loop.start(health.watch())
    return Runs(loop, thinker), health


@dataclass(frozen=True, slots=True)
class Site:
    """What every part of the page needs to know."""

    words: Words
    runs: Runs
    health: Health
    state: State  # the model's health as this drawing of the page shows it


def draw() -> None:
    """The whole page, from top to bottom."""
    st.set_page_config(page_title="Stepwise", page_icon=ICON, layout="centered")
    st.html(STYLE)
    words = Words(language_of(st.query_params.get("lang"), st.context.locale))
    runs, health = services()
    site = Site(words, runs, health, health.state())
    id = _shown()
    run = runs.get(id)
    _header(site, home=not id)
    if site.state.error is not None and (run is None or isinstance(run.trace.end, Answer)):
        _say_no_server(words, site.state.error)  # a run that failed says it in its own place
    place = _view_place(id)
    bar = st.bottom.container(
        horizontal=True, horizontal_alignment="right", vertical_alignment="center", key="bar"
    )
    _say_what_was_refused(words)
    _box(site, run)
    if run is not None:
        _show_run(site, run, place, bar)
    elif id:
        place.info(words("unknown_run"), icon=":material/link_off:")
        bar.button(words("new_question"), on_click=_go, args=(None,), key="new")
    else:
        _home(site, place)


# -- where we are


def _shown() -> str | None:
    """The run to show. A click knows better than the address that came with it."""
    if st.session_state.pop("went", False):
        id: str | None = st.session_state.get("run")
        _write_address(id)
        return id
    id = st.query_params.get("run")
    st.session_state["run"] = id
    return id


def _write_address(id: str | None) -> None:
    if id is not None:
        st.query_params["run"] = id
    elif "run" in st.query_params:
        del st.query_params["run"]


def _go(id: str | None) -> None:
    st.session_state["run"] = id
    st.session_state["went"] = True


def _view_place(id: str | None) -> DeltaGenerator:
    """A place that holds nothing of the view before it."""
    number, last = st.session_state.get("place", (0, id))
    if last != id:
        number = (number + 1) % SLOTS
    st.session_state["place"] = (number, id)
    places = [st.container() if slot == number else st.empty() for slot in range(SLOTS)]
    place: DeltaGenerator = places[number]
    return place


# -- what is asked


def _ask(runs: Runs, question: str, on: str | None, steps: Sequence[Step] = ()) -> None:
    """Starts a run, from the view `on`; a click on a view that is no longer there is void."""
    st.session_state["went"] = True
    here = runs.get(st.session_state.get("run"))
    if st.session_state.get("run") != on:
        return
    if here is not None and not here.ended:
        st.session_state["refused"] = "still_thinking"
        return
    try:
        _go(runs.start(clean_question(question), steps).id)
    except StepwiseError as error:
        st.session_state["refused"] = error


def _ask_from_box(runs: Runs, on: str | None) -> None:
    _ask(runs, st.session_state.get("box") or "", on)


def _say_what_was_refused(words: Words) -> None:
    place = st.bottom.empty()  # always there: what comes and goes would shift the box
    refused = st.session_state.pop("refused", None)
    if isinstance(refused, StepwiseError):
        said = {"message": refused.message, "remedy": refused.remedy}
        place.warning(words.of("failed", refused.code, **said))
    elif refused:
        place.warning(words(refused))


def _box(site: Site, run: Run | None) -> None:
    busy = run is not None and not run.ended
    hint = "ask_busy" if busy else "ask" if site.state.model else "ask_waiting"
    st.chat_input(
        site.words(hint),
        key="box",  # for ever: a box that is replaced while it has the focus shifts the rest
        disabled=busy or site.state.model is None,
        on_submit=_ask_from_box,
        args=(site.runs, st.session_state.get("run")),
    )


# -- the parts


def _header(site: Site, home: bool) -> None:
    row = st.container(horizontal=True, vertical_alignment="center", key="header")
    if not home:
        row.markdown(f"**{site.words('title')}**", width="content")
    with row.container(key="health", width="stretch"):
        _health(site)
    other = Words(LANGUAGES[1 - LANGUAGES.index(site.words.language)])
    speak = (other.language,)
    row.button(other("name"), type="tertiary", on_click=_speak, args=speak, key="language")


def _speak(language: str) -> None:
    st.query_params["lang"] = language


@st.fragment(run_every=LOOK)
def _health(site: Site) -> None:
    """The served model. What is new here is new for the whole page: it is drawn again."""
    state = site.health.state()
    if _looks(state) != _looks(site.state):
        st.rerun()
    if state.model is not None:
        st.badge(title(state.name), icon=":material/check_circle:", color="green")
    elif state.error is None:
        st.badge(site.words("looking"), icon=":material/search:", color="gray")
    else:
        st.badge(site.words("no_server"), icon=":material/cloud_off:", color="orange")


def _looks(state: State) -> tuple[str, str]:
    return state.name, str(state.error or "")


def _say_no_server(words: Words, error: StepwiseError) -> None:
    key = "server_down" if isinstance(error, Unreachable) else "server_wrong"
    st.warning(words(key, message=title(error.message), remedy=title(error.remedy)))


def _home(site: Site, place: DeltaGenerator) -> None:
    words = site.words
    place.title(words("title"), anchor=False)
    place.markdown(words("about"))
    place.caption(words("examples"))
    for key in EXAMPLES:
        place.button(
            words(key),
            key=key,
            disabled=site.state.model is None,
            on_click=_ask,
            args=(site.runs, words(key), None),
        )


def _show_run(site: Site, run: Run, place: DeltaGenerator, bar: DeltaGenerator) -> None:
    place.container(key="question").text(run.question)
    view = View(place.container(key="run"), site.words)
    if run.ended:
        _replay(site, run, view, bar)
    else:
        _follow(site, run, view, bar)


def _replay(site: Site, run: Run, view: View, bar: DeltaGenerator) -> None:
    trace = run.trace
    for event in trace.events:
        view.show(event)
    view.paint()
    view.close(trace)
    bar.markdown(f":gray[{total(trace, site.words)}]", width="stretch")
    if not isinstance(trace.end, Answer):
        _again(site, run, bar)
    bar.button(site.words("new_question"), on_click=_go, args=(None,), key="new")


def _again(site: Site, run: Run, bar: DeltaGenerator) -> None:
    """What can be done about a run without an answer: go on with it, or begin anew."""
    steps, words, anew = run.trace.steps, site.words, (site.runs, run.question, run.id)
    kind: Literal["primary", "secondary"] = "secondary" if steps else "primary"
    if steps:
        label = words("go_on", number=steps[-1].number + 1)
        bar.button(label, on_click=_ask, args=(*anew, steps), type="primary", key="go-on")
    bar.button(words("ask_again"), on_click=_ask, args=anew, type=kind, key="again")


def _follow(site: Site, run: Run, view: View, bar: DeltaGenerator) -> None:
    """Draws the run as it goes, until it ends; then the page is drawn anew, at rest."""
    count, stop = bar.empty(), site.words("stop")
    bar.button(stop, on_click=site.runs.stop, args=(run.id,), type="primary", key="stop")
    seen = 0
    while not run.ended:
        events = run.events(seen, timeout=TICK)
        for event in events:
            view.show(event)
        seen += len(events)
        view.paint()
        count.markdown(f":shimmer[{_progress(site.words, run, view)}]", width="stretch")
        if _looks(site.health.state()) != _looks(site.state):
            break
        time.sleep(TICK)
    st.rerun()


def _progress(words: Words, run: Run, view: View) -> str:
    seconds = words.seconds(run.seconds())
    if view.answering:
        return words("live_answer", seconds=seconds)
    if view.writing and view.most:
        return words("live_step", number=view.writing, most=view.most, seconds=seconds)
    if view.writing:
        return words("live_open_step", number=view.writing, seconds=seconds)
    return words("live_start", seconds=seconds)


draw()
