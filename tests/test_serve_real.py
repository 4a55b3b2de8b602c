"""`./serve.sh --ui` with the real vLLM and the real page: from the command to the last process."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

from serving.guard import below

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 600.0  # seconds; a cold machine compiles and reads everything for the first time


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(true: Callable[[], bool], seconds: float) -> None:
    late = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < late, "it did not come true in time"
        time.sleep(0.1)


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return bytes(answer.read())


def test_one_command_serves_the_model_and_the_page_and_ctrl_c_ends_all(tmp_path: Path) -> None:
    port, ui_port = free_port(), free_port()
    words = ["--model", "smollm2-135m-instruct", "--port", str(port)]
    words += ["--ui", "--ui-port", str(ui_port)]
    core = str(max(os.sched_getaffinity(0)))  # the tests' own server has the first
    out = tmp_path / "out"
    process = subprocess.Popen(
        [str(ROOT / "serve.sh"), *words],
        stdout=out.open("w"),
        stderr=subprocess.STDOUT,
        env={**os.environ, "VLLM_CPU_OMP_THREADS_BIND": core},
    )
    family: list[int] = []
    try:
        until(lambda: "Ctrl-C" in out.read_text() or process.poll() is not None, PATIENCE)
        said = out.read_text()
        assert process.poll() is None, said
        family = below(process.pid)
        check_the_api(said, port)
        assert f"http://127.0.0.1:{ui_port}" in said
        assert b"<title>" in get(f"http://127.0.0.1:{ui_port}")
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.kill()
            process.wait(10)
    assert len(family) >= 5  # two guards, vLLM, its engine, its worker, the page
    assert not [pid for pid in family if alive(pid)]
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))


def check_the_api(said: str, port: int) -> None:
    command = re.search(r"^  curl .*?\}'$", said, re.DOTALL | re.MULTILINE)
    assert command, said
    answer = subprocess.run(
        ["bash", "-c", command[0]], capture_output=True, text=True, timeout=120, check=True
    )
    assert json.loads(answer.stdout)["choices"][0]["message"]["content"]
    (model,) = json.loads(get(f"http://127.0.0.1:{port}/v1/models"))["data"]
    assert (model["id"], model["max_model_len"]) == ("SmolLM2-135M-Instruct", 8192)
    log = (ROOT / "logs" / f"vllm-{port}.log").read_text()
    assert "What is 17 + 25?" not in log


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"
