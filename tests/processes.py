"""Processes, ports and waits, as the tests need them. What is started here dies with the tests."""

from __future__ import annotations

import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from serving import ports
from serving.supervisor import die_with_parent

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "tests" / "output"


def start(command: Sequence[str | Path], **options: Any) -> subprocess.Popen[Any]:
    """A child that the kernel kills when this process ends, whatever ends it."""
    return subprocess.Popen(command, preexec_fn=_begin, **options)


def _begin() -> None:
    """It hears Ctrl-C and a hang-up, also where the tests run in the background or by nohup."""
    die_with_parent()
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def free_port() -> int:
    """From below those that the kernel gives to connections: none takes it before it is used."""
    while True:
        port = 10_000 + secrets.randbelow(20_000)
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port


def is_free(port: int) -> bool:
    """Whether a server could listen there: one that was killed leaves its port after a moment."""
    try:
        ports.check("127.0.0.1", port, "--port")
    except ports.PortError:
        return False
    return True


def alive(pid: int) -> bool:
    """Whether it runs; one that is dead and only waits to be collected does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def until(true: Callable[[], object], seconds: float = 120) -> None:
    """Waits for what another process or thread does."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"it did not come true within {seconds} s"
        time.sleep(0.02)
