"""scripts/bench serve: what is started, how replies are timed, what the table says."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import openai
import pytest

from bench import serve
from bench.serve import Died, Figures, Start, memory, report, running, starts
from bench.streams import Client, Timed, rate
from serving.catalogue import Model, load
from serving.command import Command
from serving.cpu import Cpu
from serving.hardware import Machine
from serving.processes import Service
from serving.report import Report
from serving.supervisor import processes_below
from tests.processes import free_port
from tests.stub import Stub, recites

MODEL = load()["smollm2-135m-instruct"]
AVX2 = Machine(cpu=Cpu(cores=(0, 1)))
VNNI = Machine(cpu=Cpu(cores=(0, 1), features=frozenset({"avx512_vnni"})))
SLOW = Figures(100, 4, 10, 50, 2.0, 8, 6, 3)
FAST = Figures(50, 12, 30, 200, 0.5, 4, 3, 1.8)


# -- how replies are timed


def test_a_rate_counts_from_the_first_token_and_leaves_that_one_out() -> None:
    assert rate([Timed(asked=0, first=5, last=9, tokens=9)]) == 2


def test_several_replies_count_together_from_the_first_that_writes() -> None:
    replies = [Timed(0, 1, 4, 7), Timed(0, 2, 5, 7)]
    assert rate(replies) == 12 / 4


async def asked(client: Client) -> tuple[tuple[float, float], float]:
    found = await client.time_prompt(20), await client.writing(3)
    await client.openai.close()
    return found


async def test_a_prompt_is_new_and_what_goes_on_from_it_begins_with_it() -> None:
    with Stub(recites("word " * 10)) as server:
        asker = openai.AsyncOpenAI(base_url=server.base_url, api_key="none")
        (read, wait), written = await asked(Client(asker, "stub", tokens=8))
    fresh, cached, *streams = (request["prompt"] for request in server.requests)
    assert len(fresh) == 20
    assert cached[:20] == fresh
    assert len(cached) > 20
    assert len({tuple(prompt) for prompt in streams}) == 3
    assert [request["max_tokens"] for request in server.requests] == [1, 1, 8, 8, 8]
    assert all(request["ignore_eos"] for request in server.requests)
    assert min(read, wait, written) > 0


# -- what is started


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every form of a model has a folder of its name."""

    def fetch(model: Model, root: Path, source: None, report: Report, form: str = "") -> Path:
        return Path(f"/models/{model.name}{'-int8' if form == 'int8' else ''}")

    monkeypatch.setattr(serve.weights, "fetch", fetch)


@pytest.mark.usefixtures("fetched")
@pytest.mark.parametrize(("machine", "form"), [(AVX2, "bfloat16"), (VNNI, "int8")])
def test_ours_is_serve_sh_in_the_precision_it_takes_by_itself(machine: Machine, form: str) -> None:
    ours, _ = starts(MODEL, machine, Report(io.StringIO()))
    assert ours.name == f"./serve.sh, {form}"
    assert ours.folder.name == MODEL.name + ("-int8" if form == "int8" else "")
    argv = ours.command(8000).argv
    assert argv[0].endswith("/serve.sh")
    assert argv[1:] == ("--model", MODEL.name, "--port", "8000")


@pytest.mark.usefixtures("fetched")
def test_theirs_is_vllm_with_nothing_of_ours_but_the_size_of_the_cache() -> None:
    _, theirs = starts(MODEL, VNNI, Report(io.StringIO()))
    command = theirs.command(8000)
    assert command.argv[command.argv.index("--dtype") + 1] == "bfloat16"
    assert f"/models/{MODEL.name}" in command.argv
    assert "--enforce-eager" not in command.argv
    ours = [name for name in command.environment if "CPU" in name or "PRELOAD" in name]
    assert ours == ["VLLM_CPU_KVCACHE_SPACE"]


def start_of(code: str) -> Start:
    def command(port: int) -> Command:
        return Command((sys.executable, "-c", code, str(port)))

    return Start("a start", MODEL, Path(), command, Service.answers)


SERVER = """
import http.server, sys
class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Health).serve_forever()
"""


@pytest.mark.slow
def test_the_start_is_timed_and_its_processes_are_weighed() -> None:
    with running(start_of(SERVER), free_port()) as (service, seconds):
        rss, pss = memory(processes_below(service.supervisor.pid))
    assert 0 < seconds < 60
    assert rss >= pss > 1e6
    assert service.status is not None


@pytest.mark.slow
def test_a_server_that_never_comes_up_is_said_with_its_last_words() -> None:
    start = start_of("raise ValueError('no memory for the cache')")
    with pytest.raises(Died, match="no memory for the cache"), running(start, free_port()):
        pass


# -- the table


def test_each_start_has_a_column_and_the_last_says_how_many_times_better_ours_is() -> None:
    found = {"A model": {"ours": [FAST], "theirs": [SLOW, SLOW]}}
    text = report(found, 500, "scripts/bench serve", "A CPU")
    rows = {line.split(" | ")[0]: line for line in text.splitlines() if line.startswith("| ")}
    assert "    scripts/bench serve\n" in text
    assert "| one stream, tokens/s | 12.00 (12.00 to 12.00) | 4.00 (4.00 to 4.00) | 3.0 |" in text
    assert rows["| start, s"].endswith("| 2.0 |")
    assert rows["| memory, PSS, GB"].endswith("| 2.0 |")
    assert rows["| prompt of 500 tokens, tokens/s"].endswith("| 4.0 |")
    assert len(rows) == 1 + 8


def test_what_did_not_start_is_said_and_compared_with_nothing() -> None:
    text = report({"A model": {"ours": [FAST], "theirs": []}}, 500, "scripts/bench serve", "A CPU")
    assert "| disk, GB | 1.80 (1.80 to 1.80) | did not start |  |" in text


@pytest.mark.usefixtures("fetched")
def test_each_start_is_told_when_it_is_measured_and_none_is_lost_to_a_ctrl_c(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ends = iter([FAST, Died("ended: no memory"), KeyboardInterrupt()])

    def one(*_: object) -> Figures:
        end = next(ends)
        if isinstance(end, BaseException):
            raise end
        return end

    monkeypatch.setattr(serve, "measure", one)
    ((ours, theirs),) = (found.values() for found in serve.measured([MODEL], 3, 8, 500).values())
    said = capsys.readouterr().err
    assert (ours, theirs) == ([FAST], [])
    assert "1/6 " in said
    assert "one stream, tokens/s 12.00; " in said
    assert "ended: no memory" in said
