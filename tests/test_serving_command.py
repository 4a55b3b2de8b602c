"""The commands that serve.sh would start."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
from importlib.metadata import distributions
from pathlib import Path

import pytest

from reasoning.endpoint import Endpoint
from serving.catalogue import ROOT, Model, load
from serving.command import (
    Command,
    Deployment,
    Options,
    context_problem,
    curl_lines,
    gateway_command,
    is_loopback,
    page_command,
    vllm_command,
    way_problem,
)
from serving.cpu import Cpu
from serving.hardware import Gpu, Machine
from serving.precision import Precision
from serving.servers import servers
from serving.tuning import tune

CATALOGUE = load()
CPU = Machine(
    memory_gb=16, cpu=Cpu(cores=tuple(range(8))), preload=("/lib/libtcmalloc_minimal.so.4",)
)
GPU = Machine(gpus=(Gpu("H100", 85.0, 9.0),), memory_gb=64)
PYTHON = Path("/venv/bin/python")
WEIGHTS = Path("/weights/of it")


def command(
    model: Model,
    machine: Machine,
    options: Options = Options(),
    given: dict[str, str] | None = None,
) -> Command:
    return vllm_command(Deployment(model, options, machine, WEIGHTS, PYTHON, given or {}))


def value(argv: tuple[str, ...], flag: str) -> str:
    """The last value of a flag, as vLLM takes it."""
    at = len(argv) - 1 - argv[::-1].index(flag)
    return argv[at + 1]


SMALL = CATALOGUE["smollm2-135m-instruct"]
LLAMA = CATALOGUE["llama-3.1-8b-instruct"]


@pytest.mark.parametrize("machine", [CPU, GPU], ids=["cpu", "gpu"])
@pytest.mark.parametrize("model", CATALOGUE.values(), ids=lambda model: model.name)
def test_every_entry_has_a_command_with_and_without_a_gpu(model: Model, machine: Machine) -> None:
    argv = command(model, machine).argv
    assert argv[:3] == (str(PYTHON), "-m", "vllm.entrypoints.openai.api_server")
    assert value(argv, "--model") == str(WEIGHTS)
    assert value(argv, "--served-model-name") == model.served_name
    assert value(argv, "--max-model-len") == str(model.max_model_len)
    assert (value(argv, "--host"), value(argv, "--port")) == ("127.0.0.1", "8000")
    structured = json.loads(value(argv, "--structured-outputs-config"))
    assert structured == {"backend": "xgrammar", "disable_any_whitespace": True}
    assert ("--enforce-eager" in argv) == (machine is CPU)


def test_nothing_calls_out_and_nothing_logs_questions() -> None:
    for machine in (CPU, GPU):
        started = command(LLAMA, machine)
        assert started.environment["VLLM_NO_USAGE_STATS"] == "1"
        assert started.environment["DO_NOT_TRACK"] == "1"
        assert started.environment["HF_HUB_OFFLINE"] == "1"
        assert "--no-enable-log-requests" in started.argv
        assert "--disable-uvicorn-access-log" in started.argv


def test_the_logs_of_page_and_gateway_hold_content_where_that_is_typed_and_vllms_never() -> None:
    for typed in (False, True):
        options = Options(gateway=True, ui=True, log_content=typed)
        vllm, *beside = servers(Deployment(SMALL, options, CPU, WEIGHTS, PYTHON)).all
        told = [one.command.environment.get("STEPWISE_LOG_CONTENT") for one in beside]
        assert told == (["1", "1"] if typed else [None, None])
        assert "STEPWISE_LOG_CONTENT" not in vllm.command.environment
        assert "--no-enable-log-requests" in vllm.command.argv


def test_the_precision_is_vllms_dtype_and_what_stands_after_the_dashes_wins() -> None:
    options = Options(extra=("--dtype", "float16"))
    precision = Precision("int8", "bfloat16", convert=True)
    deployment = Deployment(SMALL, options, CPU, WEIGHTS, PYTHON, precision=precision)
    argv = vllm_command(deployment).argv
    assert (argv.count("bfloat16"), value(argv, "--dtype")) == (1, "float16")
    assert "--dtype" not in command(SMALL, CPU).argv


def test_a_cpu_gets_its_cache_and_its_faster_libraries() -> None:
    environment = command(SMALL, CPU).environment
    assert environment["VLLM_CPU_KVCACHE_SPACE"] == "2"
    assert environment["LD_PRELOAD"] == "/lib/libtcmalloc_minimal.so.4"
    assert "LD_PRELOAD" not in command(SMALL, GPU).environment


def test_what_the_users_environment_sets_stays() -> None:
    given = {"VLLM_CPU_KVCACHE_SPACE": "8", "LD_PRELOAD": "/mine.so"}
    environment = command(SMALL, CPU, given=given).environment
    assert not environment.keys() & given.keys()


def test_a_cpu_gets_its_threads_from_its_cores() -> None:
    environment = command(SMALL, CPU).environment
    assert environment["OMP_NUM_THREADS"] == "7"
    assert "OMP_NUM_THREADS" not in command(SMALL, GPU).environment


def test_who_sets_one_of_the_threads_settings_has_the_others_from_vllm() -> None:
    for given in ({"OMP_NUM_THREADS": "3"}, {"VLLM_CPU_OMP_THREADS_BIND": "1"}):
        environment = command(SMALL, CPU, given=given).environment
        assert not [name for name in environment if "OMP" in name or "RESERVED" in name]


def test_a_model_for_four_cards_is_split_over_four() -> None:
    four = Machine(gpus=(Gpu("A100", 85.0, 8.0),) * 4)
    argv = command(CATALOGUE["llama-3.3-70b-instruct"], four).argv
    assert value(argv, "--tensor-parallel-size") == "4"
    assert "--tensor-parallel-size" not in command(LLAMA, four).argv


def test_on_two_large_cards_it_is_split_over_two() -> None:
    two = Machine(gpus=(Gpu("H100", 85.5, 9.0),) * 2)
    argv = command(CATALOGUE["llama-3.3-70b-instruct"], two).argv
    assert value(argv, "--tensor-parallel-size") == "2"


def test_parallel_sizes_of_the_users_own_come_last_and_win() -> None:
    own = ("--tensor-parallel-size", "2", "--data-parallel-size", "2")
    four = Machine(gpus=(Gpu("A100", 85.0, 8.0),) * 4)
    argv = command(CATALOGUE["llama-3.3-70b-instruct"], four, Options(extra=own)).argv
    assert argv[-4:] == own
    assert argv.index("--tensor-parallel-size") < len(argv) - 4


def test_a_card_without_bfloat16_gets_half() -> None:
    old = Machine(gpus=(Gpu("Tesla T4", 16.1, 7.5),))
    assert value(command(SMALL, old).argv, "--dtype") == "half"


def test_satori_is_served_with_the_template_of_its_card() -> None:
    argv = command(CATALOGUE["satori-7b-round2"], GPU).argv
    assert value(argv, "--chat-template") == str(ROOT / "serving/templates/satori.jinja")
    assert value(argv, "--max-model-len") == "4096"


def test_satoris_template_adds_no_system_turn() -> None:
    jinja2 = pytest.importorskip("jinja2")
    text = (ROOT / "serving/templates/satori.jinja").read_text(encoding="utf-8")
    turns = [{"role": "user", "content": "What is {{ 1 }} + 1?"}]
    assert jinja2.Template(text).render(messages=turns, add_generation_prompt=True) == (
        "<|im_start|>user\nWhat is {{ 1 }} + 1?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_model_that_thinks_by_itself_gets_its_reasoning_parser() -> None:
    assert value(command(CATALOGUE["qwen3-8b"], GPU).argv, "--reasoning-parser") == "qwen3"


def test_a_model_that_calls_tools_gets_the_parser_of_its_calls() -> None:
    argv = command(CATALOGUE["llama-3.1-8b-instruct"], GPU).argv
    assert "--enable-auto-tool-choice" in argv
    assert value(argv, "--tool-call-parser") == "llama3_json"
    assert "--enable-auto-tool-choice" not in command(SMALL, GPU).argv


def test_vllm_has_every_tool_parser_that_the_catalogue_names() -> None:
    spec = importlib.util.find_spec("vllm")  # to import it takes a minute
    assert spec is not None
    assert spec.submodule_search_locations
    parsers = Path(spec.submodule_search_locations[0], "tool_parsers", "__init__.py")
    known = set(re.findall(r'^    "(\w+)": \(', parsers.read_text(encoding="utf-8"), re.M))
    assert {model.tool_parser for model in CATALOGUE.values()} - {None} <= known


def test_flags_win_over_the_catalogue_and_vllms_own_over_all() -> None:
    options = Options(
        max_model_len=4096,
        served_model_name="mine",
        chat_template=Path("/t.jinja"),
        extra=("--max-model-len", "2048", "--quantization", "fp8"),
    )
    argv = command(CATALOGUE["satori-7b-round2"], GPU, options).argv
    assert argv[-4:] == options.extra
    assert value(argv, "--max-model-len") == "2048"
    assert value(argv, "--served-model-name") == "mine"
    assert value(argv, "--chat-template") == "/t.jinja"


SATORI = '{"added_tokens": [{"content": "<|continue|>"}, {"content": "<|reflect|>"}'
SATORI += ', {"content": "<|explore|>"}]}'


@pytest.mark.parametrize(
    ("way", "tokenizer", "named", "said"),
    [
        ("coat", SATORI, True, None),
        ("coat", "{}", True, "lack Satori's tokens"),
        ("coat", "", True, None),  # no tokenizer.json, so nothing is known
        ("cot", "{}", True, None),
        ("cot", SATORI, True, "have Satori's tokens"),
        ("json_steps", SATORI, False, None),  # a folder's way is found by asking
    ],
)
def test_satoris_flag_on_other_weights_and_the_reverse_are_told(
    way: str, tokenizer: str, named: bool, said: str | None
) -> None:
    problem = way_problem(Model("x", "x", way=way), tokenizer, named)
    assert problem is None if said is None else said in (problem or "")


def test_the_printed_command_can_be_pasted() -> None:
    started = command(SMALL, CPU)
    words = shlex.split(str(started))
    assert tuple(words[len(started.environment) :]) == started.argv


def test_a_page_for_others_is_led_to_by_any_name_and_finds_its_token_in_the_environment() -> None:
    page = page_command(SMALL, Options(ui=True, ui_host="0.0.0.0"), PYTHON)
    assert value(page.argv, "--server.address") == "0.0.0.0"
    assert value(page.argv, "--server.allowedHosts") == "*"
    tunnelled = page_command(SMALL, Options(ui=True, share=True), PYTHON)
    assert value(tunnelled.argv, "--server.address") == "127.0.0.1"
    assert value(tunnelled.argv, "--server.allowedHosts") == "*"
    assert "--server.allowedHosts" not in page_command(SMALL, Options(ui=True), PYTHON).argv


def test_the_page_is_pointed_at_this_server_and_stays_on_this_machine() -> None:
    page = page_command(SMALL, Options(host="0.0.0.0", port=8123, ui_port=8600), PYTHON)
    assert page.environment == {
        "OPENAI_BASE_URL": "http://127.0.0.1:8123/v1",
        "MODEL": "SmolLM2-135M-Instruct",
        "STEPWISE_RESTARTED": "300",
    }
    assert Endpoint.from_environment(page.environment).restart_wait == 300
    assert value(page.argv, "--server.address") == "127.0.0.1"
    assert value(page.argv, "--server.port") == "8600"


@pytest.mark.parametrize(
    ("host", "address", "loopback"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000", True),
        ("127.0.0.9", "http://127.0.0.9:8000", True),
        ("::1", "http://[::1]:8000", True),
        ("0.0.0.0", "http://127.0.0.1:8000", False),
        ("::", "http://[::1]:8000", False),
        ("192.168.1.4", "http://192.168.1.4:8000", False),
    ],
)
def test_the_address_is_one_that_this_machine_reaches(
    host: str, address: str, loopback: bool
) -> None:
    assert Options(host=host).vllm.address == address
    assert is_loopback(host) == loopback


def test_the_gateway_stands_before_vllm_which_then_stays_on_this_machine() -> None:
    options = Options(host="0.0.0.0", gateway=True, port=8123, gateway_port=8124, ui=True)
    vllm, gateway, page = servers(Deployment(SMALL, options, CPU, WEIGHTS, PYTHON)).all
    assert value(vllm.command.argv, "--host") == "127.0.0.1"
    assert gateway.command.argv[1:3] == ("-m", "gateway")
    assert value(gateway.command.argv, "--host") == "0.0.0.0"
    assert value(gateway.command.argv, "--port") == "8124"
    for before in (gateway, page):
        assert before.command.environment["OPENAI_BASE_URL"] == "http://127.0.0.1:8123/v1"
        assert before.command.environment["MODEL"] == "SmolLM2-135M-Instruct"
    assert [server.address for server in (vllm, gateway, page)] == [
        "http://127.0.0.1:8123",
        "http://127.0.0.1:8124",
        "http://127.0.0.1:8501",
    ]


def test_vllm_and_the_gateway_find_this_project_from_any_folder() -> None:
    for given, path in (({}, f"{ROOT}"), ({"PYTHONPATH": "/mine"}, f"{ROOT}:/mine")):
        assert command(SMALL, GPU, given=given).environment["PYTHONPATH"] == path
        started = gateway_command(SMALL, Options(gateway=True), PYTHON, given)
        assert started.environment["PYTHONPATH"] == path


def test_on_a_cpu_vllm_finds_our_plugin() -> None:
    path = command(SMALL, CPU, given={"PYTHONPATH": "/mine"}).environment["PYTHONPATH"].split(":")
    assert path[-1] == "/mine"
    (ours,) = distributions(path=path[1:-1])
    (found,) = ours.entry_points
    assert (found.group, found.load()) == ("vllm.general_plugins", tune)


def test_the_curl_line_for_the_gateway_asks_for_steps_as_they_are_written() -> None:
    words = shlex.split(" ".join(curl_lines(SMALL, Options(gateway=True), "")))
    assert words[:3] == ["curl", "-N", "http://127.0.0.1:8001/v1/chat/completions"]
    asked = json.loads(words[words.index("-d") + 1])
    assert (asked["model"], asked["stream"]) == ("SmolLM2-135M-Instruct-steps", True)


@pytest.mark.parametrize("name", ["SmolLM2", "it's", 'a "name"', "名字"])
def test_the_curl_line_survives_a_shell_and_is_json(name: str) -> None:
    lines = curl_lines(SMALL, Options(served_model_name=name, port=8011), "$VLLM_API_KEY")
    words = shlex.split(" ".join(lines))
    assert words[:2] == ["curl", "http://127.0.0.1:8011/v1/chat/completions"]
    assert json.loads(words[words.index("-d") + 1])["model"] == name
    assert "Authorization: Bearer $VLLM_API_KEY" in words


@pytest.mark.parametrize(
    ("config", "length", "refused"),
    [
        ({"max_position_embeddings": 4096}, 18016, True),
        ({"max_position_embeddings": 4096}, 4096, False),
        ({"max_position_embeddings": 4096}, None, False),
        ({}, 10**9, False),
        ({"max_position_embeddings": 4096, "rope_scaling": {"factor": 4.0}}, 16384, False),
        ({"max_position_embeddings": 4096, "rope_parameters": {"factor": 4.0}}, 16384, False),
        ({"max_position_embeddings": 4096, "rope_parameters": None}, 16384, True),
        ({"max_position_embeddings": "x"}, 5, False),
    ],
)
def test_a_context_longer_than_the_models_is_refused_before_the_start(
    config: dict[str, object], length: int | None, refused: bool
) -> None:
    assert (context_problem(config, length) is not None) == refused
