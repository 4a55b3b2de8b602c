"""Where a visitor is on the page: which run is shown, and which beside it.

It stands in the address (?run=..., and &beside=... where two are compared), so that a reload
or a link comes back to it.
"""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st


@dataclass(frozen=True, slots=True)
class Location:
    """What is shown: a run, perhaps another beside it; neither on the first page."""

    run: str | None = None
    beside: str | None = None


def read_location() -> Location:
    """What to show. A click knows better than the address that came with it."""
    if st.session_state.pop("went", False):
        location = current_location()
        _write_address(location)
        return location
    location = Location(st.query_params.get("run"), st.query_params.get("beside"))
    st.session_state["shown"] = location
    return location


def current_location() -> Location:
    """What this visitor looks at, for a callback: it runs before the page is drawn anew."""
    location: Location = st.session_state.get("shown", Location())
    return location


def go_to(run: str | None, beside: str | None = None) -> None:
    """A callback: shows that run, or the first page."""
    st.session_state["went"] = True
    st.session_state["shown"] = Location(run, beside)


def _write_address(location: Location) -> None:
    for name, id in (("run", location.run), ("beside", location.beside)):
        if id is not None:
            st.query_params[name] = id
        elif name in st.query_params:
            del st.query_params[name]
