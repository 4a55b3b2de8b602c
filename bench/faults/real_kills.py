"""The real vLLM's engine and a PostgreSQL, ended in mid-chain twenty times: for a free machine.

    scripts/bench faults --only real_kills

./serve.sh serves SmolLM2 and starts what was killed again, five times in ten minutes at most: so
twenty kills take some forty minutes. A chain goes on each time; its finished steps stay as they
were shown, numbered without a gap.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from bench.faults.playing import LISTED, QUESTION, lost, script, steps_of
from bench.faults.promise import Effort, Promise, Tally
from bench.faults.remembering import thinker
from history.request import RunRequest
from history.run import Run
from history.runs import Loop, Runs
from history.store import Store
from reasoning.endpoint import Patience
from reasoning.events import ENDS, Delta, Settings, Step, Trace
from serving.restarts import MOST, WITHIN
from tests.postgres import Postgres, postgres
from tests.processes import ROOT, free_port, start, until
from tests.stub import Stub

ENGINE = "VLLM::EngineCore"
RESTART = Patience(restart=600.0)
START = 900.0  # seconds: a cold machine compiles and reads everything for the first time


def keep(effort: Effort, tally: Tally) -> None:
    with TemporaryDirectory(prefix="stepwise-") as folder:
        databases = _postgres(effort.of(20, 3), tally)
        engines = _engine(effort.of(20, 2), Path(folder), tally)
    tally.tell(f"PostgreSQL stopped {databases} times, vLLM's engine killed {engines} times")


# -- PostgreSQL


def _postgres(times: int, tally: Tally) -> int:
    with postgres(()) as server, Stub(script(0.01), models=LISTED) as stub:
        store = Store(server.url())
        runs = Runs(Loop(), thinker(stub.base_url), store)
        for number in range(times):
            run = runs.start(RunRequest(QUESTION, "json_steps"))
            problem = _stopped_beneath(run, server, store)
            tally.note(f"PostgreSQL, stop {number + 1}", problem)
        store.close()
    return times


def _stopped_beneath(run: Run, server: Postgres, store: Store) -> str:
    """The run goes on and is shown meanwhile, and is whole in the store afterwards."""
    until(lambda: len(steps_of(run.events(0))) >= 2, 60)
    server.stop()
    until(lambda: isinstance(run.heard.events[-1], ENDS), 60)
    server.start()
    until(lambda: run.settled, 120)
    return lost(steps_of(run.events(0))) or lost(steps_of(store.events(run.id)))


# -- vLLM


@contextmanager
def served(folder: Path) -> Iterator[tuple[subprocess.Popen[Any], str]]:
    """./serve.sh with the small model: its process, and the base URL."""
    port = free_port()
    command: list[str | Path] = [ROOT / "serve.sh", "--model", "smollm2-135m-instruct"]
    command += ["--port", str(port)]
    with (folder / "serve.log").open("w") as out:
        process = start(command, cwd=ROOT, stdout=out, stderr=out)
        try:
            until(lambda: "answers." in (folder / "serve.log").read_text(), START)
            yield process, f"http://127.0.0.1:{port}/v1"
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)


def _engine(times: int, folder: Path, tally: Tally) -> int:
    with served(folder) as (process, base_url):
        store = Store(f"sqlite:///{folder}/history.db")
        runs = Runs(Loop(), thinker(base_url, RESTART), store)
        for number in range(times):
            if number and number % (MOST - 1) == 0:
                time.sleep(WITHIN)  # or ./serve.sh takes it for broken, as it should
            asked = RunRequest(QUESTION, "json_steps", Settings(min_steps=4, max_steps=6))
            problem = _killed_beneath(runs.start(asked), process)
            tally.note(f"vLLM's engine, kill {number + 1}", problem)
        store.close()
    return times


def _killed_beneath(run: Run, process: subprocess.Popen[Any]) -> str:
    until(partial(_writes_behind, run, 1), START)
    before = steps_of(run.events(0))
    for child in psutil.Process(process.pid).children(recursive=True):
        if ENGINE in child.name() or ENGINE in " ".join(child.cmdline()):
            child.kill()
    until(lambda: run.ended, START)
    return _kept(before, run.trace)


def _writes_behind(run: Run, number: int) -> bool:
    """Whether a step behind that one is being written."""
    return any(isinstance(one, Delta) and one.number > number for one in run.events(0))


def _kept(before: Sequence[Step], trace: Trace) -> str:
    """The small model may repeat itself and write no step more: then its answer follows."""
    after, numbers = trace.steps, [step.number for step in trace.steps]
    if list(after[: len(before)]) != list(before) or numbers != list(range(1, len(after) + 1)):
        return f"{len(before)} steps before it, after it {numbers}"
    return "" if trace.answer else f"it ended in {trace.end}"[:200]


PROMISE = Promise(
    "the same of vLLM's engine and of PostgreSQL (asked for by name: it takes the machine alone)",
    keep,
)
