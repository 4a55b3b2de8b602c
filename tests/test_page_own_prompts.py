"""The reader's own prompts: a reset is the last word on a prompt until it is written anew."""

from __future__ import annotations

from typing import Any

import pytest

from page import own_prompts
from page.own_prompts import own_prompts as changed

NAME = "answer"


@pytest.fixture(autouse=True)
def session(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    session: dict[str, Any] = {}
    monkeypatch.setattr("streamlit.session_state", session)
    return session


def test_a_text_area_that_a_reset_has_replaced_changes_nothing(session: dict[str, Any]) -> None:
    """Streamlit may play the change of a text area once more, after the click that reset it."""
    key = own_prompts._key("en", NAME)
    session[key] = "Like a pirate."
    own_prompts._change("en", NAME, key)
    assert changed("en", [NAME]) == {NAME: "Like a pirate."}
    own_prompts._reset("en", NAME)
    own_prompts._change("en", NAME, key)
    assert changed("en", [NAME]) == {}
