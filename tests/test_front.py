"""The one address before several servers, with stubs for them, and with a stub for the router."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from serving.command import Options
from serving.front import Front, guarded_app, merge
from serving.gate import KEY
from serving.replicas import front_specs
from serving.replicas import workers as workers_of
from tests.processes import ROOT, free_port, start, until
from tests.stub import Play, Stub, head, raw, says, status
from tests.test_deploy import TOOLS, session_of

GONE = f"http://127.0.0.1:{free_port()}"
CHAT = {"model": "stub", "stream": True, "messages": [{"role": "user", "content": "Why?"}]}
FIGURES = b"""\
# HELP vllm:num_requests_waiting Waiting.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="a{b}"} 3.0
# HELP python_info x
# TYPE python_info gauge
python_info 1.0
"""


class Served(Stub):
    """A replica that is healthy and tells its figures."""

    def _play(self, lines: str, body: bytes) -> Play:
        path = lines.split(" ")[1].partition("?")[0]
        known = {
            "/health": status(200, b""),
            "/metrics": status(200, FIGURES, kind="text/plain"),
            "/list_workers": status(404, b""),
        }
        self.asked = [*getattr(self, "asked", []), lines]
        return known.get(path) or super()._play(lines, body)

    @property
    def url(self) -> str:
        return self.base_url.removesuffix("/v1")


@asynccontextmanager
async def front(router: str, *workers: str, key: str = "") -> AsyncIterator[httpx2.AsyncClient]:
    """A client of a front; no socket but those to the servers."""
    app: Any = guarded_app(router, workers, key)
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://front") as client:
        yield client


async def test_it_is_well_as_long_as_one_of_them_is() -> None:
    with Served() as one:
        async with front(GONE, one.url, GONE) as client:
            reply = await client.get("/health")
            assert (reply.status_code, reply.json()) == (200, {"replicas": 2, "up": 1})
    async with front(GONE, GONE) as client:
        assert (await client.get("/health")).status_code == 503


async def test_what_any_can_tell_is_told_whoever_is_gone() -> None:
    with Served(special=["<x>"]) as one:
        async with front(GONE, GONE, one.url) as client:
            for _ in range(8):
                listed = await client.get("/v1/models")
                assert listed.json()["data"][0]["id"] == "stub"
            counted = await client.post("/tokenize", json={"prompt": "<x>"})
            assert counted.json() == {"count": 1}


async def test_where_none_answers_it_says_so_and_when_to_come_back() -> None:
    async with front(GONE, GONE) as client:
        for reply in (await client.get("/v1/models"), await client.post("/v1/completions")):
            assert reply.status_code == 503
            assert reply.headers["retry-after"] == "2"
            assert reply.json()["error"]["code"] == "no_replica"
            assert "127.0.0.1" not in reply.text


async def test_a_chain_goes_through_the_router_with_its_id_and_our_key() -> None:
    with Served(says("Because.")) as router, Served() as one:
        async with front(router.url, one.url, key="sesame-0815") as client:
            headers = {"Authorization": "Bearer sesame-0815", "X-Session-ID": "chain-1"}
            reply = await client.post("/v1/chat/completions", json=CHAT, headers=headers)
    assert reply.status_code == 200
    assert reply.text.endswith("data: [DONE]\n\n")
    (lines,) = router.headers
    assert "x-session-id: chain-1" in lines.lower()
    assert "Bearer sesame-0815" in lines
    assert not one.requests


async def test_nobody_without_the_key_reaches_anything_but_health() -> None:
    with Served(says("x")) as router:
        async with front(router.url, router.url, key="sesame-0815") as client:
            for path in ("/v1/models", "/metrics", "/list_workers"):
                assert (await client.get(path)).status_code == 401
            assert (await client.post("/v1/chat/completions", json=CHAT)).status_code == 401
            assert (await client.get("/health")).status_code == 200
            with_key = {"Authorization": "Bearer sesame-0815"}
            assert (await client.post("/add_worker", headers=with_key)).status_code == 404
    assert not router.requests


async def test_what_a_server_refuses_is_passed_back_and_the_routers_own_words_are_not() -> None:
    refused = status(400, {"error": {"message": "too long"}})
    broken = status(500, b"Request failed: http://10.0.0.7:8000", kind="text/plain")
    with Served(refused, broken) as router:
        async with front(router.url, router.url) as client:
            first = await client.post("/v1/chat/completions", json=CHAT)
            assert (first.status_code, first.json()["error"]["message"]) == (400, "too long")
            second = await client.post("/v1/chat/completions", json=CHAT)
            assert (second.status_code, "10.0.0.7" in second.text) == (503, False)


@contextmanager
def listening(router: str, worker: str) -> Iterator[str]:
    from tests.test_gate import listening as served

    app: Any = Front(router, [worker]).app()
    with served(app) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.mark.parametrize("end", ["close", "reset"])
async def test_a_reply_that_breaks_off_is_not_taken_for_a_whole_one(end: str) -> None:
    begun = head(200, "text/event-stream", "Transfer-Encoding: chunked")
    part = raw(begun, b"6\r\ndata: \r\n", end=end)
    with Served(part) as router, listening(router.url, router.url) as url:
        async with httpx2.AsyncClient() as client:
            with pytest.raises(httpx2.TransportError):
                await client.post(f"{url}/v1/chat/completions", json=CHAT)


async def test_the_figures_of_each_are_told_apart() -> None:
    with Served() as one:
        async with front(GONE, one.url, GONE) as client:
            text = (await client.get("/metrics")).text
    assert f'stepwise_replica_up{{replica="{one.url}"}} 1' in text
    assert f'stepwise_replica_up{{replica="{GONE}"}} 0' in text
    labels = f'{{replica="{one.url}",engine="0",model_name="a{{b}}"}}'
    assert f"vllm:num_requests_waiting{labels} 3.0" in text
    assert f'python_info{{replica="{one.url}"}} 1.0' in text


def test_each_metric_of_several_servers_has_one_head() -> None:
    text = merge({"http://a": FIGURES.decode(), "http://b": FIGURES.decode(), "http://c": None})
    assert text.count("# TYPE vllm:num_requests_waiting gauge") == 1
    assert text.count("vllm:num_requests_waiting{") == 2
    at = [n for n, line in enumerate(text.splitlines()) if "num_requests_waiting" in line]
    assert at == list(range(at[0], at[0] + 4))  # a family stands together


# -- with the router itself


@contextmanager
def routed(*workers: str, key: str = "sesame-0815") -> Iterator[tuple[str, str]]:
    """The front's address and the router's, as ./serve.sh starts both before these."""
    options = Options(port=free_port(), worker_urls=workers[1:])
    router, front = front_specs(options, Path(sys.executable), {})
    flags = [*router.command.argv[1:], *front.command.argv[1:]]
    own = workers_of(options)[0]  # where a replica of ours would listen
    assert flags.count(own) == 2
    commands = (
        [str(TOOLS / "python"), *router.command.argv[1:]],
        [sys.executable, *front.command.argv[1:]],
    )
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), KEY: key}
    started = []
    try:
        for command in commands:
            argv = [workers[0] if word == own else word for word in command]
            started.append(start(argv, env=environment, cwd=ROOT, stdout=subprocess.DEVNULL))
        until(lambda: all(answers(f"{one.address}{one.health}") for one in (router, front)))
        yield front.address, router.address
    finally:
        for process in started:
            process.kill()
            process.wait()


def answers(url: str) -> bool:
    try:
        return httpx2.get(url, timeout=5).status_code in (200, 401)
    except httpx2.HTTPError:
        return False


@pytest.mark.slow
def test_behind_the_front_a_chain_stays_and_goes_on_elsewhere_when_its_server_is_gone() -> None:
    sessions = [f"chain-{number}" for number in range(12)]
    with Served(says("Yes.")) as stays, ExitStack() as later, ExitStack() as goes:
        gone = goes.enter_context(Served(says("Yes.")))
        front, router = later.enter_context(routed(gone.url, stays.url))
        assert {ask(front, session) for session in sessions * 2} == {200}
        own = [{session_of(head) for head in stub.headers} for stub in (stays, gone)]
        assert own[0] | own[1] == set(sessions)
        assert not own[0] & own[1]
        check_strangers(front, router)
        goes.close()
        assert [ask(front, session) for session in sessions] == [200] * len(sessions)
        assert httpx2.get(f"{front}/health").json() == {"replicas": 2, "up": 1}


def ask(front: str, session: str) -> int:
    """The status of a chain's request, whose reply came whole."""
    headers = {"Authorization": "Bearer sesame-0815", "X-Session-ID": session}
    url = f"{front}/v1/chat/completions"
    reply = httpx2.post(url, json=CHAT, headers=headers, timeout=60)
    assert reply.status_code != 200 or reply.text.endswith("data: [DONE]\n\n")
    return reply.status_code


def check_strangers(front: str, router: str) -> None:
    """Who has no key adds no server, takes none away, and asks none."""
    away = {"url": "http://127.0.0.1:1"}
    for path in ("add_worker", "remove_worker"):
        assert httpx2.post(f"{router}/{path}", params=away, timeout=30).status_code == 401
    for url in (front, router):
        assert httpx2.post(f"{url}/v1/chat/completions", json=CHAT).status_code == 401
