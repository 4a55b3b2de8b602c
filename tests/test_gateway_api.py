"""The gateway over HTTP, in front of a server that does what a script says."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import jsonschema
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from openai._streaming import SSEDecoder
from openai.types import ErrorObject, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from gateway.observers import Chain, ChainObserver
from reasoning.events import Answer, Event, Failed, Started, Stopped
from reasoning.think import MAX_QUESTION
from tests.examples import examples
from tests.gateway_server import asks_for_a_step, events_of, gateway, thinker
from tests.processes import ROOT, free_port, until
from tests.stub import EVENTS, NEVER, Play, Stub, chunk, head, raw, says, status, step, usage

ASKED = {"model": "stub-steps", "messages": [{"role": "user", "content": "What is 6 times 7?"}]}
STEPS = [step("A", "First."), step("B", "Second."), step("C", "Third.", "final_answer")]
PROBE = says("2")  # what a model that is in no catalogue is asked first
LONG = 60  # seconds for what takes none


@contextmanager
def client(stub: Stub, **options: Any) -> Iterator[httpx2.Client]:
    with (
        gateway(stub.base_url, **options) as url,
        httpx2.Client(base_url=url, timeout=LONG, trust_env=False) as client,
    ):
        yield client


@contextmanager
def scripted(*script: Any, **options: Any) -> Iterator[tuple[httpx2.Client, Stub]]:
    with Stub(*script) as stub, client(stub, **options) as http:
        yield http, stub


@pytest.fixture(scope="module")
def thinking() -> Iterator[httpx2.Client]:
    """A gateway before a model that thinks three steps and says 42."""
    with scripted(thinker) as (http, _):
        yield http


def ask(http: httpx2.Client, **more: Any) -> httpx2.Response:
    return http.post("/chat/completions", json={**ASKED, **more})


def completion(response: httpx2.Response) -> dict[str, Any]:
    """The body, which is a chat.completion to the letter."""
    assert response.status_code == 200, response.text
    ChatCompletion.model_validate_json(response.content, strict=True)
    body: dict[str, Any] = response.json()
    return body


def chunks(response: httpx2.Response) -> list[dict[str, Any]]:
    """The chunks of a whole stream, each of them a chat.completion.chunk to the letter."""
    assert response.headers["content-type"].startswith("text/event-stream")
    *made, last = events_of(response.text)
    assert last == "[DONE]"
    for one in made:
        ChatCompletionChunk.model_validate_json(json.dumps(one), strict=True)
    return made


def deltas(made: list[dict[str, Any]], index: int = 0) -> list[dict[str, Any]]:
    choices = [choice for one in made for choice in one["choices"]]
    return [choice["delta"] for choice in choices if choice["index"] == index]


def joined(made: list[dict[str, Any]], name: str, index: int = 0) -> str:
    return "".join(delta.get(name) or "" for delta in deltas(made, index))


def remarks(made: list[dict[str, Any]]) -> list[dict[str, Any]]:
    choices = [choice for one in made for choice in one["choices"]]
    return [remark for choice in choices for remark in choice.get("remarks", ())]


def error(response: httpx2.Response, code: int) -> dict[str, Any]:
    """The error, in OpenAI's shape to the letter."""
    assert response.status_code == code, response.text
    return error_of(response.json())


def broken_off(response: httpx2.Response) -> list[Any]:
    """The events of a stream that ends in an error; the openai client looks for its end, too."""
    *made, end = events_of(response.text)
    assert end == "[DONE]"
    return made


def error_of(body: dict[str, Any]) -> dict[str, Any]:
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    ErrorObject.model_validate(body["error"], strict=True)
    assert "Traceback" not in body["error"]["message"]
    found: dict[str, Any] = body["error"]
    return found


# -- replies


def test_one_body_holds_the_reasoning_and_the_answer(thinking: httpx2.Client) -> None:
    body = completion(ask(thinking))
    message = body["choices"][0]["message"]
    assert message["content"] == "The answer is 42."
    assert message["reasoning"] == message["reasoning_content"]
    assert message["reasoning"].startswith("### 1. Look 1\n\nAt turn 1 it is still 42.\n\n### 2. ")
    assert body["choices"][0]["finish_reason"] == "stop"
    assert "trace" not in body


def test_a_stream_says_what_the_body_says(thinking: httpx2.Client) -> None:
    message = completion(ask(thinking))["choices"][0]["message"]
    made = chunks(ask(thinking, stream=True))
    assert deltas(made)[0] == {"role": "assistant", "content": ""}
    for name in ("content", "reasoning", "reasoning_content"):
        assert joined(made, name) == message[name]
    reasons = [choice["finish_reason"] for one in made for choice in one["choices"]]
    assert reasons == [None] * (len(made) - 1) + ["stop"]
    assert len({(one["id"], one["created"], one["model"]) for one in made}) == 1


@pytest.mark.parametrize(("tokens", "steps"), [(60, 0), (120, 1)])
def test_few_tokens_are_for_a_short_step_or_it_is_said_that_none_fits(
    thinking: httpx2.Client, tokens: int, steps: int
) -> None:
    (choice,) = completion(ask(thinking, max_tokens=tokens))["choices"]
    assert choice["message"]["content"] == "The answer is 42."
    assert choice["message"]["reasoning"].count("### ") == steps
    codes = [remark["code"] for remark in choice["remarks"]]
    assert codes == (["budget"] if steps else ["budget", "no_steps"])


def test_usage_is_the_servers_count_over_all_requests(thinking: httpx2.Client) -> None:
    usage = completion(ask(thinking))["usage"]
    replies = 4  # three steps and the answer; the stub counts 10 prompt tokens for each
    assert usage["prompt_tokens"] == 10 * replies
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    answer = len("The answer is 42.") // 4
    told = usage["completion_tokens_details"]
    assert told["reasoning_tokens"] == usage["completion_tokens"] - answer > 0
    assert usage["prompt_tokens_details"] is None  # the stub says nothing of a cache


def test_a_stream_tells_its_usage_last_and_only_when_asked(thinking: httpx2.Client) -> None:
    usage = completion(ask(thinking))["usage"]
    told = chunks(ask(thinking, stream=True, stream_options={"include_usage": True}))
    assert (told[-1]["choices"], told[-1]["usage"]) == ([], usage)
    assert all(one["usage"] is None for one in told[:-1])
    assert not any("usage" in one for one in chunks(ask(thinking, stream=True)))


def test_a_stream_counts_in_every_chunk_where_that_is_asked_for(thinking: httpx2.Client) -> None:
    """As vLLM does, and as load generators that were made for it want."""
    usage = completion(ask(thinking))["usage"]
    options = {"include_usage": True, "continuous_usage_stats": True}
    *so_far, last = (
        one["usage"] for one in chunks(ask(thinking, stream=True, stream_options=options))
    )
    assert last == usage
    for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
        counts = [one[name] for one in so_far]
        assert counts == sorted(counts)
        assert 0 <= counts[0] < counts[-1] <= usage[name]


def test_no_usage_is_lower_than_the_one_before_also_where_a_try_broke_off() -> None:
    broken = raw(EVENTS, chunk('{"title'), usage(10, 7), end="reset")
    options = {"include_usage": True, "continuous_usage_stats": True}
    with scripted(PROBE, STEPS[0], broken, *STEPS[1:], says("It is 42.")) as (http, _):
        told = chunks(ask(http, stream=True, stream_options=options))
    counts = [one["usage"]["completion_tokens"] for one in told]
    assert counts == sorted(counts)
    with scripted(PROBE, *STEPS, says("It is 42.")) as (http, _):
        whole = completion(ask(http))["usage"]
    assert counts[-1] == whole["completion_tokens"] + 7


@pytest.mark.parametrize("name", ["stub-steps", "stub-vote2"])
def test_n_choices_have_an_index_each(thinking: httpx2.Client, name: str) -> None:
    body = completion(ask(thinking, model=name, n=3))
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]
    made = chunks(ask(thinking, model=name, n=3, stream=True))
    for index, choice in enumerate(body["choices"]):
        assert choice["message"]["content"] == "The answer is 42."
        assert joined(made, "content", index) == "The answer is 42."
        assert deltas(made, index)[0]["role"] == "assistant"


def test_a_vote_tells_of_each_chain_and_gives_one_answer(thinking: httpx2.Client) -> None:
    made = chunks(ask(thinking, model="stub-vote8", stream=True))
    assert joined(made, "content") == "The answer is 42."
    *ends, share = (one["message"] for one in remarks(made))
    assert sorted(ends) == [f"Chain {number} of at most 8: 42" for number in (1, 2, 3)]
    assert share.startswith("3 of 3 chains, of at most 8, agree")
    assert joined(made, "reasoning").startswith("### 1. Look 1")


def test_a_vote_is_decided_without_a_chain_that_hangs() -> None:
    """Two of three agree: the third is hung up on, and its trace says that it was stopped."""

    def reply(request: dict[str, Any]) -> Play:
        if request.get("seed") == 7:
            return says("This goes on for ever.", until=NEVER)
        return thinker(request)

    with scripted(reply) as (http, stub):
        asked = ask(http, model="stub-vote3", seed=6, include_trace=True)
        body = completion(asked)
        until(lambda: stub.gone == 1)
    assert body["choices"][0]["message"]["content"] == "The answer is 42."
    assert remarks([body])[-1]["message"].startswith("2 of 2 chains, of at most 3, agree")
    ends = [trace["events"][-1]["kind"] for trace in body["trace"]]
    assert ends == ["answer", "stopped", "answer"]


def test_the_trace_comes_when_asked_for(thinking: httpx2.Client) -> None:
    schema = json.loads((ROOT / "docs" / "trace.schema.json").read_text())
    trace = completion(ask(thinking, include_trace=True))["trace"]
    jsonschema.validate(trace, schema)
    *_, last = chunks(ask(thinking, include_trace=True, stream=True))
    assert last["choices"] == []
    jsonschema.validate(last["trace"], schema)
    several = completion(ask(thinking, model="stub-vote8", include_trace=True))["trace"]
    assert len(several) == 3
    for one in several:
        jsonschema.validate(one, schema)


TOOL = {
    "type": "function",
    "function": {
        "name": "tell",
        "description": "Tells the answer.",
        "parameters": {"type": "object", "properties": {"answer": {"type": "integer"}}},
    },
}


@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_that_is_forced_is_called_with_the_answer(stream: bool) -> None:
    with scripted(thinker) as (http, stub):
        made = ask(http, tools=[TOOL], tool_choice="required", stream=stream)
        parts = chunks(made) if stream else [completion(made)]
        last = stub.requests[-1]
    assert last["response_format"]["json_schema"]["schema"]["description"] == "Tells the answer."
    assert parts[-1]["choices"][0]["finish_reason"] == "tool_calls"
    said = deltas(parts) if stream else [parts[0]["choices"][0]["message"]]
    assert not any(one.get("content") for one in said)
    calls = [call for one in said for call in one.get("tool_calls", ())]
    assert (calls[0]["type"], calls[0]["function"]["name"]) == ("function", "tell")
    assert re.fullmatch(r"call_\w{8,35}", calls[0]["id"])
    assert "".join(call["function"]["arguments"] for call in calls) == '{"answer": 42}'


def test_a_forced_tool_that_the_model_cannot_be_held_to_is_refused_by_its_name() -> None:
    """Satori answers in a form of its own."""
    with (
        pytest.MonkeyPatch.context() as patch,
        Stub(thinker) as stub,
    ):
        patch.setattr("gateway.upstream.readable_ways", lambda: {"stub": "coat"})
        with client(stub) as http:
            said = error(ask(http, tools=[TOOL], tool_choice="required"), 400)
            assert said["param"] == "tool_choice"
            said = error(ask(http, response_format={"type": "json_object"}), 400)
            assert said["param"] == "response_format"


@pytest.mark.parametrize("way", ["json_steps", "native", "coat"])
def test_no_effort_is_the_plain_answer_of_any_model(way: str) -> None:
    with pytest.MonkeyPatch.context() as patch, Stub(thinker) as stub:
        patch.setattr("gateway.upstream.readable_ways", lambda: {"stub": way})
        with client(stub) as http:
            (choice,) = completion(ask(http, reasoning_effort="none"))["choices"]
            assert (choice["message"]["content"], choice["remarks"]) == ("The answer is 42.", [])
            assert choice["message"]["reasoning"] == ""
            assert len(stub.requests) == 1


def test_metadata_comes_back_as_it_was_sent(thinking: httpx2.Client) -> None:
    assert completion(ask(thinking, metadata={"run": "7"}))["metadata"] == {"run": "7"}


def test_a_chain_is_asked_as_the_caller_wished() -> None:
    with scripted(thinker) as (http, stub):
        told = [{"role": "system", "content": "Speak like a pirate."}, *ASKED["messages"]]
        form = {"type": "json_object"}
        wishes = {"temperature": 0.9, "top_p": 0.8, "seed": 5, "stop": "END"}
        body = completion(ask(http, messages=told, response_format=form, **wishes))
        assert json.loads(body["choices"][0]["message"]["content"]) == {"answer": 42}
        sent = [request for request in stub.requests if request["max_tokens"] > 24]
        assert {(one["temperature"], one["top_p"], one["seed"]) for one in sent} == {(0.9, 0.8, 5)}
        assert all("Speak like a pirate." in json.dumps(one["messages"]) for one in sent)
        *steps, answer = sent
        assert (answer["stop"], answer["response_format"]) == (["END"], form)
        assert all(asks_for_a_step(one) for one in steps)
        assert not any("END" in one.get("stop", ()) for one in steps)


def test_a_model_is_asked_once_how_it_thinks() -> None:
    with scripted(thinker) as (http, stub):
        for _ in range(3):
            completion(ask(http))
        assert len([one for one in stub.requests if one["max_tokens"] == 24]) == 1


def test_however_the_bytes_are_cut_the_text_is_whole() -> None:
    """Character by character from the server, byte by byte to the client."""
    answer = "答案是 42，“对”。🦊"
    slices = [chunk(letter) for letter in answer] + [chunk(finish_reason="stop")]
    drip = raw(EVENTS, *(bytes([b]) for b in b"".join(slices) + b"data: [DONE]\n\n"))
    with scripted(PROBE, *STEPS, drip) as (http, _):
        body = ask(http, stream=True).content
    decoder = SSEDecoder()
    read = [event.data for event in decoder.iter_bytes(bytes([byte]) for byte in body)]
    made = [json.loads(one) for one in read[:-1]]
    assert read[-1] == "[DONE]"
    assert joined(made, "content") == answer


# -- names


def test_the_list_holds_the_servers_model_and_ours(thinking: httpx2.Client) -> None:
    listed = thinking.get("/models").json()
    assert listed["object"] == "list"
    assert [one["id"] for one in listed["data"]] == ["stub", "stub-steps", "stub-vote8"]
    for one in listed["data"]:
        Model.model_validate(one, strict=True)
        assert thinking.get(f"/models/{one['id']}").json() == one
    assert listed["data"][0]["owned_by"] == "stub"
    assert thinking.get("/models/stub-vote7").json()["owned_by"] == "stepwise"


@pytest.mark.parametrize("name", ["nobody", "stub-vote17", "stub-steps-steps", "", "a/b-steps"])
def test_an_unknown_model_is_not_found(thinking: httpx2.Client, name: str) -> None:
    said = error(ask(thinking, model=name), 404)
    assert (said["code"], said["param"]) == ("model_not_found", "model")
    if name:
        assert error(thinking.get(f"/models/{name}"), 404)["code"] == "model_not_found"


# -- what is refused


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"[]", b"5", b"null", b'{"model": 5}', b'{"model": "stub-steps"}', b"\xff"),
        *(
            b"[" * 100_000,
            b'{"model": "\\ud800"}',
            b'{"model": "stub-steps", "n": %s}' % (b"9" * 5000),
        ),
    ],
    ids=lambda body: body[:20],
)
def test_a_body_that_cannot_be_read_is_a_400_or_404(thinking: httpx2.Client, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    response = thinking.post("/chat/completions", content=body, headers=headers)
    error(response, 404 if b"ud800" in body else 400)


def test_a_body_that_is_not_called_json_is_refused(thinking: httpx2.Client) -> None:
    response = thinking.post("/chat/completions", content=json.dumps(ASKED))
    assert "application/json" in error(response, 400)["message"]


def test_a_question_has_a_length(thinking: httpx2.Client) -> None:
    long = [{"role": "user", "content": "x" * (MAX_QUESTION + 1)}]
    said = error(ask(thinking, messages=long), 400)
    assert f"At most {MAX_QUESTION:,}" in said["message"]
    assert said["param"] == "messages"


def test_a_parameter_is_refused_by_name(thinking: httpx2.Client) -> None:
    said = error(ask(thinking, logprobs=True), 400)
    assert (said["code"], said["param"]) == ("unsupported_parameter", "logprobs")


def test_what_is_not_there_is_said_in_openais_shape(thinking: httpx2.Client) -> None:
    assert error(thinking.get("/nothing"), 404)["code"] == "unknown_url"
    wrong = thinking.get("/chat/completions")
    assert error(wrong, 405)["code"] == "method_not_allowed"
    assert wrong.headers["allow"] == "POST"


def test_steps_need_a_chat(thinking: httpx2.Client) -> None:
    response = thinking.post("/completions", json={"model": "stub-steps", "prompt": "Why?"})
    assert "stub" in error(response, 400)["message"]
    error(thinking.post("/completions", json={"prompt": "Why?"}), 400)


# -- what the server does wrong


@pytest.mark.parametrize(
    ("models", "code", "word"),
    [
        (status(401, {"error": {"message": "bad key sk-secret"}}), 502, "upstream_key"),
        (status(500, {"error": {"message": "x"}}), 502, "upstream_fault"),
        (status(200, b"<html>", kind="text/html"), 502, "upstream_not_openai"),
        (status(503, {}, "Retry-After: 7"), 503, "upstream_busy"),
    ],
)
def test_a_server_that_cannot_be_asked_is_named(models: Play, code: int, word: str) -> None:
    with Stub(PROBE, models=models) as stub, client(stub, api_key="sk-secret") as http:
        for response in (ask(http), ask(http, stream=True), http.get("models")):
            assert error(response, code)["code"] == word
            assert "sk-secret" not in response.text
            assert stub.base_url not in response.text
            assert response.headers.get("retry-after") == ("7" if code == 503 else None)
        health = http.get("../health")
        assert health.status_code == 503
        assert health.json()["status"] == "waiting"


def test_a_server_that_is_not_there_is_named() -> None:
    nobody = f"http://127.0.0.1:{free_port()}/v1"
    with gateway(nobody) as url, httpx2.Client(base_url=url, trust_env=False) as http:
        for response in (ask(http), ask(http, model="stub"), http.get("/models")):
            assert error(response, 503)["code"] == "upstream_unreachable"
        assert http.get("../health").json()["status"] == "waiting"


def test_a_ready_server_is_healthy(thinking: httpx2.Client) -> None:
    assert thinking.get("../health").json() == {"status": "ready", "model": "stub"}


@pytest.mark.parametrize("stream", [False, True])
def test_what_fails_before_the_first_word_has_a_status(stream: bool) -> None:
    too_long = status(400, {"error": {"message": "maximum context length is 5 tokens"}})
    with scripted(PROBE, too_long) as (http, _):
        said = error(ask(http, stream=stream), 400)
    assert said["code"] == "context_length_exceeded"


@pytest.mark.parametrize("stream", [False, True])
def test_a_busy_server_says_when_to_come_back(stream: bool) -> None:
    with scripted(PROBE, status(429, {}, "Retry-After: 120")) as (http, _):
        response = ask(http, stream=stream)
    assert error(response, 503)["code"] == "upstream_busy"
    assert response.headers["retry-after"] == "120"


def test_what_fails_after_the_first_word_ends_the_stream_with_an_error() -> None:
    with scripted(PROBE, STEPS[0], status(400, {"error": {"message": "No."}})) as (http, _):
        response = ask(http, stream=True)
    assert response.status_code == 200
    *made, last = broken_off(response)
    assert joined(made, "reasoning").startswith("### 1. A\n\nFirst.")
    assert error_of(last)["code"] == "upstream_refused"


def test_an_answer_that_begins_again_otherwise_ends_the_stream_with_an_error() -> None:
    broken = raw(EVENTS, chunk("It is 41"), end="reset")
    with scripted(PROBE, *STEPS, broken, says("It is 42.")) as (http, _):
        *made, last = broken_off(ask(http, stream=True))
    assert joined(made, "content") == "It is 41"
    assert error_of(last)["code"] == "answer_changed"


def test_an_answer_that_begins_again_the_same_is_whole() -> None:
    broken = raw(EVENTS, chunk("It is 4"), end="reset")
    with scripted(PROBE, *STEPS, broken, says("It is 42.")) as (http, _):
        made = chunks(ask(http, stream=True))
    assert joined(made, "content") == "It is 42."


@pytest.mark.parametrize("stream", [False, True])
def test_nothing_of_ours_and_nothing_of_the_servers_insides_is_in_the_reasoning(
    stream: bool,
) -> None:
    """It comes back in the next turn, and a model takes it for its own words."""
    died = raw(EVENTS, chunk('{"title": "Co'), b'data: {"error": {"message": "EngineCore!"}}\n\n')
    script = [died, STEPS[0], step("B", "First."), STEPS[2], says("It is 42.")]
    with scripted(PROBE, *script) as (http, _):
        response = ask(http, stream=stream, include_trace=True)
    assert "EngineCore" not in response.text
    parts = chunks(response) if stream else [completion(response)]
    again = {"code": "again", "message": "Written anew: The model server failed.", "step": 1}
    assert (again in remarks(parts)) == stream  # the whole holds nothing that is void
    message = parts[0]["choices"][0].get("message")
    thought = joined(parts, "reasoning") if stream else message["reasoning"]
    assert "anew" not in thought
    assert "server" not in thought


# -- a long wait, and a client that goes away


class Waiting:
    """A server's reply that is slow to begin, and knows when nobody waits for it any more."""

    def __init__(self, *first: bytes) -> None:
        self.first = first
        self.asked, self.left = threading.Event(), threading.Event()

    async def __call__(self, writer: asyncio.StreamWriter) -> None:
        writer.write(b"".join((EVENTS, *self.first)))
        self.asked.set()
        try:
            while True:
                writer.write(b": still waiting\n\n")
                await writer.drain()
                await asyncio.sleep(0.01)
        finally:
            self.left.set()


def test_a_stream_is_kept_alive_while_the_queue_is_long() -> None:
    waiting = Waiting()
    with (
        scripted(PROBE, waiting, keep_alive=0.05) as (http, _),
        http.stream("POST", "/chat/completions", json={**ASKED, "stream": True}) as response,
    ):
        assert response.status_code == 200
        comments = response.iter_lines()
        assert [next(comments) for _ in range(4)] == [": keep-alive", ""] * 2
        assert waiting.asked.wait(LONG)  # and not hung up on while the way was asked for
    assert waiting.left.wait(LONG)


@pytest.mark.parametrize("name", ["stub-steps", "stub-vote2", "stub"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_ends_the_servers_work(name: str, stream: bool) -> None:
    script = [Waiting(), Waiting()]
    first = [] if name == "stub" else [PROBE]
    with scripted(*first, *script) as (http, _):
        body = json.dumps({**ASKED, "model": name, "stream": stream})
        with hung_up(http, body):
            assert script[0].asked.wait(LONG)
        assert script[0].left.wait(LONG)
        assert name != "stub-vote2" or script[1].left.wait(LONG)


@contextmanager
def hung_up(http: httpx2.Client, body: str) -> Iterator[None]:
    """Sends a request on a connection that is closed when the block ends."""
    with socket.create_connection((http.base_url.host, http.base_url.port)) as connection:
        head = "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json"
        connection.sendall(f"{head}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        yield


@pytest.mark.parametrize("name", ["stub-steps", "stub-vote2", "stub"])
def test_a_stream_under_way_when_the_gateway_is_stopped_ends_in_an_error(name: str) -> None:
    """At Ctrl-C, too, a client learns that what it has is not the whole."""
    waiting = Waiting(chunk('{"title": "Think"'))
    first = [] if name == "stub" else [PROBE]
    with Stub(*first, waiting, Waiting()) as stub, httpx2.Client(trust_env=False) as http:
        with gateway(stub.base_url, keep_alive=0.05) as url:
            asked = http.build_request(
                "POST",
                f"{url}/chat/completions",
                json={**ASKED, "model": name, "stream": True},
            )
            response = http.send(asked, stream=True)
            assert waiting.asked.wait(LONG)
        text = response.read().decode()
        assert waiting.left.wait(LONG)
    *_, failed, end = events_of(text)
    assert end == "[DONE]"
    assert error_of(failed)["code"] == "shutting_down"


# -- the model under its own name


def test_a_plain_request_and_its_reply_pass_untouched() -> None:
    said = b'data: {"odd" :  1, "\xe4\xbd\xa0": [ ]}\n\n: hm\n\ndata: [DONE]\n\n'
    body = b'{ "model":"stub",  "tools": [1], "made_up": {"\\u00e9": 1.50}, "messages": [] }'
    with Stub(raw(EVENTS, said)) as stub, client(stub, api_key="ours") as http:
        headers = {"content-type": "application/json", "authorization": "Bearer theirs"}
        headers["x-session-id"] = "talk-7"
        for path in ("/chat/completions", "/completions"):
            response = http.post(path, content=body, headers=headers)
            assert (response.status_code, response.content) == (200, said)
            assert response.headers["content-type"] == "text/event-stream"
            assert stub.requests[-1] == json.loads(body)
            sent = stub.headers[-1].lower()
            assert "x-session-id: talk-7\r\n" in sent
            assert f"content-length: {len(body)}\r\n" in sent
            assert "authorization: bearer ours\r\n" in sent
            assert "theirs" not in sent


def test_a_plain_requests_errors_pass_untouched() -> None:
    refusal = {"error": {"message": "No.", "type": "BadRequestError", "param": None, "code": 400}}
    with scripted(status(400, refusal), status(429, {}, "Retry-After: 9")) as (http, _):
        response = ask(http, model="stub")
        assert (response.status_code, response.json()) == (400, refusal)
        response = ask(http, model="stub")
        assert (response.status_code, response.headers["retry-after"]) == (429, "9")


def test_the_gateways_own_key_is_not_the_clients_fault() -> None:
    refusal = status(401, {"error": {"message": "bad key sk-ours"}})
    with Stub(refusal) as stub, client(stub, api_key="sk-ours") as http:
        response = ask(http, model="stub")
    assert error(response, 502)["code"] == "upstream_key"
    assert "sk-ours" not in response.text


def test_a_plain_stream_that_breaks_off_ends_with_an_error_and_no_half_event() -> None:
    part = chunk("It is") + chunk("never whole")[:40]
    cut = (
        head(200, "text/event-stream", "Transfer-Encoding: chunked") + b"%x\r\n" % len(part) + part
    )
    with scripted(raw(cut)) as (http, _):
        *made, last = broken_off(ask(http, model="stub", stream=True))
    assert joined(made, "content") == "It is"
    assert error_of(last)["code"] == "upstream_fault"


# -- those who watch


class Recorder:
    """An observer with a memory."""

    def __init__(self) -> None:
        self.chains: list[Chain] = []
        self.events: list[Event] = []
        self.tokens: list[int] = []
        self.over = threading.Event()

    @contextmanager
    def chain(self, chain: Chain) -> Iterator[ChainObserver]:
        self.chains.append(chain)
        try:
            yield self
        finally:
            self.over.set()

    def event(self, event: Event) -> None:
        self.events.append(event)

    def spent(self, prompt_tokens: int, cached_tokens: int) -> None:
        self.tokens.append(prompt_tokens)


def test_an_observer_sees_every_chain_from_its_beginning_to_its_end() -> None:
    watcher = Recorder()
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with scripted(thinker, observers=[watcher]) as (http, _):
        headers = {"traceparent": parent, "authorization": "Bearer secret"}
        body = {**ASKED, "model": "stub-vote2"}
        reply = completion(http.post("/chat/completions", json=body, headers=headers))
    assert {(one.id, one.model, one.served, one.way) for one in watcher.chains} == {
        (reply["id"], "stub-vote2", "stub", "json_steps")
    }
    assert sorted(one.number for one in watcher.chains) == [0, 1]
    assert watcher.chains[0].carrier == {"traceparent": parent}
    assert sum(isinstance(event, Started) for event in watcher.events) == 2
    assert sum(isinstance(event, Answer) for event in watcher.events) == 2
    assert sum(watcher.tokens) == reply["usage"]["prompt_tokens"]


def test_an_observer_is_told_of_failures_and_of_clients_that_left() -> None:
    watcher, waiting = Recorder(), Waiting()
    too_long = status(400, {"error": {"message": "maximum context length is 5 tokens"}})
    with scripted(PROBE, too_long, waiting, observers=[watcher]) as (http, _):
        error(ask(http), 400)
        assert isinstance(watcher.events[-1], Failed)
        watcher.over.clear()
        with hung_up(http, json.dumps(ASKED)):
            assert waiting.asked.wait(LONG)
        assert watcher.over.wait(LONG)
    assert isinstance(watcher.events[-1], Stopped)


# -- our own description of all that


NAMES = ("stub-steps", "stub-vote2", "nobody")


def map_body(_: Any, body: Any) -> Any:
    """Most bodies name a model that is there, and many ask for a stream."""
    if isinstance(body, dict) and isinstance(name := body.get("model"), str):
        body["model"] = NAMES[len(name) % len(NAMES)]
        body |= {"stream": True} if len(name) % 2 else {}
    return body


@pytest.fixture(scope="module")
def description(thinking: httpx2.Client) -> Any:
    read = schemathesis.openapi.from_url(str(thinking.base_url.join("../openapi.json")))
    read.hook(map_body)
    return read


POSITIVE, NEGATIVE = schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE
CALLS = [
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
    ("POST", "/v1/responses"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/{name}"),
    ("GET", "/health"),
]


def test_the_description_tells_of_every_call(description: Any) -> None:
    told = {(one.ok().method.upper(), one.ok().path) for one in description.get_all_operations()}
    assert told == set(CALLS)


@pytest.mark.parametrize(
    ("method", "path", "mode"),
    [*((*call, POSITIVE) for call in CALLS), *((*call, NEGATIVE) for call in CALLS[:3])],
)
def test_every_answer_is_one_that_our_description_promises(
    description: Any, method: str, path: str, mode: schemathesis.GenerationMode
) -> None:
    """No 500, and nothing that the description does not tell of, whatever is sent."""
    check = schemathesis.checks
    checks = [check.status_code_conformance, check.content_type_conformance]
    checks += [check.not_a_server_error, check.response_schema_conformance]

    @settings(examples(1 / 4), suppress_health_check=list(HealthCheck))
    @given(description[path][method].as_strategy(generation_mode=mode))
    def promised(case: schemathesis.Case[Any]) -> None:
        case.call_and_validate(checks=checks)

    promised()
