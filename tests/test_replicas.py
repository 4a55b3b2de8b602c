"""Several servers behind one address: what each is started with, and what is refused in a line."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from serving import __main__ as serve
from serving.catalogue import load
from serving.command import Command, Deployment, Options
from serving.cpu import Cpu
from serving.hardware import Gpu, Machine
from serving.replicas import cards_each, find_problem, split, worker_url, workers
from serving.servers import Servers, servers
from tests.processes import free_port

CATALOGUE = load()
SMALL = CATALOGUE["smollm2-135m-instruct"]
LLAMA = CATALOGUE["llama-3.1-8b-instruct"]
LARGE = CATALOGUE["llama-3.3-70b-instruct"]
CPU = Machine(memory_gb=32, cpu=Cpu(cores=(0, 2, 4, 6)))
TWO_CORES = Machine(memory_gb=16, cpu=Cpu(cores=(0, 1)))
FOUR_GPUS = Machine(gpus=(Gpu("H100", 85.0, 9.0),) * 4, memory_gb=500)
EIGHT_GPUS = Machine(gpus=(Gpu("A100", 44.0, 8.0),) * 8, memory_gb=500)
PYTHON, WEIGHTS = Path("/venv/bin/python"), Path("/weights")


def started(
    machine: Machine, given: dict[str, str] | None = None, model: Any = SMALL, **options: Any
) -> Servers:
    return servers(Deployment(model, Options(**options), machine, WEIGHTS, PYTHON, given or {}))


def value(command: Command, flag: str) -> str:
    return command.argv[command.argv.index(flag) + 1]


def problem(
    machine: Machine, given: dict[str, str] | None = None, model: Any = SMALL, **options: Any
) -> str | None:
    return find_problem(model, Options(**options), machine, given or {})


# -- what each gets


def test_a_single_server_is_started_as_ever_with_nothing_before_it() -> None:
    (vllm,) = started(CPU).all
    assert (vllm.name, vllm.address) == ("vLLM", "http://127.0.0.1:8000")


def test_each_replica_on_a_cpu_gets_cores_and_memory_of_its_own() -> None:
    one, other = started(CPU, replicas=2).vllms
    bound = [one.command.environment, other.command.environment]
    assert [it["VLLM_CPU_OMP_THREADS_BIND"] for it in bound] == ["0,2", "4,6"]
    assert [it["OMP_NUM_THREADS"] for it in bound] == ["2", "2"]
    assert [it["VLLM_CPU_KVCACHE_SPACE"] for it in bound] == ["2", "2"]  # of 32 GB one gets 4


def test_in_a_container_each_gets_its_share_of_the_quota_and_no_core() -> None:
    shared = Machine(memory_gb=32, cpu=Cpu(cores=tuple(range(16)), quota=4.0))
    for one in started(shared, replicas=2).vllms:
        assert one.command.environment["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"
        assert one.command.environment["OMP_NUM_THREADS"] == "2"


@pytest.mark.parametrize(("given", "seen"), [({}, "0 1 2 3"), ("5,3,GPU-ab,7", "5 3 GPU-ab 7")])
def test_each_replica_gets_a_card_of_those_that_may_be_used(given: Any, seen: str) -> None:
    environment = {"CUDA_VISIBLE_DEVICES": given} if given else {}
    found = started(FOUR_GPUS, environment, LLAMA, replicas=4).vllms
    assert [it.command.environment["CUDA_VISIBLE_DEVICES"] for it in found] == seen.split()
    assert not any("--tensor-parallel-size" in it.command.argv for it in found)


def test_a_model_for_four_cards_gets_four_in_each_replica() -> None:
    one, other = started(EIGHT_GPUS, {}, LARGE, replicas=2).vllms
    assert one.command.environment["CUDA_VISIBLE_DEVICES"] == "0,1,2,3"
    assert other.command.environment["CUDA_VISIBLE_DEVICES"] == "4,5,6,7"
    assert value(other.command, "--tensor-parallel-size") == "4"


@pytest.mark.parametrize(
    ("flags", "each"),
    [
        ((), 1),
        (("--tensor-parallel-size", "2"), 2),
        (("--tensor_parallel_size=2", "-pp", "2"), 4),
        (("-tp", "x"), 1),  # which is vLLM's to say
    ],
)
def test_vllms_own_flags_say_how_many_cards_a_replica_takes(flags: Any, each: int) -> None:
    assert cards_each(LLAMA, Options(extra=flags), FOUR_GPUS) == each


def test_the_parts_of_a_machine_do_not_overlap_and_are_its_own() -> None:
    for count in range(1, 9):
        machine = Machine(memory_gb=64, cpu=Cpu(cores=tuple(range(8))))
        parts = split(SMALL, Options(replicas=count), machine)
        cores = [core for part in parts for core in part.cpu.cores]
        assert len(parts) == count
        assert len(cores) == len(set(cores))
        assert set(cores) <= set(machine.cpu.cores)
        assert all(part.cpu.threads >= 1 for part in parts)


# -- who stands before them


def test_one_address_stands_before_the_router_and_the_replicas() -> None:
    made = started(CPU, replicas=2, port=8123, host="0.0.0.0", gateway=True, ui=True)
    assert [one.address for one in made.vllms] == ["http://127.0.0.1:8134", "http://127.0.0.1:8135"]
    assert [one.name for one in made.vllms] == ["Replica 1", "Replica 2"]
    router, front, gateway, page = made.beside
    assert (router.address, front.address) == ("http://127.0.0.1:8133", "http://127.0.0.1:8123")
    for before in (router, front):
        at = before.command.argv.index("--worker-urls")
        assert list(before.command.argv[at + 1 :]) == [one.address for one in made.vllms]
        assert value(before.command, "--host") == "127.0.0.1"  # the gateway is what others reach
    for asking in (gateway, page):
        assert asking.command.environment["OPENAI_BASE_URL"] == "http://127.0.0.1:8123/v1"


def test_only_the_front_is_open_to_the_network() -> None:
    made = started(CPU, replicas=2, host="0.0.0.0")
    hosts = [value(one.command, "--host") for one in made.all]
    assert hosts == ["127.0.0.1", "127.0.0.1", "127.0.0.1", "0.0.0.0"]


def test_no_key_is_on_a_command_line() -> None:
    made = started(CPU, {"VLLM_API_KEY": "sesame"}, replicas=2)
    assert not any("sesame" in str(one.command) for one in made.all)


def test_servers_of_other_machines_join_at_the_router() -> None:
    options = Options(worker_urls=("http://10.0.0.2:8000",))
    assert workers(options) == ("http://127.0.0.1:8011", "http://10.0.0.2:8000")
    vllm, _router, _front = servers(Deployment(SMALL, options, CPU, WEIGHTS, PYTHON)).all
    assert vllm.name == "vLLM"
    assert vllm.command.environment["VLLM_CPU_OMP_THREADS_BIND"] == "0,2,4,6"


def test_the_router_knows_its_flags() -> None:
    """By the router's own reader, where it is installed: .venv-deploy has it for the tests."""
    from tests.test_deploy import check

    router = started(CPU, replicas=2).beside[0].command
    code = (
        "import sys; from serving.router import router_args; "
        "args = router_args(sys.argv[1:], 'k', 'http://judge'); "
        "assert (args.policy, args.api_key) == ('consistent_hash', 'k'); "
        "assert args.prometheus_port and args.prometheus_host == '127.0.0.1'; "
        "assert len(args.worker_urls) == 2"
    )
    check("python", "-c", code, *router.argv[3:])


# -- what is refused


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("http://10.0.0.2:8000", "http://10.0.0.2:8000"),
        ("https://gpu.example.org/v1/", "https://gpu.example.org"),
        ("http://[::1]:8000/", "http://[::1]:8000"),
    ],
)
def test_an_address_of_another_server_may_end_in_v1(text: str, kept: str) -> None:
    assert worker_url(text) == kept


@pytest.mark.parametrize(
    ("machine", "given", "options", "said"),
    [
        (TWO_CORES, {}, {"replicas": 3}, "--replicas 3 needs a core each, this machine has 2"),
        (FOUR_GPUS, {}, {"replicas": 5}, "with a GPU each needs 5, this machine has 4"),
        (
            FOUR_GPUS,
            {},
            {"replicas": 3, "extra": ("-tp", "2")},
            "--replicas 3 with 2 GPUs each needs 6, this machine has 4",
        ),
        (
            TWO_CORES,
            {},
            {"replicas": 2, "extra": ("--tensor-parallel-size=2",)},
            "leave --tensor-parallel-size out",
        ),
        (FOUR_GPUS, {}, {"replicas": 2, "extra": ("-dp", "2")}, "not both"),
        (TWO_CORES, {"OMP_NUM_THREADS": "2"}, {"replicas": 2}, "unset OMP_NUM_THREADS"),
        (TWO_CORES, {}, {"replicas": 2, "port": 65530}, "--port 65530 leaves the replicas no"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_cannot_be_served_is_said_in_a_line(
    machine: Machine, given: dict[str, str], options: dict[str, Any], said: str
) -> None:
    told = problem(machine, given, **options)
    assert told is not None
    assert said in told
    assert "\n" not in told


def test_what_can_be_served_is_not_refused() -> None:
    assert problem(TWO_CORES, replicas=2) is None
    assert problem(FOUR_GPUS, {}, LLAMA, replicas=4) is None
    assert problem(TWO_CORES, {"OMP_NUM_THREADS": "2"}) is None


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.hardware.detect", lambda: TWO_CORES)
    monkeypatch.setattr("serving.speed.known_speed", lambda cpu: None)
    for name in ("VLLM_API_KEY", "VLLM_CPU_OMP_THREADS_BIND", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)


def called(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["serve.sh", "--model", SMALL.name, *words])
    try:
        return serve.main()
    except SystemExit as end:
        return int(end.code or 0)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--replicas", "0"], "expected a number of replicas from 1 to 64, got '0'"),
        (["--replicas", "two"], "got 'two'"),
        (["--replicas", "3"], "needs a core each"),
        (["--replicas", "2", "--gateway", "--gateway-port", "8011"], "cannot both have port 8011"),
        (["--worker-url", "10.0.0.2:8000"], "expected http://HOST:PORT"),
        (["--worker-url", "http://x:99999"], "expected http://HOST:PORT"),
        (["--worker-url", "http://me:pw@x:80"], "expected http://HOST:PORT"),
        (["--worker-url", "http://x/some/where"], "expected http://HOST:PORT"),
    ],
    ids=" ".join,
)
@pytest.mark.usefixtures("small")
def test_bad_usage_ends_with_2(
    words: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert called(monkeypatch, *words) == 2
    shown = capsys.readouterr().err
    assert said in shown
    assert "Traceback" not in shown


@pytest.mark.usefixtures("small")
def test_a_port_of_a_replica_that_is_taken_is_said_with_its_flag(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import socket

    port = free_port()
    monkeypatch.setattr("serving.weights.present", lambda *_: True)
    with socket.socket() as other:
        other.bind(("127.0.0.1", port + 12))
        other.listen()
        assert called(monkeypatch, "--replicas", "2", "--port", str(port)) == 1
    said = capsys.readouterr().err
    assert f"Port {port + 12} is in use by process {os.getpid()}" in said
    assert "--port" in said


@pytest.mark.usefixtures("small")
def test_a_dry_run_prints_each_server(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert called(monkeypatch, "--replicas", "2", "--dry-run", "--gateway") == 0
    shown = capsys.readouterr()
    lines = [shlex.split(line) for line in shown.out.splitlines()]
    modules = [words[words.index("-m") + 1] for words in lines]
    vllm = "vllm.entrypoints.openai.api_server"
    assert modules == [vllm, vllm, "serving.router", "serving.front", "gateway"]
    assert "2 times" in shown.err
