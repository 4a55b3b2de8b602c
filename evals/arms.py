"""The arms: what is done with a question, by name. Same model, temperature and budget for all.

An arm is a function from a question to an Outcome. None has a loop of its own: ours are
`reasoning.think`, the tutorial's is evals/tutorial_loop.py.
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace

from evals.outcomes import NotAsked, Outcome, join_outcomes, of_reply, of_trace, of_tutorial
from evals.tutorial_loop import Call, Reply, TutorialChain, tutorial_calls
from reasoning.endpoint import Endpoint, Request, ServedModel
from reasoning.errors import StepwiseError
from reasoning.events import Settings, Trace
from reasoning.inquiry import Inquiry
from reasoning.self_consistency import draw_chains
from reasoning.think import WAYS, think, vary_settings
from reasoning.voting import count_votes, vote_of


@dataclass(frozen=True, slots=True)
class Bounds:
    """What is the same for all arms. `budget` is in completion tokens per question."""

    temperature: float
    budget: int
    seed: int


@dataclass(frozen=True, slots=True)
class EvalServer:
    """The served model, and the gateway before it where there is one (its URL ends in /v1)."""

    endpoint: Endpoint
    model: ServedModel
    gateway: str = ""


GATEWAY_RETRIES = 2  # it has tried again by itself, and inspect would do so for ever

Ask = Callable[[str, EvalServer, Bounds], Awaitable[Outcome]]


@dataclass(frozen=True, slots=True)
class Arm:
    """`needs` is the model's own way of thinking that the arm is for; "" is for any model."""

    name: str
    what: str
    ask: Ask
    needs: str = ""


# -- ours


def one_chain(way: str, words: str = "", one_reply: bool = False) -> Ask:
    """A chain of that way, asked the question and then `words`.

    The whole budget is the answer's where the way is a single reply.
    """

    async def ask(question: str, server: EvalServer, bounds: Bounds) -> Outcome:
        settings = settings_of(bounds)
        if one_reply:
            settings = replace(settings, answer_tokens=bounds.budget)
        return await chain(f"{question}{words}", server, way, settings)

    return ask


def vote(most: int, way: str = "json_steps") -> Ask:
    """The majority of at most so many chains of that way, each with its share of the budget.

    Chains that are to differ are warm: at least at the temperature that the page votes at.
    """

    async def ask(question: str, server: EvalServer, bounds: Bounds) -> Outcome:
        share = replace(settings_of(bounds), budget=max(1, bounds.budget // most))
        several, began = vary_settings(share, most), time.monotonic()
        ended = await draw_chains(
            lambda number: chain(question, server, way, several[number]),
            lambda one: vote_of(one.content, one.tokens),
            most,
        )
        outcomes = [ended[number] for number in sorted(ended)]
        ballots = count_votes([one.content for one in outcomes], [one.tokens for one in outcomes])
        chosen = outcomes[ballots[0].members[0] if ballots else 0].content
        return join_outcomes(chosen, outcomes, time.monotonic() - began)

    return ask


def settings_of(bounds: Bounds) -> Settings:
    """Without a deadline: on a busy CPU a step may take an hour, and nobody waits for it."""
    return Settings(
        temperature=bounds.temperature,
        budget=bounds.budget,
        seed=bounds.seed,
        step_seconds=0,
        chain_seconds=0,
    )


async def chain(question: str, server: EvalServer, way: str, settings: Settings) -> Outcome:
    began, events = time.monotonic(), []
    inquiry = Inquiry(question, way, settings, "en")
    thinking = think(inquiry, endpoint=server.endpoint, model=server.model)
    async with aclosing(thinking) as stream:
        async for event in stream:
            events.append(event)
    return of_trace(Trace(tuple(events)), time.monotonic() - began)


# -- others'


async def tutorial(question: str, server: EvalServer, bounds: Bounds) -> Outcome:
    """The tutorial's loop, with the temperature and the budget that all arms have."""
    began, calls = time.monotonic(), tutorial_calls(question, budget=bounds.budget)
    call = next(calls)
    while True:
        reply = await _complete(call, server, bounds)
        try:
            call = calls.send(reply)
        except StopIteration as end:
            told: TutorialChain = end.value
            return of_tutorial(told, time.monotonic() - began)


async def _complete(call: Call, server: EvalServer, bounds: Bounds) -> Reply:
    # As of any server: the tutorial's loop knows nothing of what only vLLM takes.
    model = replace(server.model, vllm=False)
    request = Request(
        model,
        call.messages,
        call.max_tokens,
        bounds.temperature,
        bounds.seed,
        format="json_object",
    )
    text, tokens, finish_reason = "", 0, None
    try:
        async with aclosing(server.endpoint.chat(request)) as pieces:
            async for piece in pieces:
                text += piece.text
                tokens = piece.completion_tokens or tokens
                finish_reason = piece.finish_reason or finish_reason
    except StepwiseError as error:
        raise NotAsked(str(error)) from None
    return Reply(text, tokens, finish_reason)


async def through_gateway(question: str, server: EvalServer, bounds: Bounds) -> Outcome:
    """JSON steps by the gateway, which inspect asks as it asks any OpenAI-compatible model."""
    # inspect takes seconds to import, and --list needs none of it
    from inspect_ai.model import GenerateConfig, get_model

    config = GenerateConfig(
        temperature=bounds.temperature,
        max_tokens=bounds.budget,
        seed=bounds.seed,
        max_retries=GATEWAY_RETRIES,
    )
    model = get_model(
        f"openai-api/stepwise/{server.model.name}-steps",
        base_url=server.gateway,
        api_key=server.endpoint.api_key or "none",
        config=config,
    )
    began = time.monotonic()
    output = await model.generate(question)
    tokens = output.usage.output_tokens if output.usage else 0
    cut = output.stop_reason == "max_tokens"
    return of_reply(output.completion, tokens, time.monotonic() - began, cut)


# -- the table

# Kojima et al. 2022 (arXiv 2205.11916), as a request instead of the reply's beginning
STEP_BY_STEP = "\n\nThink step by step, then give the answer."

ARMS = {
    arm.name: arm
    for arm in (
        Arm("direct", "the plain answer", one_chain("direct", one_reply=True)),
        Arm(
            "cot",
            '"think step by step", in one reply',
            one_chain("direct", STEP_BY_STEP, one_reply=True),
        ),
        Arm("tutorial", "the tutorial's loop", tutorial),
        Arm("json_steps", "steps as JSON, a request each", one_chain("json_steps")),
        Arm("cot_steps", "a chain of thought, cut into steps", one_chain("cot")),
        Arm("coat", "Satori's own actions", one_chain("coat"), needs="coat"),
        Arm("native", "its own reasoning", one_chain("native", one_reply=True), needs="native"),
        Arm("gateway", "NAME-steps of the gateway (--gateway URL)", through_gateway),
    )
}
VOTES = "vote5"  # and not 8: the usual budget of a question, in shares, is too little for those
_VOTE = re.compile(rf"vote([2-9]|[1-9]\d)(?:_({'|'.join(WAYS)}))?")


def arm_named(name: str) -> Arm:
    """The arm; voteN_WAY is a vote of at most N chains. Raises ValueError, in one line."""
    if match := _VOTE.fullmatch(name):
        way = match[2] or "json_steps"
        what = f"the majority of at most {match[1]} chains of {way}"
        return Arm(name, what, vote(int(match[1]), way), ARMS[way].needs if way in ARMS else "")
    if name not in ARMS:
        known = ", ".join([*ARMS, VOTES])
        raise ValueError(
            f"There is no arm called {name}. There are: {known} (or any voteN, voteN_WAY)."
        )
    return ARMS[name]
