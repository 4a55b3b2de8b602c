"""The JSON of an answer, alone: what a program can read of a model's text. Pure.

A server that is asked for JSON gives nothing else; one that cannot hold its model to it
may get a code fence, or words around.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

MAX_TRIED = 50  # a text of nothing but brackets must not take quadratic time
_DECODER = json.JSONDecoder()


def extract_json(text: str, begins: str) -> str:
    """The text where it is one JSON value, else the first one in it that begins so; "" for none.

    `begins` holds the characters that may begin one: "{[" for any object or list.
    """
    stripped = text.strip()
    if stripped and _end(stripped, 0) == len(stripped):
        return stripped
    found = ((start, _end(stripped, start)) for start in _openings(stripped, begins))
    return next((stripped[start:end] for start, end in found if end), "")


def extract_begun_json(text: str) -> str:
    """What can be shown of a text that is being written: its JSON, where it begins with it."""
    stripped = text.lstrip()
    if not stripped.startswith(("{", "[", '"')):
        return ""
    return stripped[: _end(stripped, 0) or len(stripped)]


def _openings(text: str, begins: str) -> Iterator[int]:
    found = (index for index, character in enumerate(text) if character in begins)
    for _, start in zip(range(MAX_TRIED), found, strict=False):
        yield start


def _end(text: str, start: int) -> int:
    """Where the JSON value that begins at `start` ends; 0 where none does."""
    try:
        return _DECODER.raw_decode(text, start)[1]
    except (ValueError, RecursionError):
        return 0
