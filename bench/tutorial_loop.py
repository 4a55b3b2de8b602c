"""The usual tutorial's step loop, re-told, to measure ours against.

As such loops are written: `json_object` instead of a schema, 300 tokens a step, no
streaming, greedy, the parsed reply re-serialised into the history, the same request
again when it fails, and no look at finish_reason. Only the cap is a parameter.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

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

Complete = Callable[..., Any]  # openai's client.chat.completions.create, not streamed


@dataclass(slots=True)
class Chain:
    """What came of one question. `failures` are replies that were no usable step."""

    steps: list[str] = field(default_factory=list)
    answer: str = ""
    tokens: int = 0
    failures: int = 0
    first_visible: float = 0.0
    seconds: float = 0.0


def tutorial_loop(question: str, model: str, complete: Complete, cap: int = 25) -> Chain:
    """Asks for step after step until one says final_answer, then for the answer."""
    chain, began = Chain(), time.monotonic()
    messages = [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": question},
        {"role": "assistant", "content": OPENING},
    ]
    while True:
        step = _call(chain, model, complete, messages, STEP_TOKENS)
        chain.first_visible = chain.first_visible or time.monotonic() - began
        chain.steps.append(str(step.get("content")))
        messages.append({"role": "assistant", "content": json.dumps(step)})
        if step.get("next_action") == "final_answer" or len(chain.steps) >= cap:
            break
    messages.append({"role": "user", "content": ANSWER})
    answer = _call(chain, model, complete, messages, ANSWER_TOKENS)
    chain.answer, chain.seconds = str(answer.get("content")), time.monotonic() - began
    return chain


def _call(
    chain: Chain, model: str, complete: Complete, messages: list[Any], tokens: int
) -> dict[str, Any]:
    reply = complete(
        model=model,
        messages=messages,
        max_tokens=tokens,
        temperature=0.0,
        response_format={"type": "json_object"},
    )
    chain.tokens += reply.usage.completion_tokens
    text = reply.choices[0].message.content or ""
    try:
        values = json.loads(text)
    except ValueError:
        values = None
    if isinstance(values, dict) and values.get("content"):
        return values
    chain.failures += 1
    return {"title": "API Response", "content": text, "next_action": "continue"}
