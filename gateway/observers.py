"""The seam through which those who watch see every chain: metrics, spans, the log.

An observer sees events and counts, and never a key; what is in the events is the
user's own text, and is logged by reasoning/logs.py alone, for who asked for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from reasoning.events import Event


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain that begins, number `number` (from 0) of those that think for one reply.

    `id` is that reply's, `model` the name the caller asked for, `served` the one that the
    server knows, `way` a key of reasoning.think.WAYS. `carrier` holds the request's W3C
    trace headers (traceparent, tracestate) and no other; `session` is what the chain's own
    requests say to a router (X-Session-ID).
    """

    id: str
    number: int
    model: str
    served: str
    way: str
    carrier: Mapping[str, str] = field(default_factory=dict)
    session: str = ""


class ChainObserver(Protocol):
    """One chain being observed."""

    def event(self, event: Event) -> None:
        """An event, as it comes. The last one is an Answer, a Failed, or a Stopped (gone)."""

    def spent(self, prompt_tokens: int, cached_tokens: int) -> None:
        """Once, after the last event: what the server counted over the chain's requests."""


class Observer(Protocol):
    def chain(self, chain: Chain) -> AbstractContextManager[ChainObserver]:
        """A chain begins; it is over when the context ends.

        Each chain has a task of its own, which enters and leaves the context; a client that
        goes away passes through it as a CancelledError, after the Stopped.
        """


class ChainObservers:
    """Several as one."""

    def __init__(self, observers: Sequence[ChainObserver]) -> None:
        self._observers = observers

    def event(self, event: Event) -> None:
        for observer in self._observers:
            observer.event(event)

    def spent(self, prompt_tokens: int, cached_tokens: int) -> None:
        for observer in self._observers:
            observer.spent(prompt_tokens, cached_tokens)


@contextmanager
def observe(observers: Sequence[Observer], chain: Chain) -> Iterator[ChainObserver]:
    """The chain, seen by all of the observers; by none where there is none."""
    with ExitStack() as stack:
        yield ChainObservers([stack.enter_context(observer.chain(chain)) for observer in observers])
