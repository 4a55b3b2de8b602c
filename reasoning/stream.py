"""From a coroutine that emits events to an iterator of them.

A way of thinking says what happens with `await emit(event)` and returns its answer, so that
what a call comes to is what it returns. A reader wants events one after the other. Between
the two stands one task and a queue that never holds more than one `emit` gave: the way goes
on when its event has been taken and looked at, as a generator would.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any

from reasoning.events import Answer, Emit, Event

Work = Callable[[Emit], Coroutine[Any, Any, Answer]]


async def stream(work: Work) -> AsyncGenerator[Event, None]:
    """What `work` emits, then its answer. What it raises is raised here, as it is.

    Closing the iterator cancels the work, and waits until it has let go of its server.
    """
    news: asyncio.Queue[Event | None] = asyncio.Queue()

    async def emit(*events: Event) -> None:
        for event in events:
            news.put_nowait(event)
            await news.join()

    working = asyncio.create_task(work(emit))
    working.add_done_callback(lambda _: news.put_nowait(None))
    try:
        while (event := await news.get()) is not None:
            yield event
            news.task_done()
        yield working.result()
    finally:
        working.cancel()
        await asyncio.wait({working})
