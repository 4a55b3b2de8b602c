"""A log names runs by their ids, and holds no question, answer or key of anybody's.

With --log-content it holds the questions and answers, and still no key.
"""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any
from urllib.error import HTTPError

import pytest

from gateway.logs import ChainLog
from gateway.observers import Chain
from history.request import RunRequest
from history.runs import Loop, Runs
from history.store import Store
from reasoning.detection import PROBE
from reasoning.endpoint import Endpoint
from reasoning.events import Delta, Event, Stopped
from reasoning.logs import LOG_CONTENT, OURS, JsonLines, start_logging
from reasoning.think import think
from tests.gateway_server import gateway, thinker
from tests.processes import ROOT, until
from tests.stub import Script, Stub, says, status

QUESTION, ANSWER = "Why did Rosa leave marker-question?", "Because of marker-answer."
KEY = "sk-marker-key-0815"
MARKERS = ("marker-question", "marker-answer")
Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def log(request: pytest.FixtureRequest) -> Iterator[io.StringIO]:
    """What the process logs, as gateway and page do; the parameter is the variable's value."""
    root, ours = logging.getLogger(), [logging.getLogger(name) for name in sorted(OURS)]
    before = root.handlers[:], root.level, [one.level for one in ours], logging.raiseExceptions
    root.handlers.clear()  # or they would be closed
    out = io.StringIO()
    start_logging({LOG_CONTENT: getattr(request, "param", ""), "OPENAI_API_KEY": KEY}, out)
    yield out
    logging.captureWarnings(False)
    root.handlers[:], root.level, levels, logging.raiseExceptions = before
    for one, level in zip(ours, levels, strict=True):
        one.setLevel(level)


@pytest.fixture
def lines(log: io.StringIO) -> Lines:
    return lambda: [json.loads(line) for line in log.getvalue().splitlines()]


# -- a chain through the gateway, and one through the page's runs

FAULT = status(400, {"error": {"message": f"{QUESTION} {KEY} is refused"}})


def refusing(request: dict[str, Any]) -> Any:
    """A chain; the gateway may find out first how to ask."""
    return says("It is 2.") if request["messages"][-1]["content"] == PROBE else FAULT


def answering(request: dict[str, Any]) -> Any:
    """Steps that say the markers, and the key as a model may that was told of it."""
    play = thinker(request)
    return play if "response_format" in request else says(f"{ANSWER} {KEY}")


def ask_gateway(*script: Script) -> str:
    """The id of the reply; "" where there is none."""
    asked = {"model": "stub-steps", "messages": [{"role": "user", "content": f"{QUESTION} {KEY}"}]}
    with Stub(*script) as stub, gateway(stub.base_url, KEY, observers=[ChainLog()]) as url:
        headers = {"Content-Type": "application/json"}
        call = urllib.request.Request(
            f"{url}/chat/completions", json.dumps(asked).encode(), headers
        )
        try:
            with urllib.request.urlopen(call, timeout=60) as response:
                return str(json.load(response)["id"])
        except HTTPError as error:
            error.read()
            return ""


def run_as_the_page(*script: Script) -> str:
    """The id of the run."""
    loop, store = Loop(), Store("sqlite://")
    with Stub(*script) as stub:
        endpoint = Endpoint(stub.base_url, KEY)

        async def thought(asked: RunRequest) -> AsyncIterator[Event]:
            model = await endpoint.model()
            inquiry = replace(asked, way="json_steps")
            async with aclosing(think(inquiry, endpoint=endpoint, model=model)) as events:
                async for event in events:
                    yield event

        run = Runs(loop, thought, store).start(RunRequest(f"{QUESTION} {KEY}"))
        until(lambda: run.ended)
    loop.loop.call_soon_threadsafe(loop.loop.stop)
    return run.id


@pytest.mark.parametrize("asks", [ask_gateway, run_as_the_page])
@pytest.mark.parametrize(
    ("log", "told"), [("", False), ("0", False), ("yes", False), ("1", True)], indirect=["log"]
)
def test_a_log_holds_what_was_asked_and_answered_only_where_it_is_wanted(
    asks: Callable[..., str], log: io.StringIO, told: bool, lines: Lines
) -> None:
    id = asks(answering)
    assert id
    assert {line["run"] for line in lines() if "run" in line} == {id}
    assert [marker in log.getvalue() for marker in MARKERS] == [told, told]
    assert KEY not in log.getvalue()
    ends = [line["message"] for line in lines() if line["message"].startswith("A run ")]
    assert ends == ["A run begins", "A run ends in an answer"]


@pytest.mark.parametrize("asks", [ask_gateway, run_as_the_page])
@pytest.mark.parametrize(("log", "told"), [("", False), ("1", True)], indirect=["log"])
def test_what_a_server_says_of_a_question_is_the_questions(
    asks: Callable[..., str], log: io.StringIO, told: bool, lines: Lines
) -> None:
    asks(refusing)
    assert ("marker-question" in log.getvalue()) is told
    assert KEY not in log.getvalue()
    assert {"A run failed"} <= {line["message"] for line in lines()}


def test_a_line_names_the_run_the_model_and_its_figures(lines: Lines) -> None:
    id = ask_gateway(answering)
    chain = [line for line in lines() if line["logger"] == "gateway.logs"]
    assert {(line["run"], line["chain"]) for line in chain} == {(id, 0)}
    assert len({line["session"] for line in chain}) == 1
    begins, *_, ends, cost = chain
    assert (begins["model"], begins["way"], begins["level"]) == ("stub", "json_steps", "info")
    assert [line["number"] for line in chain if line["message"] == "A step is done"] == [1, 2, 3]
    assert ends["tokens"] > 0
    assert cost["prompt_tokens"] > 0


def test_of_pieces_of_text_there_is_no_line(lines: Lines) -> None:
    with ChainLog().chain(Chain("chatcmpl-1", 0, "m-steps", "m", "cot")) as chain:
        chain.event(Delta(1, "content", "marker"))
        chain.event(Stopped(1.5))
    (line,) = lines()
    assert (line["message"], line["seconds"]) == ("A run was stopped", 1.5)


# -- what others log


def fail(words: str) -> None:
    try:
        raise KeyError(f"before {words}")
    except KeyError:
        raise ValueError(words)  # noqa: B904  as it happens


@pytest.mark.parametrize(("log", "told"), [("", False), ("1", True)], indirect=["log"])
def test_of_an_exception_the_types_and_the_places_are_logged(
    log: io.StringIO, told: bool, lines: Lines
) -> None:
    try:
        fail(f"{QUESTION} {KEY}")
    except ValueError:
        logging.getLogger("asyncio").exception("Not retrieved\nfuture: %s", QUESTION)
    (line,) = lines()
    assert [error["type"] for error in line["errors"]] == ["ValueError", "KeyError"]
    assert [at.rpartition(" ")[2] for at in line["errors"][0]["at"]][-1] == "fail"
    assert ("marker-question" in log.getvalue()) is told
    assert KEY not in log.getvalue()


def test_what_libraries_say_below_a_warning_is_not_heard(lines: Lines) -> None:
    """As openai says whole requests with OPENAI_LOG=debug."""
    chatty = logging.getLogger("openai._base_client")
    chatty.setLevel(logging.DEBUG)
    try:
        chatty.debug("Request options: %s", {"content": QUESTION})
        chatty.info("HTTP Request")
        chatty.warning("Retrying")
    finally:
        chatty.setLevel(logging.NOTSET)
    assert [line["message"] for line in lines()] == ["Retrying"]


def test_no_line_breaks_the_form() -> None:
    """By hand: pytest would send a record of a logger to its main process, which takes no half
    surrogates.
    """
    said = "two\nlines, \ud800 and \x1b[2J"
    line = JsonLines(False).format(logging.makeLogRecord({"name": "page.x", "msg": said}))
    assert len(line.splitlines()) == 1
    assert line.isascii()
    assert json.loads(line)["message"] == said


def test_a_record_that_cannot_be_written_is_not_printed(
    log: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    logging.getLogger("page.x").warning("%d", QUESTION)
    assert capsys.readouterr().err == ""


def test_a_short_key_is_a_word_and_stays() -> None:
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(JsonLines(False, ["none", "", "a-key-of-some-length"]))
    handler.handle(logging.makeLogRecord({"msg": "none and a-key-of-some-length"}))
    assert json.loads(out.getvalue())["message"] == "none and [key]"


@pytest.mark.slow
def test_streamlit_logs_in_our_form_whatever_logger_it_makes_and_when() -> None:
    code = """
import asyncio
from streamlit.error_util import _log_uncaught_app_exception
from streamlit.logger import get_logger
from page.lifespan import lifespan

async def main():
    async with lifespan(None):
        for error in (ValueError("marker-question"),):
            _log_uncaught_app_exception(error)
            get_logger("uvicorn.error").error("Exception in ASGI application", exc_info=error)
            get_logger("streamlit.made.later").warning("later")

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    said = [json.loads(line)["message"] for line in done.stderr.splitlines()]
    assert said == ["Uncaught app execution", "Exception in ASGI application", "later"]
    assert "marker-question" not in done.stdout + done.stderr
