"""The way a model gets: by its catalogue entry, else by asking it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable

import pytest

from reasoning import detection
from reasoning.detection import DetectedWays, detect_way
from reasoning.endpoint import Piece, Request, ServedModel
from reasoning.errors import Silent, Unreachable
from reasoning.events import Failed
from reasoning.think import WAYS
from serving.catalogue import load
from tests.scripted import Line, Scripted, run

NEW = ServedModel("brand-new", 4096, vllm=True)


class Counting(Scripted):
    """Knows some texts as one token, the others as three."""

    def __init__(self, *lines: Line, known: Iterable[str] = ()) -> None:
        super().__init__(*lines)
        self.known = set(known)

    async def count(self, text: str) -> int | None:
        return 1 if text in self.known else 3


COAT = ("<|continue|>", "<|reflect|>", "<|explore|>")


@pytest.mark.parametrize(
    ("asked", "way"),
    [
        (Counting("It is 2.", known=COAT), "coat"),
        (Counting("It is 2.", known=COAT[:2]), "json_steps"),
        (Counting("It is 2."), "json_steps"),
        (Counting([Piece(reasoning="Okay"), Piece("2", "stop")]), "native"),
        (Counting("<think>\nOkay"), "native"),
        (Counting("\n<think>Okay</think>2"), "native"),
        (Scripted("It is 2."), "json_steps"),
    ],
)
async def test_an_unknown_model_is_asked(asked: Scripted, way: str) -> None:
    assert await detect_way(asked, NEW, {}) == way


async def test_a_server_that_cannot_be_asked_is_an_error_and_no_guess() -> None:
    with pytest.raises(Unreachable):
        await detect_way(Scripted(Unreachable("Gone.", "Start it.")), NEW, {})


async def test_a_server_that_drips_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detection, "PROBE_SECONDS", 0.1)
    with pytest.raises(Silent, match=r"In 0\.1 s .* brand-new"):
        await detect_way(Dripping(), NEW, {})


class Dripping(Scripted):
    async def chat(self, request: Request) -> AsyncGenerator[Piece, None]:
        while True:
            await asyncio.sleep(0.01)
            yield Piece("2")


async def test_a_model_of_the_catalogue_is_not_asked() -> None:
    server = Scripted("It is 2.")
    assert await detect_way(server, NEW, {"brand-new": "direct"}) == "direct"
    assert server.requests == []


def test_every_catalogue_entry_names_a_way_that_exists() -> None:
    for model in load().values():
        assert model.way in WAYS, model.name


async def test_a_way_that_does_not_exist_is_a_failure_that_names_those_that_do() -> None:
    events = await run(Scripted("It is 2."), way="magic")
    assert isinstance(events[-1], Failed)
    assert "json_steps" in events[-1].remedy


async def test_a_model_is_asked_once_and_one_that_is_known_never() -> None:
    server = Scripted("It is 2.")
    ways = DetectedWays(server, {"known": "native"})
    assert ways.known("known") == "native"
    assert ways.known(NEW.name) == ""
    assert (
        [await ways.of(NEW), await ways.of(NEW)] == [ways.known(NEW.name)] * 2 == ["json_steps"] * 2
    )
    assert len(server.requests) == 1
