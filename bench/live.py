"""Many sessions that watch a model write: the page's share of a core, and how late a word comes.

    scripts/bench live [--sessions 30] [--pace 20] [--seconds 60] [--rounds 3] [--write FILE]

The sessions are those of bench/crowd.py: Streamlit's protocol without a browser. A stub writes to
each at a model's pace, in steps of ten seconds, for as long as is said; one real Streamlit process
shows it all. Once a second a word of each text is a mark: a delay is the time from the moment the
stub sends the mark's last piece to the frame on the wire that holds it.

* core: CPU seconds of the page's process for each second that the model writes, in percent
* delay: seconds, of all marks of all sessions the median, one in a hundred, and the latest
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from bench.crowd import LAST, Session, asked_by, cpu_seconds, visits
from bench.loop import spread
from bench.record import keep
from tests.page_browser import PageServer, on_stage, page_server
from tests.processes import free_port
from tests.stub import Play, Script, chunk, head, says, step_number, step_text, usage

PIECE = 4  # characters of a token
STEP_SECONDS = 10
WORDS = ("water", "light", "stone", "river", "green")


class Writer:
    """The stub's side: writes to each session at `pace` tokens a second, for `seconds`."""

    def __init__(self, pace: float, seconds: float) -> None:
        self.pace, self.steps = pace, max(1, round(seconds / STEP_SECONDS))
        self.sent: dict[str, float] = {}  # when each mark was whole
        self.script: Script = lambda request: self._reply(request)

    def _reply(self, request: dict[str, Any]) -> Play:
        name, number = asked_by(request), step_number(request)
        if "response_format" not in request:
            return says(f"{LAST}, {name}.")
        action = "final_answer" if number == self.steps else "continue"
        return self._paced(step_text(f"Step {number}", self._content(name, number), action))

    def _content(self, name: str, number: int) -> str:
        """As long as it takes; every second a mark that no other text holds."""
        words, length = list[str](), 0
        for second in range(STEP_SECONDS):
            words.append(mark(name, number, second))
            while length < (second + 1) * self.pace * PIECE:
                words.append(WORDS[len(words) % len(WORDS)])
                length += len(words[-1]) + 1
        return " ".join(words)

    def _paced(self, text: str) -> Play:
        async def play(writer: asyncio.StreamWriter) -> None:
            writer.write(head(200, "text/event-stream"))
            due, marks = time.monotonic(), dict(marks_in(text))
            for start in range(0, len(text), PIECE):
                writer.write(chunk(text[start : start + PIECE]))
                for end in range(start, start + PIECE):
                    if end in marks:
                        self.sent[marks[end]] = time.monotonic()
                due += 1 / self.pace
                await asyncio.sleep(max(0.0, due - time.monotonic()))
            writer.write(chunk(finish_reason="stop") + usage(10, len(text) // PIECE))
            writer.write(b"data: [DONE]\n\n")

        return play


def mark(name: str, number: int, second: int) -> str:
    return f"mark-{name}-{number}-{second}."


def marks_in(text: str) -> Sequence[tuple[int, str]]:
    """Each mark, and the place of its last character."""
    found, place = [], 0
    for word in text.split(" "):
        place += len(word)
        if "mark-" in word:
            found.append((place - 1, word[word.index("mark-") :]))
        place += 1
    return found


class Watcher(Session):
    """A session that knows when it saw each mark first."""

    def watch(self, steps: int) -> None:
        seconds = range(STEP_SECONDS)
        self.marks = [mark(self.name, n, one) for n in range(1, steps + 1) for one in seconds]
        self.seen: dict[str, float] = {}

    def _take(self, frame: bytes, now: float) -> None:
        super()._take(frame, now)
        while self.asked and self.marks and self.marks[0].encode() in frame:
            self.seen[self.marks.pop(0)] = now


@dataclass(frozen=True, slots=True)
class Round:
    """The share of one core, and the seconds from sent to shown, a mark each."""

    core: float
    delays: tuple[float, ...]


async def measure(server: PageServer, writer: Writer, sessions: int, number: int) -> Round:
    names = [f"n{number}x{one}" for one in range(sessions)]
    async with visits(server, Watcher, names) as crowd:
        for one in crowd:
            one.watch(writer.steps)
        began, before = time.monotonic(), cpu_seconds(server)
        await asyncio.gather(*(one.ask() for one in crowd))
        core = (cpu_seconds(server) - before) / (time.monotonic() - began)
    if missing := sum(len(one.marks) for one in crowd):
        raise RuntimeError(f"expected to see every mark, {missing} were never shown")
    return Round(core, tuple(at - writer.sent[it] for one in crowd for it, at in one.seen.items()))


def run(sessions: int, pace: float, seconds: float, rounds: int) -> list[Round]:
    port, writer = free_port(), Writer(pace, seconds)
    with (
        on_stage(writer.script, port=port),
        page_server(f"http://127.0.0.1:{port}/v1", "bench-live.log") as server,
    ):
        asyncio.run(measure(server, writer, 1, -1))  # a cold page is not what is measured
        return [asyncio.run(measure(server, writer, sessions, number)) for number in range(rounds)]


def report(found: Sequence[Round], command: str) -> str:
    rows = {
        "share of one core, %": spread([100 * one.core for one in found], ".0f"),
        "delay of a word, s: median": spread([median(one.delays) for one in found], ".2f"),
        "of one word in a hundred": spread([late(one.delays) for one in found], ".2f"),
        "of the latest": spread([max(one.delays) for one in found], ".2f"),
    }
    lines = [f"# Live sessions\n\n    {command}\n"]
    lines += [f"{len(found)} rounds: median (smallest to largest).\n", "| | |\n|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in rows.items()]
    return "\n".join(lines) + "\n"


def late(delays: Sequence[float]) -> float:
    """What one in a hundred exceeds."""
    return quantiles(delays, n=100, method="inclusive")[98]


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--sessions", type=int, default=30)
    flags.add_argument("--pace", type=float, default=20.0, help="tokens a second, for each")
    flags.add_argument("--seconds", type=float, default=60.0, help="that a model writes")
    flags.add_argument("--rounds", type=int, default=3)
    flags.add_argument("--write", type=Path, help="the table there, its figures beside it")
    given = flags.parse_args()
    command = (
        f"scripts/bench live --sessions {given.sessions} --pace {given.pace:g}"
        f" --seconds {given.seconds:g} --rounds {given.rounds}"
    )
    found = run(given.sessions, given.pace, given.seconds, given.rounds)
    keep(report(found, command), found, given.write)


if __name__ == "__main__":
    main()
