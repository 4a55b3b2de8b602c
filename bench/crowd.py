"""Many who ask the page at once: when each sees a first step, and when the answer.

    scripts/bench crowd [--sessions 1,20,50,100] [--rounds 3] [--alone 8] [--write FILE]

Each session is a websocket that speaks Streamlit's protocol, as a browser does but without
drawing: it opens the page, and once all have, all ask in the same moment. A stub writes eight
steps and an answer to each. One real Streamlit process serves all. Printed: medians over the
rounds, with the smallest and the largest.

* first step: seconds from asking to the first step's title on the wire, median and worst session
* late: seconds from the last piece that the stub sent a session to the answer's end on the wire
* CPU: seconds of the page's process for a session, from asking to the last answer

`--alone` measures one session after the other, in turn on Stepwise's page and on
bench/bare_page.py, which has as many elements and nothing of ours: the CPU seconds of the process,
less what it takes at rest, to open the page, to ask until the first step is shown, to follow the
run and draw it once more when it has ended; and to draw that anew, as a click does.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Origin

from bench.loop import spread
from bench.record import keep
from tests.page_browser import PageServer, on_stage, page_server
from tests.processes import free_port
from tests.stub import Play, Script, paced, step_number, step_text

STEPS, WORDS = 8, 40  # of a chain, of a step
PAUSE = 0.005  # seconds between two pieces of a step; alone a chain takes 1.8 s
PATIENCE = 600.0  # seconds
QUIET = 0.5  # seconds without a message after which a page is at rest
PARTS = ("opens", "first step", "live", "drawn anew")
PAGES = {"Stepwise": "app_reasoning.py", "Streamlit alone": "bench/bare_page.py"}
FIRST, LAST = "Look at side 1", "That is all"  # what is looked for on the wire


class Model:
    """The stub's side: thinks in eight steps, and knows when it was done with each question."""

    def __init__(self) -> None:
        self.done: dict[str, float] = {}  # by who asked
        self.script: Script = lambda request: self._reply(request)

    def _reply(self, request: dict[str, Any]) -> Play:
        number = step_number(request)
        if "response_format" not in request:
            return self._answer(asked_by(request))
        action = "final_answer" if number == STEPS else "continue"
        title, content = f"Look at side {number}", f"side {number} is even. " * (WORDS // 4)
        return paced(step_text(title, content, action), PAUSE)

    def _answer(self, who: str) -> Play:
        play = paced(f"{LAST}, {who}.", PAUSE)

        async def noted(writer: asyncio.StreamWriter) -> None:
            await play(writer)
            self.done[who] = time.monotonic()

        return noted


def asked_by(request: dict[str, Any]) -> str:
    """The name of the session, which stands in its question."""
    said = " ".join(str(turn["content"]) for turn in request["messages"])
    return said.partition("I am ")[2].split()[0].strip(".")


@dataclass(slots=True)
class Session:
    """One visitor without a browser."""

    name: str
    socket: ClientConnection
    box: str = ""  # the question box, by its widget id
    asked: float = 0.0
    first: float = 0.0
    answered: float = 0.0
    messages: int = 0
    received: int = 0
    address: str = ""  # what the page wrote into the browser's, behind the "?"
    heard: float = 0.0
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    async def open(self) -> None:
        await self._rerun()
        await asyncio.wait_for(self.ready.wait(), PATIENCE)

    async def ask(self) -> None:
        self.asked = time.monotonic()
        await self._rerun(f"How many sides are even? I am {self.name}.")
        await asyncio.wait_for(self.over.wait(), PATIENCE)

    async def click(self) -> None:
        """Anything that draws the page anew as it is."""
        self.heard = time.monotonic()
        await self._rerun()

    async def rest(self) -> None:
        """Until nothing more comes."""
        await _until(lambda: time.monotonic() - self.heard > QUIET)

    async def _rerun(self, question: str = "") -> None:
        message = BackMsg()
        message.rerun_script.query_string = self.address
        if question:
            state = message.rerun_script.widget_states.widgets.add()
            state.id = self.box
            state.chat_input_value.data = question
        await self.socket.send(message.SerializeToString())

    async def listen(self) -> None:
        async for frame in self.socket:
            now = time.monotonic()
            assert isinstance(frame, bytes)
            self.messages += 1
            self.received += len(frame)
            self._take(frame, now)

    def _take(self, frame: bytes, now: float) -> None:
        message = ForwardMsg.FromString(frame)
        if message.HasField("page_info_changed"):
            self.address = message.page_info_changed.query_string
        self.heard = now
        if message.delta.new_element.HasField("chat_input"):
            box = message.delta.new_element.chat_input
            self.box = box.id
            if not box.disabled and not self.asked:
                self.ready.set()
        if self.asked and not self.first and FIRST.encode() in frame:
            self.first = now
        if self.asked and not self.answered and f"{LAST}, {self.name}.".encode() in frame:
            self.answered = now
            self.over.set()


Visit = TypeVar("Visit", bound=Session)


@dataclass(frozen=True, slots=True)
class Round:
    """Seconds, a session each; the page's CPU seconds for a session."""

    first: tuple[float, ...]
    late: tuple[float, ...]
    cpu: float
    messages: float
    received: float


async def measure(server: PageServer, model: Model, sessions: int, number: int) -> Round:
    names = [f"n{number}x{sessions}x{one}" for one in range(sessions)]
    async with visits(server, Session, names) as crowd:
        before, heard = cpu_seconds(server), sum(one.messages for one in crowd)
        bytes_before = sum(one.received for one in crowd)
        await asyncio.gather(*(one.ask() for one in crowd))
        spent = cpu_seconds(server) - before
        messages = sum(one.messages for one in crowd) - heard
        received = sum(one.received for one in crowd) - bytes_before
    return Round(
        tuple(one.first - one.asked for one in crowd),
        tuple(one.answered - model.done[one.name] for one in crowd),
        spent / sessions,
        messages / sessions,
        received / sessions,
    )


@asynccontextmanager
async def visits(
    server: PageServer, kind: Callable[[str, ClientConnection], Visit], names: Sequence[str]
) -> AsyncIterator[list[Visit]]:
    """Sessions that all have opened the page, and leave it at the end."""
    crowd = [kind(name, await _connected(server, name)) for name in names]
    listening = [asyncio.create_task(one.listen()) for one in crowd]
    for one in crowd:
        await one.open()
    await asyncio.sleep(1)
    yield crowd
    for one, task in zip(crowd, listening, strict=True):
        await one.socket.close()
        await task


async def _connected(server: PageServer, name: str) -> ClientConnection:
    """As through a proxy that lets many in, each with a history of his own."""
    address = server.address.replace("http", "ws") + "_stcore/stream"
    browser = f"stepwise=browser-{name:x<40}"
    headers = {"X-Forwarded-For": "10.0.0.1", "Cookie": browser}
    origin = Origin(server.address.rstrip("/"))
    return await connect(
        address, origin=origin, additional_headers=headers, max_size=None, ping_interval=None
    )


def cpu_seconds(server: PageServer) -> float:
    """Seconds that all threads of the page's process worked, to the nanosecond (Linux)."""
    return time.clock_gettime(~server.process.pid << 3 | 2)


# -- one session


async def dissect(server: PageServer, number: int) -> tuple[float, ...]:
    """CPU seconds of a session alone, of each of its PARTS."""
    started = time.monotonic(), cpu_seconds(server)
    await asyncio.sleep(QUIET * 8)
    at_rest = (cpu_seconds(server) - started[1]) / (time.monotonic() - started[0])
    spent = [_worked(server, at_rest)]
    one = Session(f"alone{number}", await _connected(server, f"alone{number}"))
    listening = asyncio.create_task(one.listen())
    await one.open()
    await one.rest()
    spent.append(_worked(server, at_rest))
    asking = asyncio.create_task(one.ask())
    await _until(lambda: one.first)
    spent.append(_worked(server, at_rest))
    await asking
    await one.rest()
    spent.append(_worked(server, at_rest))
    await one.click()
    await one.rest()
    spent.append(_worked(server, at_rest))
    await one.socket.close()
    await listening
    return tuple(after - before for before, after in pairwise(spent))


def _worked(server: PageServer, at_rest: float) -> float:
    """CPU seconds, less those that the process takes when nobody does a thing."""
    return cpu_seconds(server) - at_rest * time.monotonic()


async def _until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not true():  # noqa: ASYNC110 - it is the clock, too, that makes it true
            await asyncio.sleep(0.002)


def report_alone(found: Mapping[str, list[tuple[float, ...]]], command: str) -> str:
    lines = [
        f"# One session\n\n    {command}\n",
        f"CPU seconds; median of {len(next(iter(found.values())))} (smallest to largest).\n",
        f"| | {' | '.join(PARTS)} | session |",
        "|---" * (len(PARTS) + 2) + "|",
    ]
    for name, rounds in found.items():
        whole = [sum(one[: PARTS.index("drawn anew")]) for one in rounds]
        parts = [*zip(*rounds, strict=True), whole]
        lines.append(f"| {name} | {' | '.join(spread(part, '.3f') for part in parts)} |")
    return "\n".join(lines) + "\n"


def run_alone(rounds: int) -> dict[str, list[tuple[float, ...]]]:
    port, model = free_port(), Model()
    found: dict[str, list[tuple[float, ...]]] = {name: [] for name in PAGES}
    with ExitStack() as stack:
        stack.enter_context(on_stage(model.script, port=port))
        base = f"http://127.0.0.1:{port}/v1"
        pages = {
            name: stack.enter_context(page_server(base, f"{Path(script).stem}.log", script=script))
            for name, script in PAGES.items()
        }
        for number in range(-1, rounds):  # a cold page is not what is measured
            for name, server in pages.items():
                parts = asyncio.run(dissect(server, number))
                if number >= 0:
                    found[name].append(parts)
    return found


def report(found: dict[int, list[Round]], command: str) -> str:
    lines = [
        f"# Many at once\n\n    {command}\n",
        f"Chains of {STEPS} steps and an answer; median of the rounds (smallest to largest).\n",
        "| sessions | first step, s: median | worst | late, s: median | worst "
        "| CPU of a session, s | messages | kB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for sessions, rounds in found.items():
        cells = [
            spread([statistics.median(r.first) for r in rounds], ".2f"),
            spread([max(r.first) for r in rounds], ".2f"),
            spread([statistics.median(r.late) for r in rounds], ".2f"),
            spread([max(r.late) for r in rounds], ".2f"),
            spread([r.cpu for r in rounds], ".2f"),
            spread([r.messages for r in rounds], ".0f"),
            spread([r.received / 1000 for r in rounds], ".0f"),
        ]
        lines.append(f"| {sessions} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def run(sizes: Sequence[int], rounds: int) -> dict[int, list[Round]]:
    port, model = free_port(), Model()
    found: dict[int, list[Round]] = {size: [] for size in sizes}
    with (
        on_stage(model.script, port=port),
        page_server(f"http://127.0.0.1:{port}/v1", "bench-crowd.log") as server,
    ):
        asyncio.run(measure(server, model, 1, -1))  # a cold page is not what is measured
        for number in range(rounds):
            for size in sizes:
                found[size].append(asyncio.run(measure(server, model, size, number)))
                print(f"{number + 1}/{rounds}: {size}", file=sys.stderr)
    return found


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--sessions", default="1,20,50,100", help="how many ask at once, in turn")
    flags.add_argument("--rounds", type=int, default=3)
    flags.add_argument(
        "--alone", type=int, default=0, help="sessions, one after the other, instead"
    )
    flags.add_argument("--write", type=Path, help="the table there, its figures beside it")
    given = flags.parse_args()
    if given.alone:
        command = f"scripts/bench crowd --alone {given.alone}"
        alone = run_alone(given.alone)
        keep(report_alone(alone, command), alone, given.write)
    else:
        found = run([int(size) for size in given.sessions.split(",")], given.rounds)
        command = f"scripts/bench crowd --sessions {given.sessions} --rounds {given.rounds}"
        keep(report(found, command), found, given.write)


if __name__ == "__main__":
    main()
