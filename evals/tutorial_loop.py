"""The usual tutorial's step loop, re-told, to measure ours against.

As such loops are written: `json_object` instead of a schema, 300 tokens a step, no
streaming, the parsed reply re-serialised into the history, the same request again when
it fails, and no look at finish_reason. Only the cap and a budget of tokens are parameters.

`tutorial_calls` is the loop without a connection: a generator of calls that is sent the
replies. `tutorial_loop` drives it on openai's own client, greedy, as the tutorials do.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any

from evals.copies import copied
from reasoning.repeats import find_repeat

SYSTEM = """You are an expert AI assistant that explains your reasoning step by step. For each \
step give a title and the content, and decide if you need another step or are ready to give the \
final answer. Respond in JSON with 'title', 'content', and 'next_action' (either 'continue' or \
'final_answer') keys. Use as many reasoning steps as possible, at least 3.

Example:
{"title": "Identifying Key Information", "content": "To begin solving this problem, we need to \
carefully examine the given information...", "next_action": "continue"}"""
OPENING = "I will now think step by step, starting at the beginning."
ANSWER = "Please provide the final answer based on your reasoning above."
STEP_TOKENS, ANSWER_TOKENS = 300, 500
CAP = 25  # steps
ENDLESS = 10**9  # tokens

Complete = Callable[..., Any]  # openai's client.chat.completions.create, not streamed


@dataclass(frozen=True, slots=True)
class Call:
    """A reply to ask for: a JSON object of at most `max_tokens` tokens."""

    messages: tuple[dict[str, str], ...]
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Reply:
    """What came: its text, its tokens, and why it ended ("stop", "length")."""

    text: str
    tokens: int
    finish_reason: str | None = "stop"


@dataclass(slots=True)
class TutorialChain:
    """What came of one question.

    `unusable` are whole replies that were no step, `cut` those that ended at their tokens,
    `repeats` steps that say again what an earlier one said, `copied` those that say what
    the prompt says; the loop notices none of them.
    `capped` says that no step concluded: the cap or the budget ended the chain.
    """

    steps: list[str] = field(default_factory=list)
    answer: str = ""
    tokens: int = 0
    unusable: int = 0
    cut: int = 0
    repeats: int = 0
    copied: int = 0
    capped: bool = False
    first_visible: float = 0.0
    seconds: float = 0.0

    @property
    def failures(self) -> int:
        """Replies that were no usable step."""
        return self.unusable + self.cut


def tutorial_calls(
    question: str, cap: int = CAP, budget: int = ENDLESS
) -> Generator[Call, Reply, TutorialChain]:
    """Asks for step after step until one says final_answer, then for the answer.

    `budget` is in completion tokens, the answer's too: as long as a whole step and the
    answer fit into what is left of it, another step is asked for.
    """
    chain = TutorialChain()
    answer_tokens = min(ANSWER_TOKENS, budget // 4)
    step_tokens = min(STEP_TOKENS, budget - answer_tokens)
    messages = [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": question},
        {"role": "assistant", "content": OPENING},
    ]
    while not chain.capped:
        step = _read(chain, (yield Call(tuple(messages), step_tokens)))
        content = str(step.get("content"))
        chain.repeats += find_repeat(content, chain.steps) is not None
        chain.copied += copied(str(step.get("title")), content, (SYSTEM, OPENING), question)
        chain.steps.append(content)
        messages.append({"role": "assistant", "content": json.dumps(step)})
        if step.get("next_action") == "final_answer":
            break
        left = budget - chain.tokens - answer_tokens
        chain.capped = len(chain.steps) >= cap or left < step_tokens
    messages.append({"role": "user", "content": ANSWER})
    answer_tokens = min(ANSWER_TOKENS, budget - chain.tokens)
    answer = _read(chain, (yield Call(tuple(messages), answer_tokens)))
    chain.answer = str(answer.get("content"))
    return chain


def _read(chain: TutorialChain, reply: Reply) -> dict[str, Any]:
    """The reply as such loops read it: its JSON, else its text as a step of its own."""
    chain.tokens += reply.tokens
    try:
        values = json.loads(reply.text)
    except ValueError:
        values = None
    if isinstance(values, dict) and values.get("content"):
        return values
    chain.cut += reply.finish_reason == "length"
    chain.unusable += reply.finish_reason != "length"
    return {"title": "API Response", "content": reply.text, "next_action": "continue"}


def tutorial_loop(question: str, model: str, complete: Complete, cap: int = CAP) -> TutorialChain:
    """The loop on openai's client, with the times that its reader sees."""
    calls, began, first_visible = tutorial_calls(question, cap), time.monotonic(), 0.0
    call = next(calls)
    while True:
        reply = _complete(model, complete, call)
        first_visible = first_visible or time.monotonic() - began
        try:
            call = calls.send(reply)
        except StopIteration as end:
            chain: TutorialChain = end.value
            chain.first_visible, chain.seconds = first_visible, time.monotonic() - began
            return chain


def _complete(model: str, complete: Complete, call: Call) -> Reply:
    reply = complete(
        model=model,
        messages=list(call.messages),
        max_tokens=call.max_tokens,
        temperature=0.0,
        response_format={"type": "json_object"},
    )
    choice = reply.choices[0]
    text = choice.message.content or ""
    return Reply(text, reply.usage.completion_tokens, choice.finish_reason)
