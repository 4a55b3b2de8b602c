"""What a request may ask for: honoured, or refused by name, never ignored."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gateway.errors import ApiError, from_validation
from gateway.messages import read_conversation
from gateway.models import find_alias, find_entry, list_entries
from gateway.schema import ChatRequest, chain_settings, check_supported, check_tools
from reasoning.endpoint import ServedModel
from reasoning.errors import BadQuestion
from reasoning.events import Settings, Turn
from reasoning.inquiry import AnswerForm
from reasoning.think import MAX_QUESTION, VOTE

ASKED = {"model": "m-steps", "messages": [{"role": "user", "content": "Why?"}]}
SERVED = (ServedModel("m"), ServedModel("a-steps"))


def asked(**more: Any) -> ChatRequest:
    return ChatRequest.model_validate({**ASKED, **more})


def refused(**more: Any) -> ApiError:
    with pytest.raises(ValidationError) as caught:
        asked(**more)
    errors = [{**error, "loc": ("body", *error["loc"])} for error in caught.value.errors()]
    return from_validation(errors)


def settings(name: str = "m-steps", **more: Any) -> tuple[Settings, ...]:
    alias = find_alias(name, SERVED)
    assert alias is not None
    return chain_settings(asked(**more), alias)


# -- names


@pytest.mark.parametrize(
    ("name", "votes"), [("m-steps", 1), ("m-vote2", 2), ("m-vote16", 16), ("a-steps-vote3", 3)]
)
def test_a_name_says_how_many_chains_think(name: str, votes: int) -> None:
    alias = find_alias(name, SERVED)
    assert alias is not None
    assert (alias.votes, name.startswith(alias.served.name)) == (votes, True)


@pytest.mark.parametrize(
    "name",
    [
        *("m", "m-", "m-step", "M-steps", "n-steps", "m-vote", "m-vote0", "m-vote1", "m-vote17"),
        *("m-vote05", "m-vote٣", "m-vote100", "m-steps-vote5", "-steps", "m-steps\n", ""),
    ],
)
def test_no_other_name_is_ours(name: str) -> None:
    assert find_alias(name, SERVED) is None


def test_the_servers_entries_stand_unchanged_beside_ours() -> None:
    theirs = {"id": "m", "object": "model", "created": 7, "owned_by": "vllm", "root": "/w"}
    theirs |= {"max_model_len": 4096, "permission": [{"id": "p"}]}
    listed = list_entries([theirs])
    assert listed[0] == theirs
    assert [entry["id"] for entry in listed] == ["m", "m-steps", "m-vote8"]
    ours = {"object": "model", "created": 7, "owned_by": "stepwise", "root": "m", "parent": "m"}
    assert find_entry("m-vote3", [theirs]) == {"id": "m-vote3", **ours, "max_model_len": 4096}
    assert find_entry("m-vote99", [theirs]) is None


# -- parameters

UNSUPPORTED = {
    "tool_choice": "any",
    "functions": [{"name": "f"}],
    "function_call": {"name": "f"},
    "logprobs": True,
    "top_logprobs": 3,
    "logit_bias": {"5": 1},
    "audio": {"voice": "x"},
    "modalities": ["text", "audio"],
    "prediction": {"type": "content"},
    "web_search_options": {},
    "store": True,
    "presence_penalty": 0.5,
    "frequency_penalty": -1,
    "service_tier": "priority",
    "verbosity": "low",
    "moderation": {"model": "x"},
    "prompt_cache_retention": "24h",
}
NEUTRAL = {
    "tools": [],
    "tool_choice": "auto",
    "logprobs": False,
    "top_logprobs": 0,
    "logit_bias": {},
    "modalities": ["text"],
    "store": False,
    "presence_penalty": 0.0,
    "frequency_penalty": 0,
    "parallel_tool_calls": True,
    "service_tier": "auto",
    "user": "somebody",
    "metadata": {"a": "b"},
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_what_is_not_supported_is_refused_by_name(name: str) -> None:
    problem = refused(**{name: UNSUPPORTED[name]})
    assert (problem.status, problem.code, problem.param) == (400, "unsupported_parameter", name)
    assert name in problem.message


@pytest.mark.parametrize("name", NEUTRAL)
def test_what_changes_nothing_is_taken(name: str) -> None:
    assert asked(**{name: NEUTRAL[name], "top_p": None}).model == "m-steps"


def test_every_parameter_may_be_null_but_model_and_messages() -> None:
    for name in set(ChatRequest.model_fields) - set(ASKED):
        asked(**{name: None})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", 2.1),
        ("temperature", float("nan")),
        ("temperature", "0.5"),
        ("temperature", True),
        ("presence_penalty", False),
        ("top_p", 0),
        ("top_p", 1.5),
        ("seed", 2**63),
        ("seed", 1.5),
        ("max_tokens", 0),
        ("n", 0),
        ("n", 17),
        ("stop", ["a"] * 5),
        ("stop", ""),
        ("stop", [1]),
        ("stream", "yes"),
        ("reasoning_effort", "huge"),
        ("tools", [{"type": "function"}]),
        ("tools", [{"type": "custom", "custom": {"name": "f"}}]),
        ("tool_choice", {"type": "function", "function": {}}),
        ("messages", [{"role": "user", "content": None}]),
        ("response_format", {"type": "xml"}),
        ("response_format", {"type": "json_schema"}),
        ("response_format", {"type": "text", "json_schema": {"name": "a", "schema": {}}}),
        ("messages", []),
        ("messages", "Why?"),
        ("user", "\ud83d"),
    ],
)
def test_a_value_out_of_its_range_is_refused(name: str, value: Any) -> None:
    problem = refused(**{name: value})
    assert problem.status == 400
    json.dumps(problem.body, ensure_ascii=False, allow_nan=False).encode()


def test_an_unknown_parameter_is_refused_by_name() -> None:
    problem = refused(top_k=5)
    assert (problem.code, problem.param) == ("unknown_parameter", "top_k")
    inner = refused(stream=True, stream_options={"include_usage": True, "chunk": 1})
    assert inner.param == "stream_options.chunk"


def test_the_two_names_of_one_bound_are_not_given_both() -> None:
    assert "give one" in refused(max_tokens=5, max_completion_tokens=5).message
    assert settings(max_tokens=50) == settings(max_completion_tokens=50)
    assert settings(max_tokens=50)[0].budget == 50


def test_stream_options_belong_to_a_stream() -> None:
    assert "set stream" in refused(stream_options={"include_usage": True}).message
    usage = refused(stream=True, stream_options={"continuous_usage_stats": True})
    assert usage.param == "stream_options"
    assert "needs include_usage" in usage.message


def test_a_json_schema_deeper_than_python_goes_is_refused() -> None:
    deep: dict[str, Any] = {}
    for _ in range(100_000):
        deep = {"a": deep}
    form = {"type": "json_schema", "json_schema": {"name": "deep", "schema": deep}}
    assert refused(response_format=form).status == 400


def test_the_answers_form_is_passed_to_the_chain() -> None:
    schema = {"type": "object"}
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema, "strict": True}}
    assert asked(response_format=form, stop="END").answer_form == AnswerForm(
        ("END",), "json_schema", schema
    )
    assert asked(response_format={"type": "json_object"}).answer_form == AnswerForm(
        (), "json_object"
    )
    assert asked(stop=["a", "b"]).answer_form.stop == ("a", "b")


# -- tools

FIND: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
}


def tool(name: str, **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": FIND, **more}}


def named(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


@pytest.mark.parametrize("choice", ["required", named("find")])
def test_a_forced_tool_is_a_schema_for_the_answer(choice: Any) -> None:
    request = asked(tools=[tool("find", description="Find it.")], tool_choice=choice)
    check_tools(request)
    schema = {"title": "find", "description": "Find it.", **FIND}
    assert request.answer_form == AnswerForm((), "json_schema", schema)


def test_a_tool_is_forced_by_its_name_among_others() -> None:
    request = asked(tools=[tool("find"), tool("buy")], tool_choice=named("buy"))
    check_tools(request)
    assert request.forced_tool is not None
    assert request.forced_tool.name == "buy"


def test_a_tool_without_parameters_takes_an_object() -> None:
    request = asked(tools=[tool("find", parameters=None)], tool_choice="required")
    assert request.answer_form.schema == {"title": "find", "type": "object"}


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"tools": [tool("find")]}, "tools"),
        ({"tools": [tool("find")], "tool_choice": "auto"}, "tools"),
        ({"tools": [tool("find"), tool("buy")], "tool_choice": "required"}, "tool_choice"),
        ({"tools": [tool("find")], "tool_choice": named("buy")}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        (
            {
                "tools": [tool("find")],
                "tool_choice": "required",
                "response_format": {"type": "json_object"},
            },
            "response_format",
        ),
    ],
)
def test_what_would_need_a_choice_of_tools_is_refused_by_name(
    given: dict[str, Any], param: str
) -> None:
    with pytest.raises(ApiError) as caught:
        check_tools(asked(**given))
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", param)


def test_tools_that_may_not_be_called_change_nothing() -> None:
    request = asked(tools=[tool("find")], tool_choice="none")
    check_tools(request)
    assert request.answer_form == AnswerForm()


# -- what they mean for the chains


def test_nothing_given_means_what_the_page_does() -> None:
    assert settings() == (Settings(),)
    assert settings(reasoning_effort="medium") == (Settings(),)


def test_effort_means_steps_and_tokens_per_step() -> None:
    words = ("minimal", "low", "medium", "high", "xhigh")
    efforts = [settings(reasoning_effort=effort)[0] for effort in words]
    for less, more in pairwise(efforts):
        assert less.max_steps < more.max_steps
        assert less.step_tokens < more.step_tokens
    assert settings(reasoning_effort="max") == settings(reasoning_effort="xhigh")


def test_sampling_is_the_callers() -> None:
    (one,) = settings(temperature=0, top_p=0.5, seed=7)
    assert (one.temperature, one.top_p, one.seed) == (0, 0.5, 7)


def test_several_chains_have_a_seed_each_and_differ() -> None:
    voters = settings("m-vote5", seed=7)
    assert [one.seed for one in voters] == [7, 8, 9, 10, 11]
    assert {one.temperature for one in voters} == {VOTE}
    assert len(settings(n=3)) == 3


def test_a_temperature_that_was_asked_for_is_not_warmed() -> None:
    assert {one.temperature for one in settings("m-vote5", temperature=0.1)} == {0.1}


def test_a_vote_shares_its_choices_budget() -> None:
    assert {one.budget for one in settings("m-vote5", n=2, max_tokens=100)} == {20}
    with pytest.raises(ApiError, match="at least a token"):
        settings("m-vote5", max_tokens=4)


def test_a_request_runs_at_most_16_chains() -> None:
    assert len(settings("m-vote5", n=3)) == 15
    with pytest.raises(ApiError, match="20 chains; at most 16"):
        settings("m-vote5", n=4)


@pytest.mark.parametrize("given", [{"temperature": 0.5}, {"reasoning_effort": "low"}])
def test_what_the_models_way_has_no_use_for_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ApiError, match="has no use") as caught:
        check_supported(asked(**given), "coat")
    assert caught.value.param == next(iter(given))
    check_supported(asked(**given), "json_steps")


# -- messages


def read(*messages: tuple[str, Any], **more: Any) -> Any:
    return read_conversation(
        asked(messages=[{"role": role, "content": text} for role, text in messages]).messages
    )


def test_messages_become_instructions_turns_and_the_question() -> None:
    said = read(
        ("system", "Be brief."), ("user", "1+1?"), ("assistant", "2."), ("user", "And 2+2?")
    )
    assert said.instructions == "Be brief."
    assert said.history == (Turn("1+1?", "2."),)
    assert said.question == "And 2+2?"


def test_turns_of_one_side_in_a_row_are_joined() -> None:
    said = read(
        ("user", "A"),
        ("user", "B"),
        ("assistant", "C"),
        ("assistant", "D"),
        ("user", "E"),
        ("user", "F"),
    )
    assert said.history == (Turn("A\n\nB", "C\n\nD"),)
    assert said.question == "E\n\nF"


def test_system_and_developer_messages_are_joined_in_their_order() -> None:
    said = read(("system", "A"), ("developer", "B"), ("user", "Q"), ("system", "C"), ("user", "R"))
    assert (said.instructions, said.question) == ("A\n\nB\n\nC", "Q\n\nR")


def test_text_parts_are_one_text() -> None:
    assert (
        read(("user", [{"type": "text", "text": "Wh"}, {"type": "text", "text": "y?"}])).question
        == "Why?"
    )


def test_earlier_reasoning_is_given_back() -> None:
    turns = [{"role": "user", "content": "1?"}, {"role": "user", "content": "2?"}]
    answer: Any = {"role": "assistant", "content": "1.", "refusal": None, "tool_calls": []}
    for name in ("reasoning", "reasoning_content"):
        told = asked(messages=[turns[0], {**answer, name: "Because."}, turns[1]])
        assert read_conversation(told.messages).history == (Turn("1?", "1.", "Because."),)


def test_calls_of_tools_in_earlier_turns_are_the_models_words() -> None:
    """Clients ask again behind a call and its result, mostly because that was not valid."""
    called = {"name": "find", "arguments": '{"city": "Köln"}'}
    call = {"id": "c1", "type": "function", "function": called, "index": 0}
    messages = [
        {"role": "user", "content": "Where?", "name": "rosa"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "No such city.", "tool_call_id": "c1"},
    ]
    talk = read_conversation(asked(messages=messages).messages)
    assert talk.history == (Turn("Where?", '{"name": "find", "arguments": {"city": "Köln"}}'),)
    assert talk.question == "No such city."


def test_a_refusal_in_an_earlier_turn_is_what_was_said() -> None:
    answer = {"role": "assistant", "content": None, "refusal": "I will not."}
    messages = [*ASKED["messages"], answer, *ASKED["messages"]]
    talk = read_conversation(asked(messages=messages).messages)
    assert talk.history == (Turn("Why?", "I will not."),)


def test_words_of_ours_in_a_kept_talk_are_not_given_back_as_the_models() -> None:
    """Gateways before this one put their notices into the reasoning."""
    thought = (
        "### 1. Bad\n\nNon\n\n*Again: The server failed. EngineCore died.*\n\n"
        "### 1. Good\n\n**So** it is *2*.\n\n*The budget is nearly spent.*\n\n"
    )
    turns = [{"role": "user", "content": "1?"}, {"role": "user", "content": "2?"}]
    answer = {"role": "assistant", "content": "1.", "reasoning": thought}
    (turn,) = read_conversation(asked(messages=[turns[0], answer, turns[1]]).messages).history
    assert turn.reasoning == "### 1. Bad\n\nNon\n\n### 1. Good\n\n**So** it is *2*."


@pytest.mark.parametrize("kind", ["image_url", "input_audio", "file", "refusal", None, 5])
def test_parts_that_are_no_text_are_refused(kind: Any) -> None:
    problem = refused(messages=[{"role": "user", "content": [{"type": kind, "text": "x"}]}])
    assert (problem.code, problem.param) == ("unsupported_parameter", "messages[0].content")


@pytest.mark.parametrize(
    "messages",
    [[("assistant", "Hi."), ("user", "Q")], [("user", "Q"), ("assistant", "A")], [("system", "S")]],
)
def test_a_talk_begins_and_ends_with_the_user(messages: list[tuple[str, str]]) -> None:
    with pytest.raises(ApiError) as caught:
        read(*messages)
    assert (caught.value.status, caught.value.param) == (400, "messages")


@pytest.mark.parametrize("question", ["", "  \n", "x" * (MAX_QUESTION + 1)])
def test_a_question_has_a_length(question: str) -> None:
    with pytest.raises(BadQuestion):
        read(("user", question))


MESSAGES = st.lists(
    st.tuples(st.sampled_from(["system", "user", "assistant"]), st.text("ab \n", max_size=5)),
    min_size=1,
)


@given(MESSAGES)
def test_any_talk_has_an_outcome_and_no_word_of_the_user_is_lost(
    messages: list[tuple[str, str]],
) -> None:
    """A Conversation with every word in its order, or an ApiError or BadQuestion."""
    try:
        said = read(*messages)
    except (ApiError, BadQuestion):
        return
    told = [*(turn.question for turn in said.history), said.question]
    assert " ".join(told).split() == " ".join(t for r, t in messages if r == "user").split()
