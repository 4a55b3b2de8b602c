"""Who warms which model server, so that each is warmed once.

What ./serve.sh serves it warms itself, before it says that it is ready. Page and gateway stand
before servers that others started, too: those they warm.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from reasoning.detection import DEFAULT, DetectedWays
from reasoning.endpoint import Endpoint
from reasoning.errors import StepwiseError
from reasoning.warming import reader_language, warm
from serving.served import served_at


def warm_ours(ready: Callable[[], None]) -> None:
    """Warms the server that the environment names; `ready` as of `warm`.

    That it fails costs the first question some seconds, no more.
    """
    with suppress(StepwiseError):
        asyncio.run(warm(Endpoint.from_environment(), reader_language(), ready))


async def warm_theirs(endpoint: Endpoint, ways: DetectedWays) -> None:
    """Warms a server that we did not start, if it is a vLLM whose model thinks in JSON steps.

    Others than vLLM compile no grammars, and some are paid for. Raises a StepwiseError.
    """
    model = await endpoint.model()
    warmed = not model.vllm or served_at(endpoint.base_url, model.name).by_us
    if not warmed and await ways.of(model) == DEFAULT:
        await warm(endpoint, reader_language())
