"""`./serve.sh --replicas 2` for real: two vLLMs on a core each, vllm-router, the front, one key.

Two cores prove that a chain stays where its prefix is and goes on where its replica dies, not
that two are faster than one.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import httpx2
import psutil
import pytest

from reasoning.endpoint import Endpoint, Patience
from reasoning.events import Answer, Delta, Event, Notice, Retry, Settings, Step
from reasoning.inquiry import Inquiry
from reasoning.prompts import LANGUAGES
from reasoning.think import think
from reasoning.warming import warming_requests
from serving.supervisor import processes_below
from tests.processes import ROOT, alive, free_port, start, until

pytestmark = [pytest.mark.slow, pytest.mark.long]
KEY = "sesame-0815"
PATIENCE = 600.0  # seconds; a cold machine compiles and reads everything for the first time
SETTINGS = Settings(min_steps=4, max_steps=4, step_tokens=40, answer_tokens=20)
HEADERS = {"Authorization": f"Bearer {KEY}"}
needs_two_cores = pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2, reason="a replica needs a core of its own"
)


async def chain(endpoint: Endpoint) -> AsyncIterator[Event]:
    model = await endpoint.model()
    inquiry = Inquiry("What is 12 * 11?", "json_steps", settings=SETTINGS)
    async with aclosing(think(inquiry, endpoint=endpoint, model=model)) as events:
        async for event in events:
            yield event


def answered(port: int) -> list[float]:
    """How many requests each replica has answered to their end, by the front's figures."""
    text = httpx2.get(f"http://127.0.0.1:{port}/metrics", headers=HEADERS, timeout=60).text
    urls = [f"http://127.0.0.1:{port + 11 + number}" for number in (0, 1)]
    line = r'^vllm:request_success_total\{{replica="{}".*\}} (\S+)$'
    return [sum(map(float, re.findall(line.format(re.escape(url)), text, re.M))) for url in urls]


def server_at(port: int, family: list[int]) -> psutil.Process:
    """The vLLM that listens there."""
    for one in map(psutil.Process, family):
        if str(port) in one.cmdline() and "--middleware" in one.cmdline():
            return one
    raise AssertionError(f"nobody of ours listens on {port}")


@needs_two_cores
async def test_a_chain_stays_with_its_replica_and_goes_on_at_the_other_when_that_is_killed(
    tmp_path: Path,
) -> None:
    port, out = free_port(), tmp_path / "out"
    words = ["--model", "smollm2-135m-instruct", "--replicas", "2", "--port", str(port)]
    ours = {name: value for name, value in os.environ.items() if "OMP" not in name}
    process = start(
        [str(ROOT / "serve.sh"), *words],
        stdout=out.open("w"),
        stderr=subprocess.STDOUT,
        env={**ours, "VLLM_API_KEY": KEY, "VLLM_CPU_KVCACHE_SPACE": "1"},
    )
    family: list[int] = []
    try:
        until(lambda: "Ctrl-C" in out.read_text() or process.poll() is not None, PATIENCE)
        assert process.poll() is None, out.read_text()
        family = processes_below(process.pid)
        check_the_guard(port)
        await check_it_stays(port)
        await check_it_goes_on(port, family)
        until(lambda: "It is started again in 1 s" in out.read_text(), 60)
        assert httpx2.get(f"http://127.0.0.1:{port}/health", timeout=60).json()["replicas"] == 2
        assert not [pid for pid in family if alive(pid) and KEY in arguments(pid)]
        process.send_signal(signal.SIGINT)
        assert process.wait(15) == 130
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.kill()
            process.wait(10)
    assert not [pid for pid in family if alive(pid)]


def check_the_guard(port: int) -> None:
    """On the front, and on the router behind it, which would let anybody add a server."""
    front, router = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{port + 10}"
    ask = {"model": "SmolLM2-135M-Instruct", "messages": [], "max_tokens": 1}
    for url in (front, router):
        assert httpx2.post(f"{url}/v1/chat/completions", json=ask).status_code == 401
    away = {"url": "http://127.0.0.1:1"}
    assert httpx2.post(f"{router}/add_worker", params=away, timeout=30).status_code == 401
    assert httpx2.post(f"{router}/remove_worker", params=away, timeout=30).status_code == 401
    assert httpx2.get(f"{front}/health").json() == {"replicas": 2, "up": 2}


async def check_it_stays(port: int) -> None:
    """All requests of a chain, and of each of several, reach one of the two alone."""
    endpoint = Endpoint(f"http://127.0.0.1:{port}/v1", KEY)
    warming = len([*warming_requests(await endpoint.model(), LANGUAGES[0])])
    until(lambda: min(answered(port)) >= warming)  # serve.sh goes on with it when it is ready
    for _ in range(3):
        before = answered(port)
        events = [event async for event in chain(endpoint)]
        assert isinstance(events[-1], Answer), events[-1]
        grown = [now - then for then, now in zip(before, answered(port), strict=True)]
        assert min(grown) == 0 < max(grown), grown
    await endpoint.close()


async def check_it_goes_on(port: int, family: list[int]) -> None:
    """`kill -9` in the middle of the third step: the two before it stay, and the chain goes on."""
    endpoint = Endpoint(f"http://127.0.0.1:{port}/v1", KEY, patience=Patience(restart=300))
    before, events = answered(port), list[Event]()
    killed = False
    async with aclosing(chain(endpoint)) as following:  # type: ignore[type-var]
        async for event in following:
            events.append(event)
            done = sum(isinstance(one, Step) for one in events)
            if not killed and done == 2 and isinstance(event, Delta):
                grown = [now - then for then, now in zip(before, answered(port), strict=True)]
                server_at(port + 11 + grown.index(max(grown)), family).kill()
                killed = True
    await endpoint.close()
    assert killed
    assert any(isinstance(event, Retry) for event in events)
    numbers = [one.number for one in events if isinstance(one, Step)]
    assert numbers[:2] == [1, 2]
    assert numbers == [*range(1, len(numbers) + 1)]
    # SmolLM2 is free to say a step again, and is then led to its answer before the fourth.
    noticed = [one.code for one in events if isinstance(one, Notice)]
    assert len(numbers) == 4 or "repeat" in noticed, events
    assert isinstance(events[-1], Answer)


def arguments(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""
