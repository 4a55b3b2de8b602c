"""The model server behind the gateway: what it serves, how each model thinks."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from gateway.admission import Admission
from gateway.errors import model_not_found
from gateway.models import ModelAlias, find_alias
from gateway.observers import Observer
from reasoning.detection import DetectedWays
from reasoning.endpoint import Endpoint, ServedModel
from reasoning.errors import StepwiseError
from serving.catalogue import readable_ways
from serving.warmup import warm_theirs

_log = logging.getLogger(__name__)


class Upstream:
    """One server. A model is asked for its way of thinking once, and that is remembered."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._ways = DetectedWays(endpoint, readable_ways())

    async def resolve(self, name: str) -> ModelAlias | None:
        """What the name asks for; None for a model that is served under that very name.

        Raises ApiError for any other name, StepwiseError where the server cannot be asked.
        """
        served = await self.endpoint.models()
        if any(model.name == name for model in served):
            return None
        if alias := find_alias(name, served):
            return alias
        raise model_not_found(name)

    async def way(self, model: ServedModel) -> str:
        """How the model thinks, a key of think.WAYS. Raises StepwiseError."""
        return await self._ways.of(model)

    async def warm_up(self) -> None:
        """Spares the first caller the wait: asks for the way, compiles the steps' grammars."""
        try:
            await warm_theirs(self.endpoint, self._ways)
        except StepwiseError as error:
            _log.warning("The model server is not ready: %s", error)


@dataclass(frozen=True, slots=True)
class GatewayState:
    """What the routes share. `stopped` is set when the gateway is to end."""

    upstream: Upstream
    admission: Admission
    observers: tuple[Observer, ...]
    keep_alive: float
    stopped: asyncio.Event
