"""The values that flow: what follows from them, and their way to JSON and back."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasoning.events import (
    KINDS,
    Answer,
    Delta,
    Event,
    Failed,
    Notice,
    Retry,
    Settings,
    Started,
    Step,
    Stopped,
    Trace,
    from_dict,
    to_dict,
)

STARTED = Started("q", "m", "json_steps", "en", 1.0, Settings(max_steps=7))
STEP = Step(1, "T", "C", "continue", 2.0, 20, attempts=2, first_token=0.1)
EVENTS: list[Event] = [
    STARTED,
    Delta(1, "title", "T"),
    Retry(1, 1, "unreachable", "No server answers.", wait=0.5),
    STEP,
    Notice("context", "The context is nearly full."),
    Answer("A", 1.0, 10),
]


@pytest.mark.parametrize("event", [*EVENTS, Failed("busy", "m", "r", 1.0), Stopped(2.0)])
def test_an_event_survives_json(event: Event) -> None:
    assert from_dict(json.loads(json.dumps(to_dict(event)))) == event


@given(st.sampled_from(list(KINDS)), st.text(), st.integers())
def test_a_key_that_a_later_version_added_does_no_harm(kind: str, key: str, value: int) -> None:
    written = {**to_dict(STEP), f"later_{key}": value}
    assert from_dict(written) == STEP


@pytest.mark.parametrize("values", [{}, {"kind": "dance"}, {"kind": "step", "title": "T"}])
def test_what_is_no_event_is_refused_by_name(values: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="expected"):
        from_dict(values)


def test_thinking_time_is_the_models_time_and_waiting_is_apart() -> None:
    trace = Trace(tuple(EVENTS))
    assert (trace.seconds, trace.waited, trace.tokens) == (3.0, 0.5, 30)


def test_a_stopped_run_owns_up_to_its_unfinished_time() -> None:
    assert Trace((STARTED, STEP, Stopped(1.5))).seconds == 3.5


def test_a_trace_knows_its_steps_answer_and_end() -> None:
    trace = Trace(tuple(EVENTS))
    assert trace.started == STARTED
    assert trace.steps == (STEP,)
    assert trace.end == trace.answer == Answer("A", 1.0, 10)
    assert Trace((STARTED,)).end is None
