"""A full server: said as such, by its own numbers, and waited for; beyond a set length, 429."""

from __future__ import annotations

import asyncio
from argparse import ArgumentTypeError
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from typing import Any

import httpx2
import pytest

from gateway.admission import UNSEEN, Admission, queue_length
from gateway.errors import ApiError
from gateway.render import ChainRenderer, Remark
from history.request import RunRequest
from history.run import Run
from page.conversation import progress_line
from page.i18n import Words
from page.run_view import RunView
from reasoning.__main__ import show
from reasoning.chunks import waiting_of
from reasoning.endpoint import Endpoint, Piece, Replicas, Request, ServedModel
from reasoning.events import Delta, Queued, Step
from reasoning.inquiry import Inquiry
from reasoning.metering import Meter
from reasoning.think import think
from reasoning.traces import compact
from tests.gateway_server import gateway, thinker
from tests.scripted import Scripted, Time, pieces
from tests.stub import Play, Stub, status

VLLM = ServedModel("scripted", 8192, vllm=True)
ASKED = Request(VLLM, ({"role": "user", "content": "Why?"},), 9)
FIGURES = 'vllm:num_requests_running{engine="0"} 4.0\nvllm:num_requests_waiting{engine="0"} %s\n'


class Full(Scripted):
    """A server that writes once it was asked so often who waits, and told these numbers."""

    def __init__(self, *waiting: int | None) -> None:
        super().__init__("It is so.")
        self.told, self.left, self.free = list(waiting), list(waiting), asyncio.Event()

    async def waiting(self) -> int | None:
        found = self.left.pop(0)
        if not self.left:
            self.free.set()
        return found

    async def chat(self, request: Request) -> AsyncGenerator[Piece, None]:
        if self.told:
            await self.free.wait()
            await asyncio.sleep(0)
        async with aclosing(super().chat(request)) as said:
            async for piece in said:
                yield piece


async def places(*waiting: int | None) -> list[int]:
    told: list[int] = []
    meter = Meter(Full(*waiting), look=0.0)

    async def queued(place: int) -> None:
        told.append(place)

    meter.queued = queued
    assert [piece.text async for piece in meter.chat(ASKED)] == [
        it.text for it in pieces("It is so.")
    ]
    return told


@pytest.mark.parametrize(
    ("waiting", "told"),
    [
        ((3, 3, 2, 1, 0), [3, 2, 1, 0]),
        ((2, 5, 4, 1, 0), [2, 1, 0]),  # who comes later waits behind
        ((0,), []),  # its own prompt is being read, and then others come
        ((None,), []),  # no vLLM tells
    ],
)
async def test_the_place_in_the_queue_is_told_as_it_falls(
    waiting: tuple[int | None, ...], told: list[int]
) -> None:
    assert await places(*waiting) == told


async def test_nobody_is_asked_where_the_first_piece_comes_at_once() -> None:
    server = Full()
    meter = Meter(server, look=60.0)
    assert [piece async for piece in meter.chat(ASKED)]
    assert not server.left


async def test_a_chain_says_that_the_server_is_full_and_goes_on() -> None:
    meter = Meter(Full(2, 1, 0), look=0.0)
    inquiry = Inquiry("Why?", "direct")
    async with aclosing(think(inquiry, endpoint=meter, model=VLLM)) as events:
        found = [event async for event in events]
    assert [event.place for event in found if isinstance(event, Queued)] == [2, 1, 0]
    assert type(found[-1]).__name__ == "Answer"


@pytest.mark.parametrize(
    ("place", "ordinal"),
    [(1, "1st"), (2, "2nd"), (3, "3rd"), (4, "4th"), (11, "11th"), (22, "22nd"), (113, "113th")],
)
def test_a_place_is_said_as_people_say_it(place: int, ordinal: str) -> None:
    assert Queued(place).ordinal == ordinal


def test_a_place_holds_until_the_next_event_and_is_not_kept() -> None:
    step = Step(1, "T", "C", "continue", 1.0, 1)
    assert compact([Queued(2), Queued(1), Delta(1, "title", "T"), step]) == (step,)
    assert compact([step, Queued(2), Queued(1)]) == (step, Queued(1))


@pytest.mark.parametrize(
    ("figures", "waiting"),
    [
        (FIGURES % "3.0", 3),
        (FIGURES % "0.0", 0),
        (FIGURES % "1.0" + FIGURES % "4.0", 3),  # of two replicas the mean, and whole
        ("vllm:num_requests_waiting_by_reason 7.0\nup 1\n", None),
        ("vllm:num_requests_waiting 1e99\n", None),
        ("<html>", None),
        ("", None),
    ],
)
def test_how_many_wait_is_read_from_what_vllm_tells_prometheus(
    figures: str, waiting: int | None
) -> None:
    assert waiting_of(figures) == waiting


# -- where it is said


def test_the_page_says_the_place_in_both_languages() -> None:
    run, view = Run(RunRequest("Why?")), RunView(None, Words("en"))  # type: ignore[arg-type]
    run.hear(Queued(3))
    assert progress_line(Words("en"), run, view).startswith("The model server is full: 3rd in line")
    assert "第 3 位" in progress_line(Words("zh"), run, view)
    run.hear(Queued(0))
    assert "full" not in progress_line(Words("en"), run, view)


def test_terminal_and_gateway_say_the_place_and_not_that_its_turn_has_come() -> None:
    assert "2nd in line" in str(show(Queued(2)))
    assert show(Queued(0)) is None
    (remark,) = ChainRenderer().render(Queued(2))
    assert remark == Remark("queued", "The model server is full: 2nd in line.")
    assert not list(ChainRenderer().render(Queued(0)))


# -- what the endpoint asks


class Telling(Stub):
    """A vLLM that tells how many wait, and what stands behind it."""

    figures, health, asked = FIGURES % "2.0", b"", 0

    def _play(self, lines: str, body: bytes) -> Play:
        path = lines.split(" ")[1]
        if path == "/metrics":
            self.asked += 1
            return status(200, self.figures.encode(), kind="text/plain")
        if path == "/health":
            return status(200, self.health)
        return super()._play(lines, body)


async def test_all_who_ask_at_once_are_told_the_same_once() -> None:
    with Telling() as stub:
        endpoint = Endpoint(stub.base_url)
        assert await asyncio.gather(*(endpoint.waiting() for _ in range(50))) == [2] * 50
        await endpoint.close()
    assert stub.asked == 1


@pytest.mark.parametrize(
    ("health", "replicas"),
    [
        (b"", None),
        (b'{"status": "ok"}', None),
        (b"[1]", None),
        (b'{"replicas": 3, "up": 2}', Replicas(3, 2)),
    ],
)
async def test_how_many_servers_answer_is_read_from_the_fronts_health(
    health: bytes, replicas: Replicas | None
) -> None:
    with Telling() as stub:
        stub.health = health
        endpoint = Endpoint(stub.base_url)
        assert await endpoint.replicas() == replicas
        await endpoint.close()


async def test_a_server_that_is_gone_has_no_queue_and_no_replicas() -> None:
    with Telling() as stub:
        pass
    endpoint = Endpoint(stub.base_url)
    assert (await endpoint.waiting(), await endpoint.replicas()) == (None, None)
    await endpoint.close()


# -- who may begin


class Queue:
    """What the server tells, changed by a test."""

    def __init__(self, waiting: int | None) -> None:
        self.now = waiting

    async def waiting(self) -> int | None:
        return self.now


async def entered(admission: Admission, times: int) -> int:
    """How many of so many were let in."""
    found = await asyncio.gather(*(admission.enter() for _ in range(times)), return_exceptions=True)
    refused = [one for one in found if isinstance(one, ApiError)]
    assert {(one.status, one.code, one.headers["Retry-After"]) for one in refused} <= {
        (429, "queue_full", "5")
    }
    return len(found) - len(refused)


async def test_beyond_the_queue_nobody_begins_until_it_is_shorter() -> None:
    time, queue = Time(), Queue(0)
    admission = Admission(queue.waiting, 4, time)
    assert await entered(admission, 100) == 4  # a crowd, before the server's numbers know of it
    queue.now, time.now = 4, time.now + UNSEEN
    assert await entered(admission, 10) == 0
    queue.now = 3
    assert await entered(admission, 10) == 1


@pytest.mark.parametrize(("most", "waiting"), [(None, 1000), (1, None)])
async def test_without_a_bound_or_a_server_that_tells_all_may_begin(
    most: int | None, waiting: int | None
) -> None:
    assert await entered(Admission(Queue(waiting).waiting, most), 50) == 50


@pytest.mark.parametrize("text", ["0", "-1", "many", "10000000", ""])
def test_a_length_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="from 1 to 1000000, got"):
        queue_length(text)


@contextmanager
def busy(waiting: str, **options: Any) -> Iterator[tuple[Telling, httpx2.Client]]:
    with Telling(thinker) as stub:
        stub.figures = FIGURES % waiting
        with gateway(stub.base_url, **options) as url, httpx2.Client(base_url=url) as client:
            yield stub, client


@pytest.mark.parametrize("model", ["stub", "stub-steps"])
@pytest.mark.parametrize("path", ["chat/completions", "responses"])
def test_the_gateway_answers_429_beyond_its_queue(model: str, path: str) -> None:
    question: Sequence[Any] = [{"role": "user", "content": "Why?"}]
    body = {"model": model, "messages": question, "input": "Why?"}
    body.pop("input" if path == "chat/completions" else "messages")
    with busy("3.0", queue=3) as (stub, client):
        reply = client.post(path, json=body)
        assert (reply.status_code, reply.headers["retry-after"]) == (429, "5")
        error = reply.json()["error"]
        assert (error["code"], "3 requests wait" in error["message"]) == ("queue_full", True)
        assert client.get("models").status_code == 200
    assert not stub.requests


def test_a_shorter_queue_lets_it_through() -> None:
    body = {"model": "stub", "messages": [{"role": "user", "content": "Why?"}]}
    with busy("2.0", queue=3) as (stub, client):
        assert client.post("chat/completions", json=body).status_code == 200
    assert len(stub.requests) == 1
