"""Starting, watching and stopping, with a small stand-in for vLLM that has an engine and a worker.

The stand-in is as stubborn as the real one: its engine and worker ignore SIGTERM and
outlive a kill of the server.
"""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from serving import ports
from serving.launch import describe_progress
from serving.supervisor import GRACE
from tests.processes import ROOT, alive, free_port, is_free, start, until

pytestmark = pytest.mark.slow  # families of processes that are killed

FAKE = """
import http.server, os, signal, subprocess, sys, time
port, mode, pids = int(sys.argv[1]), sys.argv[2], sys.argv[3]
STUBBORN = "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
NOTE = f"open({pids!r}, 'a').write(str(os.getpid()) + '\\\\n'); "
WORKER = STUBBORN + NOTE + "time.sleep(600)"
ENGINE = STUBBORN + NOTE + "import subprocess as s, sys; " \\
    + f"s.Popen([sys.executable, '-c', {WORKER!r}], start_new_session=True); time.sleep(600)"
open(pids, "a").write(f"{os.getpid()}\\n")
if mode == "dies":
    print("INFO 11-20 22:18:44 [entry.py:1] starting", flush=True)
    print("Traceback (most recent call last):", flush=True)
    print("(EngineCore pid=7) ValueError: No available memory for the cache blocks.", flush=True)
    print("(APIServer pid=1) RuntimeError: Engine core initialization failed.", flush=True)
    sys.exit(1)
if mode == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", ENGINE])
if mode == "never":
    time.sleep(600)
class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *args):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", port), Health).serve_forever()
"""

DRIVER = """
import sys, time
sys.path.insert(0, {root!r})
from pathlib import Path
from serving.command import Command, ServerSpec
from serving.launch import LaunchPlan, serve
from serving.report import Report
def fake(name, word, port, mode):
    command = Command((sys.executable, {fake!r}, str(port), mode, {pids!r}))
    return ServerSpec(name, word, command, f"http://127.0.0.1:{{port}}")
def behind(ready):
    ready()
    time.sleep(600)
def fails(ready):
    print("warming failed", flush=True)
page = {page!r}
vllms = (fake("vLLM", "vllm", {port}, {mode!r}),)
plan = LaunchPlan("a model", vllms, lambda: ("it answers",),
            (fake("The page", "page", {page_port}, page),) if page else (),
            {warm}, Path({logs!r}))
sys.exit(serve(plan, Report()))
"""


@dataclass
class Served:
    """A start of serve.sh's inner half over the stand-in."""

    folder: Path
    mode: str = "fine"
    page: str = ""
    warm: str = "None"  # a function of the driver's
    port: int = field(default_factory=free_port)
    page_port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        fake = self.folder / "fake.py"
        fake.write_text(FAKE)
        self.noted = self.folder / "pids"
        self.noted.touch()
        self.script = self.folder / "driver.py"
        names = {"root": str(ROOT), "fake": str(fake), "pids": str(self.noted)}
        ports_ = {"port": self.port, "page_port": self.page_port}
        how = {
            "mode": self.mode,
            "page": self.page,
            "warm": self.warm,
            "logs": str(self.folder / "logs"),
        }
        self.script.write_text(DRIVER.format(**names, **ports_, **how))

    def start(self, *before: str) -> subprocess.Popen[str]:
        self.out = (self.folder / "out").open("w+")
        self.process = start(
            [*before, sys.executable, str(self.script)], stdout=self.out, stderr=self.out, text=True
        )
        return self.process

    @property
    def pids(self) -> list[int]:
        return [int(line) for line in self.noted.read_text().split()]

    @property
    def guards(self) -> list[int]:
        text = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in text.split()]

    def said(self) -> str:
        return (self.folder / "out").read_text()

    def up(self, family: int = 3) -> None:
        until(lambda: "it answers" in self.said() and len(self.pids) >= family)

    def nothing_is_left(self) -> None:
        until(lambda: not any(alive(pid) for pid in self.pids), 10)
        until(lambda: is_free(self.port), 10)


@pytest.fixture
def served(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Served]:
    it = Served(tmp_path, **getattr(request, "param", {}))
    yield it
    with contextlib.suppress(ProcessLookupError, AttributeError):
        it.process.kill()
    for pid in it.pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_each_way_to_stop_leaves_no_process_and_frees_the_port(
    served: Served, number: signal.Signals
) -> None:
    process = served.start()
    served.up()
    process.send_signal(number)
    assert process.wait(10) == 128 + number
    served.nothing_is_left()
    assert "Stopped." in served.said()


@pytest.mark.parametrize("served", [{"warm": "behind"}, {"warm": "fails"}], indirect=True)
def test_it_answers_as_soon_as_it_is_warm_enough_and_stops_while_the_rest_is_warmed(
    served: Served,
) -> None:
    process = served.start()
    served.up()
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 130
    said = served.said()
    assert said.index("Warming up") < said.index("it answers")
    served.nothing_is_left()


@pytest.mark.parametrize("served", [{"mode": "never"}], indirect=True)
def test_it_can_be_stopped_before_it_answers(served: Served) -> None:
    process = served.start()
    until(lambda: len(served.pids) == 3)
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 130
    served.nothing_is_left()


@pytest.mark.parametrize("served", [{"mode": "stubborn"}], indirect=True)
def test_a_server_that_does_not_stop_is_killed(served: Served) -> None:
    process = served.start()
    served.up()
    process.send_signal(signal.SIGTERM)
    process.wait(GRACE + 4)
    served.nothing_is_left()


@pytest.mark.parametrize("served", [{"mode": "stubborn"}], indirect=True)
def test_a_second_ctrl_c_waits_no_longer(served: Served) -> None:
    process = served.start()
    served.up()
    process.send_signal(signal.SIGINT)
    until(lambda: "Stopping" in served.said())
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.wait(10)
    assert time.monotonic() - began < GRACE - 2
    served.nothing_is_left()


def test_a_kill_of_serve_itself_leaves_nothing(served: Served) -> None:
    process = served.start()
    served.up()
    process.kill()
    served.nothing_is_left()


def test_a_server_that_was_killed_is_started_again_without_its_engine_and_worker(
    served: Served,
) -> None:
    process = served.start()
    served.up()
    killed = served.pids
    os.kill(killed[0], signal.SIGKILL)
    until(lambda: "vLLM answers again." in served.said() and len(served.pids) >= 6, 30)
    assert not any(alive(pid) for pid in killed)
    assert "vLLM was ended by SIGKILL." in served.said()
    assert "started again in 1 s (1 of at most 5 times in 10 minutes)" in served.said()
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 130
    served.nothing_is_left()


def test_a_kill_of_the_guard_leaves_nothing_and_is_mended(served: Served) -> None:
    process = served.start()
    served.up()
    first_two = served.pids[:2]  # a worker with a session of its own is beyond reach then
    for guard in served.guards:
        os.kill(guard, signal.SIGKILL)
    until(lambda: not any(alive(pid) for pid in first_two), 10)
    until(lambda: "vLLM answers again." in served.said(), 30)
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 130


def test_a_closed_terminal_stops_everything(served: Served) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever runs the tests may ignore it
        os.execv(sys.executable, [sys.executable, str(served.script)])
    seen = b""
    while b"it answers" not in seen:
        seen += os.read(terminal, 4096)
    until(lambda: len(served.pids) == 3)
    os.close(terminal)
    os.waitpid(pid, 0)
    served.nothing_is_left()


def test_nohup_survives_the_terminal(served: Served) -> None:
    process = served.start("nohup")
    served.up()
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 128 + signal.SIGTERM  # the first that counted
    served.nothing_is_left()


@pytest.mark.parametrize("served", [{"mode": "dies"}], indirect=True)
def test_a_server_that_dies_is_reported_with_the_line_that_matters(served: Served) -> None:
    assert served.start().wait(30) == 1
    said = served.said()
    assert "ValueError: No available memory for the cache blocks." in said
    assert "--max-model-len" in said
    assert "Traceback" not in said
    assert "initialization failed" not in said
    log = served.folder / "logs" / f"vllm-{served.port}.log"
    assert str(log) in said
    assert "Traceback" in log.read_text()
    assert log.stat().st_mode & 0o077 == 0


def test_the_log_before_is_kept_beside_the_new_one(served: Served, tmp_path: Path) -> None:
    log = tmp_path / "logs" / f"vllm-{served.port}.log"
    log.parent.mkdir()
    log.write_text("the run before")
    process = served.start()
    served.up()
    process.send_signal(signal.SIGINT)
    process.wait(10)
    assert log.with_suffix(".previous.log").read_text() == "the run before"


@pytest.mark.parametrize("served", [{"page": "fine"}], indirect=True)
def test_a_page_that_was_killed_is_started_again_and_the_server_goes_on(served: Served) -> None:
    process = served.start()
    served.up(6)
    vllm = next(pid for pid in served.pids if str(served.port) in _arguments(pid))
    page = next(pid for pid in served.pids if str(served.page_port) in _arguments(pid))
    os.kill(page, signal.SIGKILL)
    until(lambda: "The page answers again." in served.said(), 30)
    assert alive(vllm)
    process.send_signal(signal.SIGTERM)
    assert process.wait(15) == 128 + signal.SIGTERM
    served.nothing_is_left()


def _arguments(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_text().split("\0")


@pytest.mark.parametrize("served", [{"page": "dies"}], indirect=True)
def test_a_page_that_never_comes_up_ends_the_start(served: Served) -> None:
    assert served.start().wait(30) == 1
    assert "The page has stopped (status 1)" in served.said()
    served.nothing_is_left()


def test_a_second_start_on_a_port_is_refused_while_the_first_is_still_starting() -> None:
    port = free_port()
    first = ports.claim(port, "--port")
    with pytest.raises(ports.PortError, match=rf"process {os.getpid()}.*--port"):
        ports.claim(port, "--port")
    first.close()
    ports.claim(port, "--port").close()


def test_a_port_on_all_addresses_is_in_use_on_each() -> None:
    with socket.socket() as other:
        other.bind(("0.0.0.0", 0))
        other.listen()
        with pytest.raises(ports.PortError, match="in use"):
            ports.check("127.0.0.1", other.getsockname()[1], "--port")


def test_a_free_port_is_free_again_right_after_a_server_ended() -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            other.accept()[0].close()
    ports.check("127.0.0.1", port, "--port")


def test_the_progress_names_the_last_stage_in_the_log() -> None:
    assert describe_progress("") == ""
    log = "INFO Starting to load model /m ...\nINFO Loading weights took 3 seconds\n"
    assert describe_progress(log) == "(preparing)"


def test_the_progress_shows_how_many_of_the_weights_files_are_read() -> None:
    log = "INFO Starting to load model /m ...\n"
    for done in (0, 1):
        log += (
            f"Loading safetensors checkpoint shards:  50% Completed | {done}/2 [00:00<?, ?it/s]\r"
        )
    assert describe_progress(log) == "(reading the weights [##########----------] 1 of 2)"
    assert describe_progress(log + "INFO Loading weights took 3 seconds\n") == "(preparing)"
