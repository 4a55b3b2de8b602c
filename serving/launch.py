"""From commands to a server that answers: started, waited for, watched, stopped.

What is started comes from command.py; a test may hand in any other command.
"""

from __future__ import annotations

import re
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NoReturn

from serving.catalogue import ROOT
from serving.command import ServerSpec
from serving.processes import Service, start, stop
from serving.report import Report
from serving.restarts import Died, Restarter, display_path, tell_end

Warm = Callable[[Callable[[], None]], None]  # is given what it calls once questions may come

LOGS = ROOT / "logs"
POLL = 0.2  # seconds

# What vLLM's log says on its way up, and what it means. The last one found counts.
STAGES = (
    ("EngineCore pid", "starting its worker"),
    ("Starting to load model", "reading the weights"),
    ("Loading weights took", "preparing"),
    ("torch.compile", "compiling"),
    ("Capturing", "capturing CUDA graphs"),
    ("Starting vLLM server", "nearly there"),
)
SHARDS = re.compile(r"Loading safetensors checkpoint shards: .*\| (\d+)/(\d+) \[")
CELLS = 20  # of the bar


@dataclass(frozen=True, slots=True)
class LaunchPlan:
    """What to start, and what to say once it answers: vLLMs with `model`, others `beside` them.

    `warm` asks vLLM for what makes questions fast, and goes on with it when it has said that
    the first may come; it may fail. One of several vLLMs that cannot be kept up is given up.
    """

    model: str
    vllms: tuple[ServerSpec, ...]
    ready: Callable[[], Sequence[str]]
    beside: tuple[ServerSpec, ...] = ()
    warm: Warm | None = None
    logs: Path = LOGS


class StopAsked(Exception):
    """A signal asked us to stop."""


@dataclass(slots=True)
class Signals:
    """The signals that mean stop, counted: handlers only note, so that nothing is cut in two."""

    got: list[int] = field(default_factory=list)

    def listen(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            ignored = signal.getsignal(number) == signal.SIG_IGN
            if not (ignored and number == signal.SIGHUP):  # nohup means: survive the terminal
                signal.signal(number, lambda number, _: self.got.append(number))

    @property
    def again(self) -> bool:
        return len(self.got) > 1


def serve(plan: LaunchPlan, report: Report) -> int:
    """Serves until it is stopped, or a server cannot be kept up; nothing it started is left then.

    The exit status.
    """
    signals = Signals()
    signals.listen()
    services: list[Service] = []
    try:
        _start(plan, services, report)
        _wait_until_up(plan, services, signals, report)
        for line in plan.ready():
            report.say(line)
        _keep_up(services, len(plan.vllms), signals, report)
    except Died as died:
        tell_end(died.service, report)
        if died.starts:
            report.say(f"It was started again {died.starts} times and ended again: serve.sh ends.")
        return 1
    except StopAsked:
        report.say("\nStopping ...")
        return 128 + signals.got[0]
    finally:
        stop(services, lambda: signals.again)
        if signals.got:
            report.say("Stopped.")
    return 0


def _start(plan: LaunchPlan, services: list[Service], report: Report) -> None:
    for server in (*plan.vllms, *plan.beside):
        services.append(start(server, log_of(server, plan.logs)))
    logs = [display_path(service.log) for service in services[: len(plan.vllms)]]
    report.say(f"vLLM's log{'s' if len(logs) > 1 else ''}: {', '.join(logs)}")


def log_of(server: ServerSpec, logs: Path = LOGS) -> Path:
    return logs / f"{server.word}-{server.address.rpartition(':')[2]}.log"


def _wait_until_up(
    plan: LaunchPlan, services: list[Service], signals: Signals, report: Report
) -> None:
    count = len(plan.vllms)
    times = f", {count} times" if count > 1 else ""
    report.begin(f"Starting vLLM with {plan.model}{times} (half a minute or more)")
    for vllm in services[:count]:
        shown = partial(_show_progress, vllm, report)
        _until(vllm.answers, services, signals, shown)
    report.end()
    for service in services[count:]:
        _until(service.answers, services, signals)
    if plan.warm is not None:
        _warm(plan.warm, services, signals, report)


def _show_progress(vllm: Service, report: Report) -> None:
    report.tick(describe_progress(vllm.said()))


def _warm(warm: Warm, services: list[Service], signals: Signals, report: Report) -> None:
    """Until the first question can come; the rest is warmed while it does."""
    report.begin("Warming up")
    ready = threading.Event()
    warming = threading.Thread(target=warm, args=(ready.set,), daemon=True)
    warming.start()
    _until(lambda: ready.is_set() or not warming.is_alive(), services, signals, report.tick)
    report.end()


def _keep_up(services: list[Service], vllms: int, signals: Signals, report: Report) -> NoReturn:
    """Until it is told to stop. Each that ends is started again; one that ends often is not.

    That ends all, but for one of several vLLMs, the first in the list: the others go on.
    """
    restarters = [Restarter(service, report) for service in services]
    replicas, others = restarters[:vllms], restarters[vllms:]
    while not signals.got:
        look_at_replicas(replicas, report)
        for restarter in others:
            restarter.look()
        time.sleep(POLL)
    raise StopAsked


def look_at_replicas(replicas: list[Restarter], report: Report) -> None:
    """Does what is due; one that cannot be kept up is taken from the list, but for the last."""
    for replica in replicas[:]:
        try:
            replica.look()
        except Died as died:
            if len(replicas) == 1:
                raise
            tell_end(died.service, report)
            report.say(f"{died.service.name} is given up. The others go on.")
            replicas.remove(replica)


def _until(
    ready: Callable[[], bool],
    services: list[Service],
    signals: Signals,
    tick: Callable[[], None] = lambda: None,
) -> None:
    """Waits for `ready`. Raises StopAsked when told to stop, Died when a service ends."""
    while True:
        if signals.got:
            raise StopAsked
        for service in services:
            if service.status is not None:
                raise Died(service)
        if ready():
            return
        tick()
        time.sleep(POLL)


def describe_progress(log: str) -> str:
    """How far vLLM is, in words; while it reads the weights, with a bar of their files."""
    found = [words for sign, words in STAGES if sign in log]
    shards = SHARDS.findall(log)
    if found and found[-1] == "reading the weights" and shards:
        found[-1] += f" {draw_bar(*map(int, shards[-1]))}"
    return f"({found[-1]})" if found else ""


def draw_bar(done: int, of: int) -> str:
    full = CELLS * done // max(of, 1)
    return f"[{'#' * full}{'-' * (CELLS - full)}] {done} of {of}"
