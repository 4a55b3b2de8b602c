"""vllm-router as ./serve.sh starts it: python -m serving.router [vllm-router's flags].

It runs in the router's own environment (setup.py), where nothing of ours is but this and what
needs the standard library alone. By its own command the router is given the key on its command
line, which everybody on the machine can read, and lets everybody add a server that is then sent
questions. So here the key comes from the environment, and where there is one, each call must have
it: the router asks an address whether a key is right, and a child of this process answers there.
"""

from __future__ import annotations

import hmac
import os
import socket
import sys
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

from serving.gate import KEY
from serving.supervisor import die_with_parent

HERE = "127.0.0.1"


def router_args(argv: Sequence[str], key: str, judge: str) -> Any:
    """vllm-router's own settings. `judge` answers 200 to who has the key."""
    from vllm_router.launch_router import parse_router_args

    args = parse_router_args(list(argv))
    # The front tells of the replicas. Left out, the router's own figures would be on one port for
    # all of a machine, and the second router would end for it.
    args.prometheus_host, args.prometheus_port = HERE, _free_port()
    if key:
        args.api_key = key
        args.api_key_validation_urls = [judge]  # what its command line does not offer
    return args


def _free_port() -> int:
    with socket.create_server((HERE, 0)) as found:
        return int(found.getsockname()[1])


def start_judge(key: str) -> str:
    """The address of a child that knows the key; it ends with this process."""
    listening = socket.create_server((HERE, 0))
    if os.fork() == 0:  # the router, once it runs, lets no thread of Python's run beside it
        die_with_parent()
        server = HTTPServer((HERE, 0), judge_of(key), bind_and_activate=False)
        server.socket = listening
        server.serve_forever()
    address = f"http://{HERE}:{listening.getsockname()[1]}/"
    listening.close()  # it is the child's
    return address


def judge_of(key: str) -> type[BaseHTTPRequestHandler]:
    right = f"Bearer {key}".encode()

    class Judge(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            given = self.headers.get("authorization", "").encode("latin-1", "replace")
            self.send_response(200 if hmac.compare_digest(given, right) else 401)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    return Judge


def main(argv: Sequence[str]) -> None:
    key = os.environ.get(KEY, "")
    judge = start_judge(key) if key else ""
    from vllm_router.launch_router import launch_router

    launch_router(router_args(argv, key, judge))


if __name__ == "__main__":
    main(sys.argv[1:])
