"""python -m reasoning, as a person runs it."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
from typing import Any

import pytest
from rich.console import Console

from reasoning.__main__ import Screen, main, summary
from reasoning.events import Answer, Delta, Failed, Retry, Started, Step, Stopped, Trace
from reasoning.traces import trace_from_json
from serving.served import Served, publish
from tests.processes import ROOT, start, until
from tests.real_servers import Server
from tests.reciter_steps import SUM
from tests.stub import NEVER, Play, Stub, raw, says, status, step, step_number

pytestmark = pytest.mark.slow  # each is a process

CHAIN = (
    step("Read", "There are [bold]three[/bold] letters."),
    step("Count", "One, two, **three**."),
    step("Check", "Again three.", "final_answer"),
    says("It is **3**."),
)


def environment(base_url: str) -> dict[str, str]:
    return {**os.environ, "OPENAI_BASE_URL": base_url, "COLUMNS": "80", "MODEL": ""}


def reason(
    base_url: str, *words: str, stdin: str = "", **variables: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "reasoning", *words],
        cwd=ROOT,
        env={**environment(base_url), **variables},
        input=stdin,
        capture_output=True,
        encoding=variables.get("PYTHONIOENCODING", "utf-8"),
        timeout=120,
    )


def test_steps_are_panels_and_the_thinking_time_comes_last() -> None:
    with Stub(*CHAIN) as stub:
        done = reason(stub.base_url, "--way", "json_steps", "How many letters?")
    assert done.returncode == 0
    for text in ("1. Read", "2. Count", "3. Check", "Answer", "It is 3."):
        assert text in done.stdout
    assert "Thought for" in done.stdout.splitlines()[-1]
    assert "in 3 steps" in done.stdout.splitlines()[-1]


def test_what_is_served_is_said_first_in_peoples_words() -> None:
    with Stub(*CHAIN) as stub, publish(Served("stub", "A stub", "int8", 12.3), stub.port):
        done = reason(stub.base_url, "--way", "json_steps", "How many letters?")
    assert done.stdout.splitlines()[0] == "A stub, int8, about 12 tokens/s"


def test_json_prints_the_trace_and_nothing_else() -> None:
    with Stub(*CHAIN) as stub:
        done = reason(
            stub.base_url, "--way", "json_steps", "--json", "-", stdin="How many letters?\n"
        )
    trace = json.loads(done.stdout)
    assert trace["version"] == 1
    assert [event["kind"] for event in trace["events"]] == ["started", *["step"] * 3, "answer"]
    assert trace["events"][0]["question"] == "How many letters?"
    assert done.stderr == ""


def test_no_server_is_one_line_that_says_what_to_start() -> None:
    with Stub() as stub:
        gone = stub.base_url
    done = reason(gone, "Why?")
    assert done.returncode == 1
    assert "./serve.sh" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize("encoding", ["utf-8", "gbk"])
def test_whatever_a_terminal_cannot_print_is_replaced(encoding: str) -> None:
    odd = status(400, b'{"error": "\\ud800 \\u001b[2J\\u202e \xe9\xab\x98 \xf0\x9f\x98\x80"}')
    words = ("--way", "direct", "Why \udcff?")
    with Stub(odd) as stub:
        done = reason(stub.base_url, *words, PYTHONIOENCODING=encoding, PYTHONUTF8="0")
        told = reason(stub.base_url, "--json", *words, PYTHONIOENCODING=encoding)
    assert done.returncode == told.returncode == 1
    assert "The server refused the request (400)." in done.stdout
    assert "[2J" in done.stdout
    assert not {"\x1b", "\u202e"} & set(done.stdout + told.stdout)
    assert "Traceback" not in done.stderr + told.stderr
    end = trace_from_json(json.loads(told.stdout)).end
    assert isinstance(end, Failed)
    assert "高 😀" in end.message


def test_a_question_that_is_no_text_is_read_as_far_as_it_is() -> None:
    with Stub(says("Because.")) as stub:
        done = subprocess.run(
            [sys.executable, "-m", "reasoning", "--way", "direct", "-"],
            cwd=ROOT,
            env=environment(stub.base_url),
            input=b"Why \xff?",
            capture_output=True,
            timeout=120,
        )
    assert done.returncode == 0, done.stderr
    assert stub.requests[0]["messages"][-1]["content"] == "Why \ufffd?"


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_a_reader_that_has_had_enough_gets_no_traceback(flags: list[str]) -> None:
    with Stub(*CHAIN) as stub:
        process = start(
            [sys.executable, "-m", "reasoning", "--way", "json_steps", *flags, "Why?"],
            cwd=ROOT,
            env=environment(stub.base_url),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        process.stdout.close()
        process.stdout = None
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (1, "")


@pytest.mark.parametrize("first", [status(503, {"error": "busy"}), raw(end="reset")])
def test_a_server_that_fails_at_the_start_is_asked_once_more(first: Play) -> None:
    with Stub(says("Because.")) as stub:
        well, plays = stub.models, iter([first])

        async def fails_first(writer: asyncio.StreamWriter) -> None:
            await next(plays, well)(writer)

        stub.models = fails_first
        done = reason(stub.base_url, "--way", "direct", "Why?")
    assert done.returncode == 0, done.stdout
    assert "Because." in done.stdout


def test_without_a_server_the_json_says_why_nothing_came() -> None:
    with Stub() as stub:
        gone = stub.base_url
    done = reason(gone, "--json", "Why?")
    trace = trace_from_json(json.loads(done.stdout))
    assert isinstance(trace.end, Failed)
    assert trace.started is not None
    assert (trace.started.question, trace.end.code, done.returncode) == ("Why?", "unreachable", 1)
    assert done.stderr.startswith("No server answers")


@pytest.mark.parametrize(("question", "said"), [(" ", "is empty"), ("x" * 8_001, "8,001")])
def test_a_question_that_no_model_gets_is_refused_without_a_server(
    question: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Stub() as stub:
        monkeypatch.setenv("OPENAI_BASE_URL", stub.base_url)
    assert main([question]) == 1
    assert said in capsys.readouterr().out


def voting(request: dict[str, Any]) -> Play:
    """Three steps, then what the chain's seed comes to: one in three says 5."""
    if "response_format" not in request:
        return says(f"The answer is {5 if request['seed'] % 3 == 0 else 4}.")
    number = step_number(request)
    return step(
        f"Step {number}", f"Number {number}.", "final_answer" if number == 3 else "continue"
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OPENAI_BASE_URL", "http://[::1/v1"),
        ("OPENAI_BASE_URL", ":abc"),
        ("OPENAI_BASE_URL", "http://h:99999/v1"),
        ("OPENAI_BASE_URL", "http://-bad-/v1"),
        ("OPENAI_API_KEY", "secret\nkey"),
        ("OPENAI_API_KEY", "sécret"),
        ("HTTP_PROXY", "socks5://127.0.0.1:9"),
        ("STEPWISE_STEP_SECONDS", "soon"),
    ],
)
def test_an_environment_that_cannot_be_used_is_one_line_that_names_it(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    with Stub() as stub:
        here = stub.base_url if name.startswith("STEP") else "http://models.example/v1"
        monkeypatch.setenv("OPENAI_BASE_URL", here)
        monkeypatch.setenv(name, value)
        assert main(["--way", "direct", "Why?"]) == 1
    said = [line for line in capsys.readouterr().out.splitlines() if name in line]
    assert len(said) == 1
    assert "cret" not in said[0]


def test_several_chains_vote_and_the_majority_is_shown_with_its_share() -> None:
    with Stub(voting) as stub:
        done = reason(stub.base_url, "--way", "json_steps", "--chains", "5", "--seed", "9", "2+2?")
    assert done.returncode == 0
    assert "The answer is 4." in done.stdout
    assert "The answer is 5." not in done.stdout
    lines = done.stdout.splitlines()
    assert lines[-3:-1] == ["3 of 5 chains (60%): 4", "2 of 5 chains (40%): 5"]
    assert "in 5 chains, " in lines[-1]
    assert {request["temperature"] for request in stub.requests} == {0.7}
    assert {request["seed"] for request in stub.requests} == {9, 10, 11, 12, 13}


def test_three_chains_that_agree_end_the_vote() -> None:
    with Stub(says("The answer is 4.")) as stub:
        done = reason(stub.base_url, *["--way", "direct", "--chains", "8", "--seed", "9", "2+2?"])
    *_, share, time = done.stdout.splitlines()
    assert share == "3 of 3 chains (100%), of at most 8: 4"
    assert "in 3 chains, of at most 8, " in time
    assert {request["seed"] for request in stub.requests} == {9, 10, 11}


def test_a_chain_that_runs_when_the_vote_is_decided_is_hung_up_on() -> None:
    def reply(request: dict[str, Any]) -> Play:
        return says("The answer is 4.", until=NEVER if request["seed"] == 9 else None)

    with Stub(reply) as stub:
        done = reason(stub.base_url, *["--way", "direct", "--chains", "3", "--seed", "9", "2+2?"])
    assert done.stdout.splitlines()[-2] == "2 of 2 chains (100%), of at most 3: 4"
    assert stub.gone == 1


def test_several_chains_as_json_are_their_votes_and_their_traces() -> None:
    with Stub(voting) as stub:
        words = ("--json", "--chains", "2", "--seed", "0", "2+2?")
        done = reason(stub.base_url, "--way", "json_steps", *words)
    printed = json.loads(done.stdout)
    assert printed["votes"] == [{"answer": "5", "chains": [0]}, {"answer": "4", "chains": [1]}]
    assert printed["most"] == 2
    assert [trace["version"] for trace in printed["traces"]] == [1, 1]


def test_chains_that_all_fail_say_why() -> None:
    with Stub(status(400, {"error": "No."})) as stub:
        done = reason(stub.base_url, "--way", "direct", "--chains", "2", "2+2?")
    assert done.returncode == 1
    assert "The server refused the request (400)." in done.stdout
    assert "No chain came to a clear answer." in done.stdout


def test_a_deadline_that_strikes_is_shown_and_its_steps_stay(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    slow = step("Count", "word " * 400, until=NEVER)
    with Stub(CHAIN[0], slow) as stub:
        monkeypatch.setenv("OPENAI_BASE_URL", stub.base_url)
        assert main(["--way", "json_steps", "--step-seconds", "1", "Why?"]) == 1
    said = capsys.readouterr().out
    assert "1. Read" in said
    assert "Step 2 was not done in 1 s." in said


def test_a_seed_is_sent_with_every_request() -> None:
    with Stub(*CHAIN) as stub:
        reason(stub.base_url, "--way", "json_steps", "--seed", "7", "How many letters?")
    assert [request["seed"] for request in stub.requests] == [7] * 4


def test_no_request_asks_for_more_than_the_budget() -> None:
    with Stub(says("Because.")) as stub:
        reason(stub.base_url, "--way", "direct", "--budget", "50", "Why?")
    assert [request["max_tokens"] for request in stub.requests] == [50]


@pytest.mark.parametrize(
    "words",
    [
        ["Why?", "--min-steps", "3", "--max-steps", "2"],
        [],
        ["Why?", "--language", "fr"],
        ["Why?", "--chains", "17"],
        ["Why?", "--seed", "x"],
        ["Why?", "--budget", "0"],
        ["Why?", "--chain-seconds", "-1"],
        ["Why?", "--step-seconds", "nan"],
    ],
)
def test_bad_flags_are_refused_with_what_was_expected(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(words)
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("usage:")
    assert len(said) <= 5


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_ctrl_c_ends_the_run_on_the_server_and_leaves_no_traceback(flags: list[str]) -> None:
    slow: Play = step("Read", "word " * 400, until=NEVER)
    with Stub(slow) as stub:
        process = start(
            [sys.executable, "-m", "reasoning", "--way", "json_steps", *flags, "Why?"],
            cwd=ROOT,
            env=environment(stub.base_url),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        until(lambda: stub.requests)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
        until(lambda: stub.gone == 1)
    assert process.returncode == 130
    assert "Traceback" not in out + err


@pytest.mark.parametrize(
    ("how", "chains"), [(signal.SIGINT, 1), (signal.SIGTERM, 3), (signal.SIGHUP, 1)]
)
def test_what_came_until_it_was_ended_is_printed_as_json(how: signal.Signals, chains: int) -> None:
    def reply(request: dict[str, Any]) -> Play:
        number = step_number(request)
        said = ("Read the letters.", "Count each of them.", "word " * 40)[number - 1]
        return step(f"Step {number}", said, until=NEVER if number == 3 else None)

    with Stub(reply) as stub:
        words = ["--way", "json_steps", "--json", "--chains", str(chains), "Why?"]
        process = start(
            [sys.executable, "-m", "reasoning", *words],
            cwd=ROOT,
            env=environment(stub.base_url),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        until(lambda: len(stub.requests) == 3 * chains)
        process.send_signal(how)
        out, err = process.communicate(timeout=20)
    printed = json.loads(out)
    traces = [trace_from_json(it) for it in (printed["traces"] if chains > 1 else [printed])]
    assert [len(trace.steps) for trace in traces] == [2] * chains
    assert all(isinstance(trace.end, Stopped) for trace in traces)
    assert (process.returncode, err) == (130, "")


def test_a_real_question_is_answered_in_the_terminal(reciter: Server) -> None:
    done = reason(reciter.base_url, "--way", "json_steps", "--budget", "280", SUM)
    assert done.returncode == 0, done.stdout
    assert "Thought for" in done.stdout


def test_several_real_chains_are_counted(reciter: Server) -> None:
    done = reason(reciter.base_url, "--way", "json_steps", "--budget", "280", "--chains", "2", SUM)
    assert done.returncode == 0, done.stdout
    assert "in 2 chains, " in done.stdout.splitlines()[-1]


def test_text_without_a_place_is_drawn_until_it_has_one() -> None:
    console = Console(file=io.StringIO(), width=80)
    screen = Screen(console)

    def drawn(*deltas: Delta) -> str:
        for delta in deltas:
            screen.take(delta)
        with console.capture() as caught:
            console.print(screen.draft())
        return caught.get()

    assert "Let us add:" in drawn(Delta(1, "tentative", "Let us "), Delta(1, "tentative", "add:"))
    placed = drawn(Delta(1, "title", "Sum"))
    assert "1. Sum" in placed
    assert "Let us" not in placed


def test_the_summary_tells_waiting_from_thinking() -> None:
    began = Started("q", "m", "json_steps", "en", 0.0)
    one = Step(1, "T", "C", "final_answer", 2.0, 20)
    waited = Retry(2, 1, "unreachable", "No server answers.", 1.5)
    trace = Trace((began, one, waited, Answer("A", 1.0, 10)))
    expected = "Thought for 3.0 s in 1 step, 30 tokens; waited 1.5 s for retries"
    assert summary(trace) == expected
