"""What a model server does wrong, on real sockets: to core, terminal, gateway and page.

Each fault of tests/faults.py comes as the first reply, in mid-chain, and as the list of models.
None may escape; each is told in its own words, in one line, without a key; none outlasts the
time that a reply may take by more than half a second. Pauses between tries are cut short.
"""

from __future__ import annotations

import asyncio
import http.client
import io
import json
import logging
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import aclosing, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch
from urllib.parse import urlsplit

from bench.faults.playing import LISTED, NAME
from bench.faults.promise import Effort, Promise, Tally, escaped
from bench.faults.transport_page import FIRST, look_at_all
from reasoning import __main__ as terminal
from reasoning import retry
from reasoning.endpoint import Endpoint, Patience, Request, ServedModel
from reasoning.errors import StepwiseError
from reasoning.events import Event, Failed, Settings, Step
from reasoning.inquiry import Inquiry
from reasoning.think import think
from tests.faults import FAULTS
from tests.gateway_server import events_of, gateway
from tests.stub import Play, Script, Stub

PATIENCE = Patience(connect=1, first=1, idle=1, whole=2, short=1)
LATE = 0.5  # seconds
DRIP = "a slow drip"  # the one that only the time of the whole reply ends
STEP_SECONDS = 2.0  # of the terminal, which takes no other time
PAUSE = 0.01  # seconds before another try
MODEL = ServedModel(NAME)
STUBS = "stub.py"  # tests/stub.py ends its own connections by cancelling them
KEY = "secret-key-0815"
JSON = {"Content-Type": "application/json"}


@dataclass(slots=True)
class Overrun:
    """Seconds by which the latest of all outlasted its time, and what that was."""

    seconds: float = float("-inf")
    of: str = ""

    def note(self, of: str, seconds: float) -> str:
        """What is wrong with it, if anything."""
        if seconds > self.seconds:
            self.seconds, self.of = seconds, of
        return f"{seconds:.1f} s too late" if seconds > LATE else ""


def keep(effort: Effort, tally: Tally) -> None:
    every = effort.of(1, 4)  # in quick mode all but the core meet each fourth
    late = Overrun()
    with (
        patch.object(retry, "FIRST_WAIT", PAUSE),
        patch.object(retry, "MUTE_WAIT", 10 * PAUSE),
        watched() as logged,
    ):
        asyncio.run(_core(tally, late))
        some = dict(list(FAULTS.items())[::every])
        _terminal(some, tally, late)
        _gateway(some, tally, late)
        tally.note("what was logged", "; ".join(logged)[:200])
    look_at_all(some, tally)
    rest = "terminal, gateway and page"
    tally.tell(f"{len(FAULTS)} faults on the core, {len(some)} of them on {rest}")
    tally.tell(f"the latest {late.seconds:+.2f} s after its time ({late.of})")


@contextmanager
def watched() -> Iterator[list[str]]:
    """The errors that a log would hold of what escaped: tracebacks, tasks whose error was lost."""
    found: list[str] = []

    class Watch(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said = " ".join(record.getMessage().split())
            if STUBS not in said:
                found.append(said[:120])

    watch = Watch(logging.ERROR)
    for name in ("uvicorn.error", "asyncio"):
        logging.getLogger(name).addHandler(watch)
    yield found
    for name in ("uvicorn.error", "asyncio"):
        logging.getLogger(name).removeHandler(watch)


# -- the core


async def _core(tally: Tally, late: Overrun) -> None:
    for name, (play, expected) in FAULTS.items():
        tally.note(f"core, {name}", await _one_call(name, play, expected, late))
        tally.note(f"core, mid-chain, {name}", await _mid_chain(play))
        tally.note(f"core, models, {name}", await _models(name, play, late))
    for name in ("hangs before headers", "hangs in the body", DRIP):
        tally.note(f"core, deadline, {name}", await _deadline(name, late))


async def _one_call(name: str, play: Play, expected: type[StepwiseError], late: Overrun) -> str:
    request = Request(MODEL, ({"role": "user", "content": "Hi"},), 50)
    with Stub(play) as stub:
        endpoint, began = Endpoint(stub.base_url, KEY, patience=PATIENCE), time.monotonic()
        try:
            async with aclosing(endpoint.chat(request)) as pieces:
                async for _ in pieces:
                    pass
            problem = "nothing is wrong with it"
        except StepwiseError as error:
            problem = _words(error, expected)
        except Exception as error:  # any at all: that none escapes is the promise
            problem = escaped(error)
        spent = time.monotonic() - began
        await endpoint.close()
    return problem or late.note(f"core, {name}", spent - _allowed(name))


def _allowed(name: str) -> float:
    return PATIENCE.whole if name == DRIP else PATIENCE.first


def _words(error: StepwiseError, expected: type[StepwiseError]) -> str:
    said = str(error)
    if type(error) is not expected:
        return f"expected {expected.__name__}, got {type(error).__name__}: {said}"
    if not said or "\n" in said or KEY in said:
        return f"not in one line, or with the key: {said!r}"
    return ""


async def _chain(stub: Stub, patience: Patience, settings: Settings) -> list[Event]:
    endpoint = Endpoint(stub.base_url, KEY, patience=patience)
    inquiry = Inquiry("Why?", "json_steps", settings=settings)
    chain = think(inquiry, endpoint=endpoint, model=MODEL, sleep=lambda _: asyncio.sleep(0))
    try:
        async with aclosing(chain) as events:
            return [event async for event in events]
    finally:
        await endpoint.close()


async def _mid_chain(play: Play) -> str:
    """The step before the fault stays, and the failure is told."""
    with Stub(FIRST, play) as stub:
        try:
            events = await _chain(stub, PATIENCE, Settings())
        except Exception as error:  # any at all: that none escapes is the promise
            return escaped(error)
    steps, end = [e for e in events if isinstance(e, Step)], events[-1]
    if not steps or not isinstance(end, Failed) or not end.message:
        return f"{len(steps)} steps, and at the end {end}"[:200]
    return ""


async def _models(name: str, play: Play, late: Overrun) -> str:
    with Stub(models=play) as stub:
        endpoint, began = Endpoint(stub.base_url, KEY, patience=PATIENCE), time.monotonic()
        problem = ""
        try:
            await endpoint.model()
        except StepwiseError as error:
            problem = _words(error, type(error))
        except Exception as error:  # any at all: that none escapes is the promise
            problem = escaped(error)
        spent = time.monotonic() - began
        await endpoint.close()
    return problem or late.note(f"core, models, {name}", spent - PATIENCE.short)


async def _deadline(name: str, late: Overrun) -> str:
    """A step's own time, where the server's silence is borne for longer."""
    with Stub(FAULTS[name][0]) as stub:
        began = time.monotonic()
        *_, end = await _chain(stub, Patience(), Settings(step_seconds=1.0))
        spent = time.monotonic() - began
    if not isinstance(end, Failed) or end.code != "deadline":
        return f"expected the deadline to strike, got {end}"[:200]
    return late.note(f"core, deadline, {name}", spent - 1.0)


# -- the terminal


def _terminal(
    faults: Mapping[str, tuple[Play, type[StepwiseError]]], tally: Tally, late: Overrun
) -> None:
    for name, (play, _) in faults.items():
        for words in ((), ("--json",)):
            tally.note(f"terminal {' '.join(words)}, {name}", _asked(name, play, words, late))


class Begun:
    """When a play was first asked for."""

    def __init__(self, play: Play) -> None:
        self._play, self.at = play, 0.0

    def script(self) -> Script:
        async def play(writer: Any) -> None:
            self.at = self.at or time.monotonic()
            await self._play(writer)

        return play


def _asked(name: str, play: Play, words: tuple[str, ...], late: Overrun) -> str:
    """As `python -m reasoning` does it, without another start of Python."""
    begun, out, err = Begun(play), io.StringIO(), io.StringIO()
    seconds = f"--step-seconds={STEP_SECONDS}"
    with Stub(begun.script(), models=LISTED) as stub:
        given = {"OPENAI_BASE_URL": stub.base_url, "OPENAI_API_KEY": KEY, "MODEL": ""}
        with patch.dict(os.environ, given), redirect_stdout(out), redirect_stderr(err):
            try:
                code = terminal.main(["Why?", "--way=json_steps", seconds, *words])
            except BaseException as error:  # any at all: that none escapes is the promise
                return escaped(error)
    spent = time.monotonic() - begun.at
    return _printed(code, out.getvalue(), err.getvalue(), words) or late.note(
        f"terminal, {name}", spent - STEP_SECONDS
    )


def _printed(code: int, out: str, err: str, words: tuple[str, ...]) -> str:
    if code != 1:
        return f"exit code {code}"
    if KEY in out + err or "Traceback" in out + err:
        return "the key or a traceback is printed"
    end = json.loads(out)["events"][-1] if words else {"kind": "failed", "message": out}
    if end["kind"] != "failed" or not end["message"].strip():
        return f"no failure is told: {end}"[:200]
    return ""


# -- the gateway


def _gateway(
    faults: Mapping[str, tuple[Play, type[StepwiseError]]], tally: Tally, late: Overrun
) -> None:
    for name, (play, _) in faults.items():
        with Stub(play, models=LISTED) as stub, gateway(stub.base_url, KEY, PATIENCE) as url:
            for model, streamed in (
                (f"{NAME}-steps", False),
                (f"{NAME}-steps", True),
                (NAME, True),
            ):
                what = f"gateway, {model}{', streamed' * streamed}, {name}"
                tally.note(what, _called(url, model, streamed, name, late))


def _called(url: str, model: str, streamed: bool, name: str, late: Overrun) -> str:
    """Each try may take its own time; what passes through is tried once, and asked for whole."""
    tries = retry.TRIES if model.endswith("-steps") else 1
    allowed = tries * (_allowed(name) if tries > 1 else PATIENCE.whole)
    client = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    messages = [{"role": "user", "content": "Why?"}]
    body = {"model": model, "stream": streamed, "messages": messages, "max_tokens": 500}
    began = time.monotonic()
    client.request("POST", "/v1/chat/completions", json.dumps(body), JSON)
    try:
        response = client.getresponse()
        text = response.read().decode("utf-8", "replace")
    except (OSError, http.client.HTTPException) as error:
        return f"no reply: {error!r}"[:200]
    spent = time.monotonic() - began
    client.close()
    problem = _refused(response.status, text) if tries > 1 else _passed(response.status, text)
    if tries == 1 and name == DRIP:  # its client's to end: only silence has a time there
        return problem
    return problem or late.note(f"gateway, {model}, {name}", spent - allowed)


def _refused(code: int, text: str) -> str:
    """An error in OpenAI's shape: as a status, or as the last event before [DONE]."""
    told = events_of(text) if code == 200 else [json.loads(text), "[DONE]"]
    if len(told) < 2 or told[-1] != "[DONE]" or "error" not in told[-2]:
        return f"no error at the end of {code} {text[-100:]!r}"
    error = told[-2]["error"]
    ours = ("internal_error", "invalid_value", "invalid_json")  # and not the server's fault
    if error["code"] in ours or not error["message"]:
        return f"{code} {error}"[:200]
    return f"it tells too much: {error['message']}" if _tells(error["message"]) else ""


def _passed(code: int, text: str) -> str:
    if code == 500 and "internal_error" in text:
        return "an error of the gateway's own"
    return "the gateway's key comes back" if KEY in text else ""


def _tells(message: str) -> bool:
    return bool(re.search(rf"{KEY}|127\.0\.0\.1|Traceback|EngineCore|boom", message))


PROMISE = Promise(
    "whatever a model server does to a connection, it is told in its own words, no finished step "
    f"is lost, and no deadline is passed by more than {LATE} s (core, terminal, gateway, page)",
    keep,
)
