"""The command itself: a run by inspect-ai, its end, its resumption; bad input in one line."""

import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from evals.__main__ import main
from evals.logs import read_marked
from evals.outcomes import Marked
from reasoning.detection import PROBE
from tests.gateway_server import gateway
from tests.processes import ROOT, start
from tests.real_servers import Server
from tests.stub import Play, Stub, says, status, step_number, step_text

pytestmark = pytest.mark.slow  # whole runs

PNG = b"\x89PNG\r\n"


def thinks(request: dict[str, Any]) -> Play:
    """Three steps and an answer, to whatever is asked."""
    number = step_number(request)
    if "response_format" in request:
        action = "continue" if number < 3 else "final_answer"
        return says(step_text(f"T{number}", f"Work {number * 7} of the chain.", action))
    return says("Answer: 3")


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """inspect-ai sets the level of the process's own logger, for good."""
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    yield
    root.setLevel(level)
    root.handlers[:] = handlers


def run(folder: Path, *arguments: str) -> int:
    given = ["--limit", "2", "--tasks", "chain_sum:easy", "--out", str(folder), *arguments]
    return main(given)


def test_a_run_ends_in_a_table_and_a_picture_and_is_not_run_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Stub(thinks) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        assert run(tmp_path, "--arms", "direct,tutorial") == 0
        first = capsys.readouterr().out
        assert "| direct | 2 |" in first
        assert "| tutorial | 2 |" in first
        assert (tmp_path / "report.md").read_text() + "\n" == first
        assert (tmp_path / "report.png").read_bytes().startswith(PNG)

        asked = len(server.requests)
        assert run(tmp_path, "--arms", "direct,tutorial") == 0
        assert len(server.requests) == asked

        assert run(tmp_path, "--arms", "json_steps") == 0  # beside what is there
        assert "response_format" in server.requests[asked]
    assert len(read_marked(tmp_path)) == 6

    (tmp_path / "report.png").unlink()
    capsys.readouterr()
    assert main(["--report", str(tmp_path)]) == 0  # without a server
    assert "| json_steps | 2 |" in capsys.readouterr().out
    assert (tmp_path / "report.png").exists()


def test_the_gateway_as_inspects_model_answers_as_the_core_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Stub(thinks) as server, gateway(server.base_url) as url:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        assert run(tmp_path, "--arms", "json_steps,gateway", "--gateway", url) == 0
    found = {(one.arm, one.number): one for one in read_marked(tmp_path)}
    for number in (1, 2):
        ours, theirs = found["json_steps", number], found["gateway", number]
        assert (ours.answer, ours.tokens) == (theirs.answer, theirs.tokens)
    asked = [json.dumps(request, sort_keys=True) for request in server.requests]
    of_chains = [one for one in asked if PROBE not in one]  # how the model thinks is asked once
    assert {of_chains.count(one) for one in of_chains} == {2}  # to the letter what the core asks


def test_questions_that_the_server_refused_are_asked_by_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Stub(says("Answer: 3"), status(401, {"error": "no"})) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        assert run(tmp_path, "--arms", "direct", "--parallel", "1") == 1
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.match("The server at .* refuses the API key", said)
    (before,) = read_marked(tmp_path)

    with Stub(says("Answer: 4")) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        assert run(tmp_path, "--arms", "direct", "--parallel", "1") == 0
        assert len(server.requests) == 1
    assert before in read_marked(tmp_path)
    assert {one.answer for one in read_marked(tmp_path)} == {"3", "4"}


RUN = ["--arms", "direct,json_steps", "--tasks", "chain_sum:easy", "--limit", "2"]
RUN += ["--budget", "100", "--parallel", "1"]


def answered(folder: Path, process: subprocess.Popen[bytes]) -> list[Marked]:
    """What is marked as soon as anything is, before the run has ended."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(ValueError):  # read while it was replaced
            if folder.exists() and (found := read_marked(folder)):
                return found
        time.sleep(0.1)
    pytest.fail(f"no answer before the run's end ({process.poll()})")


def test_a_run_killed_in_the_middle_keeps_what_the_real_model_answered(
    tmp_path: Path,
    reciter: Server,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    process = start(
        [sys.executable, "-W", "ignore", "-m", "evals", *RUN, "--out", str(tmp_path / "run")],
        cwd=ROOT,
        env={**os.environ, "OPENAI_BASE_URL": reciter.base_url},
    )
    before = answered(tmp_path / "run", process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 0 < len(before) < 4

    monkeypatch.setenv("OPENAI_BASE_URL", reciter.base_url)
    assert main([*RUN, "--out", str(tmp_path / "run")]) == 0
    after = read_marked(tmp_path / "run")
    assert len(after) == 4
    assert all(one in after for one in before)  # to the second: they were not asked again
    assert {one.arm for one in after} == {"direct", "json_steps"}
    assert all(0 < one.tokens <= 100 and one.seconds > 0 for one in after)
    assert "| json_steps | 2 |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--arms", "magic"], "no arm called magic"),
        (["--tasks", "chain_sum:extreme"], "expected chain_sum:easy"),
        (["--tasks", "gsm8k:nowhere.jsonl"], "expected a JSONL file"),
        (["--arms", "gateway"], "needs --gateway URL"),
        (["--arms", "coat"], "thinks in json_steps; it has no coat"),
        (["--model", "other"], "does not serve other"),
        (["--report", "nowhere"], "holds no run"),
    ],
)
def test_bad_input_is_said_in_one_line(
    arguments: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with Stub(says("2")) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        assert main(arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_a_server_that_is_not_there_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    assert run(tmp_path) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "./serve.sh" in line


@pytest.mark.parametrize("arguments", [["--limit", "0"], ["--limit", "many"], ["--budget", "-1"]])
def test_a_number_that_is_none_is_refused_before_anything_starts(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert len(capsys.readouterr().err.splitlines()) <= 5


def test_the_list_shows_every_arm_and_task(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    told = capsys.readouterr().out.split()
    assert {"direct", "vote5", "gateway", "letter_counting:hard", "tutorial", "math:PATH"} < {*told}
