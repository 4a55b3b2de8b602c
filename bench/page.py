"""What it costs to show a thought in a browser, and whether that grows with its length.

    scripts/bench page [--conversation] [--rounds 5] [--write FILE]

A stub writes a chain of 25 steps of 500 tokens: steps 3 and 25 at the pace of a model, the
others as fast as they go. A real Streamlit process shows it in a real Chromium. Both steps
are measured alike; in the middle of each the stub falls silent and another way of thinking
is chosen, which makes the page's script run anew, so that what a rerun sends is told from
what a token sends. Then the same at rest, after a chain of 3 and one of 25 steps. `--conversation`
looks at the last of ten steps of the first and of the tenth question instead. Printed: medians,
with the smallest and the largest.

* tokens: the stub's pieces of four characters, JSON scaffolding included
* main thread: the time of all tasks on the browser's main thread, by its own count
* to pixels: from the moment the stub sends a word to the end of the frame that shows it
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event

import psutil
from playwright.sync_api import BrowserContext, Page, WebSocket

from bench.loop import spread
from bench.record import keep
from tests.page_browser import (
    PATIENCE,
    PageServer,
    Visitor,
    chromium,
    on_stage,
    page_server,
    stranger,
)
from tests.processes import free_port
from tests.stub import Play, chunk, head, says, step_text, usage

STEPS, TOKENS, PIECE = 25, 500, 4  # steps of a chain, tokens of a step, characters of a token
WATCHED = (3, STEPS)  # the steps that are measured
QUESTIONS, TURN_STEPS = 10, 10  # of a conversation, and of each question in it
HELD_AT = 0.8  # how much of a watched step is written when the stub falls silent
JSON_STEPS = "JSON steps (the model's own)"
QUIET = 2_000  # milliseconds of silence that are measured, and of a rerun
WORDS = ("water", "light", "stone", "river", "green", "seven", "house", "paper", "sum", "of", "the")
MARK = re.compile(r"mark\d+x\d+")
# Notes when a mark was first on the screen: in the task after the frame that follows its text.
OBSERVER = """
window.marks = {};
new MutationObserver(changes => {
  const found = new Set();
  for (const {target, addedNodes} of changes)
    for (const node of [target.nodeType === 3 ? target : null, ...addedNodes])
      for (const [mark] of (node?.textContent ?? "").matchAll(/mark\\d+x\\d+/g))
        if (!(mark in window.marks)) found.add(mark);
  if (found.size) requestAnimationFrame(() => setTimeout(() => {
    const now = performance.timeOrigin + performance.now();
    for (const mark of found) window.marks[mark] ??= now;
  }));
}).observe(document, {childList: true, characterData: true, subtree: true});
"""


def content(number: int) -> str:
    """A step of the wanted length: paragraphs with some Markdown, and a mark every second."""
    chance = random.Random(number)
    words: list[str] = []
    length, marks = 0, 0
    while length < TOKENS * PIECE:
        if length >= marks * 200:
            marks += 1
            words.append(f"mark{number}x{marks}.")
        word = chance.choice(WORDS)
        extra = {0: f"**{word}**", 1: f"$x^{number}$", 2: f"{word}.\\n\\n"}
        words.append(extra.get(chance.randrange(40), word))
        length += len(words[-1]) + 1
    return " ".join(words).replace("\\n", "\n")


@dataclass(slots=True)
class Paced:
    """A step that is written at a pace; it knows when it sent what, and can fall silent."""

    number: int
    pace: float  # tokens a second
    final: bool = False
    sent: list[float] = field(default_factory=list)  # wall-clock times
    silent: Event = field(default_factory=Event)
    go_on: Event = field(default_factory=Event)

    @property
    def text(self) -> str:
        return scripted(self.number, self.final)

    async def __call__(self, writer: asyncio.StreamWriter) -> None:
        pieces = [self.text[i : i + PIECE] for i in range(0, len(self.text), PIECE)]
        writer.write(head(200, "text/event-stream"))
        due = time.monotonic()
        for number, piece in enumerate(pieces):
            if number == int(HELD_AT * len(pieces)):
                await self._hold()
                due = time.monotonic()
            self.sent.append(time.time())
            writer.write(chunk(piece))
            await writer.drain()
            due += 1 / self.pace
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        writer.write(chunk(finish_reason="stop"))
        writer.write(usage(10, len(pieces)) + b"data: [DONE]\n\n")

    async def _hold(self) -> None:
        self.silent.set()
        while not self.go_on.is_set():  # noqa: ASYNC110 - it is set by another thread
            await asyncio.sleep(0.02)

    def marks(self) -> dict[str, float]:
        """When each mark was whole."""
        found = MARK.finditer(self.text)
        return {mark[0]: self.sent[(mark.end() - 1) // PIECE] for mark in found}


def scripted(number: int, final: bool) -> str:
    action = "final_answer" if final else "continue"
    return step_text(f"mark{number}x0 of step {number}", content(number), action)


def chain(numbers: Sequence[int], paced: Mapping[int, Paced] = {}) -> list[Play]:
    """The steps of a question, as fast as they go but for those that are `paced`."""
    return [paced.get(it) or says(scripted(it, it == numbers[-1])) for it in numbers]


class Watch(Visitor):
    """A visitor who counts what goes through the browser."""

    def __init__(self, home: BrowserContext, server: PageServer) -> None:
        self.received = self.sent = 0
        self.process = psutil.Process(server.process.pid)
        super().__init__(stranger(home), server.address)

    def prepare(self, page: Page) -> None:
        page.on("websocket", self._connected)
        page.add_init_script(OBSERVER)
        self.devtools = self.context.new_cdp_session(page)
        self.devtools.send("Performance.enable")

    def _connected(self, socket: WebSocket) -> None:
        socket.on("framereceived", self._came)
        socket.on("framesent", self._went)

    def _came(self, frame: str | bytes) -> None:
        self.received += len(frame)

    def _went(self, frame: str | bytes) -> None:
        self.sent += len(frame)

    def wait(self, condition: Callable[[], object]) -> None:
        """Waits while the browser's events come in."""
        deadline = time.monotonic() + 240
        while not condition():
            assert time.monotonic() < deadline, "the chain does not go on"
            self.page.wait_for_timeout(20)

    def figures(self) -> Figures:
        metrics = self.devtools.send("Performance.getMetrics")["metrics"]
        busy = next(m["value"] for m in metrics if m["name"] == "TaskDuration")
        cpu = self.process.cpu_times()
        return Figures(self.received, self.sent, 1000 * busy, 1000 * (cpu.user + cpu.system))

    def during(self, wait: Callable[[], object]) -> Figures:
        """What was spent while waiting for something."""
        before = self.figures()
        wait()
        return self.figures() - before

    def clock_ahead(self) -> float:
        """Milliseconds that the browser's clock shows more than ours."""
        offsets = []
        for _ in range(9):
            before = time.time()
            there = self.page.evaluate("performance.timeOrigin + performance.now()")
            after = time.time()
            offsets.append((after - before, there - 500 * (before + after)))
        return float(min(offsets)[1])


@dataclass(frozen=True, slots=True)
class Figures:
    """Bytes on the websocket, milliseconds of the main thread and of the page's process."""

    received: float
    sent: float
    main: float
    process: float

    def __sub__(self, other: Figures) -> Figures:
        return Figures(*(mine - its for mine, its in zip(self.values, other.values, strict=True)))

    def __truediv__(self, by: float) -> Figures:
        return Figures(*(value / by for value in self.values))

    @property
    def values(self) -> tuple[float, ...]:
        return self.received, self.sent, self.main, self.process


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen of one step."""

    token: Figures  # per token
    rerun: Figures
    first: float  # milliseconds from the server's first visible letters to their pixels
    middle: tuple[float, ...]  # the same for words inside


@dataclass(frozen=True, slots=True)
class Round:
    """At each of the watched lengths: a look at the step, and a rerun once all is at rest."""

    live: tuple[Look, ...]
    rest: tuple[Figures, ...]


def measure_chain(home: BrowserContext, server: PageServer, port: int, pace: float) -> Round:
    short, long = WATCHED
    with watching(home, server, port, [*chain(range(1, short + 1)), says("Done.")]) as watch:
        resting = at_rest(watch)
    paced = {number: Paced(number, pace, number == long) for number in WATCHED}
    with watching(home, server, port, [*chain(range(1, long + 1), paced), says("Done.")]) as watch:
        live = tuple(look(watch, step) for step in paced.values())
        return Round(live, (resting, at_rest(watch)))


def measure_conversation(home: BrowserContext, server: PageServer, port: int, pace: float) -> Round:
    turns = [range(n, n + TURN_STEPS) for n in range(1, QUESTIONS * TURN_STEPS, TURN_STEPS)]
    first, last = (Paced(turn[-1], pace, final=True) for turn in (turns[0], turns[-1]))
    paced = {step.number: step for step in (first, last)}
    plays = [it for turn in turns for it in (*chain(turn, paced), says(f"Done {turn[-1]}."))]
    with watching(home, server, port, plays) as watch:
        live, rest = [look(watch, first)], [at_rest(watch)]
        for turn in turns[1:]:
            watch.ask("And how much now?")
            if turn is not turns[-1]:
                watch.sees(f"Done {turn[-1]}.")
        live.append(look(watch, last))
        rest.append(at_rest(watch))
    return Round(tuple(live), tuple(rest))


@contextmanager
def watching(
    home: BrowserContext, server: PageServer, port: int, plays: Sequence[Play]
) -> Iterator[Watch]:
    """A tab in which a question has just been asked, and the stub that thinks about it."""
    with on_stage(*plays, port=port):
        server.prefer()  # the way that was chosen last is remembered
        watch = Watch(home, server)
        watch.ask("How much does it cost to show this?")
        yield watch
        watch.close()


def look(watch: Watch, step: Paced) -> Look:
    """One paced step, from its first token to its last."""
    watch.wait(lambda: len(step.sent) > 20)  # the step's own box is drawn by then
    before = len(step.sent)
    spent = watch.during(lambda: watch.wait(step.silent.is_set))
    written = len(step.sent) - before
    watch.page.wait_for_timeout(500)
    rerun = of_rerun(watch)
    step.go_on.set()
    watch.wait(lambda: len(step.sent) * PIECE >= len(step.text))
    watch.page.wait_for_timeout(500)
    late = lateness(watch, step)
    return Look(spent / written, rerun, late[0], tuple(late[1:]))


def at_rest(watch: Watch) -> Figures:
    watch.page.locator(".st-key-new button").first.wait_for(timeout=4 * PATIENCE)
    watch.page.wait_for_timeout(QUIET)
    return of_rerun(watch)


def of_rerun(watch: Watch) -> Figures:
    """What a rerun takes, without what a silent page takes by itself in that time.

    What is sent is told whole: a page that is not silent asks less often after the model.
    """
    watch.run.hover(position={"x": 5, "y": 5}, force=True)
    watch.page.mouse.wheel(0, -1e6)  # else the page follows the text away from its head
    now = watch.way.inner_text()
    watch.way.click()
    watch.page.wait_for_timeout(QUIET)
    silence = watch.during(lambda: watch.page.wait_for_timeout(QUIET))
    spent = watch.during(lambda: _click(watch, "Direct" if "Direct" not in now else JSON_STEPS))
    watch.page.keyboard.press("Escape")
    return replace(spent - silence, sent=spent.sent)


def _click(watch: Watch, way: str) -> None:
    """One that changes one word of the page: how the next question is thought through."""
    watch.pick_way(way)
    watch.page.wait_for_timeout(QUIET)


def lateness(watch: Watch, step: Paced) -> list[float]:
    """Milliseconds from sending to seeing, a mark each; the title's first."""
    ahead, seen = watch.clock_ahead(), watch.page.evaluate("window.marks")
    return [seen[mark] - ahead - 1000 * at for mark, at in step.marks().items()]


# -- the report

MEASURES: tuple[tuple[str, str, Callable[[Round, int], Sequence[float]]], ...] = (
    ("bytes per token", ".0f", lambda r, i: [r.live[i].token.received]),
    ("main thread per token, ms", ".2f", lambda r, i: [r.live[i].token.main]),
    ("the page's process per token, ms", ".2f", lambda r, i: [r.live[i].token.process]),
    ("first letters, from server to pixels, ms", ".0f", lambda r, i: [r.live[i].first]),
    ("any word, from server to pixels, ms", ".0f", lambda r, i: r.live[i].middle),
    ("rerun while it thinks, bytes", ",.0f", lambda r, i: [r.live[i].rerun.received]),
    ("and sent to the page's server", ",.0f", lambda r, i: [r.live[i].rerun.sent]),
    ("rerun while it thinks, main thread, ms", ".0f", lambda r, i: [r.live[i].rerun.main]),
    ("rerun at rest, bytes", ",.0f", lambda r, i: [r.rest[i].received]),
    ("and sent to the page's server", ",.0f", lambda r, i: [r.rest[i].sent]),
    ("rerun at rest, main thread, ms", ".0f", lambda r, i: [r.rest[i].main]),
)


def report(rounds: Sequence[Round], pace: float, conversation: bool, command: str) -> str:
    what, at = f"chains of {STEPS} steps", [f"step {number}" for number in WATCHED]
    if conversation:
        what = f"conversations of {QUESTIONS} questions of {TURN_STEPS} steps"
        at = ["question 1", f"question {QUESTIONS}"]
    lines = [
        f"# The page\n\n    {command}\n",
        f"{len(rounds)} {what} of {TOKENS} tokens; the watched steps written at "
        f"{pace:.0f} tokens/s; median (smallest to largest).\n",
        f"| what | at {' | at '.join(at)} |\n|---|---|---|",
    ]
    for name, form, values in MEASURES:
        cells = [
            spread([value for r in rounds for value in values(r, place)], form)
            for place in range(len(WATCHED))
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def run(rounds: int, pace: float, conversation: bool) -> list[Round]:
    port, measure = free_port(), measure_conversation if conversation else measure_chain
    done = []
    with (
        page_server(f"http://127.0.0.1:{port}/v1", "bench-page.log") as server,
        chromium() as home,
    ):
        for number in range(rounds):
            done.append(measure(home, server, port, pace))
            print(f"{number + 1}/{rounds}", file=sys.stderr)
    return done


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--conversation", action="store_true", help="of ten questions")
    flags.add_argument("--rounds", type=int, default=5)
    flags.add_argument("--pace", type=float, default=50.0, help="tokens a second")
    flags.add_argument("--write", type=Path, help="the table there, its figures beside it")
    given = flags.parse_args()
    rounds = run(given.rounds, given.pace, given.conversation)
    command = f"scripts/bench page --rounds {given.rounds} --pace {given.pace:.0f}"
    command += " --conversation" if given.conversation else ""
    table = report(rounds, given.pace, given.conversation, command)
    keep(table, rounds, given.write)


if __name__ == "__main__":
    main()
