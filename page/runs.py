"""Runs: chains of thought that live on a loop of their own, not in a page's script.

A page's script can be stopped at any moment: by a click, a reload, a closed tab. A
run cannot: it is a task on one background event loop and appends its events to a
list. Whoever knows a run's id follows that list from the first event, as often as
he likes. The newest ended runs are kept, in memory alone.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any

from reasoning.errors import StepwiseError
from reasoning.events import ENDS, Event, Failed, Retry, Step, Stopped, Trace

KEPT = 200  # ended runs; a run is some 50 kB
# A question, finished steps, and a way of thinking ("": the model's own)
Thinker = Callable[[str, Sequence[Step], str], AsyncIterator[Event]]
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
        self.loop.call_soon_threadsafe(task.cancel)


class Run:
    """One question and all that happened since. Its clock stands still while it waits."""

    def __init__(
        self,
        question: str,
        steps: Sequence[Step] = (),
        way: str = "",
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.id = secrets.token_urlsafe(16)
        self.question = question
        self.steps = tuple(steps)  # finished before: the chain goes on after them
        self.way = way
        self._events: list[Event] = []
        self._changed = threading.Condition()
        self._now = now
        self._began = self._ended = now()
        self._waits: list[tuple[float, float]] = []  # when it began, how long it is

    @property
    def ended(self) -> bool:
        with self._changed:
            return bool(self._events) and isinstance(self._events[-1], ENDS)

    @property
    def trace(self) -> Trace:
        with self._changed:
            return Trace(tuple(self._events))

    def events(self, since: int, timeout: float = 0.0) -> tuple[Event, ...]:
        """The events from number `since` on; waits up to `timeout` seconds for one."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._events) > since, timeout)
            return tuple(self._events[since:])

    def append(self, event: Event) -> None:
        with self._changed:
            if self._events and isinstance(self._events[-1], ENDS):
                return
            if isinstance(event, Retry):
                self._waits.append((self._now(), event.wait))
            self._ended = self._now()
            self._events.append(event)
            self._changed.notify_all()

    def seconds(self) -> float:
        """The thinking time so far, without the waits before retries."""
        end = self._ended if self.ended else self._now()
        waited = sum(min(wait, end - began) for began, wait in self._waits)
        before = sum(step.seconds for step in self.steps)
        return before + max(0.0, end - self._began - waited)


class Runs:
    """All runs of this process, by id."""

    def __init__(self, loop: Loop, thinker: Thinker, kept: int = KEPT) -> None:
        self._loop = loop
        self._thinker = thinker
        self._kept = kept
        self._runs: dict[str, Run] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._lock = threading.Lock()

    def start(self, question: str, steps: Sequence[Step] = (), way: str = "") -> Run:
        run = Run(question, steps, way)
        with self._lock:
            self._forget_oldest()
            self._runs[run.id] = run
            self._tasks[run.id] = self._loop.start(self._think(run))
        return run

    def get(self, id: str | None) -> Run | None:
        with self._lock:
            return self._runs.get(id or "")

    def stop(self, id: str) -> None:
        """Ends a run where it is. The core closes its stream, and the server stops working."""
        with self._lock:
            task = self._tasks.get(id)
        if task is not None:
            self._loop.cancel(task)

    def _forget_oldest(self) -> None:
        ended = [id for id, run in self._runs.items() if run.ended]
        for id in ended[: max(0, len(ended) - self._kept + 1)]:
            del self._runs[id]

    async def _think(self, run: Run) -> None:
        events = self._thinker(run.question, run.steps, run.way)
        try:
            async for event in events:
                run.append(event)
            run.append(_fault("The chain ended without an end."))
        except asyncio.CancelledError:
            run.append(Stopped(_unfinished(run)))
        except StepwiseError as error:
            run.append(Failed(error.code, error.message, error.remedy, _unfinished(run)))
        except Exception:  # whatever it is, the page must say so instead of waiting for ever
            _log.exception("Run %s failed", run.id)
            run.append(_fault(f"The log of the page names the cause, under run {run.id}."))
        finally:
            self._tasks.pop(run.id, None)
            await _close(events)


def _fault(message: str) -> Failed:
    return Failed("bug", f"Stepwise made a mistake. {message}", "Ask again.")


def _unfinished(run: Run) -> float:
    """The seconds of thinking that no finished step has counted."""
    return max(0.0, run.seconds() - run.trace.seconds)


async def _close(events: AsyncIterator[Event]) -> None:
    close = getattr(events, "aclose", None)
    if close is not None:
        await close()
