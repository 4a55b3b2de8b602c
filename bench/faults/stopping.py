"""Work that nobody wants any more: the model server's connection is closed within a second.

A stub that writes for ever stands for the engine; that vLLM ends its work when a connection is
closed was measured on vLLM itself (0.06 s). A closed tab does not stop a run: that is the
promise of docs/page.md, and kills.py's business.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import time
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager
from functools import partial
from urllib.parse import urlsplit

from bench.faults.playing import LISTED, NAME, QUESTION
from bench.faults.promise import Effort, Promise, Tally
from bench.faults.remembering import MODEL, thinker
from history.request import RunRequest
from history.runs import Loop, Runs
from history.store import Store
from reasoning.endpoint import Endpoint
from reasoning.events import Delta, Event
from reasoning.inquiry import Inquiry
from reasoning.think import think
from tests.gateway_server import gateway
from tests.processes import until
from tests.stub import NEVER, Stub, step

IDLE = 1.0  # seconds
JSON = {"Content-Type": "application/json"}
TIMES = 50
ENDLESS = step("Endless", "word " * 100, until=NEVER)


def keep(effort: Effort, tally: Tally) -> None:
    times, slowest = effort.of(TIMES, 10), 0.0
    with Stub(ENDLESS, models=LISTED) as stub, gateway(stub.base_url) as url, _runs(stub) as runs:
        stops: dict[str, Callable[[], float]] = {
            "the iterator is closed": lambda: asyncio.run(_closed(stub)),
            "the task is cancelled": lambda: asyncio.run(_cancelled(stub)),
            "Stop on the page": partial(_stopped, stub, runs),
            "a client of a stream leaves": partial(_left, stub, url, True),
            "a client of a whole reply leaves": partial(_left, stub, url, False),
        }
        for how, stop in stops.items():
            for _ in range(times):
                seconds = _until_idle(stub, stop)
                slowest = max(slowest, seconds)
                tally.note(how, f"{seconds:.2f} s" if seconds > IDLE else "")
    tally.tell(f"{times} of each of {len(stops)} ways to stop; idle after {slowest:.2f} s at most")


def _until_idle(stub: Stub, stop: Callable[[], float]) -> float:
    """Seconds from when the stop was asked for to when the server's connection was gone."""
    gone = stub.gone
    asked = stop()
    until(lambda: stub.gone > gone, 30)
    return time.monotonic() - asked


# -- the core


async def _begun(stub: Stub, begun: asyncio.Event, stay: asyncio.Event) -> float:
    """A chain that is read until it writes, then closed when `stay` is set."""
    endpoint = Endpoint(stub.base_url)
    try:
        chain = think(Inquiry(QUESTION, "json_steps"), endpoint=endpoint, model=MODEL)
        async with aclosing(chain) as events:
            async for event in events:
                if _writes(event):
                    begun.set()
                    if stay.is_set():
                        return time.monotonic()
    finally:
        await endpoint.close()
    raise RuntimeError("the chain ended by itself")


def _writes(event: Event) -> bool:
    return isinstance(event, Delta) and event.part == "content"


async def _closed(stub: Stub) -> float:
    stay = asyncio.Event()
    stay.set()
    return await _begun(stub, asyncio.Event(), stay)


async def _cancelled(stub: Stub) -> float:
    begun = asyncio.Event()
    reading = asyncio.create_task(_begun(stub, begun, asyncio.Event()))
    await begun.wait()
    asked = time.monotonic()
    reading.cancel()
    await asyncio.wait({reading})
    return asked


# -- the page


@contextmanager
def _runs(stub: Stub) -> Iterator[Runs]:
    store = Store("sqlite://")
    yield Runs(Loop(), thinker(stub.base_url), store)
    store.close()


def _stopped(stub: Stub, runs: Runs) -> float:
    """What the button does."""
    run = runs.start(RunRequest(QUESTION, "json_steps"))
    until(lambda: any(map(_writes, run.events(0))), 30)
    asked = time.monotonic()
    runs.stop(run.id)
    until(lambda: run.ended, 30)
    return asked


# -- the gateway


def _left(stub: Stub, url: str, streamed: bool) -> float:
    asked = len(stub.requests)
    client = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    messages = [{"role": "user", "content": QUESTION}]
    body = {"model": f"{NAME}-steps", "stream": streamed, "messages": messages}
    client.request("POST", "/v1/chat/completions", json.dumps(body), JSON)
    if streamed:
        response = client.getresponse()
        while b'"reasoning"' not in (line := response.readline()):
            assert line, "the stream ended by itself"
        response.close()
    else:
        until(lambda: len(stub.requests) > asked, 30)
    left = time.monotonic()
    client.close()
    return left


PROMISE = Promise(
    "when a run is stopped or its client leaves, the model server is idle within a second",
    keep,
)
