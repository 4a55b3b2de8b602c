"""model_download.py as a person calls it, against both hubs' real clients.

The hub is ours, on loopback (tests/hub.py); each call is a process of its own,
because the clients read their settings when they are imported.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub import Hub, model_files, safetensors
from tests.processes import ROOT, start

pytestmark = pytest.mark.slow  # each is a process that downloads

REPO = "acme/tiny"
NAME = "acme--tiny"
SHARD = "model-00001-of-00002.safetensors"
READ_BY_VLLM = {
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "model.safetensors.index.json",
    SHARD,
    "model-00002-of-00002.safetensors",
    "LICENSE",
}
SOURCES = ("modelscope", "huggingface")
both = pytest.mark.parametrize("source", SOURCES)


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub().serve() as running:
        yield running


class Caller:
    """Calls model_download.py with a home of its own."""

    def __init__(self, home: Path, hub: Hub) -> None:
        self.models = home / "models"
        self.folder = self.models / NAME
        self.partial = self.models / f".partial-{NAME}"
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "STEPWISE_MODELS": str(self.models),
            "HF_ENDPOINT": hub.url,
            "MODELSCOPE_ENDPOINT": hub.url,
            "MODELSCOPE_DOWNLOAD_MAX_RETRIES": "1",
        }

    def start(self, *flags: str, name: str = REPO) -> subprocess.Popen[str]:
        return start(
            [sys.executable, str(ROOT / "model_download.py"), name, *flags],
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *flags: str, name: str = REPO) -> tuple[int, str, list[str]]:
        process = self.start(*flags, name=name)
        out, err = process.communicate(timeout=60)
        assert "Traceback" not in err, err
        return process.returncode, out, err.splitlines()

    def refused(self, *flags: str, name: str = REPO) -> str:
        """The one line that says why it did not work."""
        code, out, err = self.run(*flags, name=name)
        assert (code, out) == (1, "")
        assert not self.folder.exists()
        return err[-1]

    def wait_for_bytes(self, name: str, size: int) -> None:
        rest = self.partial / f"{name}.incomplete"
        for _ in range(2000):
            if rest.exists() and rest.stat().st_size >= size:
                return
            time.sleep(0.01)
        raise AssertionError(f"{rest} did not grow to {size} bytes")


@pytest.fixture
def call(tmp_path: Path, hub: Hub) -> Caller:
    return Caller(tmp_path, hub)


@both
def test_the_folder_alone_is_printed_and_holds_what_vllm_reads(
    call: Caller, hub: Hub, source: str
) -> None:
    code, out, _ = call.run("--source", source)
    assert (code, out) == (0, f"{call.folder}\n")
    there = {path.name for path in call.folder.iterdir()}
    assert there == READ_BY_VLLM | {".stepwise.json"}
    assert all((call.folder / name).read_bytes() == hub.files[name] for name in READ_BY_VLLM)
    assert not call.partial.exists()


def test_a_second_call_asks_no_hub(call: Caller, hub: Hub) -> None:
    call.run()
    asked = len(hub.requests)
    code, out, err = call.run()
    assert (code, out, err) == (0, f"{call.folder}\n", [])
    assert len(hub.requests) == asked


def test_modelscope_is_asked_first(call: Caller, hub: Hub) -> None:
    call.run()
    assert all(path.startswith("/api/v1/") for path in hub.requests)


def test_where_modelscope_lacks_it_hugging_face_is_asked_and_a_line_says_so(
    call: Caller, hub: Hub
) -> None:
    call.env["MODELSCOPE_ENDPOINT"] = "http://127.0.0.1:9"  # nobody listens on discard
    code, _, err = call.run()
    assert code == 0
    assert err[0] == "ModelScope cannot be reached (NetworkError). Trying Hugging Face."


@both
def test_after_kill_9_only_the_rest_is_fetched(call: Caller, hub: Hub, source: str) -> None:
    size = 24_000_000  # huggingface_hub writes in pieces of 10 MB
    hub.files = {"config.json": b"{}", "model.safetensors": safetensors(size)}
    hub.stalls["model.safetensors"] = 22_000_000
    child = call.start("--source", source)
    call.wait_for_bytes("model.safetensors", 10_000_000)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert not call.folder.exists()
    hub.stalls.clear()
    hub.sent.clear()
    assert call.run("--source", source)[0] == 0
    assert 0 < hub.sent["model.safetensors"] < size - 9_000_000
    assert (call.folder / "model.safetensors").read_bytes() == hub.files["model.safetensors"]


@both
def test_ctrl_c_is_one_line_and_130_and_keeps_the_rest(call: Caller, hub: Hub, source: str) -> None:
    hub.files = {"config.json": b"{}", "model.safetensors": safetensors(12_000_000)}
    hub.stalls["model.safetensors"] = 11_000_000
    child = call.start("--source", source)
    call.wait_for_bytes("model.safetensors", 10_000_000)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=20)
    assert (child.returncode, out) == (130, "")
    assert err.splitlines()[-1].startswith("Stopped. What has arrived is kept")
    assert "Traceback" not in err
    assert (call.partial / "model.safetensors.incomplete").stat().st_size >= 10_000_000


@both
def test_a_connection_cut_once_is_taken_up_again(call: Caller, hub: Hub, source: str) -> None:
    hub.cuts[SHARD] = 1
    assert call.run("--source", source)[0] == 0
    assert (call.folder / SHARD).read_bytes() == hub.files[SHARD]


@both
def test_a_connection_that_is_always_cut_says_to_run_again(
    call: Caller, hub: Hub, source: str
) -> None:
    hub.cuts[SHARD] = 1000
    line = call.refused("--source", source)
    assert "broke off" in line
    assert line.endswith("Run it again: it goes on where it stopped.")


@both
@pytest.mark.parametrize("name", [SHARD, "tokenizer.json"])
def test_a_flipped_byte_is_refused_and_not_kept(
    call: Caller, hub: Hub, source: str, name: str
) -> None:
    hub.flipped.add(name)
    assert "wrong size or hash" in call.refused("--source", source)
    assert not (call.partial / name).exists()
    hub.flipped.clear()
    assert call.run("--source", source)[0] == 0


def test_a_file_touched_after_the_download_is_compared_and_fetched_again_if_damaged(
    call: Caller, hub: Hub
) -> None:
    call.run()
    shard = call.folder / SHARD
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    hub.sent.clear()
    code, _, err = call.run()
    assert code == 0
    assert any(f"{SHARD} is damaged" in line for line in err)
    assert shard.read_bytes() == hub.files[SHARD]
    assert set(hub.sent) == {SHARD}


def test_a_touched_file_that_is_still_whole_costs_no_network(call: Caller, hub: Hub) -> None:
    call.run()
    (call.folder / SHARD).touch()
    asked = len(hub.requests)
    assert call.run()[0] == 0
    assert len(hub.requests) == asked


@both
def test_a_hostile_name_is_refused_before_anything_is_written(
    call: Caller, hub: Hub, source: str
) -> None:
    hub.listed_only.append("../evil.json")
    assert "'../evil.json' that leads out of the" in call.refused("--source", source)
    assert not hub.sent
    assert list(call.partial.iterdir()) == []


def test_a_symlink_is_refused_before_anything_is_written(call: Caller, hub: Hub) -> None:
    hub.symlinks.add("config.json")
    assert "'config.json' that is a symlink" in call.refused("--source", "modelscope")
    assert not hub.sent


@both
def test_pickles_alone_are_refused(call: Caller, hub: Hub, source: str) -> None:
    hub.files = {"config.json": b"{}", "pytorch_model.bin": b"pickle"}
    assert "as pickle files only" in call.refused("--source", source)
    assert not hub.sent


@both
def test_a_model_that_needs_its_own_code_is_refused_before_its_weights(
    call: Caller, hub: Hub, source: str
) -> None:
    hub.files["config.json"] = b'{"auto_map": {"AutoModel": "own.Model"}}'
    hub.files["own.py"] = b"import os"
    assert "needs its own Python code (config.json" in call.refused("--source", source)
    assert SHARD not in hub.sent
    assert "own.py" not in hub.sent


@both
def test_a_shard_that_is_missing_is_named_before_the_others_are_fetched(
    call: Caller, hub: Hub, source: str
) -> None:
    del hub.files["model-00002-of-00002.safetensors"]
    assert "lacks model-00002-of-00002.safetensors" in call.refused("--source", source)
    assert SHARD not in hub.sent


def test_an_index_that_names_a_shard_outside_its_folder_is_refused(call: Caller, hub: Hub) -> None:
    hub.files["model.safetensors.index.json"] = b'{"weight_map": {"a": "../x.safetensors"}}'
    assert "names the shard '../x.safetensors'" in call.refused()
    assert SHARD not in hub.sent


def test_a_gated_model_says_where_to_accept_and_what_to_set(call: Caller, hub: Hub) -> None:
    hub.file_status = (401, "GatedRepo")
    line = call.refused("--source", "huggingface")
    assert "is gated on Hugging Face and no token is set" in line
    assert f"https://huggingface.co/{REPO}" in line
    assert "HF_TOKEN" in line
    assert SHARD not in hub.sent


def test_a_token_opens_a_gated_model_and_is_not_printed(call: Caller, hub: Hub) -> None:
    hub.file_status = (401, "GatedRepo")
    hub.token = call.env["HF_TOKEN"] = "hf_secret"
    code, out, err = call.run("--source", "huggingface")
    assert code == 0
    assert "hf_secret" not in out + "".join(err)


def test_a_token_that_does_not_open_it_is_not_printed(call: Caller, hub: Hub) -> None:
    hub.file_status = (403, "GatedRepo")
    call.env["HF_TOKEN"] = "hf_secret"
    line = call.refused("--source", "huggingface")
    assert "the token that is set does not open it" in line
    assert "hf_secret" not in line


def test_modelscope_s_locked_door_names_its_own_token(call: Caller, hub: Hub) -> None:
    hub.file_status = (403, "")
    line = call.refused("--source", "modelscope")
    assert "set MODELSCOPE_API_TOKEN" in line
    assert f"https://modelscope.cn/models/{REPO}" in line


@both
def test_an_unknown_name_is_one_line(call: Caller, hub: Hub, source: str) -> None:
    hub.listing_status = (404, "RepoNotFound")
    assert "has no repository acme/tiny" in call.refused("--source", source)


def test_an_unknown_hub_id_close_to_a_known_model_is_told_so(call: Caller, hub: Hub) -> None:
    hub.listing_status = (404, "RepoNotFound")
    line = call.refused(name="Qwen/Qwen2.5-3B-Instruct-x")
    assert "Did you mean " in line
    assert "qwen2.5-3b-instruct" in line


def test_no_network_is_one_line(call: Caller) -> None:
    call.env |= {"HF_ENDPOINT": "http://127.0.0.1:9", "MODELSCOPE_ENDPOINT": "http://127.0.0.1:9"}
    line = call.refused()
    assert line.startswith("Hugging Face cannot be reached")
    assert "Check the network" in line


@both
def test_a_captive_portal_is_one_line(call: Caller, hub: Hub, source: str) -> None:
    hub.html = True
    assert "cannot be" in call.refused("--source", source)


@both
def test_too_small_a_disk_is_said_before_the_first_byte(
    call: Caller, hub: Hub, source: str
) -> None:
    hub.sizes["config.json"] = 10**18
    line = call.refused("--source", source)
    assert "needs 1000000000.00 GB" in line
    assert "GB free" in line
    assert not hub.sent


def test_a_second_download_waits_for_the_first_and_says_so(call: Caller, hub: Hub) -> None:
    call.models.mkdir(parents=True)
    with (call.models / f".{NAME}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        child = call.start()
        assert child.stderr is not None
        assert "waiting for that one" in child.stderr.readline()
        assert not hub.requests
    assert child.communicate(timeout=30)[0] == f"{call.folder}\n"


def test_two_downloads_at_once_fetch_it_once(call: Caller, hub: Hub) -> None:
    children = [call.start(), call.start()]
    outs = [child.communicate(timeout=30)[0] for child in children]
    assert outs == [f"{call.folder}\n"] * 2
    assert hub.sent[SHARD] == len(hub.files[SHARD])


def test_a_folder_of_somebody_else_s_is_left_alone(call: Caller) -> None:
    call.folder.mkdir(parents=True)
    (call.folder / "mine.txt").write_text("dear")
    code, _, err = call.run()
    assert code == 1
    assert "Move that folder away" in err[-1]
    assert (call.folder / "mine.txt").read_text() == "dear"


def test_weights_in_the_user_s_hugging_face_cache_are_not_fetched_again(
    call: Caller, hub: Hub
) -> None:
    cached = "from huggingface_hub import snapshot_download as s; s('acme/tiny')"
    done = subprocess.run(
        [sys.executable, "-c", cached], env=call.env, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    hub.sent.clear()
    assert call.run("--source", "huggingface")[0] == 0
    assert not hub.sent
    assert not any(path.is_symlink() for path in call.folder.iterdir())


def test_weights_in_the_user_s_modelscope_cache_are_not_fetched_again(
    call: Caller, hub: Hub
) -> None:
    cached = "from modelscope_hub import HubApi; HubApi().download_repo('acme/tiny', 'model')"
    done = subprocess.run(
        [sys.executable, "-c", cached], env=call.env, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    hub.sent.clear()
    assert call.run("--source", "modelscope")[0] == 0
    assert not hub.sent


def test_an_unwritable_root_says_which_setting_moves_it(call: Caller, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    call.env["STEPWISE_MODELS"] = str(tmp_path / "file" / "models")
    assert "Set STEPWISE_MODELS to a folder you may write to." in call.refused()


def test_a_source_the_model_is_not_on_is_one_line(call: Caller) -> None:
    line = call.refused("--source", "modelscope", name="satori-7b-round2")
    assert "Use --source huggingface, or leave it out." in line


def test_a_local_folder_is_printed_as_it_is(call: Caller, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    for name, data in model_files().items():
        if "/" not in name:
            (folder / name).write_bytes(data)
    assert call.run(name=str(folder))[:2] == (0, f"{folder}\n")
    (folder / SHARD).write_bytes(b"short")
    line = call.refused(name=str(folder))
    assert SHARD in line


def test_help_answers_without_the_hubs_clients() -> None:
    code = "import sys; sys.argv=['x','--help']\nimport model_download as m\n"
    code += "try: m.main(['--help'])\nexcept SystemExit: pass\n"
    code += "print(sorted(set(sys.modules) & {'requests', 'httpx2', 'torch', 'huggingface_hub'}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_manifest_tells_every_file_s_hash(call: Caller, hub: Hub) -> None:
    call.run()
    manifest = json.loads((call.folder / ".stepwise.json").read_text())
    assert set(manifest) == READ_BY_VLLM
