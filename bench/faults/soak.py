"""A gateway that runs for long under faults: memory, descriptors and threads stay what they are.

Its model fails one time in twenty, in a way of tests/faults.py that ends at once; clients ask,
some leave in the middle. Beside it runs end and are deleted in one history, whose file stays small.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from random import Random
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from bench.faults.playing import LISTED, NAME, QUESTION, script
from bench.faults.promise import Effort, Promise, Tally
from bench.faults.remembering import thinker
from history.request import RunRequest
from history.run import Run
from history.runs import Loop, Runs
from history.store import Store
from tests.faults import FAULTS
from tests.gateway_process import SECRET, Running, started
from tests.processes import until
from tests.stub import Play, Script, Stub

QUICK = 2.0  # minutes
FAULTY, LEAVING = 0.05, 0.1  # shares of the model's replies, and of the clients
FASTER = 1e6  # what is deleted is kept for 30 days: 2.6 s of this clock
WARM = 0.25  # of the time, before anything is compared
LASTS = {"hangs before headers", "hangs in the body", "only comments", "a slow drip"}
MORE = {"RSS, MB": 0.1, "descriptors": 0.1, "threads": 0.1, "history, kB": 0.25}  # that may come


@dataclass(frozen=True, slots=True)
class Sample:
    """What the gateway and the history held at a moment."""

    memory: float
    descriptors: float
    threads: float
    history: float


def keep(effort: Effort, tally: Tally) -> None:
    minutes = min(effort.minutes, QUICK) if effort.quick else effort.minutes
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="stepwise-")))
        stub = stack.enter_context(Stub(_faulty(Random(1)), models=LISTED))
        running = started(folder / "log", OPENAI_BASE_URL=stub.base_url)
        stack.callback(running.process.kill)
        samples = list(_soaked(running, stub, folder, minutes, tally))
    for name, held, problem in _judged(samples):
        tally.note(name, problem)
        tally.tell(held)
    tally.tell(f"{minutes:g} minutes, {len(stub.requests):,} requests, {len(samples):,} questions")


def _faulty(random: Random) -> Script:
    good = script(pause=0.0)
    faults = [play for name, (play, _) in FAULTS.items() if name not in LASTS]

    def reply(request: dict[str, Any]) -> Play:
        if random.random() < FAULTY:
            return random.choice(faults)
        play: Play = good(request)  # type: ignore[assignment, arg-type]
        return play

    return reply


def _soaked(
    running: Running, stub: Stub, folder: Path, minutes: float, tally: Tally
) -> Iterator[Sample]:
    """A sample after each question."""
    random, database = Random(2), folder / "history.db"
    store = Store(f"sqlite:///{database}", now=lambda: time.monotonic() * FASTER)
    runs = Runs(Loop(), thinker(stub.base_url), store)
    process, end = psutil.Process(running.process.pid), time.monotonic() + minutes * 60
    while time.monotonic() < end:
        tally.note("a question", _asked(running, random.random() < LEAVING))
        run = runs.start(RunRequest(QUESTION, "json_steps"))
        until(partial(_has_ended, run), 120)
        store.delete(run.id)
        files = sum(file.stat().st_size for file in folder.glob("history.db*"))
        yield Sample(
            process.memory_info().rss / 1e6,
            process.num_fds(),
            process.num_threads(),
            files / 1000,
        )
    store.close()


def _asked(running: Running, leaves: bool) -> str:
    body = {
        "model": f"{NAME}-steps",
        "stream": True,
        "messages": [{"role": "user", "content": QUESTION}],
    }
    client = running.sent("POST", "/v1/chat/completions", body, SECRET)
    response = client.getresponse()
    if leaves:
        response.readline()
        client.close()
        return ""
    return _ended(response)


def _ended(response: http.client.HTTPResponse) -> str:
    """An answer, or an error in OpenAI's shape: as a status, or before the stream's end."""
    text = response.read().decode()
    if response.status == 200:
        return "" if text.endswith("data: [DONE]\n\n") else f"no end: {text[-100:]!r}"
    code = json.loads(text)["error"]["code"]
    return "an error of the gateway's own" if code == "internal_error" else ""


def _has_ended(run: Run) -> bool:
    return run.ended


def _judged(samples: Sequence[Sample]) -> Iterator[tuple[str, str, str]]:
    """The last third beside the one after warming up: name, figure, what is wrong."""
    warm = samples[int(len(samples) * WARM) :]
    third, names = max(1, len(warm) // 3), [field.name for field in fields(Sample)]
    for (name, more), part in zip(MORE.items(), names, strict=True):
        early = median(getattr(one, part) for one in warm[:third])
        late = median(getattr(one, part) for one in warm[-third:])
        grown = late > early * (1 + more)
        figure = f"{name}: {early:.0f}, at the end {late:.0f}"
        yield name, figure, figure if grown else ""


PROMISE = Promise(
    "a gateway under faults and a history in use hold as much memory, and as many descriptors and "
    "threads, after hours as at the beginning",
    keep,
)
