"""The guard at the door: what is not on its list, or lacks the key, or is too long, stays out."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal

import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st

from gateway.__main__ import GATEWAY_CALLS
from serving import gate
from serving.catalogue import ROOT
from serving.command import ALWAYS
from serving.gate import VLLM_CALLS, Gate, VLLMGate

KEY = "sesame-0815"
BEARER = (b"authorization", f"Bearer {KEY}".encode())
ASK = "/v1/chat/completions"
NAMED = {(method, path) for path, methods in VLLM_CALLS.items() for method in methods}


class Behind:
    """An app that notes what reached it, and answers 200 with the body it got."""

    def __init__(self) -> None:
        self.reached: list[tuple[str, str]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            self.reached.append((scope["type"], scope.get("path", "")))
            return
        self.reached.append((scope["method"], gate.path_of(scope)))
        body = (await receive())["body"]
        length = (b"content-length", str(len(body)).encode())
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": body})


def call(
    guarded: Gate,
    method: str,
    path: str,
    *headers: tuple[bytes, bytes],
    parts: tuple[bytes, ...] = (b"",),
    **scope: Any,
) -> tuple[int, dict[str, str], bytes]:
    """One request through ASGI: status, headers, body of the answer; status 0 without one."""
    whole = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    whole[-1]["more_body"] = False
    coming, sent = iter(whole), list[dict[str, Any]]()

    async def receive() -> Any:
        return next(coming, {"type": "http.disconnect"})

    async def send(message: Any) -> None:
        sent.append(message)

    asked = {"type": "http", "method": method, "path": path, "headers": list(headers), **scope}
    asyncio.run(guarded(asked, receive, send))
    if not sent:
        return 0, {}, b""
    told = {name.decode(): value.decode() for name, value in sent[0].get("headers", [])}
    return sent[0].get("status", 0), told, b"".join(m.get("body", b"") for m in sent[1:])


def error_of(body: bytes) -> dict[str, Any]:
    error: dict[str, Any] = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


# -- what passes


@pytest.mark.parametrize(("method", "path"), sorted(NAMED))
def test_each_named_call_passes_with_the_key_and_only_health_without(
    method: str, path: str
) -> None:
    behind = Behind()
    guarded = Gate(behind, VLLM_CALLS, KEY)
    open_to_all = path == "/health"
    assert call(guarded, method, path)[0] == (200 if open_to_all else 401)
    assert call(guarded, method, path, BEARER)[0] == 200
    assert behind.reached == [(method, path)] * (1 + open_to_all)


def test_without_a_key_the_list_and_the_cap_still_hold() -> None:
    guarded = Gate(Behind(), VLLM_CALLS, most=3)
    assert call(guarded, "POST", "/tokenize", parts=(b"abc",))[0] == 200
    assert call(guarded, "POST", "/tokenize", parts=(b"abcd",))[0] == 413
    assert call(guarded, "POST", "/invocations")[0] == 404


PIECES = st.sampled_from(
    [*"/.%?#;:@\\*", "//", "..", "%2e", "%2F", "%00", "http://evil", "\u202e"]
    + [part for path in VLLM_CALLS for part in path.split("/") if part]
    + ["invocations", "generative_scoring", "docs", "openapi.json", "load", "ping", "V1"]
)
PATHS = st.one_of(
    st.lists(PIECES, max_size=8).map("".join),
    st.lists(PIECES, max_size=6).map(lambda pieces: "/" + "/".join(pieces)),
    st.sampled_from(sorted(VLLM_CALLS)).flatmap(
        lambda path: st.builds(
            lambda at, what: path[:at] + what + path[at:], st.integers(0, len(path)), PIECES
        )
    ),
    st.text(max_size=30),
)
METHODS = st.sampled_from(
    ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "CONNECT", "get", "Post", ""]
)
HEADERS = st.lists(
    st.tuples(
        st.sampled_from([b"host", b"x-original-url", b"x-forwarded-prefix", b"upgrade"]),
        st.sampled_from([b"x/v1/models?", b"evil", b"/v1/models", b"[::1]", b"websocket", b""]),
    ),
    max_size=3,
)


@given(METHODS, PATHS, HEADERS, st.sampled_from(["", "/api", "/v1", "/"]))
def test_nothing_that_is_not_on_the_list_passes_however_it_is_spelled(
    method: str, path: str, headers: list[tuple[bytes, bytes]], root_path: str
) -> None:
    behind = Behind()
    guarded = Gate(behind, VLLM_CALLS, KEY)
    status, told, body = call(guarded, method, path, BEARER, *headers, root_path=root_path)
    assert set(behind.reached) <= NAMED
    if not behind.reached:
        assert status in (404, 405)
        assert told["connection"] == "close"
        error_of(body)


@given(PATHS, HEADERS, st.one_of(st.binary(max_size=20), st.just(KEY.encode())))
def test_nothing_but_health_passes_without_the_key(
    path: str, headers: list[tuple[bytes, bytes]], almost: bytes
) -> None:
    behind = Behind()
    wrong = (b"authorization", almost)  # the key itself is no `Bearer KEY`
    for method in ("GET", "POST"):
        status, told, body = call(Gate(behind, VLLM_CALLS, KEY), method, path, wrong, *headers)
        if not behind.reached:
            assert (status, told["www-authenticate"]) == (401, "Bearer")
            assert error_of(body)["code"] == "invalid_api_key"
            assert KEY not in body.decode()
    assert set(behind.reached) <= {("GET", "/health")}


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (f"Bearer {KEY}", 200),
        (f"bearer {KEY}", 200),
        (f"BEARER  {KEY} ", 200),
        (KEY, 401),
        (f"Basic {KEY}", 401),
        (f"Bearer {KEY}x", 401),
        (f"Bearer {KEY[:-1]}", 401),
        (f"Bearer {KEY.upper()}", 401),
        ("Bearer ", 401),
        ("", 401),
        ("Bearer s\xe9same", 401),
    ],
)
def test_the_key_is_taken_whole_and_as_a_bearers(header: str, status: int) -> None:
    given_key = (b"authorization", header.encode("latin-1"))
    assert call(Gate(Behind(), VLLM_CALLS, KEY), "GET", "/v1/models", given_key)[0] == status


def test_a_key_beyond_ascii_is_compared_by_its_bytes() -> None:
    guarded = Gate(Behind(), VLLM_CALLS, "schlüssel")
    given_key = (b"authorization", "Bearer schlüssel".encode())
    assert call(guarded, "GET", "/v1/models", given_key)[0] == 200


def test_who_has_no_key_does_not_learn_what_there_is() -> None:
    guarded = Gate(Behind(), VLLM_CALLS, KEY)
    answers = {call(guarded, *asked)[2] for asked in (("GET", "/v1/models"), ("PUT", "/nowhere"))}
    assert len(answers) == 1


def test_a_wrong_method_is_told_the_right_ones() -> None:
    status, told, body = call(Gate(Behind(), GATEWAY_CALLS), "GET", ASK)
    assert (status, told["allow"]) == (405, "POST")
    assert error_of(body)["code"] == "method_not_allowed"


def test_a_wrong_path_is_told_what_there_is() -> None:
    status, _, body = call(Gate(Behind(), GATEWAY_CALLS), "POST", "/v1/embeddings")
    assert (status, error_of(body)["code"]) == (404, "unknown_url")
    assert "POST /v1/chat/completions" in error_of(body)["message"]


def test_a_models_name_may_hold_slashes_and_must_be_there() -> None:
    guarded = Gate(Behind(), GATEWAY_CALLS)
    assert call(guarded, "GET", "/v1/models/org/name-steps")[0] == 200
    assert call(guarded, "GET", "/v1/models/")[0] == 404
    assert call(guarded, "POST", "/v1/models/name")[0] == 405


def test_another_origins_page_is_not_invited() -> None:
    asks = ((b"origin", b"http://evil"), (b"access-control-request-method", b"POST"))
    status, told, _ = call(Gate(Behind(), VLLM_CALLS), "OPTIONS", ASK, *asks)
    assert status == 405
    assert not [name for name in told if name.startswith("access-control")]


def test_a_proxys_root_path_is_left_out_as_the_router_does() -> None:
    behind = Behind()
    guarded = Gate(behind, VLLM_CALLS)
    assert call(guarded, "GET", "/api/v1/models", root_path="/api")[0] == 200
    assert call(guarded, "GET", "/v1/models", root_path="/api")[0] == 200
    assert call(guarded, "GET", "/apiv1/models", root_path="/api")[0] == 404
    assert call(guarded, "GET", "/api/invocations", root_path="/api")[0] == 404


def test_a_web_socket_is_refused_and_the_lifespan_passes() -> None:
    behind, sent = Behind(), list[dict[str, Any]]()
    guarded = Gate(behind, VLLM_CALLS)

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    asyncio.run(guarded({"type": "websocket", "path": "/v1/realtime"}, receive, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]
    asyncio.run(guarded({"type": "lifespan"}, receive, send))
    assert behind.reached == [("lifespan", "")]


# -- how long a body may be


@given(st.lists(st.binary(max_size=8), min_size=1, max_size=8))
def test_a_body_passes_whole_or_not_at_all_however_it_is_cut(parts: list[bytes]) -> None:
    whole = b"".join(parts)
    behind = Behind()
    status, _, body = call(Gate(behind, VLLM_CALLS, most=16), "POST", ASK, parts=tuple(parts))
    if len(whole) <= 16:
        assert (status, body) == (200, whole)
    else:
        assert (status, error_of(body)["code"], behind.reached) == (413, "body_too_long", [])


@pytest.mark.parametrize("length", [b"17", b"0017", b"9" * 5000])
def test_a_body_that_is_announced_too_long_is_not_waited_for(length: bytes) -> None:
    guarded = Gate(Behind(), VLLM_CALLS, most=16)
    assert call(guarded, "POST", ASK, (b"content-length", length))[0] == 413


@pytest.mark.parametrize("length", [b"-1", b"x", b"", b"3"])
def test_what_a_header_claims_is_not_believed(length: bytes) -> None:
    guarded = Gate(Behind(), VLLM_CALLS, most=16)
    claimed = (b"content-length", length)
    assert call(guarded, "POST", ASK, claimed, parts=(b"x" * 17,))[0] == 413


def test_a_client_that_goes_away_in_its_own_body_reaches_nobody() -> None:
    behind = Behind()
    sent: list[Any] = []
    coming = iter([{"type": "http.request", "body": b"{", "more_body": True}])

    async def receive() -> Any:
        return next(coming, {"type": "http.disconnect"})

    async def send(message: Any) -> None:
        sent.append(message)

    asked = {"type": "http", "method": "POST", "path": ASK, "headers": []}
    asyncio.run(Gate(behind, VLLM_CALLS)(asked, receive, send))
    assert (behind.reached, sent) == ([], [])


def test_after_the_body_the_app_hears_of_a_client_that_leaves() -> None:
    heard: list[str] = []

    async def app(_: Any, receive: Any, send: Any) -> None:
        heard.extend([(await receive())["type"], (await receive())["type"]])

    call(Gate(app, VLLM_CALLS), "POST", ASK)
    assert heard == ["http.request", "http.disconnect"]


# -- on real sockets


@contextmanager
def listening(
    app: Any, implementation: Any = "auto", lifespan: Literal["on", "off"] = "off"
) -> Iterator[int]:
    """The app on uvicorn, on a free port."""
    config = uvicorn.Config(app, port=0, http=implementation, log_level="error", lifespan=lifespan)
    server = uvicorn.Server(config)
    sock = config.bind_socket()
    sock.listen()  # who comes before the server is up waits
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
    thread.start()
    try:
        yield sock.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(30)


@pytest.fixture(scope="module", params=["h11", "httptools"])
def doors(request: pytest.FixtureRequest) -> Iterator[tuple[int, Behind]]:
    behind = Behind()
    with listening(Gate(behind, VLLM_CALLS, KEY, most=10**6), request.param) as port:
        yield port, behind


@pytest.fixture
def door(doors: tuple[int, Behind]) -> tuple[int, Behind]:
    """A gate with a cap of 1 MB on a port, and what is behind it."""
    doors[1].reached.clear()
    return doors


def test_an_answer_of_413_is_read_by_a_client_that_sends_all_before_it_reads(
    door: tuple[int, Behind],
) -> None:
    """A close on unread bytes would reset the connection, and the answer with it."""
    port, behind = door
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    bearer = {"Authorization": f"Bearer {KEY}"}
    connection.request("POST", ASK, body=b"x" * 30_000_000, headers=bearer)
    response = connection.getresponse()
    assert (response.status, error_of(response.read())["code"]) == (413, "body_too_long")
    assert behind.reached == []


def test_a_chunked_body_is_counted(door: tuple[int, Behind]) -> None:
    port, behind = door
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    parts = (b"x" * 100_000 for _ in range(11))
    bearer = {"Authorization": f"Bearer {KEY}"}
    connection.request("POST", ASK, body=parts, headers=bearer, encode_chunked=True)
    assert connection.getresponse().status == 413
    assert behind.reached == []


def said_on_one_connection(port: int, data: bytes) -> bytes:
    """All that comes back until the server closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(data)
        said = b""
        while piece := connection.recv(65536):
            said += piece
        return said


@pytest.mark.parametrize("status", [b"401", b"413"])
def test_what_was_refused_is_not_taken_for_the_next_request(
    door: tuple[int, Behind], status: bytes
) -> None:
    port, behind = door
    key = f"Authorization: Bearer {KEY}\r\n".encode() if status == b"413" else b""
    smuggled = b"GET /v1/models HTTP/1.1\r\nHost: x\r\n" + key + b"\r\n"
    body = smuggled + b"x" * 1_100_000
    head = b"POST %s HTTP/1.1\r\nHost: x\r\n%sContent-Length: %d\r\n\r\n"
    said = said_on_one_connection(port, head % (ASK.encode(), key, len(body)) + body + smuggled)
    assert said.count(b"HTTP/1.1 ") == 1
    assert said.startswith(b"HTTP/1.1 " + status)
    assert behind.reached == []


def test_a_client_that_waits_for_a_continue_is_refused_before_it_sends(
    door: tuple[int, Behind],
) -> None:
    port, _ = door
    head = f"POST {ASK} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
    head += "Content-Length: 5000000\r\nExpect: 100-continue\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(head.encode())
        assert connection.recv(65536).startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize(
    "line",
    [
        "GET //v1/models",
        "GET /v1/models/",
        "GET /V1/models",
        "GET /v1/%2e%2e/invocations",
        "POST /v1/models/../../invocations",
        "GET http://evil/v1/modelsx",
        "GET /v1%2f..%2finvocations",
        "POST /%69nvocations",
        "POST /v1/chat/completions%00",
        "POST /v1/chat/completions%20",
        "POST /v1/models%3f/../chat/completions",
        "POST /invocations?/v1/models",
        "POST /v1/models;/../invocations",
    ],
)
def test_no_spelling_of_a_request_line_gets_past_a_real_server(
    door: tuple[int, Behind], line: str
) -> None:
    port, behind = door
    for host in ("x", "x/v1/models?", "127.0.0.1:8000/health"):
        head = f"{line} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {KEY}\r\n"
        said = said_on_one_connection(port, f"{head}Content-Length: 0\r\n\r\n".encode())
        assert said.startswith((b"HTTP/1.1 404", b"HTTP/1.1 405", b"HTTP/1.1 400"))
    assert behind.reached == []


def test_a_good_client_keeps_its_connection(door: tuple[int, Behind]) -> None:
    port, _ = door
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    bearer = {"Authorization": f"Bearer {KEY}"}
    used = set()
    for body in (b"a", b"b" * 200_000, b"c"):
        connection.request("POST", ASK, body=body, headers=bearer)
        response = connection.getresponse()
        assert (response.status, response.read()) == (200, body)
        used.add(id(connection.sock))
    assert len(used) == 1


# -- how long a client may take


class Slow(Behind):
    """Answers the lifespan as well, and one call late."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
        else:
            await asyncio.sleep(1.0 if scope["path"] == "/version" else 0.0)
            await super().__call__(scope, receive, send)


@pytest.fixture(params=["h11", "httptools"])
def hasty(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A gate that gives a head and a body half a second."""
    with listening(Gate(Slow(), VLLM_CALLS, slowest=0.5), request.param, lifespan="on") as port:
        said_on_one_connection(port, b"GET /health HTTP/1.1\r\nConnection: close\r\n\r\n")
        gate.hang_up_on_slow_heads(0.5)
        yield port
        gate.hang_up_on_slow_heads()


def dripped(port: int, data: bytes, every: float = 0.1) -> bytes:
    """What comes back of a client that sends a byte at a time, until the server hangs up."""
    said = b""
    with socket.create_connection(("127.0.0.1", port), timeout=every) as connection:
        with suppress(ConnectionError):
            for at in range(len(data)):
                connection.sendall(data[at : at + 1])
                try:
                    piece = connection.recv(65536)
                except TimeoutError:
                    continue
                said += piece
                if not piece:
                    return said
        return said


def test_a_head_that_drips_is_hung_up_on(hasty: int) -> None:
    began = time.monotonic()
    assert dripped(hasty, b"GET /health HTTP/1.1\r\nX: " + b"x" * 100) == b""
    assert time.monotonic() - began < 5


def test_a_connection_that_says_nothing_is_hung_up_on(hasty: int) -> None:
    with socket.create_connection(("127.0.0.1", hasty), timeout=60) as connection:
        assert connection.recv(1) == b""


def test_a_second_head_that_drips_is_hung_up_on_too(hasty: int) -> None:
    with socket.create_connection(("127.0.0.1", hasty), timeout=60) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        connection.sendall(b"GET /health HT")
        assert connection.recv(65536) == b""


def test_a_body_that_drips_is_refused_with_408(hasty: int) -> None:
    head = f"POST {ASK} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", hasty), timeout=60) as connection:
        connection.sendall(head + b"x")
        said = connection.recv(65536)
        while b"body_too_slow" not in said and (piece := connection.recv(65536)):
            said += piece  # head and body may come apart
    assert said.startswith(b"HTTP/1.1 408")
    assert b"body_too_slow" in said


def test_an_answer_and_a_pause_after_it_take_as_long_as_they_take(hasty: int) -> None:
    with socket.create_connection(("127.0.0.1", hasty), timeout=60) as connection:
        for path in (b"/version", b"/health"):
            connection.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n\r\n")
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")
            time.sleep(0.7)  # idle, and no head has begun


# -- as vLLM gets it


def test_vllms_gate_reads_the_key_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_API_KEY", KEY)
    assert call(VLLMGate(Behind()), "GET", "/v1/models")[0] == 401
    monkeypatch.delenv("VLLM_API_KEY")
    assert call(VLLMGate(Behind()), "GET", "/v1/models")[0] == 200


def test_vllm_is_given_a_gate_that_it_can_import_and_that_pulls_in_nothing() -> None:
    module, name = ALWAYS[ALWAYS.index("--middleware") + 1].rsplit(".", 1)
    assert getattr(sys.modules[module], name) is VLLMGate
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/")
    named = ("serving", "gateway", "reasoning")
    ours = {name for name in done.stdout.split() if name.startswith(named)}
    assert ours == {"serving", "serving.gate"}, done.stderr
