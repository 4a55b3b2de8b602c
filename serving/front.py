"""The one address before several servers: the guard, their health, and the way to the router.

    python -m serving.front --port 8000 --router URL --worker-urls URL ...

vllm-router has no guard of ours, answers /v1/models for its first server even where that is gone,
and calls itself ill when one of them is. So this stands before it: what is to be written goes
through the router, what any server can tell is asked of one that answers.

It keeps nothing but connections. A reply that breaks off breaks off here, too, and whoever asked
asks again.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import re
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
import uvicorn
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from serving.command import HOST, PORT, port_number
from serving.gate import KEY, VLLM_CALLS, Gate

STOPPED = 130
GRACE = 3  # seconds that open streams get at the end; serve.sh gives 6 to the whole process
KEEP_ALIVE = 75  # seconds; longer than a client's pool keeps a connection
PROBE = httpx2.Timeout(2.0)  # seconds: a server that is later with its health counts as gone
SHORT = httpx2.Timeout(10.0, connect=2.0)  # for what a server need not think about
LONG = httpx2.Timeout(None, connect=5.0)  # its client knows how long to wait for a reply
RETRY_AFTER = "2"  # seconds: another replica takes over sooner, one that starts later
UP = "stepwise_replica_up"

ANY_CAN_TELL = ("/version", "/v1/models", "/tokenize", "/detokenize")
PASSED_ON = ("content-type", "accept", "traceparent", "tracestate", "x-session-id", "x-request-id")
PASSED_BACK = ("content-type", "retry-after", "x-request-id")
SAMPLE = re.compile(r"(?P<name>[a-zA-Z_:][\w:]*)(?:\{(?P<labels>.*)\})? (?P<value>\S+)")


class Front:
    """`workers` are asked where the router cannot name those that it sends to."""

    def __init__(self, router: str, workers: Sequence[str], key: str = "") -> None:
        self._router, self._workers = router, tuple(workers)
        self._own = {"authorization": f"Bearer {key}"} if key else {}
        self._client = httpx2.AsyncClient(
            limits=httpx2.Limits(max_connections=None),  # the servers have queues of their own
            trust_env=False,
            headers={"accept-encoding": "identity"},
        )

    def app(self) -> Starlette:
        asked = [Route(path, self.tell, methods=list(VLLM_CALLS[path])) for path in ANY_CAN_TELL]
        routes = [
            Route("/health", self.health),
            Route("/metrics", self.metrics),
            *asked,
            Route("/v1/{path:path}", self.write, methods=["POST"]),
        ]
        return Starlette(routes=routes, lifespan=self._lifespan)

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        async with self._client:
            yield

    # -- the calls

    async def health(self, _: Request) -> Response:
        """200 as long as one of them answers. No address: this is told to everybody."""
        up = await asyncio.gather(*map(self._is_up, await self._urls()))
        return JSONResponse({"replicas": len(up), "up": sum(up)}, 200 if any(up) else 503)

    async def metrics(self, _: Request) -> Response:
        """What each replica tells Prometheus, with its address, and whether it tells anything."""
        urls = await self._urls()
        texts = await asyncio.gather(*(self._metrics_of(url) for url in urls))
        return Response(merge(dict(zip(urls, texts, strict=True))), media_type="text/plain")

    async def tell(self, request: Request) -> Response:
        """What any of them can tell: asked of one after the other until one does."""
        body = await request.body()
        urls = await self._urls()
        for url in random.sample(urls, len(urls)):
            try:
                reply = await self._client.request(
                    request.method,
                    url + request.url.path,
                    content=body,
                    headers=self._headers(request),
                    timeout=SHORT,
                )
            except httpx2.TransportError:
                continue
            if reply.status_code < 500:
                return Response(reply.content, reply.status_code, _back(reply))
        return _unavailable("None of the replicas answers.")

    async def write(self, request: Request) -> Response:
        """A reply to be written, by the replica that the router chooses for the chain."""
        sent = self._client.build_request(
            "POST",
            self._router + request.url.path,
            content=await request.body(),
            headers=self._headers(request),
            timeout=LONG,
        )
        try:
            reply = await self._client.send(sent, stream=True)
        except httpx2.TransportError:
            return _unavailable("The router does not answer.")
        if reply.status_code >= 500 and "json" not in reply.headers.get("content-type", ""):
            await reply.aclose()  # the router's own words name addresses
            return _unavailable("No replica could be asked.")
        ended = BackgroundTask(reply.aclose)
        return StreamingResponse(_parts(reply), reply.status_code, _back(reply), background=ended)

    # -- the servers behind

    async def _urls(self) -> tuple[str, ...]:
        """All that the router sends to now: one may have joined, or have been drained."""
        try:
            reply = await self._client.get(
                f"{self._router}/list_workers", headers=self._own, timeout=PROBE
            )
            return tuple(reply.raise_for_status().json()["urls"])
        except (httpx2.HTTPError, ValueError, KeyError, TypeError):
            return self._workers

    async def _is_up(self, url: str) -> bool:
        try:
            return (await self._client.get(f"{url}/health", timeout=PROBE)).status_code == 200
        except httpx2.TransportError:
            return False

    async def _metrics_of(self, url: str) -> str | None:
        try:
            reply = await self._client.get(f"{url}/metrics", headers=self._own, timeout=PROBE)
        except httpx2.TransportError:
            return None
        return reply.text if reply.status_code == 200 else None

    def _headers(self, request: Request) -> dict[str, str]:
        kept = {name: value for name in PASSED_ON if (value := request.headers.get(name))}
        return {**kept, **self._own}


async def _parts(reply: httpx2.Response) -> AsyncIterator[bytes]:
    """Raises where the reply breaks off: so does the connection, lest it be taken for whole."""
    try:
        async for part in reply.aiter_raw():
            yield part
    finally:
        await reply.aclose()


def _back(reply: httpx2.Response) -> dict[str, str]:
    return {name: value for name in PASSED_BACK if (value := reply.headers.get(name))}


def _unavailable(message: str) -> JSONResponse:
    error = {"message": message, "type": "server_error", "param": None, "code": "no_replica"}
    return JSONResponse({"error": error}, 503, {"retry-after": RETRY_AFTER})


# -- the figures


@dataclass(slots=True)
class Family:
    """A metric of Prometheus': its HELP and TYPE lines, and its samples from all servers."""

    head: list[str] = field(default_factory=list)
    samples: list[str] = field(default_factory=list)


def merge(texts: dict[str, str | None]) -> str:
    """One exposition of several, by address: each sample gets its server's as a label.

    None is a server that told nothing.
    """
    families: dict[str, Family] = {}
    up = [f'{UP}{{replica="{url}"}} {int(text is not None)}' for url, text in texts.items()]
    head = [f"# HELP {UP} Whether the replica answers.", f"# TYPE {UP} gauge"]
    families[UP] = Family(head, up)
    for url, text in texts.items():
        _add(families, url, text or "")
    lines = [line for family in families.values() for line in (*family.head, *family.samples)]
    return "\n".join(lines) + "\n"


def _add(families: dict[str, Family], url: str, text: str) -> None:
    family = Family()
    for line in text.splitlines():
        if line.startswith(("# HELP ", "# TYPE ")):
            family = families.setdefault(line.split(" ")[2], Family())
            if not any(said.startswith(line[:7]) for said in family.head):
                family.head.append(line)
        elif found := SAMPLE.match(line):
            labels = ",".join(filter(None, [f'replica="{url}"', found["labels"]]))
            family.samples.append(f"{found['name']}{{{labels}}} {found['value']}")


# -- the process


def parser() -> argparse.ArgumentParser:
    flags = argparse.ArgumentParser(prog="python -m serving.front", allow_abbrev=False)
    flags.add_argument("--host", default=HOST, help=f"where it listens ({HOST})")
    flags.add_argument("--port", type=port_number, default=PORT, help=f"({PORT})")
    flags.add_argument("--router", required=True, metavar="URL", help="vllm-router's address")
    flags.add_argument("--worker-urls", nargs="+", required=True, metavar="URL")
    return flags


def guarded_app(router: str, workers: Sequence[str], key: str) -> Gate:
    """The front as it faces the world."""
    app: Any = Front(router, workers, key).app()
    return Gate(app, VLLM_CALLS, key)


def main(argv: Sequence[str]) -> int:
    given = parser().parse_args(argv)
    key = os.environ.get(KEY, "")
    config = uvicorn.Config(
        guarded_app(given.router, given.worker_urls, key),
        given.host,
        given.port,
        ws="none",
        log_level="warning",
        access_log=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=GRACE,
    )
    server = uvicorn.Server(config)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        server.run()
    except KeyboardInterrupt:  # what uvicorn makes of the signal that it has obeyed
        return STOPPED
    return 0 if server.started else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
