"""Streamlit's own price of a page like ours: as many elements, and no model, history or thought.

bench/crowd.py talks to it as to the page: it is opened, asked, followed for 1.8 s in which eight
steps and an answer are written, and drawn anew at rest. The numbers of elements are those that
Stepwise's page sends, counted on the wire.
"""

from __future__ import annotations

import time

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

STEPS, DRAWINGS = 8, 4  # drawings of a step, 0.05 s apart
PAUSE = 0.05  # seconds
WORDS = "side {} is even. "


def draw() -> None:
    asked = st.session_state.get("asked", "")
    with st.sidebar:
        _frame(4, "side")
        st.text_input("Search", key="search")
        st.file_uploader("A trace", key="trace")
    _frame(8, "top")
    st.radio("Way", ["", "steps", "direct"], key="way")
    st.chat_input("Ask", key="box", on_submit=_ask)
    if not asked:
        return
    _frame(8, "run")
    done, place, count = st.session_state.get("done"), st.container(), st.empty()
    for number in range(1, STEPS + 1):
        _step(place, number, count, live=not done)
    if not done:
        st.session_state["done"] = True
        st.rerun()
    place.markdown(f"That is all, {asked.partition('I am ')[2]}")
    _frame(4, "end")


def _ask() -> None:
    st.session_state["asked"] = st.session_state["box"]


def _frame(blocks: int, key: str) -> None:
    """Two elements in a block, a button in every second."""
    for number in range(blocks):
        block = st.container()
        if number % 2:
            block.button(f"{key} {number}", key=f"{key}-{number}")
        else:
            block.markdown(f"{key} {number}")


def _step(place: DeltaGenerator, number: int, count: DeltaGenerator, live: bool) -> None:
    """A step: four blocks, its text, a menu; its text and the line that counts grow while live."""
    box = place.expander(f"Look at side {number}", type="step", expanded=live)
    box.container()
    text = box.container().empty()
    for drawing in range(1, 1 + DRAWINGS) if live else (DRAWINGS,):
        text.markdown(WORDS.format(number) * (2 * drawing + 2))
        if live:
            count.markdown(f"Step {number}, {drawing * PAUSE:.1f} s")
            time.sleep(PAUSE)
    box.container()
    row = box.container(horizontal=True)
    row.button("Copy", key=f"copy-{number}")
    row.menu_button("Steer", ["again", "edit"], key=f"steer-{number}")


draw()
