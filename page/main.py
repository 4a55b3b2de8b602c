"""The page's script: what stands where. Streamlit runs it anew at every click.

Nothing lives in here: runs live in page/runs.py, the model's health in page/health.py,
and which run is shown in the address (?run=...), so that a reload comes back to it.
"""

from __future__ import annotations

import logging
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
from reasoning.choosing import DEFAULT, way_of
from reasoning.endpoint import Endpoint, ServedModel
from reasoning.errors import StepwiseError, Unreachable
from reasoning.events import Answer, Event, Step, Trace
from reasoning.think import WAYS, clean_question, think, warm
from serving.catalogue import CatalogueError, ways

STYLE = Path(__file__).with_name("page.css")
ICON = Path(__file__).with_name("icon.svg").read_text(encoding="utf-8")
TICK = 0.05  # seconds: twenty paintings a second
LOOK = 2.0  # seconds between two looks at the model's health
EXAMPLES = ("example_1", "example_2", "example_3")
SLOTS = 3  # places for a view: what one view leaves behind never shows through the next
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Services:
    """What all pages of this process share."""

    runs: Runs
    health: Health
    own: dict[str, str]  # each model's own way of thinking, as far as it is known


@st.cache_resource
def services() -> Services:
    """One loop, the runs on it, one health. A model is asked for its own way once."""
    loop = Loop()
    endpoint = Endpoint.from_environment()
    own = _catalogued()

    async def way_for(model: ServedModel) -> str:
        if model.name not in own:
            own[model.name] = await way_of(endpoint, model, own)
        return own[model.name]

    async def thinker(question: str, steps: Sequence[Step], way: str) -> AsyncIterator[Event]:
        model = await endpoint.model()
        way = way or await way_for(model)
        chain = think(question, endpoint=endpoint, model=model, way=way, steps=steps)
        async with aclosing(chain) as events:
            async for event in events:
                yield event

    async def greet() -> None:
        model = await endpoint.model()
        if model.vllm and await way_for(model) == DEFAULT:  # others compile no grammars,
            await warm(endpoint)  # and some are paid for

    health = Health(endpoint.model, greet)
    loop.start(health.watch())
    return Services(Runs(loop, thinker), health, own)


def _catalogued() -> dict[str, str]:
    """The ways that the catalogue names. Without one the page works: models are asked."""
    try:
        return dict(ways())
    except CatalogueError as error:
        _log.warning("No way of thinking is taken from the catalogue: %s", error)
        return {}


@dataclass(frozen=True, slots=True)
class Site:
    """What every part of the page needs to know."""

    words: Words
    services: Services
    state: State  # the model's health as this drawing of the page shows it
    own: str  # the served model's own way of thinking; "" while it is not known

    @property
    def runs(self) -> Runs:
        return self.services.runs

    @property
    def outdated(self) -> bool:
        """Whether what is served is no longer what this drawing shows."""
        state = self.services.health.state()
        seen = (self.state.name, str(self.state.error or ""), self.own)
        own = self.services.own.get(state.name, "")
        return seen != (state.name, str(state.error or ""), own)


def draw() -> None:
    """The whole page, from top to bottom."""
    st.set_page_config(page_title="Stepwise", page_icon=ICON, layout="centered")
    st.html(STYLE)
    words = Words(language_of(st.query_params.get("lang"), st.context.locale))
    shared = services()
    state = shared.health.state()
    site = Site(words, shared, state, shared.own.get(state.name, ""))
    id = _shown()
    run = site.runs.get(id)
    _say_what_is_new(site)
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


def _ask(
    runs: Runs, question: str, on: str | None, steps: Sequence[Step] = (), way: str | None = None
) -> None:
    """Starts a run, from the view `on`; a click on a view that is no longer there is void.

    It thinks in the given way, else in the one chosen in the header.
    """
    st.session_state["went"] = True
    here = runs.get(st.session_state.get("run"))
    if st.session_state.get("run") != on:
        return
    if here is not None and not here.ended:
        st.session_state["refused"] = "still_thinking"
        return
    try:
        way = _chosen() if way is None else way
        _go(runs.start(clean_question(question), steps, way).id)
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
        row.container(key="brand", width="content").markdown(f"**{site.words('title')}**")
    with row.container(key="health", width="stretch"):
        _health(site)
    if site.state.model is not None:
        _way(site, row)
    other = Words(LANGUAGES[1 - LANGUAGES.index(site.words.language)])
    speak = (other.language,)
    row.button(other("name"), type="tertiary", on_click=_speak, args=speak, key="language")


def _speak(language: str) -> None:
    st.query_params["lang"] = language


def _say_what_is_new(site: Site) -> None:
    """A model in the place of another that was served while the page was open."""
    name = site.state.name
    before = st.session_state.get("served")
    if name:
        st.session_state["served"] = name
    if name and before not in (None, name):
        st.toast(site.words("now_served", model=title(name)), icon=":material/swap_horiz:")


def _way(site: Site, row: DeltaGenerator) -> None:
    """How the next question is thought through: the model's own way, unless one is chosen."""
    words, name = site.words, site.state.name
    options = ["", *(way for way in WAYS if way != site.own)]
    wanted = _chosen()
    label = _way_name(words, wanted or site.own) or words("way_of_thinking")
    key = f"way-{words.language}-{site.own}-{name}"
    menu = row.popover(label, type="tertiary", key="way")
    menu.radio(
        words("way_help"),
        options,
        index=options.index(wanted) if wanted in options else 0,
        format_func=lambda way: _way_name(words, way) or _own_name(site),
        captions=[words.of("way_about", way or site.own) for way in options],
        key=key,
        on_change=lambda: st.session_state.update(chosen=(name, st.session_state[key])),
    )


def _way_name(words: Words, way: str) -> str:
    return words.of("way", way, way=way) if way else ""


def _own_name(site: Site) -> str:
    name = _way_name(site.words, site.own)
    return site.words("way_own", way=name) if name else site.words("way_own_unknown")


def _chosen() -> str:
    """The way chosen for the model that is served; "" for its own."""
    name, way = st.session_state.get("chosen", ("", ""))
    return way if name == st.session_state.get("served") else ""


@st.fragment(run_every=LOOK)
def _health(site: Site) -> None:
    """The served model. What is new here is new for the whole page: it is drawn again."""
    if site.outdated:
        st.rerun()
    state = site.state
    if state.model is not None:
        st.badge(title(state.name), icon=":material/check_circle:", color="green")
    elif state.error is None:
        st.badge(site.words("looking"), icon=":material/search:", color="gray")
    else:
        st.badge(site.words("no_server"), icon=":material/cloud_off:", color="orange")


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
    elif trace.end.cut and _concludes(trace):
        _go_on(site, run, bar)
    bar.button(site.words("new_question"), on_click=_go, args=(None,), key="new")


def _again(site: Site, run: Run, bar: DeltaGenerator) -> None:
    """What can be done about a run without an answer: go on with it, or begin anew."""
    anew = (site.runs, run.question, run.id)
    kind: Literal["primary", "secondary"] = "secondary" if run.trace.steps else "primary"
    if run.trace.steps:
        _go_on(site, run, bar)
    bar.button(site.words("ask_again"), on_click=_ask, args=anew, type=kind, key="again")


def _go_on(site: Site, run: Run, bar: DeltaGenerator) -> None:
    """After the finished steps, in the way they were made."""
    trace, words = run.trace, site.words
    way = trace.started.way if trace.started else run.way
    label = words("go_on", number=trace.steps[-1].number + 1)
    if _concludes(trace):
        label = words("conclude")
    after = (site.runs, run.question, run.id, trace.steps, way)
    bar.button(label, on_click=_ask, args=after, type="primary", key="go-on")


def _concludes(trace: Trace) -> bool:
    """Whether what follows the steps is the answer at once, and not one more step."""
    way = trace.started.way if trace.started else ""
    return bool(trace.steps) and (way == "native" or (way == "coat" and trace.steps[-1].cut))


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
        if site.outdated:
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
