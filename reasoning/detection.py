"""Which way of thinking a model gets: its catalogue entry says, else it is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import aclosing

from reasoning.endpoint import Request, ServedModel
from reasoning.errors import Silent
from reasoning.metering import ModelServer
from reasoning.splitting import META_ACTIONS

DEFAULT = "json_steps"
PROBE = "What is 1 + 1?"
PROBE_TOKENS = 24  # a thought shows in its first tokens
PROBE_SECONDS = 120.0  # a CPU that others keep busy needs one; a server that drips needs for ever


class DetectedWays:
    """How each model thinks: what is known of it, else what it said when it was asked, once."""

    def __init__(self, server: ModelServer, known: Mapping[str, str]) -> None:
        self._server, self._known = server, dict(known)
        self._asking = asyncio.Lock()

    def known(self, name: str) -> str:
        """The way of a model that need not be asked, or was; else ""."""
        return self._known.get(name, "")

    async def of(self, model: ServedModel) -> str:
        """A key of think.WAYS. Raises a StepwiseError when the server cannot be asked."""
        async with self._asking:
            if model.name not in self._known:
                self._known[model.name] = await detect_way(self._server, model, self._known)
        return self._known[model.name]


async def detect_way(server: ModelServer, model: ServedModel, catalogue: Mapping[str, str]) -> str:
    """The way's word, a key of think.WAYS. `catalogue` maps served names to ways.

    An unknown model is Satori's kind when its tokenizer reads each meta-action as one
    token, thinks natively when its reply to a small question begins with a thought,
    and is driven in JSON steps otherwise. Raises a StepwiseError when the server
    cannot be asked, or does not answer in time.
    """
    if model.name in catalogue:
        return catalogue[model.name]
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            return await _asked_way(server, model)
    except TimeoutError:
        message = f"In {PROBE_SECONDS:g} s the server did not show how {model.name} thinks."
        raise Silent(message, "Choose a way of thinking, or name one in models.toml.") from None


async def _asked_way(server: ModelServer, model: ServedModel) -> str:
    if await _knows_meta_actions(server):
        return "coat"
    return "native" if await _thinks(server, model) else DEFAULT


async def _knows_meta_actions(server: ModelServer) -> bool:
    return all([await server.count(token) == 1 for token in META_ACTIONS])


async def _thinks(server: ModelServer, model: ServedModel) -> bool:
    """Whether a reply comes with a reasoning field, or its text opens a <think> tag."""
    request = Request(model, ({"role": "user", "content": PROBE},), PROBE_TOKENS)
    text = ""
    async with aclosing(server.chat(request)) as pieces:
        async for piece in pieces:
            text += piece.text
            if piece.reasoning or text.lstrip().startswith("<think>"):
                return True
    return False
