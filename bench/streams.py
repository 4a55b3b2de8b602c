"""Replies timed as they stream: tokens a second of one and of several, and a prompt's.

Prompts are random token ids, so that their length is exact and no server has met them.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

import openai

IDS = range(1000, 30_000)  # in the vocabulary of every bundled model, and no special tokens
SHORT = 16  # tokens of a prompt that takes no time worth counting
MORE = 10  # tokens behind a prefix that is cached


@dataclass(frozen=True, slots=True)
class Timed:
    """One reply: when it was asked for, its first and last token, on one clock, and how many."""

    asked: float
    first: float
    last: float
    tokens: int

    @property
    def wait(self) -> float:
        """Seconds to the first token."""
        return self.first - self.asked


def rate(replies: Sequence[Timed]) -> float:
    """Tokens/s of them together, once the first of them writes."""
    seconds = max(reply.last for reply in replies) - min(reply.first for reply in replies)
    return (sum(reply.tokens for reply in replies) - len(replies)) / seconds


def new_prompt(length: int) -> list[int]:
    return random.choices(IDS, k=length)


@dataclass(frozen=True, slots=True)
class Client:
    """A server that is measured. `tokens` are written in each reply."""

    openai: openai.AsyncOpenAI
    model: str
    tokens: int
    temperature: float = 0.0  # to draw a token costs more than to take the likeliest

    async def reply(self, prompt: list[int], tokens: int) -> Timed:
        asked, first, written = time.perf_counter(), 0.0, 0
        stream = await self.openai.completions.create(
            model=self.model,
            prompt=prompt,
            max_tokens=tokens,
            temperature=self.temperature,
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"ignore_eos": True},
        )
        last = asked
        async for chunk in stream:
            if chunk.choices:
                last = time.perf_counter()
                first = first or last
            written = chunk.usage.completion_tokens if chunk.usage else written
        return Timed(asked, first, last, written)

    async def writing(self, streams: int) -> float:
        """Tokens/s of so many replies at once."""
        prompts = [new_prompt(SHORT) for _ in range(streams)]
        replies = [self.reply(prompt, self.tokens) for prompt in prompts]
        return rate(await asyncio.gather(*replies))

    async def time_prompt(self, length: int) -> tuple[float, float]:
        """Tokens/s of a new prompt; seconds to the first token of one that goes on from it."""
        prompt = new_prompt(length)
        fresh = await self.reply(prompt, 1)
        cached = await self.reply(prompt + new_prompt(MORE), 1)
        return length / fresh.wait, cached.wait
