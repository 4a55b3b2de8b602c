"""What the step loop costs on the served model, beside plain decoding and the tutorial's loop.

    scripts/bench loop [--rounds 7] [--question TEXT] [--way WAY] [--min-steps 1] [--max-steps 8]
                       [--no-tutorial] [--write FILE]

For each question, in turn: our chain; plain streamed decoding of as many tokens, behind a prompt
as long as the chain's first; the tutorial's loop. All in one run and interleaved, so that a
machine's changing speed touches all three; a first round is not counted. Printed: medians, with
the smallest and the largest.

* efficiency: seconds of plain decoding / wall seconds of the chain
* first word: from the question to the first letter that can be read, against the server's own
  time to first token for that request (its /metrics)
* scaffolding: tokens of a step that are neither title nor content, by /tokenize
* read: tokens of the prompts that the server's cache did not have, for the first request of a
  chain and for each after it
* growth: the first token of the last three steps over that of the second to the fourth, medians
"""

from __future__ import annotations

import argparse
import asyncio
import re
import shlex
import statistics
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import openai

from bench.record import keep
from bench.streams import new_prompt
from evals.tutorial_loop import TutorialChain, tutorial_loop
from reasoning.endpoint import Endpoint, Piece, Request, ServedModel
from reasoning.events import Delta, Event, Retry, Settings, Trace
from reasoning.inquiry import Inquiry
from reasoning.metering import Meter, ModelServer
from reasoning.think import think
from reasoning.warming import warm

QUESTIONS = (  # the first three are the page's examples
    "A bat and a ball cost $1.10 together. The bat costs $1.00 more than the ball. "
    "How much does the ball cost?",
    "How many handshakes are there if 8 people each shake hands once with every other?",
    "A tank fills in 6 hours by one pipe and in 3 hours by another. How many hours do both need "
    "together?",
    "A farmer has 17 sheep and buys 5 more. How many sheep does he have?",
    "How many Rs are in strawberry?",
    "A train goes 60 km in 45 minutes. What is its speed in km/h?",
    "Which is larger, 9.11 or 9.9?",
    "Tom is older than Ann and Ann is older than Bob. Who is the youngest?",
)


@dataclass(slots=True)
class Round:
    """One question's figures; seconds, tokens, ratios."""

    question: str
    efficiency: float
    chain_seconds: float
    tokens: int
    first_word: float
    server_first_token: float
    step_first_token: list[float]
    step_tokens: list[int]
    scaffolding: list[int]
    steps: int
    retries: int
    read: list[int]
    answer: str
    tutorial: TutorialChain | None


class Reads(Meter):
    """A server that counts the tokens of each request's prompt that its cache did not have."""

    def __init__(self, server: ModelServer) -> None:
        super().__init__(server)
        self.each: list[int] = []

    async def chat(self, request: Request) -> AsyncGenerator[Piece, None]:
        before = self._read
        async with aclosing(super().chat(request)) as pieces:
            async for piece in pieces:
                yield piece
        self.each.append(self._read - before)

    @property
    def _read(self) -> int:
        return self.prompt_tokens - (self.cached_tokens or 0)


@dataclass(slots=True)
class Bench:
    """The server that is measured, and a blocking client of it beside the core's."""

    endpoint: Endpoint
    model: ServedModel
    way: str
    settings: Settings
    beside: bool  # whether the tutorial's loop is asked, too
    client: openai.OpenAI = field(init=False)

    def __post_init__(self) -> None:
        key = self.endpoint.api_key or "none"
        self.client = openai.OpenAI(base_url=self.endpoint.base_url, api_key=key, timeout=600)

    @property
    def root(self) -> str:
        return self.endpoint.base_url.removesuffix("/v1")

    async def round(self, question: str) -> Round:
        events, first_word, server_first, read = await self.chain(question)
        trace = Trace(tuple(events))
        wall = trace.seconds + trace.waited
        plain = self.plain_seconds(read[0], trace.tokens)
        whole = [step for step in trace.steps if step.attempts == 1 and step.raw]
        return Round(
            question,
            plain / wall,
            wall,
            trace.tokens,
            first_word,
            server_first,
            [step.first_token for step in trace.steps if step.first_token],
            [step.tokens for step in whole],
            [step.tokens - self.count(step.title) - self.count(step.content) for step in whole],
            len(trace.steps),
            sum(isinstance(event, Retry) for event in events),
            read,
            trace.answer.content if trace.answer else "",
            self.tutorial(question) if self.beside else None,
        )

    def tutorial(self, question: str) -> TutorialChain:
        create = self.client.chat.completions.create
        return tutorial_loop(question, self.model.name, create, self.settings.max_steps)

    async def chain(self, question: str) -> tuple[list[Event], float, float, list[int]]:
        """Its events, seconds to the first visible letter and to the server's own first token,
        and the tokens of its prompt that the server read for each request."""
        before, began, reads = self.server_first_token(), time.monotonic(), Reads(self.endpoint)
        events: list[Event] = []
        first_word = server_first = 0.0
        inquiry = Inquiry(question, self.way, settings=self.settings)
        async with aclosing(think(inquiry, endpoint=reads, model=self.model)) as stream:
            async for event in stream:
                events.append(event)
                if isinstance(event, Delta) and event.part != "action" and not first_word:
                    first_word = time.monotonic() - began
                    server_first = self.server_first_token() - before
        return events, first_word, server_first, reads.each

    def plain_seconds(self, read: int, tokens: int) -> float:
        """Seconds to read a prompt and write as many tokens, in one streamed request."""
        began = time.monotonic()
        stream = self.client.completions.create(
            model=self.model.name,
            prompt=new_prompt(read),
            max_tokens=tokens,
            temperature=1.0,
            stream=True,
            extra_body={"ignore_eos": True},
        )
        for _ in stream:
            pass
        return time.monotonic() - began

    def server_first_token(self) -> float:
        """Seconds that all requests so far waited for their first token, by the server's count."""
        text = httpx2.get(f"{self.root}/metrics").text
        sums = re.findall(r"^vllm:time_to_first_token_seconds_sum\{.*\} (\S+)", text, re.M)
        return sum(map(float, sums))

    def count(self, text: str) -> int:
        body = {"prompt": text, "add_special_tokens": False}
        return int(httpx2.post(f"{self.root}/tokenize", json=body).json()["count"])


def spread(values: Sequence[float], form: str = ".2f") -> str:
    """median (smallest to largest)"""
    if not values:
        return "none"
    low, high = format(min(values), form), format(max(values), form)
    return f"{format(statistics.median(values), form)} ({low} to {high})"


def growth(first_tokens: Sequence[float]) -> float:
    """Of three steps each: one reads more of a block of the cache anew than another."""
    return statistics.median(first_tokens[-3:]) / statistics.median(first_tokens[1:4])


def report(rounds: Sequence[Round], model: str, command: str) -> str:
    ratios = [r.first_word / (1.5 * r.server_first_token + 0.1) for r in rounds]
    flat: dict[str, Any] = {
        name: [value for r in rounds for value in getattr(r, name)]
        for name in ("step_first_token", "step_tokens", "scaffolding")
    }
    later = [tokens for r in rounds for tokens in r.read[1:]]
    grown = [growth(r.step_first_token) for r in rounds if len(r.step_first_token) > 3]
    rows = [
        (
            "loop efficiency (goal: 0.97 at 8 steps, 0.95 at 25)",
            spread([r.efficiency for r in rounds]),
        ),
        ("first word after the question, s", spread([r.first_word for r in rounds])),
        ("the server's own first token, s", spread([r.server_first_token for r in rounds])),
        ("first word / (1.5 first token + 0.1 s) (goal: at most 1)", spread(ratios)),
        ("first token per step, s", spread(flat["step_first_token"])),
        ("first token of the last steps over that of the second (goal: 1.2)", spread(grown)),
        ("prompt tokens read for the first request", spread([r.read[0] for r in rounds], ".0f")),
        ("prompt tokens read for a later request", spread(later, ".0f")),
        ("tokens per step", spread(flat["step_tokens"], ".0f")),
        ("of them JSON scaffolding", spread(flat["scaffolding"], ".0f")),
        ("steps", spread([r.steps for r in rounds], ".0f")),
        ("retries", spread([r.retries for r in rounds], ".0f")),
        ("chain, tokens", spread([r.tokens for r in rounds], ".0f")),
        ("chain, tokens/s", spread([r.tokens / r.chain_seconds for r in rounds], ".1f")),
        ("chain, s", spread([r.chain_seconds for r in rounds], ".1f")),
        ("all chains together, s", f"{sum(r.chain_seconds for r in rounds):.0f}"),
        *tutorial_rows([r.tutorial for r in rounds if r.tutorial]),
    ]
    head = f"# The step loop on {model}\n\n    {command}\n\n{len(rounds)} chains; median "
    head += "(smallest to largest).\n\n| what | value |\n|---|---|\n"
    return head + "\n".join(f"| {name} | {value} |" for name, value in rows) + "\n"


def tutorial_rows(chains: Sequence[TutorialChain]) -> list[tuple[str, str]]:
    if not chains:
        return []
    repeated = [len(chain.steps) - len(set(chain.steps)) for chain in chains]
    return [
        ("tutorial: first step visible after, s", spread([it.first_visible for it in chains])),
        ("tutorial: s", spread([it.seconds for it in chains], ".1f")),
        ("tutorial: all together, s", f"{sum(it.seconds for it in chains):.0f}"),
        ("tutorial: tokens", spread([it.tokens for it in chains], ".0f")),
        ("tutorial: tokens/s", spread([it.tokens / it.seconds for it in chains], ".1f")),
        ("tutorial: steps", spread([len(it.steps) for it in chains], ".0f")),
        ("tutorial: steps that repeat an earlier one, word for word", spread(repeated, ".0f")),
        ("tutorial: replies that were no step", spread([it.failures for it in chains], ".0f")),
    ]


async def measure(
    rounds: int, way: str, settings: Settings, beside: bool, questions: Sequence[str]
) -> tuple[list[Round], str]:
    endpoint = Endpoint.from_environment()
    model = await endpoint.model()
    await warm(endpoint, "en")
    bench = Bench(endpoint, model, way, settings, beside)
    done = []
    for number in range(-1, rounds):
        question = questions[number % len(questions)]
        done.append(await bench.round(question))
        print(f"{number + 1}/{rounds} {question} {done[-1].efficiency:.2f}", file=sys.stderr)
    await endpoint.close()
    return done[1:], model.name


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--rounds", type=int, default=len(QUESTIONS) - 1)
    flags.add_argument("--question", help="in the place of ours")
    flags.add_argument("--way", default="", help="of thinking; else JSON steps")
    flags.add_argument("--min-steps", type=int, default=1)
    flags.add_argument("--max-steps", type=int, default=8)
    flags.add_argument("--no-tutorial", action="store_true", help="leave its loop out")
    flags.add_argument("--write", type=Path, help="the table there, its figures beside it")
    given = flags.parse_args()
    settings = Settings(min_steps=given.min_steps, max_steps=given.max_steps)
    questions = [given.question] if given.question else QUESTIONS
    measured = measure(given.rounds, given.way, settings, not given.no_tutorial, questions)
    rounds, model = asyncio.run(measured)
    command = shlex.join(["scripts/bench", "loop", *sys.argv[1:]])
    table = report(rounds, model, command)
    keep(table, rounds, given.write)


if __name__ == "__main__":
    main()
