"""The gateway's log of its chains, as an Observer: each line names the reply and the chain.

What is in a line, and what is not, is reasoning/logs.py's business.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from gateway.observers import Chain
from reasoning.events import Event
from reasoning.logs import log_event, named

_log = logging.getLogger(__name__)


class ChainLog:
    """An Observer."""

    @contextmanager
    def chain(self, chain: Chain) -> Iterator[ChainLines]:
        yield ChainLines(chain)


class ChainLines:
    """One chain's lines: `run` is the id of its reply, `session` its requests' X-Session-ID."""

    def __init__(self, chain: Chain) -> None:
        self._names = {"run": chain.id, "chain": chain.number, "session": chain.session}

    def event(self, event: Event) -> None:
        log_event(_log, event, **self._names)

    def spent(self, prompt_tokens: int, cached_tokens: int) -> None:
        counts = {"prompt_tokens": prompt_tokens, "cached_tokens": cached_tokens}
        _log.info("What the prompts cost", extra=named(**self._names, **counts))
