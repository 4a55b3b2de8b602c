"""The reader's own prompts: a reset is the last word on a prompt until it is written anew."""

from __future__ import annotations

from typing import Any

import pytest

from page import prompt_editor
from page.prompt_editor import edited_prompts as changed

NAME = "answer"


@pytest.fixture(autouse=True)
def session(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    session: dict[str, Any] = {}
    monkeypatch.setattr("streamlit.session_state", session)
    return session


def test_a_text_area_that_a_reset_has_replaced_changes_nothing(session: dict[str, Any]) -> None:
    """Streamlit may play the change of a text area once more, after the click that reset it."""
    key = prompt_editor._area_key("en", NAME)
    session[key] = "Like a pirate."
    prompt_editor._on_change("en", NAME, key)
    assert changed("en", [NAME]) == {NAME: "Like a pirate."}
    prompt_editor._on_reset("en", NAME)
    prompt_editor._on_change("en", NAME, key)
    assert changed("en", [NAME]) == {}
