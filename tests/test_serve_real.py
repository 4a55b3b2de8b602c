"""`./serve.sh --ui --gateway` for real: vLLM, gateway, page, from the command to the last process.

With a key, so that what vLLM leaves open by itself is seen to be closed; and with a real, small
language model, which no other test asks: a token of it costs a tenth of a second of a core.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest

from history.store import Store
from serving.supervisor import processes_below
from tests.page_browser import TITLE, Visitor, expect
from tests.processes import ROOT, alive, free_port, is_free, start, until

KEY = "sesame-0815"
QUESTION = "What is the capital of France?"
TOTAL = re.compile(r"Thought for [\d.]+ s in \d+ steps?, [\d,]+ tokens")
LIVE = re.compile(r"Step \d+ of at most 2 · [\d.]+ s")
PATIENCE = 600.0  # seconds; a cold machine compiles and reads everything for the first time


def call(
    port: int, method: str, path: str, body: object = None, key: str = KEY
) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    connection.request(method, path, json.dumps(body) if body else None, headers)
    answer = connection.getresponse()
    return answer.status, answer.read()


@pytest.mark.real
def test_one_command_serves_model_gateway_and_page_and_ctrl_c_ends_all(
    tmp_path: Path, visitors: Any
) -> None:
    port, gateway_port, ui_port = free_port(), free_port(), free_port()
    words = ["--model", "smollm2-135m-instruct", "--port", str(port)]
    words += ["--gateway", "--gateway-port", str(gateway_port), "--ui", "--ui-port", str(ui_port)]
    core = str(min(os.sched_getaffinity(0)))  # the tests' other server has the last
    out = tmp_path / "out"
    history = f"sqlite:///{tmp_path}/history.db"
    Store(history).prefer("", {"min_steps": 1, "max_steps": 2, "step_tokens": 80})
    given = {"VLLM_CPU_OMP_THREADS_BIND": core, "VLLM_API_KEY": KEY, "DATABASE_URL": history}
    process = start(
        [str(ROOT / "serve.sh"), *words],
        stdout=out.open("w"),
        stderr=subprocess.STDOUT,
        env={**os.environ, **given},
    )
    family: list[int] = []
    try:
        until(lambda: "Ctrl-C" in out.read_text() or process.poll() is not None, PATIENCE)
        said = out.read_text()
        assert process.poll() is None, said
        family = processes_below(process.pid)
        check_the_guard(port)
        before = engine_and_worker(family)
        check_the_gateway(gateway_port, port)
        engine, worker = (b - a for a, b in zip(before, engine_and_worker(family), strict=True))
        assert engine < worker / 3  # the one naps while the other writes
        check_the_curl_line(said)
        assert f"http://127.0.0.1:{ui_port}" in said
        assert b"<title>" in call(ui_port, "GET", "/")[1]
        check_the_page(visitors(f"http://127.0.0.1:{ui_port}/"))
        assert not [pid for pid in family if KEY in arguments(pid)]
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.kill()
            process.wait(10)
    assert len(family) >= 7  # three guards, vLLM, its engine, its worker, gateway, page
    assert not [pid for pid in family if alive(pid)]
    until(lambda: all(map(is_free, (port, gateway_port, ui_port))), 10)
    for log in (f"vllm-{port}", f"gateway-{gateway_port}", f"page-{ui_port}"):
        words_of_it = (ROOT / "logs" / f"{log}.log").read_text()
        assert not [secret for secret in (KEY, QUESTION) if secret in words_of_it], log


def check_the_guard(port: int) -> None:
    """On vLLM itself, that leaves all of these open when its own key is all there is."""
    chat = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
    for path in ("/invocations", "/tokenize", "/detokenize", "/generative_scoring"):
        assert call(port, "POST", path, chat, key="")[0] == 401
    for path in ("/metrics", "/load", "/version", "/docs", "/openapi.json", "/ping", "/v1/models"):
        assert call(port, "GET", path, key="")[0] == 401
    assert call(port, "POST", "/invocations", chat)[0] == 404
    assert call(port, "GET", "/docs")[0] == 404
    assert call(port, "GET", "/health", key="")[0] == 200
    assert call(port, "POST", "/tokenize", {"prompt": "Hello"})[0] == 200
    assert call(port, "POST", "/tokenize", {"prompt": "x" * 9_000_000})[0] == 413
    status, body = call(port, "GET", "/v1/models")
    (model,) = json.loads(body)["data"]
    assert (status, model["id"], model["max_model_len"]) == (200, "SmolLM2-135M-Instruct", 8192)


def check_the_gateway(port: int, vllm: int) -> None:
    """The plain model as it is, and the same one thinking in steps, bounded."""
    assert call(port, "GET", "/v1/models", key="")[0] == 401
    names = {model["id"] for model in json.loads(call(port, "GET", "/v1/models")[1])["data"]}
    assert {"SmolLM2-135M-Instruct", "SmolLM2-135M-Instruct-steps"} <= names
    question = [{"role": "user", "content": QUESTION}]
    for name in ("SmolLM2-135M-Instruct", "SmolLM2-135M-Instruct-steps"):
        asked = {"model": name, "messages": question, "max_completion_tokens": 60, "temperature": 0}
        status, body = call(port, "POST", "/v1/chat/completions", asked)
        assert (status, json.loads(body)["object"]) == (200, "chat.completion"), body
        if name == "SmolLM2-135M-Instruct":
            assert "Paris" in json.loads(body)["choices"][0]["message"]["content"]
    assert b"stepwise_chains_total{" in call(port, "GET", "/metrics")[1]


def check_the_curl_line(said: str) -> None:
    """As printed, it shows thoughts; its end is not waited for."""
    command = re.search(r"^  curl .*?\}'$", said, re.DOTALL | re.MULTILINE)
    assert command, said
    with start(
        ["bash", "-c", "exec " + command[0].strip()],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "VLLM_API_KEY": KEY},
    ) as curl:
        assert curl.stdout is not None
        assert any(b'"reasoning":"' in line for line in curl.stdout)
        curl.kill()


def check_the_page(visitor: Visitor) -> None:
    """A question is thought through before the eyes."""
    visitor.sees(TITLE)
    expect(visitor.way).to_contain_text("JSON steps")  # as a plain model is led
    visitor.shoot("real-first-visit")
    visitor.ask(QUESTION)
    expect(visitor.bar).to_contain_text(LIVE)
    visitor.steps.first.wait_for()
    visitor.wait_for_end()
    expect(visitor.bar).to_contain_text(TOTAL)
    steps = int(re.findall(r"in (\d+) step", visitor.bar.inner_text())[0])
    assert 1 <= steps <= 2
    expect(visitor.steps).to_have_count(steps)
    expect(visitor.steps.first).to_contain_text(re.compile(r"[\d.]+ s · \d+ tokens"))
    expect(visitor.run).to_contain_text("Answer")
    expect(visitor.run).not_to_contain_text('"next_action"')
    visitor.shoot("real-answer")


def engine_and_worker(family: list[int]) -> tuple[float, float]:
    """CPU seconds of vLLM's two processes that talk to each other."""
    used = {one.name(): sum(one.cpu_times()[:2]) for one in map(psutil.Process, family)}
    return used["VLLM::EngineCore"], used["VLLM::Worker"]


def arguments(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""
