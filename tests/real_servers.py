"""The real model servers: each started once for all workers of a test run, ended with the last.

    with shared("reciter", [SERVE, "--model", "reciter"], environment) as server: ...

Who uses a server holds a shared lock on its file, which the kernel takes back however a
process ends. A keeper, a process of its own, runs ./serve.sh and asks for that lock alone:
it is given once nobody is left, and the keeper stops the server. If the keeper is killed,
the server dies with it.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest

from tests.processes import OUTPUT, ROOT, alive, free_port, start

SERVE = str(ROOT / "serve.sh")
PLACE = OUTPUT / "servers"
START = 600.0  # seconds: a first start converts the model and loads it on two busy cores


@dataclass(frozen=True, slots=True)
class Server:
    """A model server that answers. `base_url` ends in /v1."""

    base_url: str
    model: str

    @property
    def root(self) -> str:
        return self.base_url.removesuffix("/v1")


@dataclass(frozen=True, slots=True)
class Kept:
    """The files by which the users of one server and its keeper know of each other."""

    name: str
    place: Path

    @property
    def users(self) -> Path:
        """Locked by all who use the server, together; by its keeper alone while it stops it."""
        return self.place / f"{self.name}.users"

    @property
    def starting(self) -> Path:
        return self.place / f"{self.name}.starting"

    @property
    def told(self) -> Path:
        """Where the server listens, and its keeper."""
        return self.place / f"{self.name}.json"

    @property
    def log(self) -> Path:
        return self.place / f"{self.name}.log"

    def base_url(self) -> str | None:
        """None where the server does not run, or its keeper was killed."""
        try:
            told = json.loads(self.told.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return str(told["base_url"]) if alive(told["keeper"]) else None


@contextmanager
def locked(path: Path, how: int) -> Iterator[IO[str]]:
    """Holds an fcntl.flock on the file; `how` is LOCK_SH or LOCK_EX."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        fcntl.flock(file, how)
        yield file


@contextmanager
def shared(
    name: str,
    command: Sequence[str],
    environment: Mapping[str, str] | None = None,
    place: Path = PLACE,
) -> Iterator[Server]:
    """What the command serves at the --port it is given; started unless it runs already."""
    kept = Kept(name, place)
    with locked(kept.users, fcntl.LOCK_SH):
        with locked(kept.starting, fcntl.LOCK_EX):
            if kept.base_url() is None:
                start_keeper(kept, command, environment or {})
        yield answering(kept)


def start_keeper(kept: Kept, command: Sequence[str], environment: Mapping[str, str]) -> None:
    """Comes back as soon as the server's process is there."""
    keeper = subprocess.Popen(
        [sys.executable, "-m", "tests.real_servers", kept.name, str(kept.place), *command],
        cwd=ROOT,
        env={**os.environ, **environment},
        start_new_session=True,  # Ctrl-C is for the tests; the server ends when they have ended
    )
    while kept.base_url() is None:
        if keeper.poll() is not None:
            pytest.fail(f"the keeper of {kept.name} ended with {keeper.returncode}")
        time.sleep(0.02)


def answering(kept: Kept) -> Server:
    """The server once it answers."""
    deadline = time.monotonic() + START
    while time.monotonic() < deadline:
        base_url = kept.base_url()
        if base_url is None:
            pytest.fail(f"{kept.name} ended before it answered:\n{kept.log.read_text()}")
        with suppress(OSError):
            return Server(base_url, first_model(base_url))
        time.sleep(0.2)
    pytest.fail(f"{kept.name} did not answer within {START} s:\n{kept.log.read_text()}")


def first_model(base_url: str) -> str:
    with urllib.request.urlopen(f"{base_url}/models", timeout=10) as response:
        return str(json.load(response)["data"][0]["id"])


def running(server: Server) -> float:
    """How many requests the server works on, by its own metrics."""
    with urllib.request.urlopen(f"{server.root}/metrics", timeout=60) as response:
        text = response.read().decode()
    counts = re.findall(r"^vllm:num_requests_(?:running|waiting)\{.*\} (\S+)$", text, re.M)
    return sum(map(float, counts))


def finished(server: Server) -> float:
    """How many requests it has answered to their end; one that was broken off is none of them."""
    with urllib.request.urlopen(f"{server.root}/metrics", timeout=60) as response:
        text = response.read().decode()
    return sum(map(float, re.findall(r"^vllm:request_success_total\{.*\} (\S+)$", text, re.M)))


def wait_for_the_end() -> None:
    """Until no server is being stopped; one that others still use is left to them."""
    for users in PLACE.glob("*.users"):
        with locked(users, fcntl.LOCK_SH):
            pass


# -- the keeper


def keep(kept: Kept, command: Sequence[str]) -> None:
    """Runs the server until it ends by itself or nobody is left who uses it."""
    port = free_port()
    with kept.log.open("wb") as log, kept.users.open("w") as users:
        process = start(
            [*command, "--port", str(port)], stdout=log, stderr=log, stdin=subprocess.DEVNULL
        )
        tell(kept, f"http://127.0.0.1:{port}/v1")
        threading.Thread(target=stop_when_unused, args=(users, process), daemon=True).start()
        process.wait()
        kept.told.unlink()


def tell(kept: Kept, base_url: str) -> None:
    new = kept.told.with_suffix(".new")
    new.write_text(json.dumps({"base_url": base_url, "keeper": os.getpid()}), encoding="utf-8")
    new.replace(kept.told)


def stop_when_unused(users: IO[str], process: subprocess.Popen[bytes]) -> None:
    fcntl.flock(users, fcntl.LOCK_EX)
    process.terminate()


if __name__ == "__main__":
    keep(Kept(sys.argv[1], Path(sys.argv[2])), sys.argv[3:])
