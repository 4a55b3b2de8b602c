"""Who warms which model server, so that each is warmed once.

What ./serve.sh serves it warms itself, before it says that it is ready. Page and gateway stand
before servers that others started, too: those they warm.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from contextlib import suppress

from reasoning.detection import DEFAULT, DetectedWays
from reasoning.endpoint import Endpoint
from reasoning.errors import StepwiseError
from reasoning.warming import reader_language, warm
from serving.served import served_at


def warm_ours(addresses: Sequence[str], ready: Callable[[], None]) -> None:
    """Warms each of these servers, side by side; `ready` once the first question can meet any.

    That it fails costs the first question some seconds, no more.
    """
    asyncio.run(_warm_all(addresses, ready))


async def _warm_all(addresses: Sequence[str], ready: Callable[[], None]) -> None:
    left = len(addresses)

    def one_ready() -> None:
        nonlocal left
        left -= 1
        if not left:
            ready()

    async def one(address: str) -> None:
        endpoint = Endpoint(f"{address}/v1", os.environ.get("OPENAI_API_KEY", ""))
        with suppress(StepwiseError):
            await warm(endpoint, reader_language(), one_ready)

    await asyncio.gather(*map(one, addresses))


async def warm_theirs(endpoint: Endpoint, ways: DetectedWays) -> None:
    """Warms a server that we did not start, if it is a vLLM whose model thinks in JSON steps.

    Others than vLLM compile no grammars, and some are paid for. Raises a StepwiseError.
    """
    model = await endpoint.model()
    warmed = not model.vllm or served_at(endpoint.base_url, model.name).by_us
    if not warmed and await ways.of(model) == DEFAULT:
        await warm(endpoint, reader_language())
