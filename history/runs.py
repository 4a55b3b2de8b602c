"""Runs: chains of thought that live on a loop of their own, not in a page's script.

A page's script can be stopped at any moment: by a click, a reload, a closed tab. A run
cannot: it is a task on one background event loop. Whoever knows its id follows it from
the first event, as often as he likes, also when it is thought in another process, or was in an
earlier one: every event is in the store before it is shown.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import replace
from functools import partial
from typing import Any
from weakref import WeakValueDictionary

from history.entries import Entry, Progress
from history.followed import Followed
from history.leases import Leases
from history.recorder import Recorder
from history.request import Link
from history.request import RunRequest as RunRequest
from history.run import Run as Run
from history.store import Store, StoreError
from history.votes import VotesElsewhere
from reasoning.errors import StepwiseError
from reasoning.events import Event, Failed, Stopped, Trace
from reasoning.logs import log_event, named
from reasoning.self_consistency import Vote, draw_chains
from reasoning.voting import vote_of

KEPT = 200  # ended runs in memory, so that they are not read again; a run is some 50 kB
Thinker = Callable[[RunRequest], AsyncIterator[Event]]
_log = logging.getLogger(__name__)


class Loop:
    """An event loop in a thread of its own, for the life of the process."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, name="stepwise", daemon=True).start()

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Starts the work on the loop, from any other thread."""

        async def created() -> asyncio.Task[None]:
            return asyncio.create_task(work)

        return asyncio.run_coroutine_threadsafe(created(), self.loop).result()

    def cancel(self, task: asyncio.Task[None]) -> None:
        self.loop.call_soon_threadsafe(_cancel_once, task)


class Runs:
    """All runs, by id: those that think in this process, in others, and those in the store."""

    def __init__(
        self,
        loop: Loop,
        thinker: Thinker,
        store: Store,
        *,
        recorder: Recorder | None = None,
        kept: int = KEPT,
    ) -> None:
        self._loop = loop
        self._thinker = thinker
        self._store = store
        self._recorder = recorder or Recorder(store)
        self._kept = kept
        self._unread: StoreError | None = None
        self._leases = Leases(store, self._end)
        self._runs: dict[str, Run] = {}  # of this process, and those of the store that are over
        self._followed: WeakValueDictionary[str, Followed] = WeakValueDictionary()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._votes: dict[str, asyncio.Task[None]] = {}  # by the first run
        self._votes_elsewhere = VotesElsewhere(store)
        self._lock = threading.Lock()

    @property
    def trouble(self) -> StoreError | None:
        """Why the history cannot be saved, or read, now."""
        return self._recorder.trouble or self._unread

    def start(self, asked: RunRequest, link: Link = Link(), owner: str = "", id: str = "") -> Run:
        """Begins to think. It goes on in the linked conversation where that is the owner's.

        Where a run was interrupted and another goes on with it already, it is that one.
        """
        run = Run(asked, self._own(link, owner), owner, id=id)
        if link.how == "go_on" and (first := self._first_to_go_on(run)):
            return first
        self._recorder.begin(run)
        self._remember(run)
        self._leases.hold(run)
        task = self._loop.start(self._think(run))
        with self._lock:
            self._tasks = {**_undone(self._tasks), run.id: task}
        return run

    def vote(self, first: Run, others: Sequence[RunRequest], link: Link) -> None:
        """Begins as many of the others as the vote with the first needs, until it is decided."""
        task = self._loop.start(self._vote(first, others, link))
        with self._lock:
            self._votes = {**_undone(self._votes), first.id: task}

    def leave(self) -> None:
        """The process ends: what it still thinks is left to whoever goes on with it."""
        self._leases.give_back()

    def votes_on(self, group: str) -> bool:
        """Whether the vote that began with this run is still undecided, here or elsewhere."""
        with self._lock:
            here = group in _undone(self._votes)
        if here or self._is_of_here(group):
            return here
        first = self.get(group)
        return first is not None and self._votes_elsewhere.is_on(group, first.asked.most)

    def stop_vote(self, group: str) -> None:
        """Ends the vote that began with this run, and those of its runs that think."""
        with self._lock:
            task, here = self._votes.get(group), group in self._runs
        if task is not None:
            self._loop.cancel(task)
        elif not here:
            self._ask_stop(group, together=True)

    def put(self, trace: Trace, owner: str = "") -> Run:
        """A run that was thought elsewhere, in a conversation of its own.

        Raises ValueError where it does not tell how it began.
        """
        if trace.started is None:
            raise ValueError('expected a trace that begins with an event "started", got none')
        run = _past(Run(RunRequest.of(trace.started), owner=owner, past=True), trace)
        self._recorder.begin(run)
        self._recorder.record(run)
        self._remember(run)
        return run

    def get(self, id: str | None) -> Run | None:
        """The run; None for one that is unknown or deleted."""
        run = self._runs.get(id or "") or self._followed.get(id or "")
        if not id or (run and (not run.ended or run.written < 0 or self._recorder.trouble)):
            return run
        try:
            entry = self._store.entry(id)
            self._unread = None
            return self._as_stored(run, entry) if entry else None
        except StoreError as error:
            self._unread = error
            return run

    def live(self, owner: str) -> list[Run]:
        """The owner's runs that think now, those of other processes last."""
        with self._lock:
            runs = list(self._runs.values())
        runs = [run for run in runs if run.owner == owner]
        return [run for run in [*runs, *self._elsewhere(owner)] if not run.ended]

    def together(self, group: str) -> list[Run]:
        """The runs in memory that were asked together with this one, itself among them."""
        with self._lock:
            return [run for run in self._runs.values() if group in (run.id, run.link.group)]

    def ids_together(self, group: str) -> set[str]:
        """The same, of all processes."""
        ids = {run.id for run in self.together(group)}
        if self._is_of_here(group):
            return ids
        return ids | {entry.id for entry in self._votes_elsewhere.chains(group)}

    def _is_of_here(self, group: str) -> bool:
        """Whether this process began that run, and those asked together with it."""
        run = self._runs.get(group)
        return run is not None and not run.past

    def stop(self, id: str) -> None:
        """Ends a run where it is. The core closes its stream, and the server stops working.

        One of another process is ended by that one, within a second.
        """
        with self._lock:
            task, here = self._tasks.get(id), id in self._runs
        if task is not None:
            self._loop.cancel(task)
        elif not here:
            self._ask_stop(id)

    def _own(self, link: Link, owner: str) -> Link:
        """Nobody asks on into another's conversation."""
        try:
            thread = self._store.thread(link.thread) if link.thread else None
        except StoreError:  # the recorder says it, when it cannot write
            return link
        return replace(link, thread="") if thread and thread.owner != owner else link

    def _as_stored(self, run: Run | None, entry: Entry) -> Run:
        """One that was interrupted may have come to life again, or to its end."""
        known = self._runs.get(entry.id)
        if run is not None and run is known and (run.trace.end or entry.state == "interrupted"):
            return run
        return self._read(entry)

    def _read(self, entry: Entry) -> Run:
        """One that was thought before, or that another process thinks."""
        asked = self._store.asked(entry.id) or RunRequest(entry.question)
        if entry.state == "thinking":
            return self._follow(entry, asked)
        run = Run(asked, entry.link, entry.owner, id=entry.id, past=True)
        run = _past(run, Trace(self._store.events(entry.id)))
        run.written = len(run.trace.events)
        run.show()
        self._remember(run)
        return run

    def _follow(self, entry: Entry, asked: RunRequest) -> Run:
        look = partial(self._progress, entry.id)
        run = Followed(asked, entry, look, time.time() - entry.at)
        with self._lock:
            self._followed[entry.id] = run
        return run

    def _progress(self, id: str, since: int) -> Progress:
        """What the store has of another process's run; nothing new while it cannot be read."""
        try:
            progress = self._store.follow(id, since)
            self._unread = None
        except StoreError as error:
            self._unread = error
            return Progress("thinking", since, (), whole=False)
        return progress

    def _elsewhere(self, owner: str) -> list[Run]:
        """The owner's runs that think in other processes."""
        if self._recorder.trouble is not None:
            return []
        try:
            found = self._store.thinking(owner)
        except StoreError as error:
            self._unread = error
            return []
        runs = [self.get(entry.id) for entry in found if entry.id not in self._runs]
        return [run for run in runs if run is not None]

    def _first_to_go_on(self, run: Run) -> Run | None:
        """The run that goes on already with the one it would go on with; None: this one does."""
        try:
            id = self._store.take(run.begun)
        except StoreError:  # the recorder says it, when it cannot write
            return None
        return None if id == run.id else self.get(id)

    def _ask_stop(self, id: str, together: bool = False) -> None:
        try:
            self._store.ask_stop(id, together)
        except StoreError as error:
            self._unread = error

    def _end(self, run: Run, together: bool) -> None:
        """Another process asks for it."""
        if together:
            self.stop_vote(run.link.group or run.id)
        self.stop(run.id)

    def _remember(self, run: Run) -> None:
        """The run, and of those that are over the newest; what is not saved is kept."""
        with self._lock:
            self._runs[run.id] = run
            old = [one for one in self._runs.values() if one.settled or one.refused]
            for one in old[: -self._kept]:
                del self._runs[one.id]

    # -- on the loop

    async def _vote(self, first: Run, others: Sequence[RunRequest], link: Link) -> None:
        async def chain(number: int) -> Run:
            run = self._beside(others[number - 1], link, first.owner) if number else first
            await self._end_of(run)
            return run

        await draw_chains(chain, _cast, 1 + len(others))

    def _beside(self, asked: RunRequest, link: Link, owner: str) -> Run:
        """As `start`, where nobody may wait for the store."""
        run = Run(asked, link, owner)
        self._recorder.begin_soon(run)
        self._remember(run)
        self._leases.hold(run)
        with self._lock:
            self._tasks[run.id] = asyncio.create_task(self._think(run))
        return run

    async def _end_of(self, run: Run) -> None:
        """Waits until it is over; whoever is cancelled meanwhile ends it."""
        task = self._tasks.get(run.id)
        if task is None:  # over, and forgotten since
            return
        try:
            await asyncio.wait([task])
        finally:
            _cancel_once(task)

    async def _think(self, run: Run) -> None:
        events = self._thinker(run.asked)
        try:
            async for event in events:
                self._hear(run, event)
            self._hear(run, _fault("The chain ended without an end."))
        except asyncio.CancelledError:
            self._hear(run, Stopped(run.unfinished))
        except StepwiseError as error:
            self._hear(run, Failed(error.code, error.message, error.remedy, run.unfinished))
        except Exception:  # whatever it is, the page must say so instead of waiting for ever
            _log.exception("Run %s failed", run.id, extra=named(run=run.id))
            self._hear(run, _fault(f"The log of the page names the cause, under run {run.id}."))
        finally:
            await _close(events)

    def _hear(self, run: Run, event: Event) -> None:
        if not run.over:  # nothing follows an end
            log_event(_log, event, run=run.id)
        run.hear(event)
        self._recorder.record(run)


def _cancel_once(task: asyncio.Task[None]) -> None:
    """A second time would break off the closing of its stream."""
    if not task.cancelling():
        task.cancel()


def _undone(tasks: dict[str, asyncio.Task[None]]) -> dict[str, asyncio.Task[None]]:
    return {id: task for id, task in tasks.items() if not task.done()}


def _cast(run: Run) -> Vote:
    answer = run.heard.answer
    return vote_of(answer.content if answer else "", run.heard.tokens)


def _past(run: Run, trace: Trace) -> Run:
    for event in trace.events:
        run.hear(event)
    run.close()
    return run


def _fault(message: str) -> Failed:
    return Failed("bug", f"Stepwise made a mistake. {message}", "Ask again.")


async def _close(events: AsyncIterator[Event]) -> None:
    close = getattr(events, "aclose", None)
    if close is not None:
        await close()
