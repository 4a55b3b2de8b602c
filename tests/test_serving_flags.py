"""./serve.sh as a person types it: what is answered at once, and what is refused."""

from __future__ import annotations

import io
import os
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from serving import __main__ as front
from serving.catalogue import Model, find, load
from serving.cpu import Cpu
from serving.hardware import Gpu, Machine
from serving.keys import ApiKey
from serving.report import Report
from serving.speed import Speed
from serving.weights_errors import Unfit
from tests.processes import ROOT, free_port

CATALOGUE = load()
LONG = "sesame-0815-and-twenty-one-letters"
CPU = Machine(memory_gb=16, cpu=Cpu(cores=tuple(range(8))))
VNNI = Machine(memory_gb=16, cpu=Cpu(cores=tuple(range(8)), features=frozenset({"avx512_vnni"})))
GPU = Machine(gpus=(Gpu("H100", 85.0),) * 4, memory_gb=500)


def serve(
    *words: str, cwd: Path = ROOT, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    given = {key: value for key, value in os.environ.items() if key != "VLLM_API_KEY"}
    return subprocess.run(
        [str(ROOT / "serve.sh"), *words],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**given, **(environment or {})},
        timeout=60,
    )


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Machine:
    machine: Machine = getattr(request, "param", CPU)
    monkeypatch.setattr("serving.hardware.detect", lambda: machine)
    monkeypatch.setattr("serving.speed.known_speed", lambda cpu: Speed(read=20e9, call=0.5e-6))
    monkeypatch.delenv("VLLM_API_KEY", raising=False)
    return machine


def called(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """The front door in this process, on an injected machine."""
    monkeypatch.setattr(sys, "argv", ["serve.sh", *words])
    try:
        return front.main()
    except SystemExit as end:
        return int(end.code or 0)


@pytest.mark.parametrize("here", [VNNI, GPU], indirect=True, ids=["cpu", "gpu"])
@pytest.mark.parametrize("name", CATALOGUE)
def test_a_dry_run_prints_every_entrys_command(
    name: str,
    here: Machine,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert called(monkeypatch, "--dry-run", "--model", name) == 0
    (line,) = capsys.readouterr().out.splitlines()
    words = shlex.split(line)
    assert "vllm.entrypoints.openai.api_server" in words
    assert words[words.index("--served-model-name") + 1] == CATALOGUE[name].served_name


@pytest.mark.parametrize(
    ("here", "served"),
    [(CPU, "Qwen2.5-Coder-1.5B-Instruct"), (GPU, "Llama-3.1-8B-Instruct")],
    indirect=["here"],
)
def test_without_a_name_it_says_what_it_chose_and_how_to_choose(
    here: Machine, served: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert called(monkeypatch, "--dry-run") == 0
    said = capsys.readouterr()
    assert f"--served-model-name {served}" in said.out
    assert f"Serving {served}" in said.err
    assert "--model NAME" in said.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--frobnicate"], "--frobnicate is no flag"),
        (["--mod", "x"], "--mod is no flag"),
        (["extra"], "extra is no flag"),
        (["--port", "0"], "expected a port"),
        (["--port", "http"], "expected a port"),
        (["--ui-port", "65536"], "expected a port"),
        (["--max-model-len", "-5"], "expected"),
        (["--max-model-len", "18k"], "expected a number of tokens"),
        (["--source", "torrent"], "torrent"),
        (["--model"], "expected one argument"),
        (["--model", "lama-3.1-8b"], "Did you mean llama-3.1-8b-instruct"),
        (["--model", "./nowhere"], "There is no folder"),
        (["--chat-template", "/nowhere.jinja"], "/nowhere.jinja is not there"),
        (["--chat-template", "/tmp"], "/tmp is a folder"),
        (["--ui", "--ui-port", "8000"], "cannot both"),
        (["--gateway", "--port", "8001"], "change one with --port or --gateway-port"),
        (["--gateway", "--ui", "--gateway-port", "8501"], "cannot both"),
        (["--gateway-port", "0"], "expected a port"),
        (["--", "--port", "9"], "before the --"),
        (["--", "--host=0.0.0.0"], "before the --"),
        (["--", "--api-key", "sesame"], "VLLM_API_KEY"),
        (["--", "--api_key=sesame"], "VLLM_API_KEY"),
        (["--api-key-file", "/tmp"], "Is a directory"),
        (["--share", "-oProxyCommand=x"], "expected"),
        (["--share", "me@host:http"], "[USER@]HOST[:PORT]"),
        (["--precision", "int4"], "int4"),
        (["--precision", "int8", "--", "--dtype", "half"], "not both"),
    ],
    ids=" ".join,
)
def test_bad_usage_ends_with_2_and_says_what_is_wrong(
    words: list[str],
    said: str,
    here: Machine,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert called(monkeypatch, *words) == 2
    shown = capsys.readouterr()
    assert said in shown.err
    assert "Traceback" not in shown.err
    assert "sesame" not in shown.err + shown.out


def test_int8_on_a_cpu_that_lacks_it_is_refused_in_one_line(
    here: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert called(monkeypatch, "--precision", "int8", "--model", "smollm2-135m-instruct") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "AVX-512 VNNI" in line
    assert "--precision bfloat16" in line


@pytest.mark.parametrize("here", [VNNI], indirect=True, ids=["vnni"])
def test_one_line_says_what_is_served_how_fast_why_and_what_else(
    here: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert called(monkeypatch, "--dry-run", "--model", "qwen2.5-1.5b-instruct") == 0
    said = capsys.readouterr().err
    assert said == (
        "Serving Qwen2.5-1.5B-Instruct in int8, about 8 tokens/s: this machine has no GPU, "
        "8 CPU cores, 16 GB of memory. Another: --model NAME (--list shows them).\n"
    )


class Weights:
    """Stands in for serving/weights.py's fetch: what was asked for, in which precision."""

    def __init__(self, folder: Path, unfit: bool = False) -> None:
        self.folder, self.unfit = folder, unfit
        self.asked: list[str] = []

    def fetch(
        self, model: Model, root: Path, source: str | None, report: Report, precision: str = ""
    ) -> Path:
        self.asked.append(precision)
        if self.unfit and precision == "int8":
            raise Unfit("its layer x is of another kind.", "Serve it with --precision bfloat16.")
        return self.folder


def fetched(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, asked: str, unfit: bool = False
) -> tuple[str, list[str]]:
    """The precision that a machine with VNNI serves the model in, and what it fetched for it."""
    stand_in = Weights(tmp_path, unfit)
    monkeypatch.setattr("serving.weights.fetch", stand_in.fetch)
    options = front.Options(precision=asked)
    model = find(name, CATALOGUE)
    _, computed = front._fetch(model, options, VNNI, None, Report(io.StringIO()))
    return computed.name, stand_in.asked


def test_int8_is_fetched_as_int8(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    name = "qwen2.5-1.5b-instruct"
    assert fetched(monkeypatch, tmp_path, name, "auto") == ("int8", ["int8"])
    assert fetched(monkeypatch, tmp_path, name, "bfloat16") == ("bfloat16", [""])


def test_a_hubs_model_is_fetched_before_its_size_decides(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"0" * 1000)
    assert fetched(monkeypatch, tmp_path, "org/name", "auto") == ("int8", ["", "int8"])


def test_a_model_that_cannot_be_int8_is_served_in_bfloat16_unless_it_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    name = "qwen2.5-1.5b-instruct"
    assert fetched(monkeypatch, tmp_path, name, "auto", True) == ("bfloat16", ["int8", ""])
    with pytest.raises(front.Refusal, match="its layer x"):
        fetched(monkeypatch, tmp_path, name, "int8", True)


@pytest.mark.parametrize(
    ("auth", "status", "said"),
    [({}, 2, "has no redirect_uri"), ({"client_id": "a"}, 2, "has no redirect_uri"), (None, 0, "")],
)
def test_a_login_that_cannot_be_is_refused_before_anything_is_started(
    here: Machine,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    auth: dict[str, str] | None,
    status: int,
    said: str,
) -> None:
    monkeypatch.setattr(front, "auth_table", lambda: auth)
    assert called(monkeypatch, "--ui", "--dry-run") == status
    told = capsys.readouterr().err
    assert said in told
    assert status == 0 or len(told.splitlines()) == 1
    assert called(monkeypatch, "--dry-run") == 0  # without a page there is nothing to log in to


def test_the_list_tells_the_tokens_a_second_of_what_fits(
    here: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert called(monkeypatch, "--list") == 0
    rows = capsys.readouterr().out.splitlines()
    assert [row for row in rows if "qwen2.5-1.5b-instruct " in row and " about " in row]
    assert not [row for row in rows if "llama-3.3-70b-instruct " in row and " about " in row]


def test_a_model_too_large_for_the_machine_is_refused_before_it_is_fetched(
    here: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert called(monkeypatch, "--model", "llama-3.3-70b-instruct") == 1
    assert "this machine has 16" in capsys.readouterr().err


def test_missing_weights_are_named_with_the_command_that_fetches_them(
    here: Machine,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("STEPWISE_MODELS", str(tmp_path))
    words = ["--no-download", "--model", "qwen2.5-1.5b-instruct", "--port", str(free_port())]
    assert called(monkeypatch, *words) == 1
    assert "python model_download.py qwen2.5-1.5b-instruct" in capsys.readouterr().err


def test_another_system_than_linux_is_told_what_it_needs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("serving.hardware.detect", lambda: Machine(memory_gb=16, system="Darwin"))
    assert called(monkeypatch) == 1
    assert "vLLM needs Linux" in capsys.readouterr().err


def test_a_broken_driver_is_said_and_the_cpu_used(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = Machine(memory_gb=16, warning="nvidia-smi fails, so no GPU is used: mismatch.")
    monkeypatch.setattr("serving.hardware.detect", lambda: broken)
    assert called(monkeypatch, "--dry-run") == 0
    said = capsys.readouterr()
    assert "nvidia-smi fails" in said.err
    assert "--enforce-eager" in said.out


def test_the_key_is_on_no_command_line(
    here: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VLLM_API_KEY", LONG)
    assert called(monkeypatch, "--dry-run", "--ui", "--gateway", "--host", "0.0.0.0") == 0
    said = capsys.readouterr()
    assert "-m gateway --host 0.0.0.0" in said.out
    assert LONG not in said.out + said.err


@pytest.mark.parametrize(
    ("key", "words", "said"),
    [
        (" ", [], "nothing but blanks"),
        ("a b", [], "no blanks"),
        ("schlüssel", [], "ASCII"),
        ("sesame", ["--host", "0.0.0.0"], "too easy to guess for --host 0.0.0.0"),
        ("changeme" * 5, ["--gateway", "--host", "192.168.0.7"], "8 of them different"),
    ],
)
def test_a_key_that_will_not_do_is_refused_in_one_line(
    key: str,
    words: list[str],
    said: str,
    here: Machine,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("VLLM_API_KEY", key)
    assert called(monkeypatch, *words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert key == " " or key not in line


def test_an_empty_catalogue_is_said_in_one_line(
    here: Machine,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    (tmp_path / "none.toml").touch()
    monkeypatch.setenv("STEPWISE_CATALOGUE", str(tmp_path / "none.toml"))
    for words in (["--list"], []):
        assert called(monkeypatch, *words) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "none.toml names no model" in line


def test_for_others_a_key_is_made_and_kept_where_only_its_owner_reads_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("VLLM_API_KEY", "")
    file, out, keys = tmp_path / "stepwise" / "api-key", io.StringIO(), set()
    for _ in range(2):
        chosen = front.take_key(front.Options(host="0.0.0.0"), None, Report(out))
        assert os.environ["VLLM_API_KEY"] == chosen.key
        monkeypatch.setenv("VLLM_API_KEY", "")
        keys.add(chosen.key)
    (key,) = keys
    assert file.read_text() == key + "\n"
    assert file.stat().st_mode & 0o777 == 0o600
    assert len(key) >= 32
    assert out.getvalue() == 2 * f"Clients must send the key in {file}.\n"


def test_a_key_in_a_file_goes_to_the_servers_and_into_the_printed_command(
    here: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given: list[Any] = []
    monkeypatch.setattr(front, "start", lambda *them: given.append(them) or 0)
    file = tmp_path / "my key"
    assert called(monkeypatch, "--api-key-file", str(file)) == 0
    assert os.environ.pop("VLLM_API_KEY") == file.read_text().strip()
    lines = front.ready_lines(CATALOGUE["smollm2-135m-instruct"], front.Options(), given[0][-1])
    assert f"-H \"Authorization: Bearer $(cat '{file}')\"" in "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "mode", "said"),
    [
        ("sesame-0815", 0o640, "chmod 600"),
        ("", 0o600, "nothing but blanks"),
        ("one\ntwo\n", 0o600, "ASCII"),
    ],
)
def test_a_key_file_that_will_not_do_is_refused_in_one_line(
    text: str,
    mode: int,
    said: str,
    here: Machine,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    file = tmp_path / "key"
    file.write_text(text)
    file.chmod(mode)
    assert called(monkeypatch, "--api-key-file", str(file)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert "sesame" not in line


def test_a_tunnel_is_said_plainly_before_anything_connects(
    here: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert called(monkeypatch, "--dry-run", "--share", "me@example.org:80") == 0
    said = capsys.readouterr()
    assert "opens the page to the internet through example.org" in said.err
    assert "-R 80:127.0.0.1:8501 -- me@example.org" in said.out.splitlines()[-1]


def test_what_it_prints_when_ready_leads_to_the_server() -> None:
    options = front.Options(port=8011, ui=True, ui_port=8600)
    lines = front.ready_lines(CATALOGUE["smollm2-135m-instruct"], options, ApiKey())
    text = "\n".join(lines)
    for part in ("http://127.0.0.1:8011/v1", "http://127.0.0.1:8600", "curl ", "Ctrl-C"):
        assert part in text
    assert "ateway" not in text


def test_what_page_and_terminal_are_told_of_the_model_is_what_is_served(here: Machine) -> None:
    model = CATALOGUE["qwen2.5-coder-1.5b-instruct"]
    options = front.Options(served_model_name="mine")
    told = front.known(model, options, VNNI, front.computes_in(model, options, VNNI))
    assert (told.model, told.title, told.precision) == ("mine", "Qwen2.5-Coder 1.5B", "int8")
    assert told.speed == pytest.approx(1 / (1.563 / 0.75 / 20 + 50_000 * 0.5e-6))
    assert front.known(model, options, GPU, front.Precision()).speed is None
    folder = Model(name="my-llama", served_name="my-llama")
    assert front.known(folder, front.Options(), GPU, front.Precision()).title == "my-llama"


def test_with_the_gateway_it_names_its_address_and_its_models() -> None:
    options = front.Options(gateway=True, gateway_port=8012)
    lines = front.ready_lines(CATALOGUE["smollm2-135m-instruct"], options, ApiKey("x"))
    text = "\n".join(lines)
    model = "SmolLM2-135M-Instruct"
    assert "Gateway  http://127.0.0.1:8012/v1\n" in text
    assert f"The gateway's models: {model}-steps, {model}-vote8, {model}\n" in text
    assert "curl -N http://127.0.0.1:8012/v1/chat/completions \\\n" in text


def test_the_shell_script_answers_from_any_folder_before_any_set_up(tmp_path: Path) -> None:
    listed = serve("--list", cwd=tmp_path)
    assert (listed.returncode, "satori-7b-round2" in listed.stdout) == (0, True)
    helped = serve("--help", cwd=tmp_path)
    assert (helped.returncode, "--max-model-len" in helped.stdout) == (0, True)


def test_what_is_answered_at_once_needs_only_the_standard_library() -> None:
    """-S and -E hide every installed package: an import of one would end in a traceback."""
    began = time.monotonic()
    for words in (["--list"], ["--help"], ["--dry-run", "--model", "satori-7b-round2"]):
        done = subprocess.run(
            [sys.executable, "-S", "-E", "-m", "serving", *words],
            capture_output=True,
            text=True,
            cwd=ROOT,
        )
        assert (done.returncode, done.stdout != "") == (0, True), done.stderr
    assert time.monotonic() - began < 30  # three of them; a set-up would take minutes


def test_a_relative_folder_is_meant_from_where_the_user_stands(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text("{}")
    done = serve("--dry-run", "--model", "./mine", cwd=tmp_path)
    assert f"--model {tmp_path}/mine" in done.stdout


def test_a_list_into_a_pipe_that_closes_is_no_error() -> None:
    done = subprocess.run(
        ["bash", "-c", "set -o pipefail; ./serve.sh --list | head -c 1"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.stderr == ""


def test_a_port_in_use_names_who_holds_it_before_any_set_up() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = serve("--port", str(port), "--model", "smollm2-135m-instruct")
    assert done.returncode == 1
    assert f"Port {port} is in use by process {os.getpid()} (" in done.stderr
    assert "--port" in done.stderr


@pytest.mark.parametrize(
    ("started", "flag"), [("--ui", "--ui-port"), ("--gateway", "--gateway-port")]
)
def test_the_port_of_what_stands_beside_in_use_names_its_own_flag(started: str, flag: str) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        words = [started, "--port", str(free_port()), flag, str(port)]
        done = serve(*words, "--model", "smollm2-135m-instruct")
    assert (done.returncode, flag in done.stderr) == (1, True)


def test_an_address_that_is_not_ours_is_said() -> None:
    done = serve("--host", "192.0.2.77", environment={"VLLM_API_KEY": LONG})
    assert done.returncode == 1
    assert "192.0.2.77 is no address of this machine" in done.stderr
