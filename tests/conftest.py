"""What the tests share: real servers, each started once and for the whole session.

They are started as a user starts them, by ./serve.sh: the bundled model, unless
OPENAI_BASE_URL names a server that runs already, and the tiny one that recites.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

from tests.reciter import catalogue

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tests.page_browser import Visitor

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "tests" / "output"
hypothesis.settings.register_profile("busy", deadline=None)  # two cores, shared with a model
hypothesis.settings.load_profile("busy")
START = 600  # seconds: a first start converts the model and loads it on two busy cores


@dataclass(frozen=True, slots=True)
class Server:
    """A model server that answers. `base_url` ends in /v1."""

    base_url: str
    model: str

    @property
    def root(self) -> str:
        return self.base_url.removesuffix("/v1")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def get_json(url: str) -> dict[str, object]:
    with urllib.request.urlopen(url, timeout=10) as response:
        body: dict[str, object] = json.load(response)
        return body


def first_model(base_url: str) -> str:
    models = get_json(f"{base_url}/models")["data"]
    assert isinstance(models, list)
    return str(models[0]["id"])


def wait_until_served(base_url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START
    while time.monotonic() < deadline:
        if process.poll() is not None:
            pytest.exit(f"./serve.sh ended with {process.returncode}:\n{log.read_text()}", 1)
        try:
            first_model(base_url)
            return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.5)
    pytest.exit(f"./serve.sh did not serve within {START} s:\n{log.read_text()}", 1)


@contextmanager
def served(log: Path, *arguments: str, **environment: str) -> Iterator[Server]:
    """What ./serve.sh serves with these arguments, until the block ends."""
    port = free_port()
    base_url = f"http://127.0.0.1:{port}/v1"
    log.parent.mkdir(exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(ROOT / "serve.sh"), "--port", str(port), *arguments],
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, **environment},
        )
    try:
        wait_until_served(base_url, process, log)
        yield Server(base_url, first_model(base_url))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """The served bundled model."""
    if base_url := os.environ.get("OPENAI_BASE_URL"):
        yield Server(base_url, first_model(base_url))
        return
    with served(OUTPUT / "serve.log", "--model", "smollm2-135m-instruct") as server:
        yield server


@contextmanager
def reciting() -> Iterator[Server]:
    """The tiny model of tests/reciter.py, served by its own catalogue."""
    given = {"STEPWISE_CATALOGUE": str(catalogue()), "VLLM_CPU_KVCACHE_SPACE": "1"}
    with served(OUTPUT / "reciter.log", "--model", "reciter", **given) as server:
        yield server


@pytest.fixture(scope="session")
def reciter() -> Iterator[Server]:
    """A served model whose every word is known."""
    with reciting() as server:
        yield server


@pytest.fixture(scope="module")
def port() -> int:
    """Where the page of a file's tests looks for a model server, which comes and goes."""
    return free_port()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from tests.page_browser import chromium  # which imports this file

    with chromium() as browser:
        yield browser


@pytest.fixture
def visitors(browser: Browser) -> Iterator[Callable[..., Visitor]]:
    """Sends people to a page, and looks that their browsers loaded nothing from outside."""
    from tests.page_browser import visiting

    with visiting(browser) as visit:
        yield visit
