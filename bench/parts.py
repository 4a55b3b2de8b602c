"""What each part between a reader and the models can carry: gateway, router, history.

    scripts/bench parts [--router PATH] [--rounds 3] [--write FILE]

A stub writes replies as fast as they are taken, so that the part itself is what gives out; what is
counted is its own processes' CPU time, which a busy machine lengthens less than the clock.

* gateway: `python -m gateway`, a model passed through and a chain in one voice, 4 streams at once
* router: vllm-router (consistent_hash, two workers) where it is installed or named, the same
* history: transactions as the page's recorder makes them, with a new piece of text of each of so
  many runs that think, one after the other; in SQLite, and in a PostgreSQL of its own that
  waits for the disk (fsync)
"""

from __future__ import annotations

import argparse
import asyncio
import random
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx2
import psutil

from bench.loop import spread
from bench.record import keep
from history.entries import Begun, Heard
from history.request import Link, RunRequest
from history.store import Store
from reasoning.events import Delta, Started
from tests.gateway_server import asks_for_a_step
from tests.postgres import postgres
from tests.processes import ROOT, free_port, start, until
from tests.stub import Play, Stub, says, status, step_number, step_text

STREAMS = 4
REPLIES = {"stub": 10, "stub-steps": 1}  # of each stream, in a round
TRANSACTIONS = 100  # of each number of runs
RUNS = (1, 16, 100)  # that think at once and are written together
STEPS = 8
PIECE = 4  # characters of a token of the stub's
WORDS = [f"word{number}" for number in range(5000)]


def words(number: int) -> str:
    """Some eighty tokens that say nothing twice."""
    return " ".join(random.Random(number).sample(WORDS, 40)) + "."


LOOKS = [
    step_text(f"Look {n}", words(n), "continue" if n < STEPS else "final_answer")
    for n in range(1, STEPS + 1)
]
REPLY = words(0) * 9  # as long as a chain, in one piece
TOKENS = {"stub": len(REPLY) / PIECE, "stub-steps": len("".join(LOOKS) + words(0)) / PIECE}


def thinker(request: dict[str, Any]) -> Play:
    """A chain of eight steps and its answer for who asks for steps, else the long reply."""
    if asks_for_a_step(request):
        return says(LOOKS[step_number(request) - 1])
    return says(words(0) if len(request["messages"]) > 1 else REPLY)


@dataclass(frozen=True, slots=True)
class Row:
    what: str
    values: Sequence[float]  # of each round


class Worker(Stub):
    """A model server that is healthy, as a router asks."""

    def _play(self, lines: str, body: bytes) -> Play:
        path = lines.split(" ")[1]
        known = path.endswith(("/completions", "/models"))
        return super()._play(lines, body) if known else status(200, {})


def cpu(process: psutil.Process) -> float:
    """Seconds of it and of all below it, those that have ended included."""
    family = [process, *process.children(recursive=True)]
    return sum(sum(one.cpu_times()[:4]) for one in family)


@contextmanager
def serving(
    command: Sequence[str | Path], port: int, **environment: str
) -> Iterator[psutil.Process]:
    """A server of ours or of others, from its first answer until the block ends."""
    with (ROOT / "logs" / "bench-parts.log").open("ab") as log:
        running = start(command, env=environment, cwd=ROOT, stdout=log, stderr=log)
    try:
        until(lambda: answers(f"http://127.0.0.1:{port}/health"))
        yield psutil.Process(running.pid)
    finally:
        running.terminate()
        running.wait(30)


def answers(url: str) -> bool:
    try:
        return httpx2.get(url, timeout=5).status_code == 200
    except httpx2.HTTPError:
        return False


async def stream(client: httpx2.AsyncClient, model: str) -> None:
    """Asks again and again; each reply must come whole."""
    body = {"model": model, "stream": True, "messages": [{"role": "user", "content": "Why?"}]}
    for _ in range(REPLIES[model]):
        headers = {"X-Session-ID": secrets.token_hex(8)}
        async with client.stream("POST", "/v1/chat/completions", json=body, headers=headers) as got:
            got.raise_for_status()
            lines = [line async for line in got.aiter_lines() if line]
        if lines[-1] != "data: [DONE]":
            raise RuntimeError(f"expected a whole reply, got {lines[-1]!r}")


async def load(port: int, model: str) -> None:
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:
        await asyncio.gather(*(stream(client, model) for _ in range(STREAMS)))


def token_milliseconds(process: psutil.Process, port: int, model: str, rounds: int) -> list[float]:
    """CPU time of a token, in each round after one that warms up."""
    spent = [cpu(process)]
    for _ in range(rounds + 1):
        asyncio.run(load(port, model))
        spent.append(cpu(process))
    tokens = STREAMS * REPLIES[model] * TOKENS[model]
    return [1000 * (after - before) / tokens for before, after in pairwise(spent)][1:]


def gateway_rows(rounds: int) -> Iterator[Row]:
    port = free_port()
    with Worker(thinker) as stub:
        command = [sys.executable, "-m", "gateway", "--port", str(port)]
        with serving(command, port, OPENAI_BASE_URL=stub.base_url, PATH="/usr/bin:/bin") as process:
            for model, name in (("stub", "passed through"), ("stub-steps", "in steps")):
                yield Row(
                    f"gateway, a token {name}", token_milliseconds(process, port, model, rounds)
                )
            yield Row("gateway, memory, MB", [process.memory_info().rss / 1e6])


def router_rows(program: str, rounds: int) -> Iterator[Row]:
    port, metrics = free_port(), free_port()
    with Worker(thinker) as one, Worker(thinker) as other:
        workers = [stub.base_url.removesuffix("/v1") for stub in (one, other)]
        command = [program, "--port", str(port), "--prometheus-port", str(metrics)]
        command += ["--policy", "consistent_hash", "--log-level", "warning"]
        command += ["--worker-urls", *workers]
        with serving(command, port, PATH="/usr/bin:/bin") as process:
            yield Row("router, a token", token_milliseconds(process, port, "stub", rounds))
            yield Row("router, memory, MB", [process.memory_info().rss / 1e6])


def pieces(number: int, first: int) -> tuple[Delta, ...]:
    """What a run hears between two transactions: some tokens of its step."""
    return tuple(Delta(1, "content", f"{number} and {place} ") for place in range(first, first + 4))


def written(store: Store, runs: int) -> list[float]:
    """Milliseconds of each transaction with a piece of each of so many runs."""
    ids, now = [secrets.token_urlsafe(16) for _ in range(runs)], time.time()
    begun = [Begun(id, RunRequest("Why?"), Link(), "bench", now) for id in ids]
    began = Started("Why?", "model", "cot", "en", now)
    store.write(begun, [Heard(id, 0, (began,)) for id in ids])
    found = []
    for place in range(1, 1 + 4 * TRANSACTIONS, 4):
        heard = [Heard(id, place, pieces(number, place)) for number, id in enumerate(ids)]
        before = time.perf_counter()
        store.write(heard=heard)
        found.append(1000 * (time.perf_counter() - before))
    return found


def history_rows(kind: str, url: str, cost: Callable[[], float]) -> Iterator[Row]:
    """`cost` tells the CPU seconds of the database's own processes so far."""
    store = Store(url)
    for runs in RUNS:
        before = cost()
        found = written(store, runs)
        yield Row(f"{kind}, pieces of {runs} at once, by the clock", found)
        if cost():
            spent = 1000 * (cost() - before) / len(found)
            yield Row(f"{kind}, of it the server", [spent])
    store.close()


def database_rows() -> Iterator[Row]:
    with tempfile.TemporaryDirectory(prefix="stepwise-") as folder:
        yield from history_rows("SQLite", f"sqlite:///{Path(folder) / 'h.db'}", lambda: 0.0)
    with postgres(flags=()) as server:
        process = psutil.Process(server.pid)
        yield from history_rows("PostgreSQL", server.url(), lambda: cpu(process))


def report(rows: Sequence[Row], command: str) -> str:
    head = f"# The parts between a reader and the models\n\n    {command}\n\n"
    head += "Milliseconds of CPU time unless said otherwise; median "
    head += "(smallest to largest).\n\n| what | value |\n|---|---|\n"
    return head + "".join(f"| {row.what} | {spread(row.values, '.3g')} |\n" for row in rows)


def measured(router: str | None, rounds: int) -> Iterator[Row]:
    yield from gateway_rows(rounds)
    if router:
        yield from router_rows(router, rounds)
    yield from database_rows()


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--router", default=shutil.which("vllm-router"), help="vllm-router's path")
    flags.add_argument("--rounds", type=int, default=3, help="beside one that warms up")
    flags.add_argument("--write", type=Path, help="the table there, its figures beside it")
    given = flags.parse_args()
    (ROOT / "logs").mkdir(exist_ok=True)
    rows = []
    for row in measured(given.router, given.rounds):
        print(row.what, spread(row.values, ".3g"), file=sys.stderr, flush=True)
        rows.append(row)
    table = report(rows, f"scripts/bench parts --rounds {given.rounds}")
    keep(table, rows, given.write)


if __name__ == "__main__":
    main()
