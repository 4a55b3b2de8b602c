"""However a test run ends, no server is left; a stand-in takes the place of ./serve.sh here.

Each test runs pytest with two workers on one small file, and ends it in another way.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.processes import ROOT, alive, start, until

pytestmark = pytest.mark.slow  # whole runs of pytest

STAND_IN = """
import http.server, json, os, sys
open(sys.argv[1], "a").write(f"{os.getpid()}\\n")
class Models(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"data": [{"id": "stand-in"}]}).encode())
    def log_message(self, *args):
        pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[-1])), Models).serve_forever()
"""

TESTS = """
import os, subprocess, sys, time
from pathlib import Path
import pytest
from tests import real_servers
from tests.processes import start

HERE = Path(__file__).parent

@pytest.fixture(scope="session")
def server():
    command = [sys.executable, str(HERE / "stand_in.py"), str(HERE / "servers-started")]
    with real_servers.shared("stand-in", command, place=HERE / "servers") as server:
        yield server

@pytest.mark.parametrize("number", range(2))
def test_uses_it(server, number):
    assert server.model == "stand-in"
    other = start([sys.executable, "-c", "import time; time.sleep(600)"])
    (HERE / f"using-{number}").write_text(f"{os.getpid()} {other.pid}")
    while not (HERE / "go-on").exists():
        time.sleep(0.02)
    other.kill()
    other.wait()
"""


@dataclass(frozen=True, slots=True)
class Session:
    """A run of pytest in which each of two workers holds the server, and a child of its own."""

    folder: Path
    pytest: subprocess.Popen[str]

    @property
    def server(self) -> int:
        """The process; that there is one only is asserted, too."""
        (pid,) = (self.folder / "servers-started").read_text().split()
        return int(pid)

    @property
    def workers(self) -> list[int]:
        return [pids[0] for pids in self._using()]

    @property
    def children(self) -> list[int]:
        return [pids[1] for pids in self._using()]

    def _using(self) -> list[list[int]]:
        files = sorted(self.folder.glob("using-*"))
        return [[int(pid) for pid in file.read_text().split()] for file in files]

    def both_use_it(self) -> bool:
        return len(self._using()) == 2 and all(len(pids) == 2 for pids in self._using())

    def go_on(self) -> None:
        (self.folder / "go-on").touch()

    def nothing_is_left(self) -> None:
        until(lambda: not any(map(alive, [self.server, *self.workers, *self.children])), 30)


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    (tmp_path / "stand_in.py").write_text(STAND_IN)
    hooks = "pytest_configure, pytest_configure_node"
    (tmp_path / "conftest.py").write_text(f"from tests.conftest import {hooks}\n")
    (tmp_path / "test_it.py").write_text(TESTS)
    words = ["-n", "2", "-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir", str(tmp_path)]
    words += ["-p", "xdist", "-p", "_hypothesis_pytestplugin"]
    environment = {name: value for name, value in os.environ.items() if "PYTEST" not in name}
    environment |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(ROOT)}
    with (tmp_path / "out").open("w") as out:
        process = start(
            [sys.executable, "-m", "pytest", *words, str(tmp_path)],
            cwd=ROOT, env=environment, stdout=out, stderr=out,
        )  # fmt: skip
    it = Session(tmp_path, process)
    until(lambda: it.both_use_it() or process.poll() is not None)
    assert process.poll() is None, (tmp_path / "out").read_text()
    yield it
    process.kill()
    process.wait()


def test_two_workers_share_one_server_and_the_last_one_ends_it(session: Session) -> None:
    told = json.loads((session.folder / "servers" / "stand-in.json").read_text())
    assert alive(session.server)
    session.go_on()
    assert session.pytest.wait(60) == 0
    session.nothing_is_left()
    until(lambda: not alive(told["keeper"]))
    assert not (session.folder / "servers" / "stand-in.json").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_ended_leaves_nothing(session: Session, number: signal.Signals) -> None:
    session.pytest.send_signal(number)
    session.nothing_is_left()
    assert session.pytest.wait(60) != 0


def test_a_second_ctrl_c_leaves_nothing(session: Session) -> None:
    session.pytest.send_signal(signal.SIGINT)
    session.pytest.send_signal(signal.SIGINT)
    session.nothing_is_left()


def test_a_killed_worker_leaves_the_server_to_the_other_and_nothing_after_it(
    session: Session,
) -> None:
    os.kill(session.workers[0], signal.SIGKILL)
    until(lambda: not alive(session.children[0]))
    assert alive(session.server)
    session.go_on()
    assert session.pytest.wait(60) != 0  # pytest-xdist says that the worker crashed
    session.nothing_is_left()


def test_a_killed_keeper_takes_its_server_along(session: Session) -> None:
    told = json.loads((session.folder / "servers" / "stand-in.json").read_text())
    os.kill(told["keeper"], signal.SIGKILL)
    until(lambda: not alive(session.server))
