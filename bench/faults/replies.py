"""Replies of any shape, in every way of thinking: no escape, no wrong final, the cap holds."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

from bench.faults.chains import BOUNDED, think_over
from bench.faults.generated import Writer, Written
from bench.faults.promise import Effort, Promise, Tally
from reasoning.endpoint import ServedModel
from reasoning.events import Settings, Step
from reasoning.think import WAYS
from tests.json_cases import json_cases
from tests.stub import step_text

Part = Callable[..., Coroutine[Any, Any, tuple[int, Tally]]]  # how many replies, and what held
MODELS = (
    ServedModel("going-on", 8192, vllm=True),
    ServedModel("elsewhere", 8192),
    ServedModel("untold"),
    ServedModel("tiny", 512, vllm=True),
)
BUDGETS = (None, None, 64, 300, 2000)
STEPS = (1, 3, 25, 25)  # at most, in a chain
BATCH = 500  # replies, of one seed
REAL = Path(__file__).with_name("real_replies.jsonl")
AFTER = "All in all it is 4711.}$$"  # what follows a reply that was cut
CASE_WAYS = ("json_steps", "cot", "direct")  # those that may meet JSON
NO_CAP = 99  # an endless chain must not be one in the bench, too


def keep(effort: Effort, tally: Tally) -> None:
    asyncio.run(_caps(tally))
    tally.tell("the cap is exact in " + " and ".join(BOUNDED))
    cases = asyncio.run(_json_cases(tally, CASE_WAYS[: effort.of(len(CASE_WAYS), 1)]))
    tally.tell(f"{cases} cases of JSONTestSuite")
    texts = real_replies()[: effort.of(1_000, 5)]
    what = f"beginnings of {len(texts)} real ones"
    _in_parts(_prefixes, [(text,) for text in texts], what, tally)
    each = effort.of(1_000_000, 20_000) // BATCH // len(WAYS)
    seeds = [(seed, way) for seed in range(each) for way in WAYS]
    _in_parts(_batch, seeds, "made up", tally)


def _in_parts(part: Part, given: list[tuple[Any, ...]], what: str, tally: Tally) -> None:
    """Each part in a process of its own, as many at once as there are cores.

    What is told at the end, or at Ctrl-C, is how many replies were asked for.
    """
    replies, cores = 0, len(os.sched_getaffinity(0))
    pool = ProcessPoolExecutor(cores, initializer=_ignore_ctrl_c)
    try:
        for asked, found in pool.map(_run_part, [part] * len(given), given):
            replies += asked
            tally.add(found)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        tally.tell(f"{replies:,} replies: {what}")


def _ignore_ctrl_c() -> None:
    """Who started it hears it, and has the part that is under way."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _run_part(part: Part, given: tuple[Any, ...]) -> tuple[int, Tally]:
    return asyncio.run(part(*given))


# -- made up


async def _batch(seed: int, way: str) -> tuple[int, Tally]:
    """Chains of one seed, until they have asked for as many replies as a batch has."""
    random, tally, replies, number = Random(f"{seed} {way}"), Tally(), 0, 0
    writer = Writer(random, way, tuple(json_cases().values()))
    while replies < BATCH:
        written, model = writer.replies(), random.choice(MODELS)
        settings = Settings(budget=random.choice(BUDGETS), max_steps=random.choice(STEPS))
        asked, _, problems = await think_over(written, way, model, settings)
        number, replies = number + 1, replies + asked + 1  # one that asks for none ends, too
        tally.note(f"{way}, seed {seed}, chain {number}", problems)
    return replies, tally


# -- JSONTestSuite's cases


async def _json_cases(tally: Tally, ways: Sequence[str]) -> int:
    """Each as a reply and inside of one, whole and cut."""
    cases = json_cases()
    for name, case in cases.items():
        for text in _around(case[:200_000]):
            for way in ways:
                for reason in ("stop", "length"):
                    await _case(f"{way}, {name}, {reason}", text, way, reason, tally)
    return len(cases)


def _around(case: str) -> Iterator[str]:
    yield case
    yield f"```json\n{case}\n```"
    yield f'{{"title": "T", "content": {case}, "next_action": "continue"}}'


async def _case(name: str, text: str, way: str, reason: str, tally: Tally) -> None:
    written = (Written(text, reason), Written(AFTER))
    _, events, problems = await think_over(written, way, MODELS[0], Settings())
    final = [e for e in events if isinstance(e, Step) and e.action == "final_answer" and not e.cut]
    if way == "json_steps" and final:
        problems = f"{problems} final, though it never says so".strip()
    tally.note(name, problems)


# -- real replies, cut at every character


def real_replies() -> list[str]:
    """What real models wrote, one a line, each as JSON."""
    return [json.loads(line) for line in REAL.read_text(encoding="utf-8").splitlines()]


async def _prefixes(text: str) -> tuple[int, Tally]:
    """No beginning of a reply is told as the whole of it."""
    tally, replies = Tally(), 0
    for end in range(len(text) + 1):
        for way in WAYS:
            for reason in ("length", "stop"):
                written = (Written(text[:end], reason), Written(AFTER))
                asked, _, problems = await think_over(written, way, MODELS[end % 2], Settings())
                replies += asked
                tally.note(f"{way}, {end} characters of {text[:30]!r}, {reason}", problems)
    return replies, tally


# -- the cap


async def _caps(tally: Tally) -> None:
    """A model that never concludes has exactly as many steps as it may."""
    for most in (1, 2, 24, 25, 40):
        for way in BOUNDED:
            written = [Written(_endless(way, number)) for number in range(NO_CAP)]
            asked, events, problems = await think_over(
                written, way, MODELS[0], Settings(max_steps=most)
            )
            steps = sum(isinstance(event, Step) for event in events)
            if steps != most or (way == "json_steps" and asked != most + 1):
                problems = f"{problems} {steps} steps in {asked} requests, {most} allowed".strip()
            tally.note(f"{way}, {most} steps", problems)


def _endless(way: str, number: int) -> str:
    work = f"Work number {number} makes {number * 7} in all, and more is left."
    if way == "json_steps":
        return step_text(f"Part {number}", work)
    parts = (f"### Part {number}.{n}\n\n{work} {n * 31} of it." for n in range(NO_CAP))
    return "\n\n".join(parts)


PROMISE = Promise(
    "whatever a model writes, a chain ends in an answer or a failure, is never told as done when "
    "it was cut, and has no more steps than it may",
    keep,
)
