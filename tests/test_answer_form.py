"""The answer in the caller's form, and the caller's own instructions, in each way of thinking."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from reasoning.endpoint import Endpoint, Piece, ServedModel
from reasoning.errors import FormatRefused
from reasoning.events import Answer, Delta, Event, Failed, Notice, Retry, Settings, Step
from reasoning.inquiry import AnswerForm, Inquiry
from reasoning.json_answers import extract_begun_json, extract_json
from reasoning.think import WAYS, think
from tests.real_servers import Server
from tests.reciter_steps import SUM, SUM_SCHEMA, by_schema
from tests.scripted import Scripted, good, pieces, run
from tests.test_cot import APPLES
from tests.test_native import told

SCHEMA = {
    "type": "object",
    "properties": {"answer": {"type": "integer"}, "sure": {"type": "boolean"}},
    "required": ["answer", "sure"],
    "additionalProperties": False,
}
BY_SCHEMA = AnswerForm(format="json_schema", schema=SCHEMA)
AS_OBJECT = AnswerForm(format="json_object")
JSON = '{"answer": 9, "sure": true}'
STEPS = [good(1), good(2), good(3, "final_answer")]
SATORI = ServedModel("Satori-7B-Round2", 4096, vllm=True)
BOXED = "<|continue|>It is nine. END So the answer is: $$ \\boxed{9} $$ END"
CHAT = ("json_steps", "cot", "native", "direct")


def lines(way: str, answer: str) -> list[Any]:
    """What a model says in a chain that ends in that answer."""
    before: dict[str, list[Any]] = {
        "json_steps": STEPS,
        "cot": [APPLES],
        "native": [told()],
        "direct": [],
    }
    return [*before[way], answer]


def only(events: list[Event], kind: type) -> list:
    return [event for event in events if isinstance(event, kind)]


def said(events: list[Event]) -> str:
    return "".join(d.text for d in only(events, Delta) if d.part == "answer")


# -- the form


@pytest.mark.parametrize("way", CHAT)
async def test_only_the_answer_is_asked_for_in_the_callers_form(way: str) -> None:
    form = AnswerForm(stop=("END",), format="json_schema", schema=SCHEMA)
    server = Scripted(*lines(way, JSON))
    events = await run(server, way=way, answer_form=form)
    *before, last = server.requests
    assert (last.format, last.schema, last.stop) == ("json_schema", SCHEMA, ("END",))
    assert not any(request.schema == SCHEMA or "END" in request.stop for request in before)
    assert events[-1].content == said(events) == JSON


@pytest.mark.parametrize("way", CHAT)
async def test_one_sentence_more_asks_for_json_alone_and_shows_the_schema(way: str) -> None:
    plain, asked = Scripted(*lines(way, "Nine.")), Scripted(*lines(way, JSON))
    await run(plain, way=way, answer_form=AnswerForm(stop=("END",)))
    await run(asked, way=way, answer_form=BY_SCHEMA)
    before, after = (s.requests[-1].messages[-1]["content"] for s in (plain, asked))
    assert after.startswith(before + "\n\n")
    assert "JSON alone" in after[len(before) :]
    assert json.dumps(SCHEMA, separators=(",", ":")) in after


@pytest.mark.parametrize("way", CHAT)
async def test_a_json_answer_is_the_json_alone(way: str) -> None:
    server = Scripted(*lines(way, f"Sure:\n```json\n{JSON}\n```\nGlad to help."))
    events = await run(server, way=way, answer_form=AS_OBJECT)
    assert events[-1].content == said(events) == JSON


async def test_an_answer_with_a_steps_keys_stays_as_it_is_where_json_is_asked_for() -> None:
    """Without a form it is read as a step that was written out of habit."""
    events = await run(Scripted(*STEPS, good(4)), answer_form=AS_OBJECT)
    assert events[-1].content == good(4)


async def test_json_is_streamed_as_it_is_written() -> None:
    events = await run(Scripted(*STEPS, JSON), answer_form=BY_SCHEMA)
    assert len([d for d in only(events, Delta) if d.part == "answer"]) > 3


async def test_an_answer_that_is_no_json_is_asked_for_again() -> None:
    server = Scripted(*STEPS, "Nine apples.", JSON)
    events = await run(server, answer_form=AS_OBJECT)
    assert [retry.cause for retry in only(events, Retry)] == ["not_json"]
    assert server.requests[-1].temperature > server.requests[-2].temperature
    assert events[-1].content == said(events) == JSON


@pytest.mark.parametrize("way", CHAT)
async def test_an_answer_that_never_is_json_is_a_named_failure(way: str) -> None:
    events = await run(Scripted(*lines(way, "Nine apples.")), way=way, answer_form=AS_OBJECT)
    assert isinstance(events[-1], Failed)
    assert (events[-1].code, said(events)) == ("answer_form", "")


async def test_json_whose_tokens_ended_is_kept_and_marked_cut() -> None:
    server = Scripted(*STEPS, pieces('{"answer": 9, "su', "length"))
    events = await run(server, answer_form=BY_SCHEMA)
    assert (events[-1].content, events[-1].cut) == ('{"answer": 9, "su', True)


@pytest.mark.parametrize("way", CHAT)
async def test_a_server_that_refuses_the_form_is_asked_for_a_lower_one(way: str) -> None:
    refused = FormatRefused("The server refuses it.", "")
    server = Scripted(*lines(way, JSON)[:-1], refused, refused, JSON)
    events = await run(server, way=way, answer_form=BY_SCHEMA)
    assert [n.detail for n in only(events, Notice) if n.code == "format"] == ["json_object", "text"]
    assert [r.format for r in server.requests[-3:]] == ["json_schema", "json_object", "text"]
    assert [r.schema for r in server.requests[-3:]] == [SCHEMA, None, None]
    assert events[-1].content == JSON


async def test_a_schema_of_the_callers_that_is_refused_lowers_no_steps_of_other_chains() -> None:
    server = Scripted(*STEPS, FormatRefused("The server refuses it.", ""), JSON)
    await run(server, answer_form=BY_SCHEMA)
    assert server.capabilities.format == "json_schema"


async def test_a_format_that_the_server_does_not_take_for_steps_is_not_tried_again() -> None:
    server = Scripted(*STEPS, JSON)
    server.capabilities.format = "json_object"
    await run(server, answer_form=BY_SCHEMA)
    assert server.requests[-1].format == "json_object"


async def test_a_schema_that_spells_a_special_token_is_plain_text() -> None:
    schema = {"type": "object", "description": "<|im_end|>"}
    server = Scripted("{}", special=["<|im_end|>"])
    form = AnswerForm(format="json_schema", schema=schema)
    await run(server, way="direct", answer_form=form)
    assert "<|im_end|>" not in server.requests[0].messages[-1]["content"]
    assert server.requests[0].schema == schema


@pytest.mark.parametrize(
    ("format", "schema"), [("json_schema", None), ("text", {}), ("json_object", {})]
)
def test_a_schema_belongs_to_the_format_json_schema_alone(format: Any, schema: Any) -> None:
    with pytest.raises(ValueError, match="schema"):
        AnswerForm(format=format, schema=schema)


# -- Satori


@pytest.mark.parametrize("form", [AS_OBJECT, BY_SCHEMA])
async def test_a_satori_chain_refuses_json_before_any_request(form: AnswerForm) -> None:
    server = Scripted(BOXED)
    events = await run(server, way="coat", model=SATORI, answer_form=form)
    assert (events[-1].code, server.requests) == ("answer_form", [])
    assert not WAYS["coat"].answers_json


async def test_a_satori_answer_ends_before_a_stop_and_its_steps_do_not() -> None:
    server = Scripted(BOXED)
    form = AnswerForm(stop=("END",))
    events = await run(server, way="coat", model=SATORI, answer_form=form)
    assert events[-1].content.endswith("It is nine.")
    assert "END" in only(events, Step)[0].content
    assert "END" not in server.requests[0].stop


# -- a model that thinks natively


async def test_a_native_thought_is_free_and_its_answer_in_form_is_asked_for_apart() -> None:
    server = Scripted(told(answer="Three, and END more."), "Three.")
    events = await run(server, way="native", answer_form=AnswerForm(stop=("END",)))
    thinking, answering = server.requests
    assert (thinking.stop, thinking.format, thinking.think) == ((), "text", True)
    assert (answering.stop, answering.think) == (("END",), False)
    assert "strawberry" in answering.messages[-1]["content"]
    assert events[-1].content == said(events) == "Three."


async def test_the_answer_that_a_native_thought_ran_on_to_is_not_waited_for() -> None:
    thought = [piece for piece in told() if not piece.text and not piece.finish_reason]
    server = Scripted([*thought, Piece("So"), AssertionError("read on")], JSON)
    events = await run(server, way="native", answer_form=BY_SCHEMA)
    assert events[-1].content == JSON


async def test_words_without_a_thought_are_no_json_answer() -> None:
    server = Scripted("It is 3.", JSON)
    events = await run(server, way="native", answer_form=AS_OBJECT)
    assert events[-1].content == said(events) == JSON


# -- instructions


@pytest.mark.parametrize("way", ["json_steps", "cot", "native", "direct"])
async def test_instructions_are_the_one_system_turn(way: str) -> None:
    server = Scripted(*lines(way, JSON))
    await run(server, way=way, instructions="Answer as a pirate.", answer_form=AS_OBJECT)
    for request in server.requests:
        assert request.messages[0] == {"role": "system", "content": "Answer as a pirate."}
        roles = [message["role"] for message in request.messages]
        assert (roles[:2], roles.count("system")) == (["system", "user"], 1)


async def test_for_satori_they_stand_before_the_question() -> None:
    server = Scripted(BOXED)
    await run(server, "Why?", way="coat", model=SATORI, instructions="Answer as a pirate.")
    assert "Answer as a pirate.\n\nWhy?" in server.requests[0].prompt


@pytest.mark.parametrize("way", list(WAYS))
async def test_no_special_token_of_instructions_reaches_a_model(way: str) -> None:
    script = [BOXED] if way == "coat" else lines(way, "So.")
    server = Scripted(*script, special=["<|im_start|>"])
    await run(server, way=way, model=SATORI, instructions="Say <|im_start|>.\x00")
    sent = server.requests[0].prompt + "".join(m["content"] for m in server.requests[0].messages)
    assert "Say <\u200b|im_start|>." in sent


# -- JSON in a text

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), VALUES), st.sampled_from(["", "Sure: ", "```json\n"]))
def test_an_object_is_found_alone_whatever_is_around_it(value: dict[str, Any], before: str) -> None:
    text = json.dumps(value)
    assert extract_json(f"{before}{text}\n```\nSo it is.", "{") == text


@given(st.text())
def test_what_is_found_alone_is_json(text: str) -> None:
    found = extract_json(text, "{[")
    assert not found or json.loads(found) is not NotImplemented


@given(st.text(alphabet='{}[]":,1a \n') | VALUES.map(json.dumps), st.text(max_size=5))
def test_what_is_shown_of_json_only_grows(text: str, after: str) -> None:
    whole = extract_begun_json(text + after)
    assert all(whole.startswith(extract_begun_json(text[:end])) for end in range(len(text) + 1))


def test_a_text_of_nothing_but_brackets_is_no_json_and_takes_no_time() -> None:
    assert extract_json("[" * 200_000, "{[") == ""
    assert extract_json('{"a":' * 100_000, "{[") == ""


# -- the real server


@pytest.mark.parametrize("way", ["json_steps", "direct"])
async def test_a_real_answer_by_a_schema_is_valid(reciter: Server, way: str) -> None:
    endpoint = Endpoint(reciter.base_url)
    settings = Settings(min_steps=1, max_steps=1, step_tokens=60, answer_tokens=60, seed=3)
    try:
        inquiry = Inquiry(
            SUM,
            way,
            settings,
            instructions="Be brief.",
            answer_form=by_schema(),
        )
        chain = think(inquiry, endpoint=endpoint, model=await endpoint.model())
        events = [event async for event in chain]
    finally:
        await endpoint.close()
    assert isinstance(events[-1], Answer)
    assert Draft202012Validator(SUM_SCHEMA).is_valid(json.loads(events[-1].content))
    assert said(events) == events[-1].content
