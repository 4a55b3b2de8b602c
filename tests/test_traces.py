"""A run's way to JSON and back: nothing is lost but what is told twice, nothing bad comes in."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from reasoning.endpoint import Endpoint
from reasoning.events import (
    Answer,
    Correction,
    Delta,
    Event,
    Failed,
    Notice,
    Part,
    Retry,
    Settings,
    Started,
    Steer,
    Step,
    Stopped,
    Trace,
    Turn,
)
from reasoning.inquiry import Inquiry
from reasoning.think import think
from reasoning.traces import compact, trace_from_json, trace_schema, trace_to_json
from tests.examples import examples
from tests.processes import ROOT
from tests.real_servers import Server
from tests.reciter_steps import SUM

SCHEMA = ROOT / "docs" / "trace.schema.json"
STARTED = Started(
    "q",
    "m",
    "json_steps",
    "en",
    1.0,
    Settings(max_steps=7, seed=3),
    (Turn("earlier", "answered", "thought"),),
    Steer("again", "what it said"),
    {"step": "Think."},
)
STEP = Step(1, "T", "C", "continue", 2.0, 20, 2, 0.1, raw='{"title": "T"}', edited=True)
DOUBT = Step(2, "文", "C\n\n$x$", "reflect", 2.0, 0, asked="doubt")
TRACE = Trace(
    (
        STARTED,
        Retry(1, 1, "unreachable", "No server answers.", wait=0.5),
        Notice("format", "text", 1.0, 5),
        STEP,
        DOUBT,
        Correction(2, "3", "4"),
        Answer("A", 1.0, 10, 0.2, cut=True),
    )
)

NUMBERS, PARTS = st.integers(1, 3), st.sampled_from(get_args(Part))
EVENTS: st.SearchStrategy[Event] = st.one_of(
    st.builds(Delta, NUMBERS, PARTS, st.sampled_from(["a", "b", "c"])),
    st.builds(replace, st.just(STEP), number=NUMBERS, content=st.sampled_from(["x", "y"])),
    st.builds(Retry, NUMBERS, st.just(1), st.just("cut"), st.just("d")),
    st.builds(Notice, st.just("context"), st.just("d")),
    st.builds(Answer, st.sampled_from(["one", "two"]), st.just(1.0), st.just(1)),
)


class Reader:
    """What somebody knows who has seen the events, as the page shows them."""

    def __init__(self, events: tuple[Event, ...]) -> None:
        self.steps: dict[int, Step] = {}
        self.drafts: dict[tuple[int, str], str] = {}
        self.answer = self.tentative = ""
        for event in events:
            self.see(event)

    def see(self, event: Event) -> None:
        if isinstance(event, Delta) and event.part == "tentative":
            self.tentative += event.text
            return
        self.tentative = ""
        match event:
            case Delta(part="answer"):
                self.answer += event.text
            case Delta():
                place: tuple[int, str] = (event.number, event.part)
                before = "" if event.part == "action" else self.drafts.get(place, "")
                self.drafts[place] = before + event.text
            case Step():
                self.steps[event.number] = event
                for done in [one for one in self.drafts if one[0] == event.number]:
                    del self.drafts[done]
            case Retry():
                self.drafts, self.answer = {}, ""
            case Answer():
                self.drafts, self.answer = {}, event.content


@given(st.lists(EVENTS, max_size=30))
def test_whoever_reads_the_compact_events_knows_the_same(events: list[Event]) -> None:
    assert vars(Reader(compact(events))) == vars(Reader(tuple(events)))


def test_deltas_that_come_to_stand_side_by_side_are_one() -> None:
    step = Step(1, "T", "x", "continue", 1.0, 9)
    told = [Delta(2, "content", "a"), Delta(1, "content", "x"), Delta(2, "content", "b"), step]
    assert compact(told) == (Delta(2, "content", "ab"), step)


@given(st.lists(EVENTS, max_size=30))
def test_nothing_but_deltas_is_left_out_and_once_is_enough(events: list[Event]) -> None:
    short = compact(events)
    assert [one for one in short if not isinstance(one, Delta)] == [
        one for one in events if not isinstance(one, Delta)
    ]
    assert compact(short) == short
    assert Trace(short).seconds == Trace(tuple(events)).seconds


def test_text_without_a_place_is_kept_where_a_run_was_stopped_at_it() -> None:
    seen = (Delta(1, "tentative", "So, "), Delta(1, "tentative", "it is"))
    assert compact((*seen, Stopped())) == (Delta(1, "tentative", "So, it is"), Stopped())
    assert compact((*seen, Delta(1, "title", "T"))) == (Delta(1, "title", "T"),)


def test_what_was_being_written_when_a_run_was_stopped_stays() -> None:
    events = (STARTED, Delta(1, "title", "T"), Delta(1, "content", "a"), Delta(1, "content", "b"))
    assert compact((*events, Stopped(1.0))) == (
        STARTED,
        Delta(1, "title", "T"),
        Delta(1, "content", "ab"),
        Stopped(1.0),
    )


@pytest.mark.parametrize(
    "trace",
    [
        TRACE,
        Trace((STARTED,)),
        Trace((replace(STARTED, steer=None, history=()), STEP, Failed("busy", "m", "r", 1.0))),
        Trace((STARTED, Delta(1, "title", "T"), Stopped(1.0))),
    ],
)
def test_a_trace_survives_json(trace: Trace) -> None:
    assert trace_from_json(json.loads(json.dumps(trace_to_json(trace)))) == trace


def test_its_figures_stand_beside_its_events() -> None:
    values = trace_to_json(TRACE)
    assert (values["version"], values["seconds"], values["waited"]) == (1, 6.0, 0.5)
    assert values["tokens"] == 35


def changed(number: int, /, **values: Any) -> dict[str, Any]:
    """The trace as JSON, one event of it changed."""
    made: dict[str, Any] = json.loads(json.dumps(trace_to_json(TRACE)))
    made["events"][number] |= values
    return made


def ordered(*numbers: int) -> dict[str, Any]:
    """The trace's events, by their numbers."""
    made = trace_to_json(TRACE)
    return {**made, "events": [made["events"][number] for number in numbers]}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (None, "a JSON object"),
        ([], "a JSON object"),
        ({"version": 1}, "a JSON object"),
        ({"version": 1, "events": {}}, "a JSON object"),
        ({"version": 2, "events": []}, "version 1, got 2"),
        ({"events": []}, "version 1, got None"),
        ({"version": 1, "events": []}, "begins with"),
        ({"version": 1, "events": ["step"]}, "number 1"),
        ({"version": 1, "events": [{"kind": "dance"}]}, "dance"),
        ({"version": 1, "events": [{"kind": ["step"]}]}, "number 1"),
        (changed(3, content=5), "event 4 (step), content"),
        (changed(3, content=None), "event 4 (step), content"),
        (changed(3, tokens="20"), "event 4 (step), tokens"),
        (changed(3, tokens=True), "event 4 (step), tokens"),
        (changed(3, seconds=float("nan")), "finite"),
        (changed(3, seconds=float("inf")), "finite"),
        (changed(3, seconds=-1.0), "seconds from 0"),
        (changed(3, tokens=10**400), "tokens from 0"),
        (changed(0, at=1e300), "at from 0"),
        (changed(3, action="dance"), "event 4 (step), action"),
        (changed(3, content="x" * 1_000_001), "1,000,000 characters"),
        (changed(3, number=2), "expected step 1 of 2, got step 2"),
        (changed(0, settings={"max_steps": 1, "min_steps": 3}), "min_steps <= max_steps"),
        (changed(0, settings={"temperature": float("nan")}), "finite"),
        (changed(0, history=[{"question": 1}]), "history.0"),
        (changed(0, steer="doubt"), "steer"),
        (changed(0, prompts=["step"]), "prompts"),
        (ordered(3, 4), "begins with"),
        (ordered(0, 0), "begins with"),
        (ordered(0, 6, 3), "nothing after"),
        (ordered(0, 4), "expected step 1 of 1, got step 2"),
    ],
)
def test_what_is_no_trace_is_refused_in_one_line(values: Any, said: str) -> None:
    with pytest.raises(ValueError, match=r"\A[^\n]+\Z") as refused:
        trace_from_json(values)
    assert said in str(refused.value)
    assert len(str(refused.value)) < 200


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
FIELDS = [(n, key) for n, event in enumerate(ordered(*range(7))["events"]) for key in event]


@examples(3)
@given(st.sampled_from(FIELDS), JSON)
def test_whatever_a_field_holds_it_is_taken_whole_or_refused(
    place: tuple[int, str], value: Any
) -> None:
    number, key = place
    try:
        trace = trace_from_json(changed(number, **{key: value}))
    except ValueError:
        return
    again = trace_to_json(trace)
    assert trace_from_json(again) == trace
    assert json.dumps(again, allow_nan=False, ensure_ascii=False).encode()


def test_half_characters_and_control_characters_are_left_at_the_door() -> None:
    trace = trace_from_json(changed(3, content="a\0b\ud800c\x1b[2J\u202e", later={"\ud800": 1}))
    assert trace.steps[0].content == "ab\ufffdc[2J"


def test_a_field_that_a_later_version_added_does_no_harm() -> None:
    written = changed(0, later=1)
    written["events"][0]["settings"]["later"] = 2
    assert trace_from_json({**written, "later": 3}) == TRACE


def test_a_field_that_an_older_version_did_not_know_has_its_default() -> None:
    written = changed(0)
    for key in ("history", "steer", "prompts", "settings"):
        del written["events"][0][key]
    started = trace_from_json(written).started
    assert started == Started("q", "m", "json_steps", "en", 1.0)


def test_bounds_and_instructions_come_back_and_a_trace_from_before_them_is_read() -> None:
    settings = Settings(top_p=0.9, budget=2000, step_seconds=60.0, chain_seconds=600.0)
    started = Started("q", "m", "json_steps", "en", 1.0, settings, instructions="Be brief.")
    written = trace_to_json(Trace((started,)))
    assert trace_from_json(json.loads(json.dumps(written))).started == started
    for key in ("top_p", "budget", "step_seconds", "chain_seconds"):
        del written["events"][0]["settings"][key]
    del written["events"][0]["instructions"]
    assert trace_from_json(written).started == replace(
        started, settings=Settings(), instructions=""
    )


# -- the schema


def test_the_schema_in_the_docs_is_the_one_of_the_events() -> None:
    assert json.loads(SCHEMA.read_text(encoding="utf-8")) == trace_schema(), (
        "Write it anew: python -m reasoning.traces > docs/trace.schema.json"
    )


def test_the_schema_is_one_and_knows_each_field_of_each_event() -> None:
    Draft202012Validator.check_schema(trace_schema())
    definitions = trace_schema()["$defs"]
    for event in trace_to_json(TRACE)["events"]:
        kinds = [one for one in definitions.values() if event.keys() == one["properties"].keys()]
        assert [one["properties"]["kind"]["const"] for one in kinds] == [event["kind"]]


def valid(values: Any) -> bool:
    return bool(Draft202012Validator(trace_schema()).is_valid(values))


def test_the_schema_takes_a_trace_and_refuses_other_types() -> None:
    assert valid(json.loads(json.dumps(trace_to_json(TRACE))))
    assert not valid({"version": 2, "events": []})
    for wrong in (changed(3, content=5), changed(3, kind="dance"), changed(0, steer="doubt")):
        assert not valid(wrong)


async def test_a_real_runs_trace_is_valid_and_comes_back(reciter: Server) -> None:
    endpoint = Endpoint(reciter.base_url)
    try:
        model = await endpoint.model()
        few = Settings(max_steps=1, min_steps=1, step_tokens=60, answer_tokens=40)
        inquiry = Inquiry(SUM, settings=few)
        chain: AsyncIterator[Event] = think(inquiry, endpoint=endpoint, model=model)
        trace = Trace(tuple([event async for event in chain]))
    finally:
        await endpoint.close()
    written = json.loads(json.dumps(trace_to_json(trace)))
    assert valid(written)
    assert trace_from_json(written).events == compact(trace.events)
    assert trace.answer is not None
