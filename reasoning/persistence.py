"""Trying a call again when its server could not be reached: named failures, bounded.

A reply that cannot be used is not its business; see json_steps.py.
"""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypeVar

from reasoning.errors import Busy, StepwiseError

T = TypeVar("T")
Sleep = Callable[[float], Awaitable[None]]

TRIES = 4
FIRST_WAIT = 0.5  # seconds, doubled each time: a dead server is reported within 5 s
LONGEST_WAIT = 60.0  # a server that asks for more is not waited for


@dataclass(frozen=True, slots=True)
class Pause:
    """The call failed and will be made anew after `wait` seconds; what came of it is void."""

    error: StepwiseError
    wait: float


async def persist(
    call: Callable[[], AsyncGenerator[T, None]],
    sleep: Sleep,
    jitter: Callable[[], float] = random.random,
) -> AsyncGenerator[T | Pause, None]:
    """The call's values; after a retryable failure a Pause, then the call's values anew.

    The last failure is let through, and so is one that no second try can cure.
    """
    for attempt in range(TRIES):
        try:
            async with aclosing(call()) as values:
                async for value in values:
                    yield value
            return
        except StepwiseError as error:
            wait = wait_after(error, attempt, jitter())
            if not error.retryable or attempt == TRIES - 1 or wait > LONGEST_WAIT:
                raise
            yield Pause(error, wait)
            await sleep(wait)


def wait_after(error: StepwiseError, attempt: int, jitter: float) -> float:
    """Seconds to wait: what the server asks for, else 0.5, 1, 2 ... times 0.75 to 1.25."""
    if isinstance(error, Busy) and error.retry_after is not None:
        return error.retry_after
    return FIRST_WAIT * 2.0**attempt * (0.75 + jitter / 2)
