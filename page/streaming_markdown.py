"""Markdown that grows in one place: blocks that stand already are not sent again."""

from __future__ import annotations

from streamlit.delta_generator import DeltaGenerator

from page.markdown import safe_blocks


class StreamingMarkdown:
    """A text on the page that is written on. Each of its blocks is an element of its own."""

    def __init__(self, place: DeltaGenerator) -> None:
        self._slot = place.empty()
        self._begin()

    def write(self, text: str) -> None:
        """Shows the text as it is now."""
        parts = safe_blocks(text)
        kept = max(0, len(self._standing) - 1)
        if self._standing[:kept] != list(parts[:kept]) or len(parts) < len(self._standing):
            self._slot.empty()  # else the old blocks stay until the script ends
            self._begin()
        for number, part in enumerate(parts):
            self._put(number, part)

    def _put(self, number: int, part: str) -> None:
        if number == len(self._standing):
            self._last = self._place.markdown(part, anchors=False)
            self._standing.append(part)
        elif self._standing[number] != part:
            self._last.markdown(part, anchors=False)
            self._standing[number] = part

    def _begin(self) -> None:
        self._place = self._slot.container(gap="xsmall")
        self._standing: list[str] = []
        self._last = self._place
