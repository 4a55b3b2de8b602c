"""Chains of thought for one request: run side by side, watched, and ended with it.

A choice's chains are begun as its vote needs them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from gateway.messages import Conversation
from gateway.models import ModelAlias
from gateway.observers import Chain, Observer, observe
from gateway.render import vote_of
from gateway.schema import ChatRequest, chain_settings, check_supported
from gateway.upstream import Upstream
from reasoning.events import Event, Settings, Stopped, Trace
from reasoning.inquiry import Inquiry
from reasoning.metering import Meter
from reasoning.self_consistency import draw_chains
from reasoning.think import Stopwatch, think


@dataclass(frozen=True, slots=True)
class ReplyJob:
    """What is to be thought about, for the reply `id`.

    `created` is in seconds since the epoch; `carrier` holds the W3C trace headers.
    """

    id: str
    created: int
    alias: ModelAlias
    request: ChatRequest
    conversation: Conversation
    carrier: Mapping[str, str] = field(default_factory=dict)

    @property
    def hex(self) -> str:
        """What makes the id, and those of the parts of the reply, unlike any other."""
        return self.id[-32:]


@dataclass(slots=True)
class ChainRun:
    """One chain, number `number` of the job's: its events so far and what it cost."""

    number: int
    settings: Settings
    meter: Meter
    events: list[Event] = field(default_factory=list)

    @property
    def trace(self) -> Trace:
        return Trace(tuple(self.events))


class ChainRunner:
    """Runs the chains of a job. Closing `events` ends their work on the server.

    `runs` are all that may be drawn; those that are not have no events.
    """

    def __init__(self, job: ReplyJob, upstream: Upstream, observers: Sequence[Observer]) -> None:
        self.job = job
        self._upstream, self._observers = upstream, observers
        self._news: asyncio.Queue[tuple[ChainRun, Event] | None] = asyncio.Queue()
        settings = chain_settings(job.request, job.alias)
        self.runs = [ChainRun(n, one, Meter(upstream.endpoint)) for n, one in enumerate(settings)]

    @property
    def retry_after(self) -> float | None:
        """Seconds that a busy server asked to wait."""
        return next((run.meter.retry_after for run in self.runs if run.meter.retry_after), None)

    async def events(self) -> AsyncGenerator[tuple[ChainRun, Event], None]:
        """What happens in any of the chains, until the votes are decided.

        A chain ends in an Answer or a Failed, unless its vote is decided without it.

        Raises StepwiseError where the server cannot be asked, ApiError where the model's way
        of thinking has no use for a parameter.
        """
        way = await self._way()
        check_supported(self.job.request, way)
        tasks = [asyncio.create_task(self._vote(runs, way)) for runs in self._by_choice()]
        for task in tasks:
            task.add_done_callback(lambda _: self._news.put_nowait(None))
        try:
            async with aclosing(self._until_ended(len(tasks))) as news:
                async for run, event in news:
                    yield run, event
            for task in tasks:
                task.result()  # an error of ours in a task is not swallowed
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _way(self) -> str:
        if self.job.request.reasoning_effort == "none":
            return "direct"
        return await self._upstream.way(self.job.alias.served)

    async def _until_ended(self, running: int) -> AsyncGenerator[tuple[ChainRun, Event], None]:
        while running:
            item = await self._news.get()
            if item is None:
                running -= 1
            else:
                yield item

    def _by_choice(self) -> Iterator[Sequence[ChainRun]]:
        votes = self.job.alias.votes
        for first in range(0, len(self.runs), votes):
            yield self.runs[first : first + votes]

    async def _vote(self, runs: Sequence[ChainRun], way: str) -> None:
        """One choice: as many of its chains as decide it."""
        format = self.job.request.answer_form.format
        await draw_chains(
            lambda number: self._think(runs[number], way),
            lambda run: vote_of(run.trace, format),
            len(runs),
        )

    async def _think(self, run: ChainRun, way: str) -> ChainRun:
        unfinished, job = Stopwatch(), self.job
        names = (job.alias.name, job.alias.served.name, way)
        chain = Chain(job.id, run.number, *names, job.carrier, run.meter.session)
        with observe(self._observers, chain) as observer:
            try:
                async with aclosing(self._events(run, way)) as events:
                    async for event in events:
                        unfinished.note(event)
                        observer.event(event)
                        run.events.append(event)
                        self._news.put_nowait((run, event))
            except asyncio.CancelledError:
                run.events.append(Stopped(unfinished.seconds()))
                observer.event(run.events[-1])
                raise
            finally:
                observer.spent(run.meter.prompt_tokens, run.meter.cached_tokens or 0)
        return run

    def _events(self, run: ChainRun, way: str) -> AsyncGenerator[Event, None]:
        alias, conversation = self.job.alias, self.job.conversation
        inquiry = Inquiry(
            conversation.question,
            way,
            run.settings,
            history=conversation.history,
            instructions=conversation.instructions,
            answer_form=self.job.request.answer_form,
        )
        return think(inquiry, endpoint=run.meter, model=alias.served)
