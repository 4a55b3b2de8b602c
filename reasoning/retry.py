"""Trying a call again when its server could not be reached: named failures, bounded.

A reply that cannot be used is not its business; see json_steps.py.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from reasoning.errors import Busy, StepwiseError, Unreachable

T = TypeVar("T")
Sleep = Callable[[float], Awaitable[None]]
Pause = Callable[[StepwiseError, float], Awaitable[None]]

TRIES = 4
FIRST_WAIT = 0.5  # seconds, doubled each time: a dead server is reported within 5 s
LONGEST_WAIT = 60.0  # a server that asks for more is not waited for
BUSY_PAUSE = 15.0  # the longest between two tries at a full server that names no time
BUSY_WAIT = 1800.0  # of waiting for a full server: a queue that long has stopped
MUTE_WAIT = 300.0  # for one that names no time: it may be a proxy with nothing behind it
RESTART_PAUSE = 8.0  # the longest between two looks at a server that is being started again


async def retry(
    call: Callable[[], Awaitable[T]],
    pause: Pause,
    restart_wait: Callable[[], float] = lambda: 0.0,
    jitter: Callable[[], float] = random.random,
) -> T:
    """What the call gives; after a retryable failure `pause`, then the call anew.

    `pause` is told what the try failed with, and the seconds to wait. The last failure is
    let through, and so is one that no second try can cure. A server that is gone may be so
    for `restart_wait` seconds of waiting, a full one for BUSY_WAIT, or MUTE_WAIT where it
    names no time.
    """
    attempt, waited = 0, 0.0
    while True:
        try:
            return await call()
        except StepwiseError as error:
            wait = wait_after(error, attempt, jitter())
            if isinstance(error, Unreachable) and waited < restart_wait():
                wait = min(wait, RESTART_PAUSE)
            elif isinstance(error, Busy) and waited < _patience(error):
                wait = wait if error.retry_after else min(wait, BUSY_PAUSE)
            elif not error.retryable or attempt >= TRIES - 1 or isinstance(error, Busy):
                raise
            await pause(error, wait)
            attempt, waited = attempt + 1, waited + wait


def _patience(error: Busy) -> float:
    """For how many seconds of waiting a full server is tried again."""
    if error.retry_after is None:
        return MUTE_WAIT
    return BUSY_WAIT if error.retry_after <= LONGEST_WAIT else 0.0


def wait_after(error: StepwiseError, attempt: int, jitter: float) -> float:
    """Seconds to wait: what the server asks for or up to a quarter more, lest all who were sent
    away come back together; else 0.5, 1, 2 ... times 0.75 to 1.25.
    """
    if isinstance(error, Busy) and error.retry_after:
        return error.retry_after * (1 + jitter / 4)
    return FIRST_WAIT * 2.0**attempt * (0.75 + jitter / 2)
