"""The charts' figures, what is said of them, and that no name in them is more than text."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest

from page.charts import (
    MOST_GROUPS,
    Bar,
    draw_history_charts,
    draw_run_charts,
    five_numbers,
    group_by_model,
    spread_option,
    step_bars,
    time_option,
    tokens_option,
)
from page.i18n import Words
from reasoning.events import Answer, Event, Retry, Step, Trace

WORDS = Words("en")


@dataclass(frozen=True)
class Line:
    """As much of an entry of the history as a chart reads."""

    model: str = "little-one"
    way: str = "json_steps"
    state: str = "answered"
    seconds: float = 2.0
    steps: int = 3


class Place:
    """A place that remembers what was drawn in it; its expanders are open, or not."""

    def __init__(self, open: bool = True) -> None:
        self.open = open
        self.drawn: list[tuple[str, Any, dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Any:
        def draw(*given: Any, **how: Any) -> Place:
            self.drawn.append((name, given[0], how))
            return self

        return draw

    def all(self, kind: str) -> list[tuple[Any, dict[str, Any]]]:
        return [(given, how) for name, given, how in self.drawn if name == kind]


def step(number: int, seconds: float = 3.0, first_token: float | None = 1.0) -> Step:
    return Step(number, "t", "c", "continue", seconds, 50, first_token=first_token)


def trace(*events: Event) -> Trace:
    return Trace(events)


# -- a run


def test_a_steps_time_is_parted_at_its_first_token() -> None:
    assert step_bars(trace(step(1)), "Answer") == [Bar("1", 1.0, 2.0, 0.0, 50)]


def test_without_a_first_token_all_is_writing() -> None:
    assert step_bars(trace(step(1, first_token=None)), "Answer") == [Bar("1", 0.0, 3.0, 0.0, 50)]


def test_a_first_token_that_came_later_than_the_step_took_leaves_nothing_negative() -> None:
    (bar,) = step_bars(trace(step(1, 1.0, 1.5)), "Answer")
    assert (bar.first, bar.rest) == (1.0, 0.0)


def test_waiting_stands_apart_at_the_step_that_waited_or_at_the_answer() -> None:
    waits = [Retry(2, 1, "busy", "Busy.", 2.0), Retry(2, 2, "busy", "Busy.", 4.0)]
    late = Retry(3, 1, "busy", "Busy.", 1.0)
    found = step_bars(trace(step(1), *waits, step(2), late, Answer("4", 1.0, 9)), "Answer")
    assert [bar.waited for bar in found] == [0.0, 6.0, 1.0]
    assert [bar.seconds for bar in found] == [3.0, 3.0, 1.0]
    assert found[-1].name == "Answer"


def test_an_answer_that_took_no_time_of_its_own_has_no_bar() -> None:
    assert len(step_bars(trace(step(1), Answer("4", 0.0, 3)), "Answer")) == 1


def test_a_part_that_no_step_has_is_in_no_legend() -> None:
    def names(*events: Event) -> list[str]:
        series = time_option(step_bars(trace(*events), "Answer"), WORDS)["series"]
        return [one["name"] for one in series]

    assert names(step(1, first_token=None)) == ["Thinking"]
    assert names(step(1)) == ["To the first token", "Writing"]
    waited = Retry(1, 1, "busy", "Busy.", 2.0)
    assert names(waited, step(1))[-1] == "Waiting"


def test_what_is_told_apart_by_colour_is_told_apart_by_pattern_too() -> None:
    found = step_bars(trace(step(1)), "Answer")
    assert time_option(found, WORDS)["aria"]["decal"]["show"]
    assert not tokens_option(found, WORDS)["aria"]["decal"]["show"]


def test_charts_are_drawn_only_when_they_are_opened() -> None:
    shut, opened = Place(open=False), Place()
    for place in (shut, opened):
        draw_run_charts(place, trace(step(1)), WORDS)  # type: ignore[arg-type]
    assert [kind for kind, _, _ in shut.drawn] == ["expander"]
    assert len(opened.all("echarts_chart")) == 2


def test_a_run_without_steps_or_figures_has_no_charts() -> None:
    place = Place()
    draw_run_charts(place, trace(), WORDS)  # type: ignore[arg-type]
    assert place.drawn == []


def test_a_server_that_counts_no_tokens_has_no_chart_of_them() -> None:
    place, uncounted = Place(), Step(1, "t", "c", "continue", 2.0, 0)
    draw_run_charts(place, trace(uncounted), WORDS)  # type: ignore[arg-type]
    assert len(place.all("echarts_chart")) == 1


def test_each_chart_says_its_figures() -> None:
    place = Place()
    draw_run_charts(place, trace(step(1), Answer("4", 1.0, 9)), WORDS)  # type: ignore[arg-type]
    (_, time), (_, tokens) = place.all("echarts_chart")
    assert "Step 1 3.0 s, 1.0 s of them to the first token, Answer 1.0 s" in time["alt"]
    assert "Step 1 50 tokens, Answer 9 tokens" in tokens["alt"]


# -- the history


def test_models_are_told_apart_by_their_ways_and_the_most_used_come_first() -> None:
    lines: list[Any] = [Line(), *[Line(way="direct")] * 2, *[Line("large-one")] * 3]
    found = {name: len(group) for name, group in group_by_model(lines, WORDS).items()}
    assert list(found.items()) == [
        ("large-one (JSON steps)", 3),
        ("little-one (Direct)", 2),
        ("little-one (JSON steps)", 1),
    ]


def test_of_many_models_the_most_used_are_shown() -> None:
    lines: list[Any] = [Line(f"model-{number}") for number in range(40)]
    assert len(group_by_model(lines, WORDS)) == MOST_GROUPS


def test_the_five_figures_of_a_box() -> None:
    assert five_numbers([5.0, 1.0, 2.0, 4.0, 3.0]) == [1.0, 2.0, 3.0, 4.0, 5.0]


@pytest.mark.parametrize(("count", "box"), [(4, []), (5, [0.0, 1.0, 2.0, 3.0, 4.0])])
def test_a_box_needs_five_answers_and_every_answer_has_a_point(
    count: int, box: list[float]
) -> None:
    option = spread_option({"little-one": [float(n) for n in range(count)]}, WORDS)
    boxes, points = option["series"]
    assert [one["value"] for one in boxes["data"]] == [box]
    assert len(points["data"]) == count


def test_only_answered_runs_count_and_only_runs_with_steps_among_the_steps() -> None:
    place = Place()
    lines: list[Any] = [Line(), Line(state="failed"), Line(way="direct", steps=0)]
    draw_history_charts(place, lines, WORDS)  # type: ignore[arg-type]
    heads = [text for text, _ in place.all("markdown")]
    assert heads == ["**Thinking time of 2 answers, in seconds**", "**Steps of 1 answers**"]
    (_, time), (_, steps) = place.all("echarts_chart")
    assert "little-one (Direct): 1, median 2.0, from 2.0 to 2.0" in time["alt"]
    assert "Direct" not in steps["alt"]


def test_an_empty_history_says_so() -> None:
    place = Place()
    draw_history_charts(place, [], WORDS)  # type: ignore[arg-type]
    assert place.all("caption")
    assert not place.all("echarts_chart")


def test_no_tooltip_is_html() -> None:
    """A model's name comes from a server that is not ours."""
    hostile: list[Any] = [Line("<img src=x onerror=alert(1)>")] * 5
    place = Place()
    draw_history_charts(place, hostile, WORDS)  # type: ignore[arg-type]
    draw_run_charts(place, trace(step(1)), WORDS)  # type: ignore[arg-type]
    options = [option for option, _ in place.all("echarts_chart")]
    assert len(options) == 4
    for option in options:
        assert option["tooltip"]["renderMode"] == "richText"
        assert json.dumps(option)
