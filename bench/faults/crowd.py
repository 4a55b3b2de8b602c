"""A hundred sessions of the page at once: every step of each is kept.

The load is that of bench/crowd.py, which tells the times; here its history is counted after.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time

import psutil

from bench import crowd
from bench.faults.promise import Effort, Promise, Tally
from history.store import Store
from reasoning.events import Answer, Step
from tests.page_browser import PageServer, on_stage, page_server
from tests.processes import free_port


def keep(effort: Effort, tally: Tally) -> None:
    sessions, port, model = effort.of(100, 10), free_port(), crowd.Model()
    with (
        on_stage(model.script, port=port),
        page_server(f"http://127.0.0.1:{port}/v1", "bench-faults-crowd.log") as server,
    ):
        for number in range(2):  # a cold page is not what is measured
            alone = _timed(server, model, 1, number)[0]
        before = _memory(server)
        seconds, found = _timed(server, model, sessions, 2)
        grown = (_memory(server) - before) / sessions
        _count(server, sessions + 2, tally)
    tally.tell(f"{sessions} sessions at once took {seconds:.1f} s, one alone {alone:.1f} s")
    tally.tell(f"an answer {max(found.late):.1f} s late at most, {grown / 1e6:.1f} MB a session")


def _timed(
    server: PageServer, model: crowd.Model, sessions: int, number: int
) -> tuple[float, crowd.Round]:
    began = time.monotonic()
    found = asyncio.run(crowd.measure(server, model, sessions, number))
    return time.monotonic() - began, found


def _memory(server: PageServer) -> int:
    return int(psutil.Process(server.process.pid).memory_info().rss)


def _count(server: PageServer, chains: int, tally: Tally) -> None:
    with sqlite3.connect(server.history) as connection:
        ids = [row[0] for row in connection.execute("SELECT id FROM stepwise_runs")]
    tally.note("runs that are kept", "" if len(ids) == chains else f"{len(ids)} of {chains}")
    store = Store(f"sqlite:///{server.history}")
    for id in ids:
        events = store.events(id)
        steps = [event.number for event in events if isinstance(event, Step)]
        whole = steps == list(range(1, crowd.STEPS + 1)) and isinstance(events[-1], Answer)
        tally.note(f"run {id}", "" if whole else f"steps {steps}, then {events[-1]}"[:200])
    store.close()


PROMISE = Promise("a hundred who ask the page at once each get every step", keep)
