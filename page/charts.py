"""Charts: what each step of a run took, and how all answers of the history spread by model.

The upper half is pure: figures to ECharts options. No name is drawn as HTML (a tooltip is rich
text), colours have patterns beside them, and each chart says its figures for a screen reader.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from streamlit.delta_generator import DeltaGenerator

from page.i18n import Words
from page.palette import AMBER, GREY, TEAL, VIOLET
from reasoning.events import Retry, Trace

if TYPE_CHECKING:
    from history.entries import Entry

ENOUGH = 5  # answers that a box says more about than their points do
BARS_HEIGHT, ROW_HEIGHT, AXIS_HEIGHT = 230, 64, 90  # pixels
MOST_GROUPS = 12  # rows of a chart over the history: the models with the most answers
LONGEST_NAME = 40  # characters of a model's name
Option = dict[str, Any]


# -- figures


@dataclass(frozen=True, slots=True)
class Bar:
    """What a step took: seconds to the first token, seconds after it, seconds waited, tokens."""

    name: str
    first: float
    rest: float
    waited: float
    tokens: int

    @property
    def seconds(self) -> float:
        return self.first + self.rest


def step_bars(trace: Trace, answer: str) -> list[Bar]:
    """One for each step, and one for an answer that took time of its own."""
    waits: dict[int, float] = {}
    for event in trace.events:
        if isinstance(event, Retry):
            waits[event.number] = waits.get(event.number, 0.0) + event.wait
    found = [_bar(str(step.number), step, waits.pop(step.number, 0.0)) for step in trace.steps]
    end = trace.answer
    if end is not None and end.seconds:
        found.append(_bar(answer, end, sum(waits.values())))
    return found


def _bar(name: str, part: Any, waited: float) -> Bar:
    """Without a time to the first token all of it is writing."""
    first = min(part.first_token or 0.0, part.seconds)
    return Bar(name, first, part.seconds - first, waited, part.tokens)


def group_by_model(entries: Sequence[Entry], words: Words) -> dict[str, list[Entry]]:
    """The entries by model and way, those with the most answers first."""
    found: dict[str, list[Entry]] = {}
    for entry in entries:
        way = words.of("way", entry.way, way=entry.way)
        name = words.of("charts", "group", model=_short(entry.model), way=way)
        found.setdefault(name, []).append(entry)
    most = sorted(found, key=lambda name: -len(found[name]))[:MOST_GROUPS]
    return {name: found[name] for name in most}


def _short(model: str) -> str:
    return model if len(model) <= LONGEST_NAME else model[: LONGEST_NAME - 1] + "\u2026"


def five_numbers(figures: Sequence[float]) -> list[float]:
    """Least, lower quartile, median, upper quartile, most."""
    low, middle, high = statistics.quantiles(figures, n=4, method="inclusive")
    return [min(figures), low, middle, high, max(figures)]


# -- options


def time_option(found: Sequence[Bar], words: Words) -> Option:
    """Bars in parts: to the first token, writing, and what was waited."""
    split = any(bar.first for bar in found)
    parts = [("writing" if split else "whole", TEAL, [bar.rest for bar in found])]
    if split:
        parts.insert(0, ("first", AMBER, [bar.first for bar in found]))
    if any(bar.waited for bar in found):
        parts.append(("waiting", GREY, [bar.waited for bar in found]))
    series = [_series(words.of("charts", code), colour, data) for code, colour, data in parts]
    return _in_bars([bar.name for bar in found], series)


def tokens_option(found: Sequence[Bar], words: Words) -> Option:
    series = _series(words.of("charts", "tokens"), VIOLET, [bar.tokens for bar in found])
    return _in_bars([bar.name for bar in found], [series])


def _series(name: str, colour: str, data: Sequence[float]) -> Option:
    rounded = [round(figure, 2) for figure in data]
    look = {"color": colour, "borderRadius": 2}
    return {"type": "bar", "name": name, "stack": "all", "data": rounded, "itemStyle": look}


def _in_bars(names: list[str], series: list[Option]) -> Option:
    """A legend and patterns only where there is more than one thing to tell apart."""
    several = len(series) > 1
    return {
        "aria": {"enabled": True, "decal": {"show": several}},
        "animation": False,
        "tooltip": {"trigger": "axis", "renderMode": "richText", "confine": True},
        "legend": {"show": several, "top": 0, "left": 0, "itemGap": 14},
        "grid": {"left": 8, "right": 8, "top": 36 if several else 10, "bottom": 4},
        "xAxis": {"type": "category", "data": names, "axisTick": {"show": False}},
        "yAxis": {"type": "value", "splitNumber": 4},
        "series": series,
    }


def spread_option(figures: dict[str, list[float]], words: Words) -> Option:
    """A row for each group: its points, and a box where there are enough of them."""
    names = list(figures)
    points = [[value, row] for row, name in enumerate(names) for value in figures[name]]
    boxes = [_box_data(name, found, words) for name, found in figures.items()]
    look = {"color": "transparent", "borderColor": TEAL, "borderWidth": 2}
    return {
        "aria": {"enabled": True},
        "animation": False,
        "tooltip": {"trigger": "item", "renderMode": "richText", "confine": True},
        "grid": {"left": 8, "right": 16, "top": 8, "bottom": 4},
        "xAxis": {"type": "value", "min": 0, "splitNumber": 4},
        "yAxis": {
            "type": "category",
            "data": names,
            "inverse": True,
            "axisTick": {"show": False},
            "axisLabel": {"width": 130, "overflow": "break"},
        },
        "series": [
            {
                "type": "boxplot",
                "name": words.of("charts", "boxes"),
                "data": boxes,
                "boxWidth": [12, 26],
                "itemStyle": look,
            },
            {
                "type": "scatter",
                "name": words.of("charts", "points"),
                "data": points,
                "symbolSize": 7,
                "silent": True,  # the box beneath them tells the figures
                "itemStyle": {"color": VIOLET, "opacity": 0.45},
            },
        ],
    }


def _box_data(name: str, found: list[float], words: Words) -> Option:
    tooltip = {"formatter": _group_alt(name, found, words)}
    return {"value": five_numbers(found) if len(found) >= ENOUGH else [], "tooltip": tooltip}


# -- said


def _time_alt(found: Sequence[Bar], words: Words) -> str:
    said = [_bar_alt(bar, words.seconds(bar.seconds), words) for bar in found]
    return words.of("charts", "time_alt", figures=", ".join(said))


def _tokens_alt(found: Sequence[Bar], words: Words) -> str:
    said = [_bar_alt(replace(bar, first=0.0), words.tokens(bar.tokens), words) for bar in found]
    return words.of("charts", "tokens_alt", figures=", ".join(said))


def _bar_alt(bar: Bar, figure: str, words: Words) -> str:
    part = words.of("charts", "step", number=bar.name) if bar.name.isdigit() else bar.name
    code = "part_first" if bar.first else "part"
    return words.of("charts", code, part=part, figure=figure, first=words.seconds(bar.first))


def _spread_alt(heading: str, figures: dict[str, list[float]], words: Words) -> str:
    said = "; ".join(_group_alt(name, found, words) for name, found in figures.items())
    return words.of("charts", "history_alt", title=heading, figures=said)


def _group_alt(name: str, found: Sequence[float], words: Words) -> str:
    figures = {"least": min(found), "median": statistics.median(found), "most": max(found)}
    said = {key: f"{figure:.1f}" for key, figure in figures.items()}
    return words.of("charts", "history_part", group=name, runs=len(found), **said)


# -- drawing


def draw_run_charts(place: DeltaGenerator, trace: Trace, words: Words, key: str = "charts") -> None:
    """Under a run, when they are opened: the seconds and tokens of each step."""
    found = step_bars(trace, words.of("charts", "answer"))
    if not found:
        return
    label, icon = words.of("charts", "open"), ":material/bar_chart:"
    box = place.expander(label, key=key, icon=icon, type="compact", on_change="rerun")
    if not box.open:
        return
    _draw_heading(box, words.of("charts", "time"), words.of("charts", "time_about"))
    _draw(box, time_option(found, words), _time_alt(found, words), f"{key}-time")
    if any(bar.tokens for bar in found):
        _draw_heading(box, words.of("charts", "tokens"))
        _draw(box, tokens_option(found, words), _tokens_alt(found, words), f"{key}-tokens")


def draw_history_charts(place: DeltaGenerator, entries: Sequence[Entry], words: Words) -> None:
    """Over the history: how thinking time and steps spread for each model."""
    found = group_by_model([entry for entry in entries if entry.state == "answered"], words)
    if not found:
        place.caption(words.of("charts", "none"))
        return
    seconds = {name: [round(entry.seconds, 2) for entry in group] for name, group in found.items()}
    steps = {
        name: [float(entry.steps) for entry in group if entry.steps]
        for name, group in found.items()
    }
    _draw_spread(place, "history_time", seconds, words)
    _draw_spread(place, "history_steps", steps, words)


def _draw_spread(
    place: DeltaGenerator, code: str, given: dict[str, list[float]], words: Words
) -> None:
    figures = {name: found for name, found in given.items() if found}
    if not figures:
        return
    heading = words.of("charts", code, runs=sum(map(len, figures.values())))
    _draw_heading(place, heading, words.of("charts", "history_about"))
    height = AXIS_HEIGHT + ROW_HEIGHT * len(figures)
    said = _spread_alt(heading, figures, words)
    _draw(place, spread_option(figures, words), said, code.replace("_", "-"), height)


def _draw_heading(place: DeltaGenerator, text: str, about: str | None = None) -> None:
    place.markdown(f"**{text}**", help=about, anchors=False)


def _draw(
    place: DeltaGenerator, option: Option, said: str, key: str, height: int = BARS_HEIGHT
) -> None:
    place.echarts_chart(option, height=height, key=key, alt=said)
