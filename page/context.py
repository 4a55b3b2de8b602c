"""What every part of the page needs: what the process shares, and what holds for its visitor."""

from __future__ import annotations

import gc
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial

import streamlit as st

from history.runs import Loop, Run, RunRequest, Runs
from history.store import Store, StoreError
from page.health import Health, ServerState
from page.i18n import Words, language_of
from page.lifespan import at_end
from page.owner import current_owner
from page.pace import Pace
from reasoning.detection import DetectedWays
from reasoning.endpoint import Endpoint
from reasoning.events import Event
from reasoning.think import think
from serving.catalogue import readable_ways
from serving.served import Served, served_at
from serving.warmup import warm_theirs

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Services:
    """What all pages of this process share."""

    runs: Runs
    store: Store
    health: Health
    pace: Pace
    address: str  # the model server's
    ways: DetectedWays  # each model's own way of thinking
    unkept: StoreError | None  # why the history is not kept


@st.cache_resource
def services() -> Services:
    """One loop, one store, the runs on them, one health."""
    loop = Loop()
    endpoint = Endpoint.from_environment()
    ways = DetectedWays(endpoint, readable_ways())

    async def think_asked(asked: RunRequest) -> AsyncIterator[Event]:
        model = await endpoint.model()
        inquiry = replace(asked, way=asked.way or await ways.of(model))
        async with aclosing(think(inquiry, endpoint=endpoint, model=model)) as events:
            async for event in events:
                yield event

    health = Health(endpoint.model, partial(warm_theirs, endpoint, ways), endpoint.replicas)
    loop.start(health.watch())
    store, unkept = _open_store()
    _freeze_imports()
    runs = Runs(loop, think_asked, store)
    at_end.callback(runs.leave)
    return Services(runs, store, health, Pace(), endpoint.base_url, ways, unkept)


def _freeze_imports() -> None:
    """Streamlit collects garbage after each click, and reads all modules anew for it: 60 ms."""
    gc.collect()
    gc.freeze()


def _open_store() -> tuple[Store, StoreError | None]:
    """The history; where it cannot be opened, one that lives as long as this process."""
    try:
        return Store(), None
    except StoreError as error:
        _log.warning("The history is not kept: %s", error)
        return Store("sqlite://"), error


@dataclass(frozen=True, slots=True)
class PageContext:
    """What every part of the page needs to know."""

    words: Words
    services: Services
    server: ServerState  # its health as this drawing of the page shows it
    own_way: str  # the served model's own way of thinking; "" while it is not known
    owner: str  # whose history is shown; "" is everybody's here
    live_runs: tuple[Run, ...]  # the owner's runs that think, as this drawing shows them

    @property
    def runs(self) -> Runs:
        return self.services.runs

    def run(self, id: str | None) -> Run | None:
        """The run, if it is the visitor's own; None for one that is unknown, or somebody else's."""
        run = self.runs.get(id)
        return run if run is not None and run.owner == self.owner else None

    @property
    def store(self) -> Store:
        return self.services.store

    @property
    def served(self) -> Served:
        """What is known of the served model beside its name."""
        return served_at(self.services.address, self.server.name)

    @property
    def is_outdated(self) -> bool:
        """Whether what is served is no longer what this drawing shows."""
        now = self.services.health.state()
        drawn = (self.server.name, str(self.server.error or ""), self.own_way)
        own = self.services.ways.known(now.name)
        if self.server.replicas != now.replicas:
            return True
        return drawn != (now.name, str(now.error or ""), own)

    @property
    def has_ended_runs(self) -> bool:
        """Whether a run that this drawing shows as thinking has ended, perhaps as it was drawn."""
        return any(run.ended for run in self.live_runs)


def visitor_words() -> Words:
    return Words(language_of(st.query_params.get("lang"), st.context.locale))


def page_context() -> PageContext:
    """What holds for the visitor of this script's run."""
    words, shared = visitor_words(), services()
    server, who = shared.health.state(), current_owner()
    live = tuple(shared.runs.live(who))
    return PageContext(words, shared, server, shared.ways.known(server.name), who, live)
