"""What every part of the page needs: what the process shares, the words, and where one is.

Which run is shown stands in the address (?run=...), with another beside it where two are
compared (&beside=...), so that a reload or a link comes back to it.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, replace

import streamlit as st

from history.runs import Loop, Run, RunRequest, Runs
from history.store import Store, StoreError
from page.health import Health, State
from page.owner import owner
from page.words import Words, language_of
from reasoning.detection import DEFAULT, DetectedWays
from reasoning.endpoint import Endpoint
from reasoning.events import Event
from reasoning.think import think
from reasoning.warming import reader_language, warm
from serving.catalogue import readable_ways
from serving.served import Served, served_at

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Services:
    """What all pages of this process share."""

    runs: Runs
    store: Store
    health: Health
    address: str  # the model server's
    ways: DetectedWays  # each model's own way of thinking
    unkept: StoreError | None  # why the history is not kept


@st.cache_resource
def services() -> Services:
    """One loop, one store, the runs on them, one health."""
    loop = Loop()
    endpoint = Endpoint.from_environment()
    ways = DetectedWays(endpoint, readable_ways())

    async def thinker(asked: RunRequest) -> AsyncIterator[Event]:
        model = await endpoint.model()
        inquiry = replace(asked, way=asked.way or await ways.of(model))
        async with aclosing(think(inquiry, endpoint=endpoint, model=model)) as events:
            async for event in events:
                yield event

    async def greet() -> None:
        """Others than vLLM compile no grammars, and some are paid for; ours is warm already."""
        model = await endpoint.model()
        warmed = not model.vllm or served_at(endpoint.base_url, model.name).by_us
        if not warmed and await ways.of(model) == DEFAULT:
            await warm(endpoint, reader_language())

    health = Health(endpoint.model, greet)
    loop.start(health.watch())
    store, unkept = _opened()
    _keep_what_is_imported()
    runs = Runs(loop, thinker, store)
    return Services(runs, store, health, endpoint.base_url, ways, unkept)


def _keep_what_is_imported() -> None:
    """Streamlit collects garbage after each click, and reads all modules anew for it: 60 ms."""
    gc.collect()
    gc.freeze()


def _opened() -> tuple[Store, StoreError | None]:
    """The history; where it cannot be opened, one that lives as long as this process."""
    try:
        return Store(), None
    except StoreError as error:
        _log.warning("The history is not kept: %s", error)
        return Store("sqlite://"), error


@dataclass(frozen=True, slots=True)
class Site:
    """What every part of the page needs to know."""

    words: Words
    services: Services
    state: State  # the model's health as this drawing of the page shows it
    own: str  # the served model's own way of thinking; "" while it is not known
    owner: str  # whose history is shown; "" is everybody's here
    live: tuple[Run, ...]  # the owner's runs that think, as this drawing shows them

    @property
    def runs(self) -> Runs:
        return self.services.runs

    @property
    def store(self) -> Store:
        return self.services.store

    @property
    def served(self) -> Served:
        """What is known of the served model beside its name."""
        return served_at(self.services.address, self.state.name)

    @property
    def outdated(self) -> bool:
        """Whether what is served is no longer what this drawing shows."""
        state = self.services.health.state()
        seen = (self.state.name, str(self.state.error or ""), self.own)
        own = self.services.ways.known(state.name)
        return seen != (state.name, str(state.error or ""), own)

    @property
    def belated(self) -> bool:
        """Whether a run that this drawing shows as thinking has ended, perhaps as it was drawn."""
        return any(run.ended for run in self.live)


def site() -> Site:
    """The site as the visitor of this script's run sees it."""
    words = Words(language_of(st.query_params.get("lang"), st.context.locale))
    shared = services()
    state, who = shared.health.state(), owner()
    live = tuple(shared.runs.live(who))
    return Site(words, shared, state, shared.ways.known(state.name), who, live)


# -- where one is


@dataclass(frozen=True, slots=True)
class Shown:
    """What is shown: a run, perhaps another beside it; neither on the first page."""

    run: str | None = None
    beside: str | None = None


def shown() -> Shown:
    """What to show. A click knows better than the address that came with it."""
    if st.session_state.pop("went", False):
        here: Shown = st.session_state.get("shown", Shown())
        _write_address(here)
        return here
    here = Shown(st.query_params.get("run"), st.query_params.get("beside"))
    st.session_state["shown"] = here
    return here


def here() -> Shown:
    """What this visitor looks at, for a callback: it runs before the page is drawn anew."""
    now: Shown = st.session_state.get("shown", Shown())
    return now


def go(run: str | None, beside: str | None = None) -> None:
    """A callback: shows that run, or the first page."""
    st.session_state["went"] = True
    st.session_state["shown"] = Shown(run, beside)


def _write_address(here: Shown) -> None:
    for name, id in (("run", here.run), ("beside", here.beside)):
        if id is not None:
            st.query_params[name] = id
        elif name in st.query_params:
            del st.query_params[name]
