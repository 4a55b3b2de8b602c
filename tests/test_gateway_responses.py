"""/v1/responses, asked by the openai client, in front of a server that does what a script says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import openai
import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter

from tests.gateway_server import gateway, thinker
from tests.stub import EVENTS, Stub, chunk, raw, says, status, step

EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
ASKED: dict[str, Any] = {"model": "stub-steps", "input": "What is 6 times 7?"}
STEPS = [step("A", "First."), step("B", "Second."), step("C", "Third.", "final_answer")]
PROBE = says("2")  # what a model that is in no catalogue is asked first
TOOL: Any = {
    "type": "function",
    "name": "tell",
    "description": "Tells the answer.",
    "parameters": {"type": "object", "properties": {"answer": {"type": "integer"}}},
    "strict": False,
}


@contextmanager
def scripted(*script: Any) -> Iterator[tuple[openai.OpenAI, Stub]]:
    with (
        Stub(*script) as stub,
        gateway(stub.base_url) as url,
        openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=60) as client,
    ):
        yield client, stub


@pytest.fixture(scope="module")
def client() -> Iterator[openai.OpenAI]:
    """Before a model that thinks three steps and says 42."""
    with scripted(thinker) as (client, _):
        yield client


def strict(response: Any) -> Response:
    """The response, which is one to the letter."""
    text = response.model_dump_json(by_alias=True)
    return Response.model_validate_json(text, strict=True)


def test_a_response_is_what_was_thought_and_then_a_message(client: openai.OpenAI) -> None:
    made = client.responses.with_raw_response.create(**ASKED)
    response = Response.model_validate_json(made.text, strict=True)
    thought, message = response.output
    assert thought.type == "reasoning"
    assert thought.content
    assert thought.content[0].text.startswith(
        "### 1. Look 1\n\nAt turn 1 it is still 42.\n\n### 2. "
    )
    assert message.type == "message"
    assert made.parse().output_text == "The answer is 42."
    assert (response.status, response.store) == ("completed", False)  # type: ignore[attr-defined]
    assert response.usage
    assert response.usage.output_tokens > response.usage.output_tokens_details.reasoning_tokens > 0


def test_every_event_of_a_stream_is_one_to_the_letter(client: openai.OpenAI) -> None:
    with client.responses.with_streaming_response.create(stream=True, **ASKED) as response:
        lines = list(response.iter_lines())
    names = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
    data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    events = [EVENT.validate_json(line, strict=True) for line in data]
    assert names == [event.type for event in events]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [name for number, name in enumerate(names) if name != names[number - 1]]
    item = ["response.output_item.added", "response.content_part.added"]
    ended = ["response.content_part.done", "response.output_item.done"]
    assert kinds == [
        *("response.created", "response.in_progress"),
        *item,
        *("response.reasoning_text.delta", "response.reasoning_text.done"),
        *ended,
        *item,
        *("response.output_text.delta", "response.output_text.done"),
        *ended,
        "response.completed",
    ]


def test_the_clients_stream_says_what_the_body_says(client: openai.OpenAI) -> None:
    whole = client.responses.create(**ASKED)
    said, thought = "", ""
    with client.responses.stream(**ASKED) as stream:
        for event in stream:
            if event.type == "response.output_text.delta":
                said += event.delta
            elif event.type == "response.reasoning_text.delta":
                thought += event.delta
        last = stream.get_final_response()
    assert (said, last.output_text) == (whole.output_text, whole.output_text)
    assert whole.output[0].type == last.output[0].type == "reasoning"
    assert whole.output[0].content == last.output[0].content
    assert thought == last.output[0].content[0].text  # type: ignore[index]
    assert last.usage == whole.usage


def test_a_conversation_goes_on_with_what_came_back() -> None:
    """The client keeps it; nothing of ours goes with it."""
    with scripted(thinker) as (client, stub):
        asked = {**ASKED, "model": "stub-vote2", "instructions": "Be brief."}
        first = client.responses.create(**asked)
        assert first.remarks  # type: ignore[attr-defined]
        talk: list[Any] = [{"role": "user", "content": "What is 6 times 7?"}]
        talk += [item.model_dump() for item in first.output]
        talk += [{"role": "user", "content": [{"type": "input_text", "text": "Sure?"}]}]
        client.responses.create(model="stub-steps", input=talk, instructions="Be brief.")
        turns = stub.requests[-1]["messages"]
    assert [turn["role"] for turn in turns[:3]] == ["system", "user", "assistant"]
    assert turns[0]["content"] == "Be brief."
    assert turns[2]["content"].startswith("### 1. Look 1")
    assert turns[2]["content"].endswith("The answer is 42.")
    assert "Chain" not in json.dumps(turns)


@pytest.mark.parametrize("stream", [False, True])
def test_a_forced_tool_is_called_with_the_answer(client: openai.OpenAI, stream: bool) -> None:
    asked: Any = {**ASKED, "tools": [TOOL], "tool_choice": {"type": "function", "name": "tell"}}
    if stream:
        with client.responses.stream(**asked) as events:
            response = events.get_final_response()
    else:
        response = strict(client.responses.create(**asked))
    call = response.output[-1]
    assert call.type == "function_call"
    assert (call.name, json.loads(call.arguments), call.status) == (
        "tell",
        {"answer": 42},
        "completed",
    )
    again: list[Any] = [{"role": "user", "content": "Tell."}, call.model_dump(exclude_none=True)]
    again += [{"type": "function_call_output", "call_id": call.call_id, "output": "No such."}]
    assert client.responses.create(model="stub-steps", input=again).output_text


class Answer(BaseModel):
    answer: int


def test_the_answer_is_read_into_the_callers_own_type(client: openai.OpenAI) -> None:
    assert client.responses.parse(text_format=Answer, **ASKED).output_parsed == Answer(answer=42)


def test_a_vote_answers_once_and_its_remarks_stand_beside_the_output(
    client: openai.OpenAI,
) -> None:
    response = client.responses.create(**{**ASKED, "model": "stub-vote2"})
    assert [item.type for item in response.output] == ["reasoning", "message"]
    codes = [remark["code"] for remark in response.remarks]  # type: ignore[attr-defined]
    assert codes == ["chain", "chain", "majority"]


def test_an_answer_that_is_cut_makes_an_incomplete_response() -> None:
    with scripted(PROBE, *STEPS, says("It is 4", "length")) as (client, _):
        response = strict(client.responses.create(max_output_tokens=900, **ASKED))
    assert response.incomplete_details
    assert (response.status, response.incomplete_details.reason) == (
        "incomplete",
        "max_output_tokens",
    )


@pytest.mark.parametrize(
    ("given", "code", "param"),
    [
        ({"previous_response_id": "resp_1"}, "unsupported_parameter", "previous_response_id"),
        ({"store": True}, "unsupported_parameter", "store"),
        ({"background": True}, "unsupported_parameter", "background"),
        ({"tools": [TOOL]}, "unsupported_parameter", "tools"),
        ({"tools": [{"type": "web_search"}]}, "invalid_value", "tools[0].type"),
        ({"tool_choice": "required"}, "unsupported_parameter", "tool_choice"),
        ({"input": [{"role": "assistant", "content": "Hi."}]}, "invalid_value", "input"),
        ({"input": " "}, "invalid_question", "input"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "invalid_value", "input[0].type"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
            "unsupported_parameter",
            "input[0].content",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": {"input_text": 1}}]}]},
            "unsupported_parameter",
            "input[0].content",
        ),
        (
            {"text": {"format": {"type": "json_schema", "name": "a b", "schema": {}}}},
            "invalid_value",
            "text.format.name",
        ),
        ({"reasoning": {"effort": "huge"}}, "invalid_value", "reasoning.effort"),
        ({"extra_body": {"top_k": 5}}, "unknown_parameter", "top_k"),
    ],
    ids=lambda value: json.dumps(value)[:40] if isinstance(value, dict) else "",
)
def test_what_is_not_served_is_refused_by_its_name_here(
    client: openai.OpenAI, given: dict[str, Any], code: str, param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(**{**ASKED, **given})
    assert (caught.value.code, caught.value.param) == (code, param)
    assert "messages" not in caught.value.message


def test_a_form_that_the_model_cannot_be_held_to_is_refused_by_its_name_here() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gateway.upstream.readable_ways", lambda: {"stub": "coat"})
        with scripted(thinker) as (client, _), pytest.raises(openai.BadRequestError) as caught:
            client.responses.create(**ASKED, text={"format": {"type": "json_object"}})
    assert caught.value.param == "text.format"


def test_what_fails_before_the_first_word_has_a_status() -> None:
    too_long = status(400, {"error": {"message": "maximum context length is 5 tokens"}})
    with scripted(PROBE, too_long) as (client, _), pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(stream=True, **ASKED)
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "input")


def test_a_stream_that_breaks_ends_in_an_error_that_the_client_raises() -> None:
    broken = raw(EVENTS, chunk("It is 41"), end="reset")
    said: list[str] = []

    def read(client: openai.OpenAI) -> None:
        for event in client.responses.create(stream=True, **ASKED):
            if event.type == "response.output_text.delta":
                said.append(event.delta)

    script = (PROBE, *STEPS, broken, says("It is 42."))
    with scripted(*script) as (client, _), pytest.raises(openai.APIError) as caught:
        read(client)
    assert "".join(said) == "It is 41"
    assert caught.value.code == "answer_changed"


def test_the_plain_name_is_the_server_itself() -> None:
    with scripted(status(200, {"id": "resp_theirs", "object": "response"})) as (client, stub):
        response = client.responses.create(model="stub", input="Why?", previous_response_id="x")
        assert response.id == "resp_theirs"
        assert stub.requests[-1]["previous_response_id"] == "x"
