"""Processes that are killed (SIGKILL) in mid-chain: no step is lost and none comes twice.

* The model server, once in each step of a chain: the chain waits for it and goes on.
* A process that thinks and keeps a history, as the page does: the next one goes on after the
  steps that are kept, and those are at least the ones that were shown.
* The gateway: what a client has of the stream is whole steps and no false end, the model server's
  work has ended within a second, and a gateway that is started again answers anew.
"""

from __future__ import annotations

import http.client
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from bench.faults.playing import ANSWER, LISTED, NAME, QUESTION, STEPS, lost, script, steps_of
from bench.faults.promise import Effort, Promise, Tally
from bench.faults.remembering import thinker
from history.request import RunRequest
from history.run import Run
from history.runs import Loop, Runs
from history.store import Store
from reasoning.endpoint import Patience
from reasoning.events import Answer, Delta
from tests.gateway_process import SECRET, Running, started
from tests.gateway_server import events_of
from tests.processes import ROOT, free_port, start, until
from tests.stub import Stub

RESTART = Patience(restart=60.0)  # as ./serve.sh has it for who stands before its server
HEADING = re.compile(r"^### (\d+)\. ", re.M)
IDLE = 1.0  # seconds


def keep(effort: Effort, tally: Tally) -> None:
    with TemporaryDirectory(prefix="stepwise-") as folder:
        model = _model_server(effort.of(200, 8), Path(folder), tally)
        process = _history(effort.of(200, 6), Path(folder), tally)
        gateway = _gateway(effort.of(200, 3), Path(folder), tally)
    tally.tell(f"model server killed {model} times, a process with a history {process} times")
    tally.tell(f"gateway {gateway} times")


def child(*words: str, environment: Mapping[str, str] = {}) -> subprocess.Popen[str]:
    """One of ours, in Python; what it prints is read."""
    command, given = [sys.executable, "-m", *words], {**os.environ, **environment}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    return start(command, cwd=ROOT, env=given, text=True, **pipes)


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait(30)
    assert process.stdout is not None
    process.stdout.close()


# -- the model server


class Model:
    """The playing model, in a process that comes and goes."""

    def __init__(self) -> None:
        self.port = free_port()
        self.base_url = f"http://127.0.0.1:{self.port}/v1"
        self.start()

    def start(self) -> None:
        self.process = child("bench.faults.playing", str(self.port))
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def kill(self) -> None:
        kill(self.process)


def _model_server(times: int, folder: Path, tally: Tally) -> int:
    random, killed, model = Random(1), 0, Model()
    store = Store(f"sqlite:///{folder}/model.db")
    runs = Runs(Loop(), thinker(model.base_url, RESTART), store)
    while killed < times:
        run = runs.start(RunRequest(QUESTION, "json_steps"))
        kills = _killed_in_each_step(run, model, min(STEPS, times - killed), random)
        until(partial(_has_ended, run), 120)
        problem = _lost_of(run, store)
        tally.note(f"the model server, {kills} kills in a chain", problem, kills)
        killed += kills
    model.kill()
    store.close()
    return killed


def _has_ended(run: Run) -> bool:
    return run.ended


def _lost_of(run: Run, store: Store) -> str:
    """Of what is shown, and of what is kept."""
    end = run.events(0)[-1]
    if not isinstance(end, Answer) or end.content != ANSWER:
        return f"it ended in {end}"[:200]
    return lost(run.trace.steps) or lost(steps_of(store.events(run.id)))


def _killed_in_each_step(run: Run, model: Model, most: int, random: Random) -> int:
    """Waits until step after step is being written, and kills the server once in each."""
    kills = seen = 0
    while not run.ended and kills < most:
        news = run.events(seen, 60.0)
        seen += len(news)
        if any(isinstance(one, Delta) and one.number == kills + 1 for one in news):
            time.sleep(random.random() * 0.03)
            model.kill()
            model.start()
            kills += 1
    return kills


# -- a process that keeps a history


def _history(times: int, folder: Path, tally: Tally) -> int:
    random, killed, chain = Random(2), 0, 0
    with Stub(script(), models=LISTED) as stub:
        while killed < times:
            chain += 1
            database = f"sqlite:///{folder}/history-{chain}.db"
            problem, kills = _gone_on(database, stub, random, times - killed)
            tally.note(f"a process with a history, {kills} kills in a chain", problem, kills)
            killed += kills
    return killed


def _gone_on(database: str, stub: Stub, random: Random, most: int) -> tuple[str, int]:
    """One chain over as many processes as it takes: what is wrong with it, and the kills."""
    run, kills, kept = "", 0, 0
    while True:
        process = child("bench.faults.remembering", database, stub.base_url, run)
        last = kept + (random.randint(0, 3) if kills < most else STEPS)
        run, shown, ended = _read(process, last)
        kill(process)
        store = Store(database)
        steps = steps_of(store.events(run))
        store.close()
        if problem := lost(steps, whole=ended):
            return problem, max(kills, 1)
        if len(steps) < shown:
            return f"{len(steps)} steps are kept, {shown} were shown", max(kills, 1)
        if ended:
            return "", kills
        kills, kept = kills + 1, len(steps)


def _read(process: subprocess.Popen[str], last: int) -> tuple[str, int, bool]:
    """Until step `last` is shown: the run, how many steps are, whether it has ended."""
    assert process.stdout is not None
    run, shown = "", 0
    for line in process.stdout:
        run, word = line.split()
        if word == "ended":
            return run, shown, True
        shown = int(word)
        if shown > last:
            return run, shown, False
    raise RuntimeError(f"the process ended by itself, with status {process.wait()}")


# -- the gateway


def _gateway(times: int, folder: Path, tally: Tally) -> int:
    random = Random(3)
    with Stub(script(), models=LISTED) as stub:
        for number in range(times):
            running = started(folder / "gateway.log", OPENAI_BASE_URL=stub.base_url)
            problem = _asked_whole(running) or _killed_in_a_stream(
                running, stub, random.randint(1, STEPS)
            )
            tally.note(f"the gateway, kill {number + 1}", problem)
    return times


def _body(streamed: bool) -> dict[str, object]:
    messages = [{"role": "user", "content": QUESTION}]
    return {"model": f"{NAME}-steps", "stream": streamed, "messages": messages}


def _asked_whole(running: Running) -> str:
    """What a gateway that was just started says of it."""
    status, text = running.ask("POST", "/v1/chat/completions", _body(True))
    told = events_of(text.decode())
    numbers = _numbers(told)
    if status != 200 or told[-1] != "[DONE]" or numbers != list(range(1, STEPS + 1)):
        return f"asked anew: {status}, steps {numbers}, at its end {told[-1]}"[:200]
    return ""


def _killed_in_a_stream(running: Running, stub: Stub, after: int) -> str:
    """Killed once step `after` has been told."""
    heard = b""
    stream = running.sent("POST", "/v1/chat/completions", _body(True), SECRET).getresponse()
    while f"### {after}. ".encode() not in heard:
        heard += (line := stream.readline())
        assert line, "the stream ended by itself"
    running.process.kill()
    began = time.monotonic()
    heard += _rest(stream)
    running.process.wait(30)
    told = events_of(heard[: heard.rfind(b"\n\n") + 2].decode())
    if "[DONE]" in told or _numbers(told) != list(range(1, len(_numbers(told)) + 1)):
        return f"of a stream that broke: steps {_numbers(told)}, at its end {told[-1]}"[:200]
    until(lambda: not stub.playing, 10)
    idle = time.monotonic() - began
    return f"the model server worked on for {idle:.1f} s" if idle > IDLE else ""


def _rest(stream: http.client.HTTPResponse) -> bytes:
    """What still comes of a stream that breaks."""
    try:
        return stream.read()
    except http.client.IncompleteRead as error:
        return error.partial
    except OSError:
        return b""


def _numbers(told: list[object]) -> list[int]:
    """Of the steps, as they stand in the reasoning of a stream's events."""
    deltas = [
        one["choices"][0]["delta"] for one in told if isinstance(one, dict) and one["choices"]
    ]
    return [int(it) for it in HEADING.findall("".join(d.get("reasoning") or "" for d in deltas))]


PROMISE = Promise(
    "a process that is killed in mid-chain costs no finished step, and no step comes twice",
    keep,
)
