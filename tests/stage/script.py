"""What stands on the stage: the events of a file, live as far as a test lets them, then again.

The folder STAGE holds `events.json`, a trace, and `upto`, how many of its events have happened;
or `entries.json`, lines of a history (?history=1).
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from page.charts import draw_history_charts, draw_run_charts
from page.i18n import Words, language_of
from page.run_view import RunView, replay
from page.wording import total_line
from reasoning.events import Step, Trace, from_dict

FOLDER = Path(os.environ["STAGE"])
STYLE = Path("page/page.css")


def upto() -> int:
    return int((FOLDER / "upto").read_text() or 0)


def tools(place: DeltaGenerator, step: Step) -> None:
    place.button(f"Tool {step.number}", key=f"tool-{step.number}", type="tertiary")


def read(name: str) -> Any:
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


def draw() -> None:
    st.html(STYLE)
    words = Words(language_of(st.query_params.get("lang"), None))
    if "history" in st.query_params:
        entries: list[Any] = [SimpleNamespace(**line) for line in read("entries.json")]
        draw_history_charts(st.container(), entries, words)
    else:
        draw_run(words, Trace(tuple(from_dict(event) for event in read("events.json"))))
    st.chat_input("Ask", key="box")


def draw_run(words: Words, trace: Trace) -> None:
    folding: Any = st.query_params.get("folding", "current")
    view = RunView(st.container(), words, folding=folding, tools=tools)
    if upto() < len(trace.events):
        follow(view, trace)
    replay(view, trace)
    view.render_ending(trace)
    st.caption(total_line(trace, words))
    draw_run_charts(st.container(), trace, words)


def follow(view: RunView, trace: Trace) -> None:
    st.chat_input("Ask", key="box")
    seen = 0
    while seen < len(trace.events):
        now = upto()
        for event in trace.events[seen:now]:
            view.add(event)
        seen = max(seen, now)
        view.render()
        time.sleep(0.02)
    st.rerun()


draw()
