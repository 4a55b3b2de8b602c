"""The routes, the chain and the stop on a real vLLM; what its model says is known."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import openai
import pytest

from reasoning.endpoint import Endpoint, Request
from reasoning.errors import FormatRefused, TooLong, UnknownModel
from reasoning.events import Answer, Delta, Event, Failed, Notice, Settings, Started, Step, Trace
from reasoning.inquiry import Inquiry
from reasoning.json_steps import DECIDE
from reasoning.parsing import Reply, parse_reply
from reasoning.prompts import default_title, prompt
from reasoning.think import think
from tests.real_servers import Server, finished, running
from tests.reciter import HALF, HALF_SAYS, NAME, PART, satori_prompt
from tests.reciter_steps import SUM, SUM_STEPS, by_schema, said

SHORT = Settings(min_steps=2, max_steps=2, step_tokens=80, answer_tokens=40, attempts=2)


@pytest.fixture
async def endpoint(reciter: Server) -> AsyncIterator[Endpoint]:
    endpoint = Endpoint(reciter.base_url)
    yield endpoint
    await endpoint.close()


def post(url: str, body: dict[str, object]) -> str:
    """What curl -d would print."""
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=120) as response:
        return str(response.read().decode())


MESSAGES = [{"role": "user", "content": prompt("en", "step", question=SUM)}]
PLAINLY = {"chat_template_kwargs": {"enable_thinking": False}}
STEP = said(SUM_STEPS)[0]
FIRST = Step(1, *SUM_STEPS[0], "continue", 1.0, 20, raw=STEP)


# -- the routes, as curl and as the openai client see them


def test_models_are_listed(reciter: Server) -> None:
    assert reciter.model == NAME


def test_a_prompt_with_a_seed_is_read_in_parts(reciter: Server) -> None:
    """One of them ended vLLM's own server."""
    asked = {"prompt": " ".join([SUM] * 100), "max_tokens": 8, "temperature": 1, "seed": 1}
    body = {"model": reciter.model, "ignore_eos": True, **asked}
    answers = [json.loads(post(f"{reciter.base_url}/completions", body)) for _ in range(2)]
    assert answers[0]["usage"]["prompt_tokens"] > PART
    assert answers[0]["choices"][0]["text"] == answers[1]["choices"][0]["text"]


def test_a_completion_is_answered(reciter: Server) -> None:
    body = {"model": reciter.model, "prompt": satori_prompt(HALF), "max_tokens": 20}
    answer = json.loads(post(f"{reciter.base_url}/completions", {**body, "temperature": 0}))
    text = answer["choices"][0]["text"]
    assert len(text) > 20
    assert HALF_SAYS.removeprefix("<|continue|>").startswith(text)


def test_a_chat_completion_is_answered(reciter: Server) -> None:
    body = {"model": reciter.model, "messages": MESSAGES, "max_tokens": 99, "temperature": 0}
    body |= PLAINLY
    answer = json.loads(post(f"{reciter.base_url}/chat/completions", body))
    assert answer["choices"][0]["message"]["content"] == STEP


def test_a_chat_completion_is_streamed(reciter: Server) -> None:
    body = {"model": reciter.model, "messages": MESSAGES, "max_tokens": 99, "stream": True}
    lines = post(f"{reciter.base_url}/chat/completions", {**body, "temperature": 0}).split("\n\n")
    chunks = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    text = "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks if c["choices"])
    assert text == STEP
    assert len(chunks) > 5
    assert "data: [DONE]" in lines


def test_a_chat_completion_keeps_to_a_json_schema(reciter: Server) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "step", "schema": DECIDE}}
    body = {"model": reciter.model, "messages": MESSAGES, "max_tokens": 100, **PLAINLY}
    answer = json.loads(
        post(f"{reciter.base_url}/chat/completions", {**body, "response_format": wanted})
    )
    choice = answer["choices"][0]
    assert choice["finish_reason"] == "stop"
    assert set(json.loads(choice["message"]["content"])) == {"title", "content", "next_action"}


def test_the_openai_client_is_answered_on_every_route(reciter: Server) -> None:
    client = openai.OpenAI(base_url=reciter.base_url, api_key="none")
    assert [model.id for model in client.models.list()] == [reciter.model]
    text = client.completions.create(model=reciter.model, prompt="One, two,", max_tokens=4)
    assert text.choices[0].text
    asked: Any = {"messages": MESSAGES, "max_tokens": 8, "extra_body": PLAINLY}
    chat = client.chat.completions.create(model=reciter.model, **asked)
    assert chat.choices[0].message.content
    assert chat.usage is not None
    assert chat.usage.completion_tokens == 8


# -- a chain


async def collect(endpoint: Endpoint, question: str, **more: object) -> list[Event]:
    model = await endpoint.model()
    inquiry = Inquiry(question, **more)  # type: ignore[arg-type]
    async with aclosing(think(inquiry, endpoint=endpoint, model=model)) as events:
        return [event async for event in events]


async def test_a_whole_chain_has_all_its_events_in_order(endpoint: Endpoint) -> None:
    events = await collect(endpoint, SUM, settings=SHORT)
    trace = Trace(tuple(events))
    assert isinstance(events[0], Started)
    assert isinstance(events[-1], Answer)
    assert [step.number for step in trace.steps] == list(range(1, len(trace.steps) + 1))
    assert 1 <= len(trace.steps) <= SHORT.max_steps
    for step in trace.steps:
        before = events[: events.index(step)]
        assert any(isinstance(e, Delta) and e.number == step.number for e in before)
        assert step.tokens > 0
        assert step.seconds > (step.first_token or 0) > 0
        if not step.cut:
            assert isinstance(parse_reply(step.raw), Reply)
    spent = (Step, Notice, Answer)
    assert trace.tokens == sum(event.tokens for event in events if isinstance(event, spent))


async def test_what_is_streamed_of_a_step_is_the_step(endpoint: Endpoint) -> None:
    events = await collect(endpoint, SUM, settings=SHORT)
    for step in Trace(tuple(events)).steps:
        if step.attempts == 1 and not step.cut:
            mine = [e for e in events if isinstance(e, Delta) and e.number == step.number]
            title = "".join(d.text for d in mine if d.part == "title")
            assert (title or default_title("en", step.number)) == step.title
            assert "".join(d.text for d in mine if d.part == "content") == step.content


async def test_a_question_without_an_end_is_ended_at_the_cap(endpoint: Endpoint) -> None:
    settings = Settings(min_steps=4, max_steps=4, step_tokens=80, answer_tokens=20)
    events = await collect(endpoint, SUM, settings=settings)
    steps = Trace(tuple(events)).steps
    assert [step.action for step in steps] == ["continue"] * 3 + ["final_answer"]
    assert isinstance(events[-1], Answer)


async def test_the_context_is_never_overrun(endpoint: Endpoint) -> None:
    """A long question in a context of 1,024 tokens: fewer steps, but no refused request.

    The model knows no answer to it; a schema has it give one.
    """
    form = by_schema()
    events = await collect(endpoint, " ".join([SUM] * 100), settings=SHORT, answer_form=form)
    assert not any(isinstance(event, Failed) for event in events)


# -- stopping


@pytest.mark.alone
@pytest.mark.parametrize("how", ["close", "cancel"])
async def test_a_stop_ends_the_work_on_the_server(
    reciter: Server, endpoint: Endpoint, how: str
) -> None:
    model, before = await endpoint.model(), finished(reciter)
    seen = asyncio.Event()

    async def follow() -> None:
        story = Inquiry("Tell a story.")
        async with aclosing(think(story, endpoint=endpoint, model=model)) as events:
            async for event in events:
                if isinstance(event, Delta):
                    seen.set()
                    if how == "close":
                        return

    task = asyncio.create_task(follow())
    await asyncio.wait_for(seen.wait(), 60)
    if how == "cancel":
        assert running(reciter) == 1
        task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    for _ in range(50):
        if running(reciter) == 0:
            assert finished(reciter) == before  # it was broken off, and did not come to its end
            return
        await asyncio.sleep(0.1)
    pytest.fail(f"the server still works on {running(reciter)} requests")


# -- the fallback ladder, and refusals


class Refusing(Endpoint):
    """The real server behind a proxy that knows no json_schema, or no response_format."""

    refused: tuple[str, ...] = ()

    def chat(self, request: Request):  # type: ignore[no-untyped-def]
        if request.format in self.refused:
            raise FormatRefused(f"{request.format} is not known", "")
        return super().chat(request)


@pytest.mark.parametrize(
    ("refused", "format"),
    [(("json_schema",), "json_object"), (("json_schema", "json_object"), "text")],
)
async def test_each_rung_of_the_ladder_leads_to_an_answer(
    reciter: Server, refused: tuple[str, ...], format: str
) -> None:
    endpoint = Refusing(reciter.base_url)
    endpoint.refused = refused
    events = await collect(endpoint, SUM, settings=SHORT, steps=[FIRST])
    await endpoint.close()
    assert isinstance(events[-1], Answer)
    assert endpoint.capabilities.format == format


async def test_a_schema_that_the_server_refuses_is_a_refused_format(endpoint: Endpoint) -> None:
    model = await endpoint.model()
    bad = {"type": "no such type"}
    turns = ({"role": "user", "content": "Hi"},)
    with pytest.raises(FormatRefused):
        async for _ in endpoint.chat(Request(model, turns, 5, format="json_schema", schema=bad)):
            pass


async def test_a_prompt_beyond_the_context_is_too_long(endpoint: Endpoint) -> None:
    model = await endpoint.model()
    turns = ({"role": "user", "content": "word " * 9000},)
    with pytest.raises(TooLong, match="--max-model-len"):
        async for _ in endpoint.chat(Request(model, turns, 5)):
            pass


async def test_another_models_name_is_unknown(reciter: Server) -> None:
    endpoint = Endpoint(reciter.base_url, model="gpt-5")
    with pytest.raises(UnknownModel, match=reciter.model):
        await endpoint.model()
    await endpoint.close()


async def test_special_tokens_are_told_by_the_tokenizer(endpoint: Endpoint) -> None:
    """It knows Satori's <|explore|> and <|im_end|>; Llama's end of turn it reads as text."""
    await endpoint.model()
    candidates = {"<|im_end|>", "<|explore|>", "<|eot_id|>", "<div>"}
    assert await endpoint.special_tokens(candidates) == {"<|im_end|>", "<|explore|>"}
