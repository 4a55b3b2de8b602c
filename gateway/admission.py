"""Who may begin: nobody while too many wait at the model server already.

The model server has a queue of its own, without an end, and whoever stands far back in it waits
for nothing. So a caller beyond a length that is set is told when to come back.
"""

from __future__ import annotations

import time
from argparse import ArgumentTypeError
from collections.abc import Awaitable, Callable

from gateway.errors import RETRY_AFTER, ApiError

QUEUE = "STEPWISE_QUEUE"  # the variable that sets it where the flag does not
UNSEEN = 0.5  # seconds until the server's numbers surely know of a request that has begun
MOST = 1_000_000


def queue_length(text: str) -> int:
    """A flag's number of requests. Raises ArgumentTypeError."""
    if not (text.isdecimal() and 0 < int(text) <= MOST):
        raise ArgumentTypeError(f"expected a number of requests from 1 to {MOST}, got {text!r}")
    return int(text)


class Admission:
    """`waiting` tells how many requests wait at the server, None where it does not tell.

    At most `most` may wait; None is no bound. Those that began so lately that the server's
    numbers may not hold them yet are taken to wait.
    """

    def __init__(
        self,
        waiting: Callable[[], Awaitable[int | None]],
        most: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._waiting, self._most, self._clock = waiting, most, clock
        self._begun: list[float] = []

    async def enter(self) -> None:
        """One more begins. Raises ApiError where the queue is full."""
        if self._most is None:
            return
        waiting, now = await self._waiting(), self._clock()
        if waiting is None:
            return
        self._begun = [at for at in self._begun if now - at < UNSEEN]
        if waiting + len(self._begun) >= self._most:
            raise _full(waiting)
        self._begun.append(now)


def _full(waiting: int) -> ApiError:
    message = f"The model server is full: {waiting} requests wait there. Try again."
    return ApiError(429, "queue_full", message, None, {"Retry-After": str(RETRY_AFTER)})
