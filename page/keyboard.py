"""The keys of the page. What they do is in keyboard.js; this puts it into the page.

A new question is a button's own shortcut. Stop is not: Streamlit's shortcut would stop the
run too where Escape closes a menu.
"""

from __future__ import annotations

from pathlib import Path

import streamlit as st

NEW = "Ctrl+Shift+O"  # as in other chats; Ctrl+N is the browser's
FOCUS, STOP = "/", "Esc"

_SCRIPT = Path(__file__).with_name("keyboard.js").read_text(encoding="utf-8")
_listen = st.components.v2.component("stepwise_keyboard", js=_SCRIPT)


def listen_for_keys(letters: bool = True) -> None:
    """Listens. Keys without Ctrl or Alt (`letters`) can be turned off: they are also dictated."""
    with st.container(key="keyboard"):
        _listen(key="keys", data={"letters": letters})
