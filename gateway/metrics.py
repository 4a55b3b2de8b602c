"""What Prometheus is told of the chains: how they ended, how long, how many tokens.

Every number is the chain's own (reasoning.events.Trace); only the time to the first token
is taken here. Labels hold names of models, ways, ends and causes, never a word of a question.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from starlette.requests import Request
from starlette.responses import Response

from gateway.observers import Chain
from reasoning.events import Answer, Delta, Event, Failed, Retry, Step, Trace

CHAIN = ("model", "way")
# Seconds. A small model answers in one, 25 steps of a large one on a CPU take half an hour.
THINKING = (0.5, 1, 2, 5, 10, 20, 40, 60, 120, 300, 600, 1200, 2400)
FIRST_TOKEN = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 120, 300)


class Metrics:
    """An Observer that counts, in a registry of its own. `clock` is in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.chains = self._counter(
            "stepwise_chains",
            "Chains that are over, by end: answer, cut, failed or gone (wanted no more).",
            (*CHAIN, "end", "cause"),
        )
        self.steps = self._counter("stepwise_steps", "Finished steps.", CHAIN)
        self.retries = self._counter(
            "stepwise_retries", "Attempts that failed and were made again.", (*CHAIN, "cause")
        )
        self.prompt_tokens = self._counter(
            "stepwise_prompt_tokens", "Prompt tokens of all requests of a chain.", CHAIN
        )
        self.cached_tokens = self._counter(
            "stepwise_cached_prompt_tokens", "Those that the server had in its cache.", CHAIN
        )
        self.completion_tokens = self._counter(
            "stepwise_completion_tokens", "Completion tokens, failed attempts included.", CHAIN
        )
        self.thinking = self._histogram(
            "stepwise_thinking_seconds", "The model's time for a chain, without waits.", THINKING
        )
        self.first_token = self._histogram(
            "stepwise_time_to_first_token_seconds",
            "From a chain's begin to the first text of its reasoning or answer.",
            FIRST_TOKEN,
        )
        self.running = Gauge(
            "stepwise_chains_running", "Chains under way.", CHAIN, registry=self.registry
        )

    def _counter(self, name: str, what: str, labels: tuple[str, ...]) -> Counter:
        return Counter(name, what, labels, registry=self.registry)

    def _histogram(self, name: str, what: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, what, CHAIN, buckets=buckets, registry=self.registry)

    @contextmanager
    def chain(self, chain: Chain) -> Iterator[ChainCounts]:
        counts = ChainCounts(self, chain)
        running = self.running.labels(*counts.labels)
        with running.track_inprogress():
            try:
                yield counts
            finally:
                counts.over()


class ChainCounts:
    """One chain being counted: what only its end tells is counted at its end."""

    def __init__(self, metrics: Metrics, chain: Chain) -> None:
        self.labels = (chain.model, chain.way)
        self._metrics = metrics
        self._began = metrics.clock()
        self._written = False
        self._events: list[Event] = []  # no Delta: they are many, and a Trace counts without

    def event(self, event: Event) -> None:
        if isinstance(event, Delta):
            self._text(event)
            return
        self._events.append(event)
        if isinstance(event, Step):
            self._metrics.steps.labels(*self.labels).inc()
        elif isinstance(event, Retry):
            self._metrics.retries.labels(*self.labels, event.cause).inc()

    def _text(self, delta: Delta) -> None:
        if not self._written and delta.part != "action":
            self._written = True
            waited = self._metrics.clock() - self._began
            self._metrics.first_token.labels(*self.labels).observe(waited)

    def spent(self, prompt_tokens: int, cached_tokens: int) -> None:
        self._metrics.prompt_tokens.labels(*self.labels).inc(prompt_tokens)
        self._metrics.cached_tokens.labels(*self.labels).inc(cached_tokens)

    def over(self) -> None:
        trace = Trace(tuple(self._events))
        self._metrics.chains.labels(*self.labels, *_end(trace)).inc()
        self._metrics.thinking.labels(*self.labels).observe(trace.seconds)
        self._metrics.completion_tokens.labels(*self.labels).inc(trace.tokens)


def _end(trace: Trace) -> tuple[str, str]:
    """How a chain ended, and the cause of a failure. One without an end was wanted no more."""
    match trace.end:
        case Answer(cut=cut):
            return ("cut" if cut else "answer", "")
        case Failed(code=code):
            return ("failed", code)
        case _:
            return ("gone", "")


def metrics_route(metrics: Metrics) -> Callable[[Request], Awaitable[Response]]:
    """What answers GET /metrics, in Prometheus' text format."""

    async def route(_: Request) -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return route
