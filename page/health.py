"""Which model is served, and whether its server answers: asked once for all pages.

The server is asked while somebody looks, and left alone otherwise.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from reasoning.endpoint import Replicas, ServedModel
from reasoning.errors import StepwiseError

INTERVAL = 2.0  # seconds between two questions
LOOKED_AT = 10.0  # seconds after the last look in which the server is still asked
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ServerState:
    """What was last heard: a model, or why there is none; neither before the first word.

    `replicas` is where several servers stand behind the address.
    """

    model: ServedModel | None = None
    error: StepwiseError | None = None
    replicas: Replicas | None = None

    @property
    def name(self) -> str:
        return self.model.name if self.model else ""


async def _one() -> None:
    """A server without replicas."""


class Health:
    """Asks the server now and then; `state()` is the last answer, at once."""

    def __init__(
        self,
        ask: Callable[[], Awaitable[ServedModel]],
        warm: Callable[[], Awaitable[None]] | None = None,
        count: Callable[[], Awaitable[Replicas | None]] = _one,
        interval: float = INTERVAL,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask = ask
        self._warm = warm
        self._count = count
        self._interval = interval
        self._clock = clock
        self._state = ServerState()
        self._looked = clock()

    def state(self) -> ServerState:
        self._looked = self._clock()
        return self._state

    async def watch(self) -> None:
        """Asks for ever. A model that is new here is warmed once."""
        while True:
            if self._clock() - self._looked < LOOKED_AT:
                before, self._state = self._state, await self._heard()
                if self._state.model and self._state.model != before.model:
                    await self._warm_model()
            await asyncio.sleep(self._interval)

    async def _heard(self) -> ServerState:
        try:
            model = await self._ask()
            return ServerState(model, replicas=await self._count() if model.vllm else None)
        except StepwiseError as error:
            return ServerState(error=error)
        except Exception as error:  # the watch must not die: it is what notices a recovery
            _log.exception("The model server could not be asked")
            return ServerState(error=StepwiseError(f"Stepwise made a mistake: {error}.", ""))

    async def _warm_model(self) -> None:
        if self._warm is None:
            return
        try:
            await self._warm()
        except StepwiseError as error:
            _log.warning("The model was not warmed: %s", error)
