"""Two CPU replicas of a small model behind vllm-router, as ./serve.sh --replicas 2 starts them.

    scripts/bench replicas [--chains 12] [--steps 6] [--kills 20] [--moves 5] [--at-once 12]
                           [--write FILE]

* prefix hits: of the prompt tokens of so many chains in JSON steps, four at a time, the part that
  the replicas found in their caches, by their own metrics; with consistent_hash and round_robin,
  and at one replica alone, which is as much as there is to be found; all newly started
* kills: so many times a replica is ended by `kill -9` in the middle of the chain that it thinks;
  the chain's steps are counted, and the seconds of its longest silence
* moves: so many times a replica is taken from the router and joined again while requests come;
  those that fail are counted
* at once: what a replica alone writes and reads, then the seconds of so many chains that are begun
  together, and how many of them each replica had; for bench/capacity/check.py
* the front: CPU time of a token that goes through it, a stub behind it writing as fast as it can

What is killed is started anew by the bench: ./serve.sh gives a replica up after five ends in ten
minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import sys
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field, replace
from itertools import cycle
from pathlib import Path

import httpx2
import openai
import psutil

from bench.loop import spread
from bench.parts import Row, Worker, serving, thinker, token_milliseconds
from bench.record import keep
from bench.streams import Client
from reasoning.endpoint import Endpoint, Patience
from reasoning.events import Answer, Delta, Event, Settings, Step, Trace
from reasoning.inquiry import Inquiry
from reasoning.think import think
from serving import hardware, setup, weights
from serving.__main__ import computes_in
from serving.catalogue import ROOT, find, load, models_root
from serving.command import Command, Deployment, Options
from serving.launch import log_of
from serving.processes import Service, start, stop
from serving.report import Report
from serving.servers import Servers, servers
from tests.processes import free_port

MODEL = "qwen2.5-coder-0.5b-instruct"  # SmolLM2 repeats itself, and its chains end at once
PATIENCE = 900.0  # seconds for a start
ONE = "one replica of the two, asked directly"
STEPS = 6
TOKENS, PROMPT = 64, 500  # of a reply, and of a prompt, by which a replica is measured
AT_A_TIME = 4
QUERIES, HITS = "vllm:prefix_cache_queries_total", "vllm:prefix_cache_hits_total"
CALLS = "vllm:request_success_total"
COUNTED = (CALLS, "vllm:generation_tokens_total", QUERIES, HITS)


def question(number: int, steps: int) -> str:
    """One that takes so many steps: at others a small model repeats itself, and is ended."""
    numbers = ", ".join(str((number * 7 + place * 5) % 23 + 2) for place in range(steps + 1))
    return f"Add these numbers one after the other, one addition in each step: {numbers}."


@dataclass(slots=True)
class Replicas:
    """What runs; `policy` is the router's."""

    options: Options
    made: Servers
    services: list[Service] = field(default_factory=list)

    @property
    def urls(self) -> list[str]:
        return [one.address for one in self.made.vllms]

    def endpoint(self) -> Endpoint:
        return Endpoint(f"{self.made.beside[1].address}/v1", patience=Patience(restart=300))

    def begin(self) -> None:
        self.services = [start(one, log_of(one)) for one in self.made.all]
        self.wait()

    def wait(self) -> None:
        """Until each of them answers."""
        deadline = time.monotonic() + PATIENCE
        for service in self.services:
            while not service.answers():
                if service.status is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{service.name} does not come up: {service.log}")
                time.sleep(0.2)

    def kill(self, number: int) -> None:
        """kill -9 of the API server; its supervisor ends what is left of it."""
        for server in psutil.Process(self.services[number].supervisor.pid).children():
            server.kill()

    def start_again(self, number: int) -> None:
        self.services[number].supervisor.wait()
        self.services[number].start_again()


@contextmanager
def running(model: str, policy: str) -> Iterator[Replicas]:
    here, chosen = hardware.detect(), find(model, load())
    options = Options(replicas=2, port=free_port())
    computed = computes_in(chosen, options, here)
    form = computed.name if computed.convert else "bfloat16"
    folder = weights.fetch(chosen, models_root(), None, Report(sys.stderr), form)
    setup.ensure_router(Report(sys.stderr))
    python = Path(sys.executable)
    deployment = Deployment(chosen, options, here, folder, python, os.environ, computed)
    both = Replicas(options, with_policy(servers(deployment), policy))
    try:
        both.begin()
        yield both
    finally:
        stop(both.services, lambda: False)


def with_policy(made: Servers, policy: str) -> Servers:
    router, *beside = made.beside
    argv = list(router.command.argv)
    argv[argv.index("--policy") + 1] = policy
    command = Command(tuple(argv), router.command.environment)
    return replace(made, beside=(replace(router, command=command), *beside))


def figure(text: str, name: str) -> float:
    return sum(map(float, re.findall(rf"^{re.escape(name)}(?:\{{.*\}})? (\S+)$", text, re.M)))


def figures(urls: Sequence[str], name: str) -> list[float]:
    return [figure(httpx2.get(f"{url}/metrics", timeout=60).text, name) for url in urls]


async def chain(endpoint: Endpoint, number: int, steps: int = STEPS) -> AsyncGenerator[Event]:
    model = await endpoint.model()
    settings = Settings(min_steps=steps, max_steps=steps, step_tokens=120, answer_tokens=60)
    inquiry = Inquiry(question(number, steps), "json_steps", settings=settings)
    async with aclosing(think(inquiry, endpoint=endpoint, model=model)) as events:
        async for event in events:
            yield event


# -- prefix hits


async def chains(endpoint: Endpoint, count: int, steps: int) -> list[Trace]:
    """Of the questions; so many at a time."""
    room = asyncio.Semaphore(AT_A_TIME)

    async def one(number: int) -> Trace:
        async with room, aclosing(chain(endpoint, number, steps)) as events:
            return Trace(tuple([event async for event in events]))

    traces = await asyncio.gather(*map(one, range(count)))
    await endpoint.close()
    return list(traces)


def hit_rows(model: str, count: int, policy: str, steps: int) -> Iterator[Row]:
    with running(model, "round_robin" if policy == ONE else policy) as both:
        endpoint = Endpoint(f"{both.urls[0]}/v1") if policy == ONE else both.endpoint()
        traces = asyncio.run(chains(endpoint, count, steps))
        queries, hits = figures(both.urls, QUERIES), figures(both.urls, HITS)
        answered = sum(isinstance(trace.end, Answer) for trace in traces)
        yield Row(f"{policy}: prompt tokens found in the cache, of all", [sum(hits) / sum(queries)])
        yield Row(f"{policy}: chains answered, of {count}", [answered])
        yield Row(f"{policy}: steps of a chain", [len(trace.steps) for trace in traces])
        share = max(queries) / sum(queries)
        yield Row(f"{policy}: prompt tokens of the replica that had more, of all", [share])


# -- what bench/capacity is held to


async def alone(both: Replicas) -> Iterator[tuple[float, float, float]]:
    """Of each replica, both asked at once: tokens/s of one stream, of four, of a prompt."""

    async def one(url: str, model: str) -> tuple[float, float, float]:
        asker = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        client = Client(asker, model, TOKENS)
        await client.time_prompt(PROMPT)  # what is compiled on first use is no speed
        one, four = await client.writing(1), await client.writing(4)
        read, _ = await client.time_prompt(PROMPT)
        await asker.close()
        return one, four, read

    endpoint = both.endpoint()
    model = (await endpoint.model()).name
    await endpoint.close()
    return zip(*await asyncio.gather(*(one(url, model) for url in both.urls)), strict=True)


async def timed(both: Replicas, count: int) -> list[tuple[float, Trace]]:
    """Chains that begin at once, with the seconds until each had ended."""
    endpoint, began = both.endpoint(), time.monotonic()

    async def one(number: int) -> tuple[float, Trace]:
        async with aclosing(chain(endpoint, 100 + number)) as events:
            trace = Trace(tuple([event async for event in events]))
        return time.monotonic() - began, trace

    found = await asyncio.gather(*map(one, range(count)))
    await endpoint.close()
    return list(found)


def load_rows(both: Replicas, count: int) -> Iterator[Row]:
    names = ("one stream", "four streams together", "a prompt")
    for name, rates in zip(names, asyncio.run(alone(both)), strict=True):
        yield Row(f"a replica by itself, tokens/s: {name}", list(rates))
    before = [figures(both.urls, name) for name in COUNTED]
    found = asyncio.run(timed(both, count))
    grown = [
        [now - was for was, now in zip(old, figures(both.urls, name), strict=True)]
        for name, old in zip(COUNTED, before, strict=True)
    ]
    calls, tokens, queries, hits = grown
    yield Row(f"{count} chains at once: seconds until each ended", [at for at, _ in found])
    yield Row("of them answered", [sum(isinstance(it.end, Answer) for _, it in found)])
    yield Row("calls of each replica", calls)
    yield Row("tokens written for a call", [sum(tokens) / sum(calls)])
    yield Row("prompt tokens read for a call", [(sum(queries) - sum(hits)) / sum(calls)])


# -- kills


@dataclass(frozen=True, slots=True)
class Killed:
    """A chain whose replica was killed: if it lost nothing, and its longest silence in seconds."""

    whole: bool
    still: float


async def killed_once(both: Replicas, number: int) -> Killed | None:
    """Kills the replica of a chain in the middle of its second step, if it comes so far."""
    endpoint, events = both.endpoint(), list[Event]()
    before = figures(both.urls, CALLS)
    killed, last, still = -1, 0.0, 0.0
    async with aclosing(chain(endpoint, number)) as following:
        async for event in following:
            if killed >= 0:
                still, last = max(still, time.monotonic() - last), time.monotonic()
            elif isinstance(event, Delta) and any(isinstance(one, Step) for one in events):
                now = figures(both.urls, CALLS)
                grown = [later - sooner for sooner, later in zip(before, now, strict=True)]
                killed, last = grown.index(max(grown)), time.monotonic()
                both.kill(killed)
            events.append(event)
    await endpoint.close()
    if killed < 0:
        return None
    both.start_again(killed)
    both.wait()
    steps = [event.number for event in events if isinstance(event, Step)]
    whole = steps == list(range(1, len(steps) + 1)) and isinstance(events[-1], Answer)
    return Killed(whole, still)


def kill_rows(both: Replicas, count: int) -> Iterator[Row]:
    killed: list[Killed] = []
    for number in range(2 * count):
        if len(killed) == count:
            break
        if found := asyncio.run(killed_once(both, number)):
            killed.append(found)
        print(f"chain {number + 1}: {found}", file=sys.stderr, flush=True)
    if killed:
        name = f"kill -9: chains that lost nothing, of {len(killed)}"
        yield Row(name, [sum(it.whole for it in killed)])
        yield Row("kill -9: seconds of the longest silence", [it.still for it in killed])


# -- drain and join


@dataclass(slots=True)
class Load:
    """Requests without a pause, so many at a time, each with an id of its own."""

    url: str
    model: str
    sent: int = 0
    failed: int = 0

    async def run(self, ended: asyncio.Event) -> None:
        async with httpx2.AsyncClient(timeout=300) as client:
            await asyncio.gather(*(self._ask(client, ended) for _ in range(AT_A_TIME)))

    async def _ask(self, client: httpx2.AsyncClient, ended: asyncio.Event) -> None:
        while not ended.is_set():
            self.sent += 1
            body = {"model": self.model, "max_tokens": 16, "stream": True}
            body["messages"] = [{"role": "user", "content": question(self.sent, STEPS)}]
            headers = {"X-Session-ID": f"load-{self.sent}"}
            try:
                reply = await client.post(
                    f"{self.url}/v1/chat/completions", json=body, headers=headers
                )
                whole = reply.status_code == 200 and reply.text.endswith("data: [DONE]\n\n")
            except httpx2.HTTPError:
                whole = False
            self.failed += not whole


async def move(both: Replicas, number: int) -> None:
    """Takes a replica away, lets it finish, stops it, starts it, joins it."""
    router, url = both.made.beside[0].address, both.urls[number]
    async with httpx2.AsyncClient(timeout=300) as client:
        (await client.post(f"{router}/remove_worker", params={"url": url})).raise_for_status()
        while sum(figures([url], "vllm:num_requests_running")):  # noqa: ASYNC110 - a server's state
            await asyncio.sleep(0.2)
        both.services[number].ask_to_stop()
        await asyncio.to_thread(both.start_again, number)
        await asyncio.to_thread(both.wait)
        (await client.post(f"{router}/add_worker", params={"url": url})).raise_for_status()


async def moved(both: Replicas, count: int) -> Load:
    endpoint = both.endpoint()
    load = Load(both.made.beside[1].address, (await endpoint.model()).name)
    ended = asyncio.Event()
    asking = asyncio.create_task(load.run(ended))
    for number, _ in zip(cycle((0, 1)), range(count), strict=False):
        await asyncio.sleep(2)  # with both
        await move(both, number)
    ended.set()
    await asking
    await endpoint.close()
    return load


def move_rows(both: Replicas, count: int) -> Iterator[Row]:
    if count:
        load = asyncio.run(moved(both, count))
        yield Row(f"drained and joined {count} times: requests", [load.sent])
        yield Row("of them failed", [load.failed])


# -- the front


def front_rows(rounds: int) -> Iterator[Row]:
    port = free_port()
    with Worker(thinker) as stub:
        url = stub.base_url.removesuffix("/v1")
        command = [sys.executable, "-m", "serving.front", "--port", str(port)]
        command += ["--router", url, "--worker-urls", url]
        with serving(command, port, PATH="/usr/bin:/bin") as process:
            found = token_milliseconds(process, port, "stub", rounds)
            yield Row("the front: milliseconds of CPU a token", found)
            yield Row("the front: memory, MB", [process.memory_info().rss / 1e6])


def measured(given: argparse.Namespace) -> Iterator[Row]:
    yield from front_rows(given.rounds)
    for policy in (ONE, "round_robin", "consistent_hash"):
        if given.chains:
            yield from hit_rows(given.model, given.chains, policy, given.steps)
    if given.kills or given.moves or given.at_once:
        with running(given.model, "consistent_hash") as both:
            if given.at_once:
                yield from load_rows(both, given.at_once)
            yield from kill_rows(both, given.kills)
            yield from move_rows(both, given.moves)


def report(rows: Sequence[Row], command: str) -> str:
    head = f"# Two replicas behind vllm-router\n\n    {command}\n\n"
    head += "Median (smallest to largest).\n\n| what | value |\n|---|---|\n"
    return head + "".join(f"| {row.what} | {spread(row.values, '.3g')} |\n" for row in rows)


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--model", default=MODEL)
    flags.add_argument("--chains", type=int, default=12, help="for each policy")
    flags.add_argument("--steps", type=int, default=STEPS, help="of each of these chains")
    flags.add_argument("--kills", type=int, default=20)
    flags.add_argument("--moves", type=int, default=5, help="drains and joins")
    flags.add_argument("--at-once", type=int, default=12, help="chains that begin together")
    flags.add_argument("--rounds", type=int, default=3, help="of the front, beside one to warm up")
    flags.add_argument("--write", type=Path, help="the table there, its figures beside it")
    given = flags.parse_args()
    (ROOT / "logs").mkdir(exist_ok=True)
    rows = []
    for row in measured(given):
        print(row.what, spread(row.values, ".3g"), file=sys.stderr, flush=True)
        rows.append(row)
    parts = ("model", "chains", "steps", "kills", "moves", "at_once")
    said = " ".join(f"--{name.replace('_', '-')} {getattr(given, name)}" for name in parts)
    table = report(rows, f"scripts/bench replicas {said}")
    keep(table, rows, given.write)


if __name__ == "__main__":
    main()
