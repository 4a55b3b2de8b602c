"""The gateway before the real model, asked by what others wrote: the openai client and curl."""

from __future__ import annotations

import json
import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import jsonschema
import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from tests.gateway_server import gateway
from tests.processes import ROOT, until
from tests.real_servers import Server, finished, running
from tests.reciter import ENDLESS
from tests.reciter_steps import SUM, SUM_SCHEMA

LONG = 300  # seconds; the model is small, the machine may be busy
ASKED: Any = {
    "messages": [{"role": "user", "content": SUM}],
    "reasoning_effort": "low",
    "temperature": 0,
    "max_tokens": 300,  # a step and its answer take at least 256
}


@pytest.fixture(scope="module")
def url(reciter: Server) -> Iterator[str]:
    """Where the model is led in steps, as a plain one is."""
    with ExitStack() as running_on:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("gateway.upstream.readable_ways", lambda: {reciter.model: "json_steps"})
            url = running_on.enter_context(gateway(reciter.base_url))
        yield url


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=LONG) as client:
        yield client


@pytest.fixture(scope="module")
def steps(reciter: Server) -> str:
    return f"{reciter.model}-steps"


@pytest.fixture(scope="module")
def reply(client: openai.OpenAI, steps: str) -> ChatCompletion:
    made: ChatCompletion = client.chat.completions.create(model=steps, **ASKED)
    return made


def strictly(model: Any, body: str | bytes) -> Any:
    return model.model_validate_json(body, strict=True)


def test_the_client_gets_an_answer_and_the_reasoning(reply: ChatCompletion) -> None:
    message = reply.choices[0].message
    assert message.content
    assert message.reasoning.startswith("### 1. ")  # type: ignore[attr-defined]
    assert reply.choices[0].finish_reason in ("stop", "length")
    strictly(ChatCompletion, reply.model_dump_json())


def test_usage_is_counted_by_the_server_and_within_the_bound(reply: ChatCompletion) -> None:
    usage = reply.usage
    assert usage
    assert 0 < usage.completion_tokens <= ASKED["max_tokens"]
    assert usage.completion_tokens_details
    assert 0 < (usage.completion_tokens_details.reasoning_tokens or 0) < usage.completion_tokens
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_every_chunk_of_a_stream_is_one_to_the_letter(client: openai.OpenAI, steps: str) -> None:
    with client.chat.completions.with_streaming_response.create(
        model=steps, stream=True, stream_options={"include_usage": True}, **ASKED
    ) as response:
        lines = [line for line in response.iter_lines() if line.startswith("data: ")]
    assert lines.pop() == "data: [DONE]"
    chunks = [strictly(ChatCompletionChunk, line.removeprefix("data: ")) for line in lines]
    deltas = [choice.delta for one in chunks for choice in one.choices]
    assert deltas[0].role == "assistant"
    assert "".join(delta.content or "" for delta in deltas).strip()
    assert any(getattr(delta, "reasoning", None) for delta in deltas)
    assert len(deltas) > 5  # how many are steps and how many answer is the model's to choose
    assert 0 < chunks[-1].usage.completion_tokens <= ASKED["max_tokens"]


async def test_the_asynchronous_client_streams(url: str, steps: str) -> None:
    """As clients in the manner of LiteLLM do: what they know of is reasoning_content alone."""
    said, thought = "", ""
    async with openai.AsyncOpenAI(base_url=url, api_key="none", timeout=LONG) as client:
        stream = await client.chat.completions.create(model=steps, stream=True, **ASKED)
        async for chunk in stream:
            for choice in chunk.choices:
                said += choice.delta.content or ""
                thought += getattr(choice.delta, "reasoning_content", None) or ""
    assert said.strip()
    assert re.match(r"### 1\. .+\n\n", thought)


def test_the_raw_response_can_be_had(client: openai.OpenAI, reciter: Server) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model=f"{reciter.model}-vote2", **{**ASKED, "max_tokens": 560}
    )
    assert raw.status_code == 200
    assert raw.headers["content-type"] == "application/json"
    reply = raw.parse()
    strictly(ChatCompletion, raw.text)
    first = reply.choices[0].remarks[0]["message"]
    assert re.match(r"Chain [12] of at most 2:", first)  # whichever came to its end first
    assert reply.choices[0].message.content


def test_the_models_can_be_listed(client: openai.OpenAI, reciter: Server) -> None:
    names = [model.id for model in client.models.list()]
    assert names[:3] == [reciter.model, f"{reciter.model}-steps", f"{reciter.model}-vote8"]
    assert client.models.retrieve(names[1]).owned_by == "stepwise"
    plain = client.models.retrieve(reciter.model)
    assert plain.max_model_len > 0  # type: ignore[attr-defined]


def test_the_answer_is_the_json_that_was_asked_for(client: openai.OpenAI, steps: str) -> None:
    form: Any = {"type": "json_schema", "json_schema": {"name": "sum", "schema": SUM_SCHEMA}}
    reply = client.chat.completions.create(model=steps, response_format=form, **ASKED)
    jsonschema.validate(json.loads(reply.choices[0].message.content or ""), SUM_SCHEMA)


def test_the_plain_name_is_the_server_itself(client: openai.OpenAI, reciter: Server) -> None:
    wish: Any = {"temperature": 0, "max_tokens": 12, "logprobs": True, "seed": 1}
    asked = {"model": reciter.model, "messages": ASKED["messages"], **wish}
    through = client.chat.completions.create(**asked)
    direct = openai.OpenAI(base_url=reciter.base_url, api_key="none").chat.completions.create(
        **asked
    )
    assert through.choices[0].message.content == direct.choices[0].message.content
    assert through.choices[0].logprobs
    text = client.completions.create(model=reciter.model, prompt="One, two,", max_tokens=4)
    assert text.choices[0].text


def test_an_error_is_the_clients_own_exception(client: openai.OpenAI, steps: str) -> None:
    with pytest.raises(openai.BadRequestError) as bad:
        client.chat.completions.create(model=steps, logprobs=True, **ASKED)
    assert (bad.value.code, bad.value.param) == ("unsupported_parameter", "logprobs")
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        client.chat.completions.create(model="nobody", **ASKED)
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model=steps, extra_body={"min_p": 0.1}, **ASKED)


# -- a client that goes away


@pytest.mark.alone
@pytest.mark.parametrize("name", ["{}-steps", "{}-vote3", "{}"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_stops_the_chain(reciter: Server, name: str, stream: bool) -> None:
    """In the model's own way, in which it would recite to the end of its context."""
    endless: Any = {"role": "user", "content": ENDLESS}
    body = {"model": name.format(reciter.model), "messages": [endless], "stream": stream}
    if name == "{}":
        body |= {"max_tokens": 900, "ignore_eos": True}
    with gateway(reciter.base_url) as url:
        until(lambda: running(reciter) == 0)
        before = finished(reciter)
        leave(url, body, lambda: running(reciter) > 0)
        until(lambda: running(reciter) == 0)
        assert finished(reciter) == before  # none of them came to its end


def leave(url: str, body: dict[str, Any], begun: Callable[[], bool]) -> None:
    """Asks, and goes away once the model writes."""
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port)) as connection:
        data = json.dumps(body)
        head = "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json"
        connection.sendall(f"{head}\r\nContent-Length: {len(data)}\r\n\r\n{data}".encode())
        until(begun)


# -- the documentation


def commands() -> list[str]:
    """The curl commands of docs/gateway.md."""
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / "gateway.md").read_text(), re.S)
    return [block for block in blocks if "curl" in block]


def test_the_commands_of_the_documentation_work(reciter: Server, url: str) -> None:
    assert commands()
    for command in commands():
        here = command.replace("http://127.0.0.1:8001/v1", url).replace("MODEL", reciter.model)
        here = here.replace("curl ", 'curl --noproxy "*" --fail-with-body -sS ')
        done = subprocess.run(["bash", "-euc", here], capture_output=True, text=True, timeout=LONG)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout
