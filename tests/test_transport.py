"""A reply is as large as a reply can be, however it is cut."""

import pytest

from reasoning.errors import ServerFault
from reasoning.transport import MOST, MOST_AT_ONCE, Size

EVENT = b"data: " + b"x" * 1000


@pytest.mark.parametrize("between", [b"\n\n", b"\r\n\r\n", b"\r\r"])
@pytest.mark.parametrize("slices", [1, 7, 100_000])
def test_events_are_told_apart_however_they_are_cut(between: bytes, slices: int) -> None:
    size, text = Size(), (EVENT + between) * 10
    for start in range(0, len(text), slices):
        size.add(text[start : start + slices])
    assert size._since == 0


def added(part: bytes, times: int) -> None:
    size = Size()
    for _ in range(times):
        size.add(part)


def test_one_event_without_an_end_is_too_much() -> None:
    with pytest.raises(ServerFault, match="no end"):
        added(EVENT + b"\n", MOST_AT_ONCE // len(EVENT) + 1)


def test_events_without_an_end_are_too_much() -> None:
    with pytest.raises(ServerFault, match="no end"):
        added((EVENT + b"\n\n") * 1000, MOST // len(EVENT) // 1000 + 1)
