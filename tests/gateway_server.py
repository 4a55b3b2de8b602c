"""The gateway as a client meets it: on uvicorn, on a port of its own, in front of any server."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from gateway.__main__ import Server
from gateway.app import create_app
from reasoning.endpoint import Endpoint, Patience
from tests.stub import Play, says, step, step_number


@contextmanager
def gateway(
    upstream: str, api_key: str = "", patience: Patience = Patience(), **options: Any
) -> Iterator[str]:
    """The URL of a gateway, ending in /v1, until the block ends. `options` are create_app's."""
    stopped = asyncio.Event()
    endpoint = Endpoint(upstream, api_key, patience=patience)
    app = create_app(endpoint, stopped=stopped, **options)
    server = Server(
        uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=5, access_log=False),
        stopped,
    )
    listening = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()  # a client that comes before it is ready waits in the socket's queue
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive(), "the gateway did not stop"


def thinker(request: dict[str, Any]) -> Play:
    """A script's line for a model that thinks three steps and says 42, whoever asks how often."""
    if asks_for_a_step(request):
        number = step_number(request)
        action = "continue" if number < 3 else "final_answer"
        return step(f"Look {number}", f"At turn {number} it is still 42.", action)
    if "response_format" in request:
        return says('{"answer": 42}')
    return says("The answer is 42.")


def asks_for_a_step(request: dict[str, Any]) -> bool:
    return "next_action" in json.dumps(request.get("response_format", {}))


def events_of(text: str) -> list[Any]:
    """The data of a finished event stream; "[DONE]" as it is. Comments are left out."""
    lines = [line.removeprefix("data: ") for line in text.split("\n") if line.startswith("data: ")]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]
