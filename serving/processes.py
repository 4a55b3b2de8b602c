"""A server of ours as a running process: started under a supervisor, watched, stopped whole.

This is the module that starts and ends processes; what to start it is told.
"""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from serving import cgroup, failures
from serving.catalogue import ROOT
from serving.command import Command, ServerSpec
from serving.hardware import read
from serving.supervisor import GRACE, kill_all_below

SUPERVISOR = Path(__file__).with_name("supervisor.py")
LOG_TAIL = 200_000  # bytes; a traceback of the engine and of the server fit in it
PROBE_SECONDS = 2.0
FORCE_AFTER = GRACE + 2.0


@dataclass(slots=True)
class Service:
    """A started server: `name` for people, `health` the address that answers 200 when it is up.

    `began` is where its words begin in its log, `oom_kills` the kernel's count when it was started.
    One with a `sign` is not asked: it is up when its log says so.
    """

    name: str
    command: Command
    health: str
    log: Path
    supervisor: subprocess.Popen[bytes]
    began: int = 0
    oom_kills: int = 0
    sign: str = ""

    @property
    def status(self) -> int | None:
        """None while it runs, else its exit status as a shell counts it."""
        return self.supervisor.poll()

    def answers(self) -> bool:
        if self.sign:
            return self.sign in self.said()
        where = urlsplit(self.health)
        connection = http.client.HTTPConnection(where.netloc, timeout=PROBE_SECONDS)
        try:
            connection.request("GET", where.path)
            return connection.getresponse().status in (200, 401)  # the router wants a key even here
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def ask_to_stop(self) -> None:
        if self.status is None:
            self.supervisor.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        if self.status is None:
            self.supervisor.send_signal(signal.SIGQUIT)

    def end(self) -> None:
        """Returns when neither the supervisor nor anything it started is left."""
        if self.status is None:
            self.supervisor.kill()
            self.supervisor.wait()
        kill_all_below(self.supervisor.pid)

    def start_again(self) -> None:
        """The same command anew, when nothing of the last one is left; the log goes on."""
        self.end()
        self.began, self.oom_kills = self.log.stat().st_size, oom_kills()
        self.supervisor = _launch(self.command, self.log)

    def said(self) -> str:
        """The end of its log, as far as it is this process's."""
        with self.log.open("rb") as file:
            file.seek(max(self.began, file.seek(0, os.SEEK_END) - LOG_TAIL))
            return file.read().decode("utf-8", "replace")

    def failure(self) -> failures.Failure:
        out_of_memory = oom_kills() > self.oom_kills
        return failures.explain(self.said(), self.status or 0, out_of_memory)


def start(spec: ServerSpec, log: Path) -> Service:
    """Starts the command in a session of its own; its words go to `log`."""
    _begin(log)
    began, health = _launch(spec.command, log), spec.address + spec.health
    kills = oom_kills()
    return Service(spec.name, spec.command, health, log, began, oom_kills=kills, sign=spec.sign)


def _launch(command: Command, log: Path) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-I", str(SUPERVISOR), str(os.getpid()), *command.argv]
    with log.open("ab") as out:
        return subprocess.Popen(
            argv,
            cwd=ROOT,
            env={**os.environ, **command.environment},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _begin(log: Path) -> None:
    """An empty log that only its owner reads; the one before is kept beside it."""
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists():
        log.replace(log.with_suffix(".previous.log"))
    os.close(os.open(log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600))


def oom_kills() -> int:
    """How many processes here the kernel has killed so far because the memory ran out."""
    return cgroup.oom_kills(read)


def stop(services: list[Service], hurry: Callable[[], bool]) -> None:
    """Stops them all together, at once when `hurry` says so; returns when nothing is left."""
    for service in services:
        service.ask_to_stop()
    late = time.monotonic() + FORCE_AFTER
    while any(service.status is None for service in services) and time.monotonic() < late:
        if hurry():
            for service in services:
                service.kill()
        time.sleep(0.05)
    for service in services:
        service.end()
