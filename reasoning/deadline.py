"""How long a step and a chain may take, and what is said when that time is over.

Seconds of a monotonic clock, waits and retries included: a clock that is set strikes nothing.
How long a server may be silent is endpoint.py's own business.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from math import inf, isfinite

from reasoning.errors import BadSetting, DeadlinePassed
from reasoning.events import Delta, Event, Settings, Step

STEP, CHAIN = "STEPWISE_STEP_SECONDS", "STEPWISE_CHAIN_SECONDS"
STEP_SECONDS = 1800.0  # twice what a reply may take (endpoint.Patience): one that failed, and one


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds; endless where there is none."""

    step: float = STEP_SECONDS
    chain: float = inf

    @classmethod
    def of(cls, settings: Settings, environment: Mapping[str, str] = os.environ) -> Deadlines:
        """What the settings say, else the environment, else the defaults. Raises BadSetting."""
        return cls(
            _chosen(settings.step_seconds, STEP, environment, STEP_SECONDS),
            _chosen(settings.chain_seconds, CHAIN, environment, inf),
        )


def _chosen(
    given: float | None, name: str, environment: Mapping[str, str], default: float
) -> float:
    """0 is no deadline."""
    if given is None and not environment.get(name, "").strip():
        return default
    seconds = _seconds(name, environment[name]) if given is None else given
    return seconds or inf


def _seconds(name: str, value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1.0
    if not isfinite(seconds) or seconds < 0:
        message = f"{name} is {value[:40]!r}, which is no number of seconds."
        raise BadSetting(message, "Set it to one, or to 0 for no deadline.")
    return seconds


async def keep_deadlines(
    events: AsyncGenerator[Event, None],
    deadlines: Deadlines,
    clock: Callable[[], float],
    number: int,
) -> AsyncGenerator[Event, None]:
    """The events of a chain whose next step is `number`. Raises DeadlinePassed."""
    began = since = clock()
    doing = f"Step {number}"
    while True:
        end = min(since + deadlines.step, began + deadlines.chain)
        try:
            event = await _before(events, end - clock())
        except DeadlinePassed:
            raise _passed(doing, deadlines, began + deadlines.chain <= end) from None
        if event is None:
            return
        if isinstance(event, Step):
            since, doing = clock(), f"Step {event.number + 1}"
        elif isinstance(event, Delta) and event.part == "answer":
            doing = "The answer"
        yield event


async def _before(events: AsyncGenerator[Event, None], left: float) -> Event | None:
    """The next event, within the seconds that are left; None after the last."""
    waiting = asyncio.timeout(left if isfinite(left) else None)
    try:
        async with waiting:
            return await anext(events, None)
    except TimeoutError:
        if not waiting.expired():
            raise
        raise DeadlinePassed("", "") from None


def _passed(doing: str, deadlines: Deadlines, is_chain: bool) -> DeadlinePassed:
    """One error for both: whoever reads it wants to know which time was too short."""
    if is_chain:
        return DeadlinePassed(
            f"The chain was not done in {deadlines.chain:g} s.",
            "Go on from its last step, or allow more seconds for a chain.",
        )
    return DeadlinePassed(
        f"{doing} was not done in {deadlines.step:g} s.",
        "Go on from the last step, or allow more seconds for a step.",
    )
