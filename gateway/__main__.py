"""The gateway alone, in front of any OpenAI-compatible server: python -m gateway.

./serve.sh --gateway starts it in front of a vLLM of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import sys
from collections.abc import Sequence
from urllib.parse import urlsplit

import uvicorn
from starlette.routing import Route

from gateway.admission import QUEUE, queue_length
from gateway.app import create_app
from gateway.logs import ChainLog
from gateway.metrics import Metrics, metrics_route
from gateway.tracing import Tracing, TracingError, tracing_from
from reasoning.endpoint import Endpoint
from reasoning.logs import LOG_CONTENT, start_logging
from serving import ports
from serving.command import GATEWAY_PORT, HOST, Listener, is_loopback, port_number
from serving.gate import GET, KEY, POST, Calls, Gate
from serving.keys import BadKey, check_key

BAD_USAGE = 2
FAILED = 1
STOPPED = 130
# Seconds. A client's pool keeps a connection for some 60 and must not meet one that just closed.
KEEP_ALIVE = 75
GRACE = 3  # seconds that open streams get at the end; serve.sh gives 6 to the whole process

# What the gate lets through: the application's own calls, and /metrics beside them.
GATEWAY_CALLS: Calls = {
    "/health": GET,
    "/metrics": GET,
    "/openapi.json": GET,
    "/v1/models": GET,
    "/v1/models/*": GET,
    "/v1/chat/completions": POST,
    "/v1/completions": POST,
    "/v1/responses": POST,
}

EPILOG = f"""\
environment: OPENAI_BASE_URL (the model server, http://127.0.0.1:8000/v1), OPENAI_API_KEY (its
key), MODEL (one of its models), {KEY} (the key that clients of the gateway must send),
{LOG_CONTENT} (1: as --log-content), OTEL_EXPORTER_OTLP_ENDPOINT (where spans go).
docs/serving.md and docs/gateway.md have the rest.
"""


def parser() -> argparse.ArgumentParser:
    flags = argparse.ArgumentParser(
        prog="python -m gateway",
        description="Step-by-step thinking behind an OpenAI-compatible API.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    flags.add_argument("--host", default=HOST, help=f"where it listens ({HOST})")
    flags.add_argument("--port", type=port_number, default=GATEWAY_PORT, help=f"({GATEWAY_PORT})")
    flags.add_argument(
        "--log-content", action="store_true", help="let the log hold questions and answers"
    )
    most = os.environ.get(QUEUE) or None
    said = f"answer 429 while so many requests wait at the model server ({QUEUE}; no bound)"
    flags.add_argument("--queue", type=queue_length, default=most, metavar="N", help=said)
    return flags


class Server(uvicorn.Server):
    """One that sets `stopped` before it waits for its open connections, so that they can end."""

    def __init__(self, config: uvicorn.Config, stopped: asyncio.Event) -> None:
        super().__init__(config)
        self._stopped = stopped

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._stopped.set()
        await super().shutdown(sockets)


def guarded_app(
    endpoint: Endpoint,
    traced: Tracing | None,
    key: str,
    stopped: asyncio.Event | None = None,
    queue: int | None = None,
) -> Gate:
    """The gateway as it faces the world."""
    metrics = Metrics()
    app = create_app(
        endpoint,
        observers=[metrics, ChainLog(), *([traced] if traced else [])],
        routes=[Route("/metrics", metrics_route(metrics))],
        stopped=stopped,
        queue=queue,
    )
    return Gate(app, GATEWAY_CALLS, key)


def serve(
    listener: Listener,
    endpoint: Endpoint,
    traced: Tracing | None,
    key: str,
    queue: int | None = None,
) -> int:
    """Until it is stopped: the exit status."""
    stopped = asyncio.Event()
    config = uvicorn.Config(
        guarded_app(endpoint, traced, key, stopped, queue),
        listener.host,
        listener.port,
        ws="none",
        log_config=None,  # as all else here logs
        log_level="warning",
        access_log=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=GRACE,
    )
    server = Server(config, stopped)
    print(f"The gateway: {listener.url}, in front of {without_secrets(endpoint.base_url)}.")
    print("Ctrl-C stops it.", flush=True)
    try:
        server.run()
    except KeyboardInterrupt:  # what uvicorn makes of the signal that it has obeyed
        return STOPPED
    finally:
        if traced is not None:
            traced.close()
    return FAILED if not server.started else 0


def without_secrets(url: str) -> str:
    """An address with no user and password in it."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def main(argv: Sequence[str]) -> int:
    given = parser().parse_args(argv)
    key = os.environ.get(KEY, "")
    if not is_loopback(given.host) and not key:
        opens = f"--host {given.host} opens the gateway to the network"
        print(f"{opens}: set {KEY} to a key that clients must send.", file=sys.stderr)
        return BAD_USAGE
    try:
        if key:
            check_key(key, given.host)
    except BadKey as error:
        print(error, file=sys.stderr)
        return BAD_USAGE
    try:
        listener = Listener("gateway", given.host, given.port, "--port")
        ports.check(listener.host, listener.port, listener.flag)
        traced = tracing_from(os.environ)
    except (ports.PortError, TracingError) as error:
        print(error, file=sys.stderr)
        return FAILED
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    start_logging(os.environ | ({LOG_CONTENT: "1"} if given.log_content else {}))
    return serve(listener, Endpoint.from_environment(), traced, key, given.queue)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
