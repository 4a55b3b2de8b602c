"""A growing text on the page: what is sent of it, element by element."""

from __future__ import annotations

from typing import Any, cast

from streamlit.delta_generator import DeltaGenerator

from page.streaming_markdown import StreamingMarkdown


class Place:
    """A place on a page, which remembers what is put there; an element may be replaced."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str]] = []

    def _put(self, kind: str, text: str = "") -> Place:
        self.sent.append((kind, text))
        made = Place()
        made.sent = self.sent
        return made

    def empty(self) -> Place:
        return self._put("empty")

    def container(self, **_: Any) -> Place:
        return self._put("container")

    def markdown(self, text: str, **_: Any) -> Place:
        return self._put("markdown", text)


def shown() -> tuple[StreamingMarkdown, list[tuple[str, str]]]:
    place = Place()
    text = StreamingMarkdown(cast(DeltaGenerator, place))
    assert place.sent == [("empty", ""), ("container", "")]
    place.sent.clear()
    return text, place.sent


def test_a_block_is_one_element_from_its_first_word_on() -> None:
    text, sent = shown()
    text.write("One")
    text.write("One two")
    assert sent == [("markdown", "One"), ("markdown", "One two")]


def test_a_block_that_stands_is_not_sent_again() -> None:
    text, sent = shown()
    text.write("One\n\nTwo")
    text.write("One\n\nTwo three\n\nFour")
    assert sent == [("markdown", it) for it in ("One", "Two", "Two three", "Four")]


def test_a_text_that_is_taken_back_leaves_nothing_behind() -> None:
    text, sent = shown()
    text.write("One\n\nTwo")
    sent.clear()
    text.write("Three")
    assert sent == [("empty", ""), ("container", ""), ("markdown", "Three")]
