"""The core in a terminal: python -m reasoning "question".

Steps appear as panels while they are written, then the answer and the total thinking
time; `--json` prints the trace instead. It shows events and knows nothing of the way.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import get_args

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markdown import Markdown
from rich.panel import Panel
from rich.text import Text

from reasoning.choosing import way_of
from reasoning.endpoint import Endpoint
from reasoning.errors import StepwiseError
from reasoning.events import (
    Answer,
    Correction,
    Delta,
    Event,
    Failed,
    Notice,
    Part,
    Retry,
    Settings,
    Step,
    Stopped,
    Trace,
    to_dict,
)
from reasoning.think import WAYS, Stopwatch, think
from serving.catalogue import ways

CODES = {Failed: 1, Stopped: 130}


def parser() -> argparse.ArgumentParser:
    defaults = Settings()
    it = argparse.ArgumentParser(
        prog="python -m reasoning",
        description="Ask the served model a question and watch it think step by step.",
        epilog="The server is the one that OPENAI_BASE_URL, OPENAI_API_KEY and MODEL name "
        "(default: http://127.0.0.1:8000/v1, the first model it serves).",
    )
    it.add_argument("question", help='the question; "-" reads it from standard input')
    it.add_argument("--json", action="store_true", help="print the trace as JSON, nothing else")
    it.add_argument("--way", choices=sorted(WAYS), help="of thinking (default: the model's own)")
    it.add_argument(
        "--language", choices=("en", "zh"), help="of the prompts (default: see question)"
    )
    it.add_argument("--max-steps", type=int, default=defaults.max_steps, metavar="N")
    it.add_argument("--min-steps", type=int, default=defaults.min_steps, metavar="N")
    it.add_argument("--temperature", type=float, default=defaults.temperature, metavar="T")
    return it


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    wanted = (arguments.min_steps, arguments.max_steps)
    if not 1 <= wanted[0] <= wanted[1]:
        parser().error(f"expected 1 <= --min-steps <= --max-steps, got {wanted[0]} and {wanted[1]}")
    question = sys.stdin.read().strip() if arguments.question == "-" else arguments.question
    try:
        return asyncio.run(_ask(question, arguments))
    except KeyboardInterrupt:
        return CODES[Stopped]


async def _ask(question: str, arguments: argparse.Namespace) -> int:
    """Asks, shows, and returns the exit code."""
    console = Console(stderr=arguments.json)
    endpoint = Endpoint.from_environment()
    try:
        model = await endpoint.model()
        settings = replace(
            Settings(),
            min_steps=arguments.min_steps,
            max_steps=arguments.max_steps,
            temperature=arguments.temperature,
        )
        events = think(
            question,
            endpoint=endpoint,
            model=model,
            way=arguments.way or await way_of(endpoint, model, ways()),
            settings=settings,
            language=arguments.language,
        )
        trace = await (_collect(events) if arguments.json else _show(events, console))
    except StepwiseError as error:
        console.print(Text(str(error), style="bold red"))
        return 1
    finally:
        await endpoint.close()
    if arguments.json:
        print(json.dumps(as_json(trace), ensure_ascii=False, indent=2))
    return CODES.get(type(trace.end), 0)


def as_json(trace: Trace) -> dict[str, object]:
    """The trace as JSON values: its events but for the deltas, which the steps hold whole."""
    return {
        "version": trace.version,
        "seconds": round(trace.seconds, 3),
        "waited": round(trace.waited, 3),
        "tokens": trace.tokens,
        "events": [to_dict(event) for event in trace.events if not isinstance(event, Delta)],
    }


async def _collect(events: AsyncGenerator[Event, None]) -> Trace:
    async with aclosing(events):
        return Trace(tuple([event async for event in events]))


async def _show(events: AsyncGenerator[Event, None], console: Console) -> Trace:
    """Draws the events as they come. Ctrl-C ends the run and keeps what was finished."""
    screen = Screen(console)
    kept: list[Event] = []
    watch = Stopwatch()
    with Live(console=console, refresh_per_second=12, transient=True) as live:
        try:
            async with aclosing(events):
                async for event in events:
                    kept.append(event)
                    watch.note(event)
                    screen.take(event)
                    live.update(screen.draft())
        except asyncio.CancelledError:
            kept.append(Stopped(watch.seconds()))
            screen.take(kept[-1])
    trace = Trace(tuple(kept))
    console.print(Text(summary(trace), style="bold"))
    return trace


class Screen:
    """Finished things are printed once; what is being written is redrawn until it is."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._number = 1
        self._parts = dict.fromkeys(get_args(Part), "")

    def take(self, event: Event) -> None:
        if isinstance(event, Delta):
            self._parts[event.part] += event.text
            return
        self._parts = dict.fromkeys(get_args(Part), "")
        if isinstance(event, Step):
            self._number = event.number + 1
        if (shown := show(event)) is not None:
            self._console.print(shown)

    def draft(self) -> RenderableType:
        action, title, content, answer = (self._parts[part] for part in get_args(Part))
        if answer:
            return Panel(Text(answer), title="Answer", title_align="left", border_style="green")
        head = Text(f"Step {self._number}", style="dim")
        if not title and not content:
            return head
        panel = Panel(Text(content), title=_title(self._number, title, action), title_align="left")
        return Group(head, panel)


def show(event: Event) -> RenderableType | None:
    """A finished event, drawn; None for those that a terminal does not show."""
    match event:
        case Step():
            return Panel(
                Markdown(event.content),
                title=_title(event.number, event.title, event.action),
                subtitle=_cost(event.seconds, event.tokens) + (" · cut" if event.cut else ""),
                title_align="left",
                subtitle_align="right",
                border_style="yellow" if event.cut else "blue",
            )
        case Answer():
            subtitle = _cost(event.seconds, event.tokens) + (" · cut" if event.cut else "")
            return Panel(
                Markdown(event.content),
                title="Answer",
                subtitle=subtitle,
                title_align="left",
                subtitle_align="right",
                border_style="green",
            )
        case Correction():
            return Text(f"  Corrected: {event.earlier}, then {event.later}", style="yellow")
        case Retry():
            wait = f" Waiting {event.wait:.1f} s." if event.wait else ""
            return Text(f"  Again, step {event.number}: {event.detail}{wait}", style="yellow")
        case Notice():
            return Text(f"  Note ({event.code}): {event.detail}", style="yellow")
        case Failed():
            return Text(f"{event.message} {event.remedy}", style="bold red")
        case Stopped():
            return Text("Stopped.", style="bold yellow")
    return None


def summary(trace: Trace) -> str:
    """One line: how long it thought, in how many steps, with how many tokens."""
    steps = len(trace.steps)
    line = f"Thought for {trace.seconds:.1f} s in {steps} step{'s' * (steps != 1)}"
    line += f", {trace.tokens} tokens" if trace.tokens else ""
    return line + (f"; waited {trace.waited:.1f} s for retries" if trace.waited else "")


def _title(number: int, title: str, action: str = "") -> Text:
    turn = f" [{action}]" if action in ("reflect", "explore") else ""
    return Text(f"{number}. {title}{turn}")


def _cost(seconds: float, tokens: int) -> str:
    return f"{seconds:.1f} s" + (f" · {tokens} tokens" if tokens else "")


if __name__ == "__main__":
    sys.exit(main())
