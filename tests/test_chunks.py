"""An event becomes a piece or a ServerFault, whatever JSON it is."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasoning.chunks import Piece, read_chunk, server_words
from reasoning.errors import ServerFault


def event(**choice: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, **choice}]}


def delta(**fields: Any) -> dict[str, Any]:
    return event(delta=fields)


@pytest.mark.parametrize(
    ("content", "piece"),
    [
        ("Hi", Piece("Hi")),
        ([], Piece()),
        ([{"type": "text", "text": "Hi"}, {"type": "text", "text": " you"}], Piece("Hi you")),
        (["Hi", {"type": "text", "text": " you"}], Piece("Hi you")),
        ({"type": "text", "text": "Hi"}, Piece("Hi")),
        ([{"type": "refusal", "refusal": "No."}], Piece(refusal="No.")),
        (
            [{"type": "thinking", "thinking": [{"type": "text", "text": "So"}]}, "Hi"],
            Piece("Hi", reasoning="So"),
        ),
        ([{"type": "text", "text": "a\ud800b"}], Piece("a\ufffdb")),
    ],
)
def test_content_parts_are_read_as_text(content: Any, piece: Piece) -> None:
    assert read_chunk(delta(content=content)) == piece


@pytest.mark.parametrize(
    ("odd", "expected", "got"),
    [
        ([1], "an object for an event", "a list"),
        (None, "an object for an event", "nothing"),
        ({"choices": {}}, "a list of choices", "an object"),
        ({"choices": 7}, "a list of choices", "a number"),
        ({"choices": [[]]}, "an object for a choice", "a list"),
        (event(delta="Hi"), "an object for delta", "text"),
        (event(finish_reason={}), "text for finish_reason", "an object"),
        (event(text=["Hi"]), "text for text", "a list"),
        (delta(content=5), "text for content", "a number"),
        (delta(content=True), "text for content", "true or false"),
        (delta(content={"a": 1}), "text for content", "an object"),
        (delta(content=[{"type": "image_url"}]), "text for content", "an object"),
        (delta(content=[{"type": "text", "text": {}}]), "text for text", "an object"),
        (delta(refusal={"a": 1}), "text for refusal", "an object"),
        (delta(reasoning={"a": 1}), "text for reasoning", "an object"),
    ],
)
def test_what_cannot_be_read_is_named(odd: object, expected: str, got: str) -> None:
    with pytest.raises(ServerFault, match=f"Expected {expected} in the reply, got {got}"):
        read_chunk(odd)


@pytest.mark.parametrize("usage", [[], 5, "x", {"prompt_tokens": [3]}, {"prompt_tokens": -1}])
def test_figures_that_are_none_are_not_told(usage: object) -> None:
    assert read_chunk({"choices": [], "usage": usage}) == Piece()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FIELDS = ("content", "refusal", "reasoning", "reasoning_content", "role", "tool_calls")
CHOICE = st.fixed_dictionaries(
    {},
    optional={
        "delta": JSON | st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, JSON)),
        "finish_reason": JSON,
        "text": JSON,
    },
)


@given(
    JSON
    | st.fixed_dictionaries({"choices": st.lists(JSON | CHOICE, max_size=2)})
    | st.fixed_dictionaries({"choices": st.lists(CHOICE, max_size=1), "usage": JSON})
)
def test_whatever_comes_is_a_piece_or_a_named_failure(whatever: object) -> None:
    try:
        piece = read_chunk(whatever)
    except ServerFault:
        return
    assert all(type(it) is str for it in (piece.text, piece.reasoning, piece.refusal))
    assert type(piece.finish_reason) in (str, type(None))
    f"{piece.text}{piece.reasoning}{piece.refusal}".encode()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("boom", "boom"),
        ({"error": "boom"}, "boom"),
        ({"error": {"message": "boom\n\x1b[2Jat once"}}, "boom [2Jat once"),
        ({"detail": [{"msg": "bad"}]}, '[{"msg": "bad"}]'),
        ({"error": {"message": ["a"]}}, '["a"]'),
        (None, ""),
    ],
)
def test_a_servers_words_are_one_line(body: object, words: str) -> None:
    assert server_words(body) == words


def test_words_that_are_nested_too_deep_are_none() -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    assert server_words({"error": deep}) == ""
