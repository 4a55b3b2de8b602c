"""Who has no key gets nothing: on every route, by every spelling, with bodies of 200 MB.

On real sockets, each server in a process of its own: the gate that vLLM gets (before a stand-in
that answers 200 to whatever reaches it, on every route that the installed vLLM has), the gateway,
and the page as ./serve.sh opens it to others.
"""

from __future__ import annotations

import re
import select
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.faults.kills import child, kill
from bench.faults.playing import LISTED, script
from bench.faults.promise import Effort, Promise, Tally
from gateway.__main__ import GATEWAY_CALLS
from serving.command import PAGE_HEALTH, PAGE_TOKEN
from serving.gate import KEY, VLLM_CALLS
from tests.gateway_process import started
from tests.page_browser import page_server
from tests.processes import free_port, until
from tests.stub import Stub

SECRET = "a-key-of-two-and-thirty-characters-or-more"
ANYBODY = ("/health", PAGE_HEALTH)  # what a load balancer asks
LARGE = 200 * 10**6  # bytes
GROWTH = 64 * 2**20  # bytes that a server may grow by: eight bodies of the longest kind
METHODS = ("GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD")
ROUTE = re.compile(r'\.(?:get|post|put|delete|websocket)\(\s*"(/[^"]*)"')
PAGE_PATHS = (
    *("/", "/index.html", "/_stcore/host-config", "/_stcore/stream", "/_stcore/upload_file/x/y"),
    *("/_stcore/metrics", "/media/x.png", "/static/js/x.js", "/component/x", "/app/static/x"),
)
KEYS = (  # of who has none
    *("", "Authorization: Bearer", f"Authorization: Bearer {SECRET}x", "Authorization: Bearer ,"),
    *(f"Authorization: Basic {SECRET}", f"Authorization: {SECRET}", f"X-API-Key: {SECRET}"),
    *(
        f"Cookie: key={SECRET}",
        f"Authorization: Bearer {SECRET.upper()}",
        "Authorization: Bearer *",
    ),
)
SPELLINGS = (
    *("GET //v1/models", "GET /v1/models/", "GET /V1/models", "GET /v1/%2e%2e/invocations"),
    *("POST /v1/models/../../invocations", "GET http://evil/v1/models", "GET /v1%2fmodels"),
    *("POST /%69nvocations", "POST /v1/chat/completions%00", "POST /v1/chat/completions?key=x"),
    *("POST /invocations?/health", "GET /health/../v1/models", "GET /health;/v1/models"),
    *("GET /health%2f..%2fv1%2fmodels", "GET /health#/v1/models", "GET /health?x=/v1/models"),
    *("POST /health", "get /v1/models", "CONNECT evil:443", "GET *", "TRACE /v1/models"),
    *("GET /./v1/models", "GET \\v1\\models", "GET /v1/models\tx", "GET /v1/\u0561models"),
)
HEADERS = (
    *("", "Host: x/health?", "Host: 127.0.0.1/v1/models?", "X-Original-URL: /health"),
    *("X-Rewrite-URL: /health", "X-Forwarded-Prefix: /health", "X-Forwarded-For: 127.0.0.1"),
    *("Forwarded: for=127.0.0.1;host=localhost", "X-HTTP-Method-Override: GET"),
    *("Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13",),
    *("Transfer-Encoding: chunked\r\nContent-Length: 4", "Transfer-Encoding: \x0bchunked"),
)


@dataclass(frozen=True, slots=True)
class Server:
    """One that is tried: where it listens, its process, its routes."""

    name: str
    port: int
    pid: int
    paths: tuple[str, ...]
    takes: tuple[str, ...] = ()  # the paths that take a body


def keep(effort: Effort, tally: Tally) -> None:
    with ExitStack() as stack:
        servers = [*_guarded(stack), *_page(stack)]
        for server in servers:
            routes = sum(_without_key(server, tally, effort.of(1, 4)))
            tally.tell(f"{server.name}: {len(server.paths)} routes, {routes:,} requests")
        for server in servers:
            if server.takes:
                grown = max(_large(server, tally, effort))
                tally.tell(f"{server.name} grew by {grown / 2**20:.0f} MiB under 200 MB bodies")


def _guarded(stack: ExitStack) -> Iterator[Server]:
    folder = Path(stack.enter_context(TemporaryDirectory(prefix="stepwise-")))
    stub = stack.enter_context(Stub(script(), models=LISTED))
    port = free_port()
    vllm = child("bench.faults.guarded", str(port), environment={KEY: SECRET})
    stack.callback(kill, vllm)
    until(lambda: _said(port, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"), 60)
    takes = tuple(path for path, methods in VLLM_CALLS.items() if "POST" in methods)
    yield Server("vLLM's gate", port, vllm.pid, vllm_routes(), takes)
    running = started(folder / "log", OPENAI_BASE_URL=stub.base_url, **{KEY: SECRET})
    stack.callback(running.process.kill)
    paths = tuple(path.replace("*", "x") for path in GATEWAY_CALLS)
    takes = tuple(path for path, methods in GATEWAY_CALLS.items() if "POST" in methods)
    yield Server("the gateway", running.port, running.process.pid, paths, takes)


def _page(stack: ExitStack) -> Iterator[Server]:
    token = {PAGE_TOKEN: SECRET}
    page = stack.enter_context(page_server("http://127.0.0.1:9/v1", "bench-access.log", **token))
    yield Server("the page", page.port, page.process.pid, PAGE_PATHS)


@cache
def vllm_routes() -> tuple[str, ...]:
    """Those in the source of the vLLM that is installed, and those that we name ourselves."""
    found = set(VLLM_CALLS)
    spec = find_spec("vllm")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for file in Path(folder, "entrypoints").rglob("*.py"):
            found |= set(ROUTE.findall(file.read_text(encoding="utf-8")))
    more = ("/metrics", "/openapi.json", "/redoc", "/invocations", "/")
    return tuple(sorted(re.sub(r"\{.*?\}", "x", path) for path in {*found, *more}))


# -- without the key


def _without_key(server: Server, tally: Tally, every: int) -> Iterator[int]:
    asked = 0
    for request in list(_requests(server))[::every]:
        said = _said(server.port, request)
        status = said[9:12].decode("latin-1") or "nothing"
        passed = status[0] in "123" and not _is_open(request)
        line = request.partition(b"\r\n")[0].decode("latin-1")
        tally.note(f"{server.name}, {line}", f"{status}: {said[-60:]!r}" if passed else "")
        asked += 1
    yield asked


def _requests(server: Server) -> Iterator[bytes]:
    for path in server.paths:
        for method in METHODS:
            for key in KEYS:
                yield _request(f"{method} {path}", key)
    for line in SPELLINGS:
        for header in HEADERS:
            yield _request(line, header)


def _request(line: str, header: str) -> bytes:
    host = "" if header.startswith("Host") else "Host: x\r\n"
    more = f"{header}\r\n" if header else ""
    length = "" if "Length" in header or "Transfer" in header else "Content-Length: 0\r\n"
    return f"{line} HTTP/1.1\r\n{host}{more}{length}Connection: close\r\n\r\n".encode()


def _is_open(request: bytes) -> bool:
    """GET /health, however its query reads: that is for anybody."""
    line = request.partition(b" HTTP/1.1")[0].decode()
    method, _, path = line.partition(" ")
    return method == "GET" and re.split(r"[?#]", path)[0] in ANYBODY


def _said(port: int, request: bytes) -> bytes:
    """The beginning of what comes back; b"" where nothing does."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as wire:
            wire.sendall(request)
            return wire.recv(65536)
    except OSError:
        return b""


# -- large bodies


def _large(server: Server, tally: Tally, effort: Effort) -> Iterator[int]:
    """How many bytes the process has grown by at its largest, after each."""
    before = _peak(server.pid)
    for path in server.takes[: effort.of(len(server.takes), 2)]:
        for key in (SECRET, "no-key"):
            for head in ("Content-Length: {LARGE}", "Transfer-Encoding: chunked"):
                status = _sent(server.port, path, key, head.replace("{LARGE}", str(LARGE)))
                grown = _peak(server.pid) - before
                expected = "413" if key == SECRET else "401"
                problem = f"{status}, expected {expected}" if status != expected else ""
                if grown > GROWTH:
                    problem = f"{problem} it grew by {grown / 2**20:.0f} MiB".strip()
                tally.note(f"{server.name}, 200 MB to {path}, {head[:17]}", problem)
                yield grown


def _sent(port: int, path: str, key: str, head: str) -> str:
    """The status that is told, before or after all of the body that the server takes."""
    part = b"x" * 10**6
    if "chunked" in head:
        part = b"f4240\r\n" + part + b"\r\n"  # 10**6 in hexadecimal
    line = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n{head}\r\n\r\n"
    said = b""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as wire, suppress(OSError):
        wire.sendall(line.encode())
        for _ in range(LARGE // 10**6):
            wire.sendall(part)
            if not said and select.select([wire], [], [], 0)[0]:
                said = wire.recv(65536)
        said = said or wire.recv(65536)
    return said[9:12].decode() or "a reset"


def _peak(pid: int) -> int:
    """The most memory that the process has held so far, in bytes."""
    text = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    told: Mapping[str, str] = dict(line.split(":", 1) for line in text.splitlines())
    return int(told["VmHWM"].split()[0]) * 1024


PROMISE = Promise(
    "without its key no server of ours does anything for anybody, however a call is spelled, and "
    "a body of 200 MB costs it no memory",
    keep,
)
