"""The core in a terminal: python -m reasoning "question".

Steps appear as panels while they are written, then the answer and the total thinking
time; `--json` prints the trace instead, as far as it came, whatever ends it. `--chains 8`
holds a vote of at most eight chains, and says what most of them came to. It shows events
and knows nothing of the way.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import signal
import sys
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import get_args

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markdown import Markdown
from rich.panel import Panel
from rich.text import Text

from reasoning.deadline import CHAIN, STEP, STEP_SECONDS
from reasoning.detection import detect_way
from reasoning.endpoint import Endpoint
from reasoning.errors import StepwiseError, Unreachable
from reasoning.events import (
    ENDS,
    Answer,
    Correction,
    Delta,
    Event,
    Failed,
    Notice,
    Part,
    Queued,
    Retry,
    Settings,
    Step,
    Stopped,
    Trace,
)
from reasoning.inquiry import Inquiry
from reasoning.retry import retry
from reasoning.self_consistency import draw_chains
from reasoning.think import WAYS, Stopwatch, clean_question, think, vary_settings
from reasoning.traces import trace_to_json
from reasoning.voting import Ballot, count_votes, vote_of
from serving.catalogue import ways
from serving.served import describe, served_at

CODES = {Failed: 1, Stopped: 130}
MOST_CHAINS = 16
Kept = dict[int, list[Event]]  # what came of each chain so far


def parser() -> argparse.ArgumentParser:
    defaults = Settings()
    it = argparse.ArgumentParser(
        prog="python -m reasoning",
        usage="python -m reasoning [flags] question",
        description="Ask the served model a question and watch it think step by step.",
        epilog="The server is the one that OPENAI_BASE_URL, OPENAI_API_KEY and MODEL name "
        "(default: http://127.0.0.1:8000/v1, the first model it serves). "
        f"{STEP} and {CHAIN} hold where --step-seconds and --chain-seconds are not given.",
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
    it.add_argument(
        "--budget", type=int, metavar="N", help="completion tokens of a whole chain, at most"
    )
    for what, default in (("step", f"{STEP_SECONDS:.0f}"), ("chain", "0")):
        about = f"a {what} may take so long (default: {default}; 0: no deadline)"
        it.add_argument(f"--{what}-seconds", type=float, metavar="S", help=about)
    it.add_argument("--seed", type=int, help="the same for the same chain again")
    it.add_argument(
        "--chains",
        type=int,
        default=1,
        choices=range(1, MOST_CHAINS + 1),
        metavar="N",
        help=f"a vote of at most so many chains: it stops when decided (1 to {MOST_CHAINS})",
    )
    return it


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    try:
        settings = Settings(
            min_steps=arguments.min_steps,
            max_steps=arguments.max_steps,
            temperature=arguments.temperature,
            seed=arguments.seed,
            budget=arguments.budget,
            step_seconds=arguments.step_seconds,
            chain_seconds=arguments.chain_seconds,
        )
    except ValueError as error:
        parser().error(str(error))
    _print_all_there_is()
    question = sys.stdin.read().strip() if arguments.question == "-" else arguments.question
    try:
        return asyncio.run(_ask(question, settings, arguments))
    except KeyboardInterrupt:
        return CODES[Stopped]
    except BrokenPipeError:  # who read has had enough; the rest would fail again as Python ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CODES[Failed]


def _print_all_there_is() -> None:
    """With "?" for what the terminal's encoding does not have, or a pipe's is not."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


async def _ask(question: str, settings: Settings, arguments: argparse.Namespace) -> int:
    """Asks, shows, and returns the exit code. What came is printed as JSON whatever ends it."""
    console = Console(stderr=arguments.json)
    inquiry = Inquiry(question, arguments.way or "", settings, arguments.language or "")
    kept: Kept = {0: []}
    _stop_at_signals()
    try:
        await _think(inquiry, arguments, console, kept)
    except StepwiseError as error:  # before a chain began
        kept[0] = [_begun(inquiry), Failed(error.code, error.message, error.remedy)]
        if not arguments.json:
            console.print(show(kept[0][-1]))
    except asyncio.CancelledError:
        kept[0] = kept[0] or [_begun(inquiry), Stopped()]
    finally:
        if arguments.json:
            _print_json(_told(_traces(kept), arguments.chains))
    end = _traces(kept)[0].end
    if arguments.json and isinstance(end, Failed):  # behind the JSON, which a pipe may take alone
        console.print(show(end))
    return _code(_traces(kept))


def _stop_at_signals() -> None:
    """Ends as Ctrl-C does when it is killed, or its terminal is closed."""
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # nohup has it ignored
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)


def _begun(inquiry: Inquiry) -> Event:
    """How a chain would have begun that no model took up."""
    return inquiry.started(model="", at=time.time())


async def _think(
    inquiry: Inquiry, arguments: argparse.Namespace, console: Console, kept: Kept
) -> None:
    """One chain, or a vote of several, shown unless as JSON; what comes is in `kept` at once."""
    clean_question(inquiry.question)  # which no server is needed to refuse
    endpoint = Endpoint.from_environment()
    try:
        model = await retry(endpoint.model, _try_again)
        way = inquiry.way or await detect_way(endpoint, model, ways())
        if not arguments.json:
            console.print(Text(describe(served_at(endpoint.base_url, model.name)), style="dim"))

        def chain(settings: Settings) -> AsyncGenerator[Event, None]:
            one = replace(inquiry, way=way, settings=settings)
            return think(one, endpoint=endpoint, model=model)

        if arguments.chains > 1:
            several = vary_settings(inquiry.settings, arguments.chains)
            await _vote([partial(chain, one) for one in several], kept)
            if not arguments.json:
                _show_vote(_traces(kept), arguments.chains, console)
            return
        events = chain(inquiry.settings)
        await (_collect(events, kept[0]) if arguments.json else _show(events, kept[0], console))
    finally:
        await endpoint.close()


async def _try_again(error: StepwiseError, wait: float) -> None:
    """After a moment of weakness; a server that is not there need not be waited for."""
    if isinstance(error, Unreachable):
        raise error
    await asyncio.sleep(wait)


async def _vote(chains: Sequence[Callable[[], AsyncGenerator[Event, None]]], kept: Kept) -> None:
    """Keeps as many of the chains as decide their vote; those that run when it stops, too."""

    async def trace(number: int) -> Trace:
        await _collect(chains[number](), kept.setdefault(number, []))
        return Trace(tuple(kept[number]))

    ended = await draw_chains(trace, lambda it: vote_of(_answer(it), it.tokens), len(chains))
    for number in kept.keys() - ended.keys():
        del kept[number]


def _show_vote(traces: Sequence[Trace], most: int, console: Console) -> None:
    ballots = _ballots(traces)
    end = traces[ballots[0].members[0] if ballots else 0].end
    console.print(show(end) if end else "")
    for line in tally(ballots, traces, most):
        console.print(Text(line, style="bold"))


def _traces(kept: Kept) -> list[Trace]:
    return [Trace(tuple(kept[number])) for number in sorted(kept)]


def _ballots(traces: Sequence[Trace]) -> tuple[Ballot, ...]:
    return count_votes([_answer(it) for it in traces], [it.tokens for it in traces])


def _answer(trace: Trace) -> str:
    return trace.answer.content if trace.answer else ""


def tally(ballots: Sequence[Ballot], traces: Sequence[Trace], most: int) -> list[str]:
    """A line for each answer with its share of the chains drawn, and one for the time."""
    lines, chains = [], len(traces)
    bound = f", of at most {most}" if chains < most else ""
    for ballot in ballots:
        votes = len(ballot.members)
        lines.append(f"{votes} of {chains} chains ({votes / chains:.0%}){bound}: {ballot.shown}")
    tokens = sum(trace.tokens for trace in traces)
    lines = lines or ["No chain came to a clear answer."]
    return [*lines, f"Thought for {_span(traces):.1f} s in {chains} chains{bound}, {tokens} tokens"]


def _span(traces: Sequence[Trace]) -> float:
    """Seconds from the first chain's begin to the last one's end; not all run at once."""
    begun = [trace.started.at if trace.started else 0.0 for trace in traces]
    times = [trace.seconds + trace.waited for trace in traces]
    return max(map(sum, zip(begun, times, strict=True))) - min(begun)


def _told(traces: Sequence[Trace], most: int) -> object:
    """As JSON values: the trace, or the votes of at most `most` chains and their traces."""
    told = [trace_to_json(trace) for trace in traces]
    if most == 1:
        return told[0]
    votes = [{"answer": ballot.shown, "chains": ballot.members} for ballot in _ballots(traces)]
    return {"votes": votes, "most": most, "traces": told}


def _print_json(values: object) -> None:
    """Flushed, so that a broken pipe is noticed here. Escaped where not all can be printed."""
    escaped = "utf" not in (sys.stdout.encoding or "").lower()
    print(json.dumps(values, ensure_ascii=escaped, indent=2), flush=True)


def _code(traces: Sequence[Trace]) -> int:
    """The exit code: 0 if one has answered, 130 if a person stopped it."""
    if any(isinstance(trace.end, Stopped) for trace in traces):
        return CODES[Stopped]
    return 0 if any(trace.answer for trace in traces) else CODES[Failed]


async def _collect(
    events: AsyncGenerator[Event, None],
    kept: list[Event],
    take: Callable[[Event], None] = lambda event: None,
) -> None:
    """Keeps what comes and hands it on. A chain that is cancelled has been stopped."""
    watch = Stopwatch()
    try:
        async with aclosing(events):
            async for event in events:
                kept.append(event)
                watch.note(event)
                take(event)
    except asyncio.CancelledError:
        if not any(isinstance(event, ENDS) for event in kept):
            kept.append(Stopped(watch.seconds()))
            take(kept[-1])
        raise


async def _show(events: AsyncGenerator[Event, None], kept: list[Event], console: Console) -> None:
    """Draws the events as they come. Ctrl-C ends the run and keeps what was finished."""
    screen = Screen(console)
    try:
        with Live(console=console, refresh_per_second=12, transient=True) as live:

            def take(event: Event) -> None:
                screen.take(event)
                live.update(screen.draft())

            await _collect(events, kept, take)
    finally:
        console.print(Text(summary(Trace(tuple(kept))), style="bold"))


class Screen:
    """Finished things are printed once; what is being written is redrawn until it is."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._number = 1
        self._parts = dict.fromkeys(get_args(Part), "")

    def take(self, event: Event) -> None:
        if isinstance(event, Delta):
            if event.part != "tentative":
                self._parts["tentative"] = ""
            self._parts[event.part] += event.text
            return
        self._parts = dict.fromkeys(get_args(Part), "")
        if isinstance(event, Step):
            self._number = event.number + 1
        if (shown := show(event)) is not None:
            self._console.print(shown)

    def draft(self) -> RenderableType:
        action, title, content, answer, tentative = (self._parts[part] for part in get_args(Part))
        if answer:
            return Panel(Text(answer), title="Answer", title_align="left", border_style="green")
        shown: list[RenderableType] = [Text(f"Step {self._number}", style="dim")]
        if title or content:
            name = _title(self._number, title, action)
            shown.append(Panel(Text(content), title=name, title_align="left"))
        if tentative:
            shown.append(Text(tentative, style="dim"))
        return Group(*shown)


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
        case Queued() if event.place:
            return Text(f"  The server is full: {event.ordinal} in line.", style="yellow")
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
