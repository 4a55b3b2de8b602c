r"""What it costs to cut a stream into steps, and how soon a step's first word is seen.

    scripts/bench ways [--rounds 20] [--write FILE]

Serves the tiny model of tests/reciter.py by ./serve.sh, unless OPENAI_BASE_URL names a
server of it. Printed: medians, with the smallest and the largest.

* splitter: MB/s of a long Satori transcript (and a long thought) in pieces of 4
  characters, as a server sends them, and its seconds beside those the server took to
  write as much text
* first word: from the question to the first letter of a step, against the server's own
  time to first token for that request (its /metrics)
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, aclosing
from dataclasses import dataclass
from pathlib import Path

import httpx2

from bench.loop import spread
from bench.record import keep
from reasoning.endpoint import Endpoint, Request, ServedModel
from reasoning.events import Delta
from reasoning.inquiry import Inquiry
from reasoning.splitting import CoatSplitter, Splitter, TokenSplitter, TurnSplitter
from reasoning.think import think
from tests import reciter
from tests.reciter import reciting

PIECE = 4  # characters; about a token
SIZE = 400_000  # characters; a hundred thousand tokens
LONG_STEP = 20_000  # characters of one step with no turn in it


def without_end(transcript: str) -> str:
    return re.sub(r"<\|(?:im_end|endoftext)\|>", "", transcript)


def of_size(text: str) -> str:
    return text * (SIZE // len(text))


TEXTS: dict[str, tuple[Callable[[], Splitter], str]] = {
    "TokenSplitter, Satori's steps": (TokenSplitter, of_size(without_end(reciter.AYA_SAYS))),
    "TurnSplitter, a thought in steps": (TurnSplitter, of_size(reciter.BERRY_THINKS + "\n\n")),
    "TurnSplitter, one step of 20 kB": (TurnSplitter, "word after word " * (LONG_STEP // 16)),
    "CoatSplitter, tokens hidden": (CoatSplitter, of_size(reciter.BERRY_THINKS + "\n\n")),
}


@dataclass(frozen=True, slots=True)
class Split:
    """One splitter's seconds over one text."""

    megabytes: float
    seconds: float


def split(new: Callable[[], Splitter], text: str) -> Split:
    splitter = new()
    began = time.perf_counter()
    for at in range(0, len(text), PIECE):
        splitter.feed(text[at : at + PIECE])
    splitter.end()
    return Split(len(text.encode()) / 1e6, time.perf_counter() - began)


@dataclass(frozen=True, slots=True)
class First:
    """Seconds to the first word of a step: ours, and the server's to its first token."""

    word: float
    token: float


async def first(endpoint: Endpoint, model: ServedModel, root: str, question: str) -> First:
    before, began, word = first_tokens(root), time.monotonic(), 0.0
    thinking = think(Inquiry(question, "coat"), endpoint=endpoint, model=model)
    async with aclosing(thinking) as events:
        async for event in events:
            if isinstance(event, Delta) and event.part == "content" and not word:
                word = time.monotonic() - began
    return First(word, first_tokens(root) - before)


def first_tokens(root: str) -> float:
    """Seconds that all requests so far waited for their first token, by the server's count."""
    text = httpx2.get(f"{root}/metrics").text
    sums = re.findall(r"^vllm:time_to_first_token_seconds_sum\{.*\} (\S+)", text, re.M)
    return sum(map(float, sums))


async def writing(endpoint: Endpoint, model: ServedModel) -> float:
    """Seconds that the server takes for a megabyte of text."""
    prompt = reciter.satori_prompt(reciter.ENDLESS)
    request = Request(model, (), 900, prompt=prompt, special_tokens=True)
    began, size = time.monotonic(), 0
    async with aclosing(endpoint.chat(request)) as pieces:
        async for piece in pieces:
            size += len(piece.text.encode())
    return (time.monotonic() - began) / (size / 1e6)


async def measure(base_url: str, rounds: int) -> tuple[list[First], list[float]]:
    endpoint = Endpoint(base_url)
    model, root = await endpoint.model(), base_url.removesuffix("/v1")
    questions = (reciter.AYA, reciter.HALF)
    for question in questions:  # so that no prompt is new and no connection is opened
        await first(endpoint, model, root, question)
    firsts = [await first(endpoint, model, root, questions[n % 2]) for n in range(rounds)]
    written = [await writing(endpoint, model) for _ in range(3)]
    await endpoint.close()
    return firsts, written


def report(splits: dict[str, list[Split]], firsts: Sequence[First], written: list[float]) -> str:
    a_megabyte = statistics.median(written)
    rows = [("the tiny model on this server, s/MB of text", spread(written, ".1f"))]
    for name, runs in splits.items():
        rows.append((f"{name}: MB/s", spread([run.megabytes / run.seconds for run in runs], ".1f")))
        shares = [run.seconds / run.megabytes / a_megabyte for run in runs]
        rows.append((f"{name}: share of the time the server writes", spread(shares, ".3%")))
    ratios = [f.word / (1.5 * f.token + 0.1) for f in firsts]
    rows += [
        ("COAT: first word after the question, s", spread([f.word for f in firsts], ".3f")),
        ("COAT: the server's own first token, s", spread([f.token for f in firsts], ".3f")),
        ("COAT: first word / (1.5 first token + 0.1 s) (goal: at most 1)", spread(ratios)),
        ("COAT: between the two, s", spread([f.word - f.token for f in firsts], ".3f")),
    ]
    head = f"# Ways of thinking\n\n    scripts/bench ways --rounds {len(firsts)}\n\nMedian "
    head += "(smallest to largest), a text in pieces of 4 characters.\n\n"
    head += "| what | value |\n|---|---|\n"
    return head + "\n".join(f"| {name} | {value} |" for name, value in rows) + "\n"


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--rounds", type=int, default=20)
    flags.add_argument("--write", type=Path, help="the table there, its figures beside it")
    given = flags.parse_args()
    splits = {name: [split(*how) for _ in range(5)] for name, how in TEXTS.items()}
    with ExitStack() as stack:
        base_url = os.environ.get("OPENAI_BASE_URL")
        if not base_url:
            base_url = stack.enter_context(reciting()).base_url
        firsts, written = asyncio.run(measure(base_url, given.rounds))
    found = {"splits": splits, "firsts": firsts, "written": written}
    keep(report(splits, firsts, written), found, given.write)


if __name__ == "__main__":
    main()
