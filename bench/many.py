"""Many at once on the served model: chains beside plain streams, a vote, the gateway.

    scripts/bench many [--at-once 1,4,16] [--rounds 3] [--way cot] [--gateway URL] [--write FILE]

On the server that OPENAI_BASE_URL names, in one run, in turn. Printed: medians, with the smallest
and the largest.

* chains: so many that begin together, then as many plain streamed requests, each of as many tokens
  as its chain wrote: tokens/s of the ones over those of the others
* vote: at most five chains of a question until their vote is decided, over one chain of it
* gateway: the first token of a request that it passes through, and the first piece of reasoning of
  a chain of its own, each after the same request to the server itself
"""

from __future__ import annotations

import argparse
import asyncio
import shlex
import sys
import time
from collections.abc import Sequence
from contextlib import aclosing
from itertools import islice
from pathlib import Path

import openai

from bench.loop import QUESTIONS, spread
from bench.parts import Row
from bench.record import keep
from bench.streams import SHORT, Client, new_prompt
from reasoning.endpoint import Endpoint, ServedModel
from reasoning.events import Event, Settings, Trace
from reasoning.inquiry import Inquiry
from reasoning.self_consistency import draw_chains
from reasoning.think import think, vary_settings
from reasoning.voting import vote_of
from reasoning.warming import warm

VOTERS = 5
PATIENCE = 1800.0  # seconds for a reply
ASKED = 12  # requests to the gateway, and as many beside them


class Many:
    """The server, asked by the core and plainly."""

    def __init__(self, endpoint: Endpoint, model: ServedModel, way: str) -> None:
        self.endpoint, self.model, self.way = endpoint, model, way
        key = endpoint.api_key or "none"
        self.asker = openai.AsyncOpenAI(
            base_url=endpoint.base_url, api_key=key, timeout=PATIENCE, max_retries=0
        )
        self.client = Client(self.asker, model.name, 1, Settings().temperature)

    async def chain(self, question: str, settings: Settings = Settings()) -> Trace:
        inquiry = Inquiry(question, self.way, settings=settings)
        events: list[Event] = []
        async with aclosing(think(inquiry, endpoint=self.endpoint, model=self.model)) as stream:
            async for event in stream:
                events.append(event)
        return Trace(tuple(events))

    async def together(self, count: int) -> float:
        """Seconds of plain streams over those of chains that wrote as many tokens."""
        began = time.monotonic()
        traces = await asyncio.gather(*(self.chain(which(number)) for number in range(count)))
        chains, began = time.monotonic() - began, time.monotonic()
        prompts = [new_prompt(SHORT) for _ in traces]
        await asyncio.gather(
            *(self.client.reply(*one) for one in zip(prompts, map(tokens_of, traces), strict=True))
        )
        return (time.monotonic() - began) / chains

    async def vote(self, question: str) -> float:
        """Its seconds over those of one chain of the question."""
        several = vary_settings(Settings(), VOTERS)
        began = time.monotonic()
        await self.chain(question, several[0])
        alone, began = time.monotonic() - began, time.monotonic()
        await draw_chains(
            lambda number: self.chain(question, several[number]),
            lambda trace: vote_of(trace.answer.content if trace.answer else "", trace.tokens),
            VOTERS,
        )
        return (time.monotonic() - began) / alone


def tokens_of(trace: Trace) -> int:
    return max(1, trace.tokens)


def which(number: int) -> str:
    """A question that is no other's, of the kind of those in bench/loop.py."""
    return f"{QUESTIONS[number % len(QUESTIONS)]} (Question {number + 1}.)"


async def first_token(asker: openai.AsyncOpenAI, model: str, question: str) -> float:
    """Seconds until anything that is written can be read."""
    began = time.monotonic()
    stream = await asker.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": question}],
        max_tokens=300,
        stream=True,
    )
    try:
        async for chunk in stream:
            delta = chunk.choices[0].delta if chunk.choices else None
            if delta and (delta.content or getattr(delta, "reasoning", "")):
                return time.monotonic() - began
    finally:
        await stream.close()
    return time.monotonic() - began


async def through(many: Many, gateway: str) -> list[Row]:
    asker = openai.AsyncOpenAI(base_url=f"{gateway}/v1", api_key="none", timeout=PATIENCE)
    name = many.model.name
    passed: list[float] = []
    thought: list[float] = []
    for number in range(ASKED):
        question = which(number)
        await first_token(many.asker, name, question)  # its prompt is in the cache from here on
        plain = await first_token(many.asker, name, question)
        passed.append(1000 * (await first_token(asker, name, question) - plain))
        await first_token(asker, f"{name}-steps", question)
        thought.append(1000 * (await first_token(asker, f"{name}-steps", question) - plain))
    await asker.close()
    return [
        Row("the gateway's pass-through, added to a first token, ms (goal: 5)", passed),
        Row("a chain of the gateway's, its first piece later than a first token, ms", thought),
    ]


async def measure(given: argparse.Namespace) -> tuple[list[Row], str]:
    endpoint = Endpoint.from_environment()
    many = Many(endpoint, await endpoint.model(), given.way)
    await warm(endpoint, "en")
    rows = []
    for count in given.at_once:
        found = [await many.together(count) for _ in range(given.rounds)]
        goal = " (goal: 0.95)" if count == max(given.at_once) else ""
        rows.append(Row(f"{count} chains, tokens/s over as many plain streams'{goal}", found))
        tell(rows[-1])
    found = [await many.vote(question) for question in islice(QUESTIONS, given.rounds)]
    rows.append(Row(f"a vote of at most {VOTERS}, seconds over one chain's (goal: 1.5)", found))
    tell(rows[-1])
    if given.gateway:
        rows.extend(await through(many, given.gateway.rstrip("/")))
    await many.asker.close()
    await endpoint.close()
    return rows, many.model.name


def tell(row: Row) -> None:
    print(row.what, spread(row.values), file=sys.stderr, flush=True)


def report(rows: Sequence[Row], model: str, command: str) -> str:
    head = f"# Many at once on {model}\n\n    {command}\n\nMedian (smallest to largest).\n\n"
    lines = [f"| {row.what} | {spread(row.values)} |\n" for row in rows]
    return head + "| what | value |\n|---|---|\n" + "".join(lines)


def numbers(text: str) -> list[int]:
    return [int(one) for one in text.split(",")]


def main() -> None:
    flags = argparse.ArgumentParser(
        prog="scripts/bench many",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    flags.add_argument("--at-once", type=numbers, default=[1, 4, 16])
    flags.add_argument("--rounds", type=int, default=3)
    flags.add_argument("--way", default="", help="of thinking; else JSON steps")
    flags.add_argument("--gateway", default="", help="http://127.0.0.1:8001")
    flags.add_argument("--write", type=Path, help="the table there, its figures beside it")
    given = flags.parse_args()
    rows, model = asyncio.run(measure(given))
    table = report(rows, model, shlex.join(["scripts/bench", "many", *sys.argv[1:]]))
    keep(table, rows, given.write)


if __name__ == "__main__":
    main()
