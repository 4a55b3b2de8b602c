"""Making .venv: what is installed when, with the commands only noted."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from serving.hardware import Gpu, Machine
from serving.report import Report
from serving.setup import (
    TORCH_INDEX,
    UV,
    CommandFailed,
    Place,
    Runner,
    SetupError,
    ensure,
    ensure_libnuma,
    ensure_router,
    fingerprint,
    missing,
    pip_index_for_uv,
    requirements,
)
from tests.processes import ROOT, start, until

CPU = Machine()
GPU = Machine(gpus=(Gpu("card", 24.0),))
MINOR = f"{sys.version_info[0]}.{sys.version_info[1]}"


class Installer:
    """Notes what it is told to run, and makes what `python -m venv` would."""

    def __init__(self, place: Place, fails: Callable[[str], bool] = lambda line: False) -> None:
        self.place, self.fails = place, fails
        self.lines: list[str] = []

    def __call__(self, argv: Sequence[str], what: str) -> None:
        line = " ".join(argv)
        self.lines.append(line)
        if self.fails(line):
            raise CommandFailed(argv, "noise\nERROR: no such thing\n")
        if "venv --clear" in line:
            self._make()
        if UV in line:
            (self.place.folder / "bin" / "uv").touch()

    def _make(self) -> None:
        for file in self.place.folder.rglob("*"):
            if file.is_file() or file.is_symlink():
                file.unlink()
        packages = self.place.folder / "lib" / f"python{MINOR}" / "site-packages"
        (packages / "pip").mkdir(parents=True, exist_ok=True)
        self.place.python.parent.mkdir(exist_ok=True)
        self.place.python.symlink_to(sys.executable)
        (self.place.folder / "pyvenv.cfg").write_text(f"home = /usr/bin\nversion = {MINOR}.2\n")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    (tmp_path / "requirements-common.txt").write_text("streamlit==1\n")
    (tmp_path / "requirements.txt").write_text("-r requirements-common.txt\nvllm==1\n")
    cpu = "# the CPU's\n-r requirements-common.txt\ntorch==9+cpu\nvllm-cpu==1\n"
    (tmp_path / "requirements-cpu.txt").write_text(cpu)
    (tmp_path / "requirements-dev.txt").write_text("pytest==1\n")
    (tmp_path / "requirements-login.txt").write_text("authlib==1\n")
    return Place(tmp_path)


@pytest.fixture(autouse=True)
def room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10**12}))


def set_up(
    place: Place, machine: Machine = CPU, dev: bool = False, login: bool = False, **more: object
) -> list[str]:
    installer = Installer(place, **more)  # type: ignore[arg-type]
    ensure(machine, Report(io.StringIO()), dev, place, installer, login=login)
    return installer.lines


def test_a_machine_without_a_gpu_gets_torch_first_and_not_what_text_does_not_need(
    place: Place,
) -> None:
    venv, uv, torch, rest = set_up(place)
    assert "venv --clear" in venv
    assert uv.endswith(UV)
    assert torch.endswith("torch==9+cpu")
    assert "-r " + str(place.root / "requirements-cpu.txt") in rest
    excluded = (place.folder / "not-needed.txt").read_text().split()
    assert excluded == ["torchvision", "torchaudio", "torchcodec"]


def test_a_machine_with_a_gpu_gets_the_other_requirements(place: Place) -> None:
    lines = set_up(place, GPU)
    assert lines[-1].endswith("requirements.txt")
    assert not any("torch==" in line for line in lines)
    assert (place.folder / "not-needed.txt").read_text() == ""


def test_what_is_installed_is_held_to_the_versions_and_hashes_of_its_lock(place: Place) -> None:
    lock = place.root / "requirements-cpu.lock"
    lock.touch()
    assert f"--constraint {lock} -r" in set_up(place)[-1]


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-cpu.txt"])
def test_the_lock_of_each_machine_pins_what_its_requirements_do_and_every_hash(name: str) -> None:
    """Else scripts/lock is to be run."""
    lock = (ROOT / name).with_suffix(".lock").read_text()
    entries = re.findall(
        r"^(\S+==\S+)(?: ;.*?)? \\((?:\n {4}--hash=sha256:[0-9a-f]{64}(?: \\)?)+)", lock, re.M
    )
    assert len(entries) == len(re.findall(r"^\S+==", lock, re.M)) > 100
    due = {line for file in (name, "requirements-common.txt") for line in pins(file)}
    held = {entry.lower().replace("_", "-") for entry, _ in entries}
    assert due - held <= {"torch==2.13.0+cpu"}


def pins(file: str) -> list[str]:
    lines = [line.partition("#")[0].strip() for line in (ROOT / file).read_text().splitlines()]
    return [
        re.sub(r"\[.*?\]", "", line).lower().replace("_", "-") for line in lines if "==" in line
    ]


def test_a_second_start_runs_nothing(place: Place) -> None:
    set_up(place)
    assert set_up(place) == []


@pytest.mark.parametrize("name", ["requirements-cpu.txt", "requirements-common.txt"])
def test_a_changed_requirement_is_installed_into_the_same_environment(
    place: Place, name: str
) -> None:
    set_up(place)
    with (place.root / name).open("a") as file:
        file.write("rich==2\n")
    lines = set_up(place)
    assert not any("venv" in line.split()[2] for line in lines)
    assert lines[-1].endswith("requirements-cpu.txt")
    assert set_up(place) == []


def test_a_comment_is_no_change(place: Place) -> None:
    set_up(place)
    with (place.root / "requirements-cpu.txt").open("a") as file:
        file.write("\n# a word\n")
    assert set_up(place) == []


@pytest.mark.parametrize("sign", ["venv --clear", UV, "torch==9", "requirements-cpu.txt"])
def test_a_set_up_cut_off_anywhere_is_mended_by_the_next(place: Place, sign: str) -> None:
    """A kill leaves no time to tidy up: the mark alone says that it was not finished."""

    def cut(line: str) -> bool:
        if sign in line:
            raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt):
        set_up(place, fails=cut)
    assert missing(place, ["requirements-cpu.txt"])
    lines = set_up(place)
    assert "venv --clear" in lines[0]
    assert lines[-1].endswith("requirements-cpu.txt")
    assert set_up(place) == []


def test_torch_comes_from_pytorchs_index_where_pip_does_not_find_it(place: Place) -> None:
    lines = set_up(place, fails=lambda line: "torch==9" in line and TORCH_INDEX not in line)
    first, second = (line for line in lines if "torch==9" in line)
    assert second == f"{first} --extra-index-url {TORCH_INDEX}"


def test_a_set_up_that_fails_says_the_line_that_matters(place: Place) -> None:
    with pytest.raises(SetupError) as caught:
        set_up(place, fails=lambda line: "-r" in line)
    said = str(caught.value)
    assert "ERROR: no such thing" in said
    assert "noise" not in said
    assert "setup.log" in said


def test_the_tools_are_added_to_what_is_there_and_stay_there(place: Place) -> None:
    set_up(place)
    (dev,) = set_up(place, dev=True)
    assert dev.endswith("requirements-dev.txt")
    assert set_up(place, dev=True) == []
    assert set_up(place) == []


def test_a_login_adds_what_it_needs(place: Place) -> None:
    set_up(place)
    (login,) = set_up(place, login=True)
    assert login.endswith("requirements-login.txt")
    assert set_up(place, login=True) == []


def test_a_python_that_is_gone_makes_the_environment_anew_with_all_it_had(place: Place) -> None:
    set_up(place, dev=True)
    place.python.unlink()
    place.python.symlink_to("/nowhere/python3")
    lines = set_up(place)
    assert "venv --clear" in lines[0]
    assert [line.split("/")[-1] for line in lines[-2:]] == [
        "requirements-cpu.txt",
        "requirements-dev.txt",
    ]


def test_a_python_of_another_version_makes_the_environment_anew(place: Place) -> None:
    set_up(place)
    (place.folder / "pyvenv.cfg").write_text("version = 3.8.1\n")
    assert "venv --clear" in set_up(place)[0]


def test_a_machine_that_got_a_gpu_starts_over(place: Place) -> None:
    """The two wheels of vLLM are one package under two names: they must not mix."""
    set_up(place)
    lines = set_up(place, GPU)
    assert "venv --clear" in lines[0]
    assert set_up(place, GPU) == []


def test_too_little_disk_is_said_before_anything_is_made(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10**9}))
    with pytest.raises(SetupError, match=r"needs 5 GB .* 1\.0 are free"):
        set_up(place)
    assert not place.folder.exists()


def test_two_set_ups_at_once_install_once(place: Place, tmp_path: Path) -> None:
    script = tmp_path / "one.py"
    script.write_text(
        "import sys, io, time\n"
        f"sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'tests')!r}]\n"
        "from pathlib import Path\n"
        "from serving.setup import Place, ensure\n"
        "from serving.hardware import Machine\n"
        "from serving.report import Report\n"
        "from test_serving_setup import Installer\n"
        "class Slow(Installer):\n"
        "    def __call__(self, argv, what):\n"
        "        time.sleep(0.2)\n"
        "        super().__call__(argv, what)\n"
        "import shutil\n"
        "shutil.disk_usage = lambda _: type('Usage', (), {'free': 10**12})\n"
        f"place = Place(Path({str(place.root)!r}))\n"
        "installer = Slow(place)\n"
        "ensure(Machine(), Report(io.StringIO()), False, place, installer)\n"
        "print(len(installer.lines))\n"
    )
    both = [
        start([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    assert sorted(one.communicate(timeout=60)[0].strip() for one in both) == ["0", "4"]


def test_a_command_that_fails_hands_over_its_last_words(tmp_path: Path) -> None:
    runner = Runner(tmp_path / "logs" / "setup.log", Report(io.StringIO()))
    runner([sys.executable, "-c", "print('fine')"], "Trying")
    with pytest.raises(CommandFailed) as caught:
        runner([sys.executable, "-c", "print('the end'); raise SystemExit(3)"], "Trying")
    assert caught.value.said == "the end\n"
    assert "fine" in (tmp_path / "logs" / "setup.log").read_text()


def test_an_installer_does_not_outlive_a_kill_of_the_set_up(tmp_path: Path) -> None:
    child = tmp_path / "pid"
    sleeper = f"import os, time; open({str(child)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from pathlib import Path\n"
        "from serving.setup import Runner\n"
        "from serving.report import Report\n"
        f"runner = Runner(Path({str(tmp_path / 'log')!r}), Report())\n"
        f"runner([sys.executable, '-c', {sleeper!r}], 'Sleeping')"
    )
    parent = start([sys.executable, "-c", code], stdout=subprocess.DEVNULL)
    until(lambda: child.exists() and child.read_text() != "")
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    until(lambda: not Path(f"/proc/{child.read_text()}").exists())


def test_the_library_of_the_system_is_installed_where_it_may(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.setup.library_missing", lambda: True)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    installer = Installer(place)
    ensure_libnuma(CPU, Report(io.StringIO()), installer)
    assert installer.lines[-1] == "sudo -n apt-get install -y -q libnuma1"
    ensure_libnuma(GPU, Report(io.StringIO()), refused := Installer(place))
    assert refused.lines == []


def test_the_library_of_the_system_is_named_with_its_command_where_it_may_not(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.setup.library_missing", lambda: True)
    with pytest.raises(SetupError, match="sudo apt-get install libnuma1"):
        ensure_libnuma(CPU, Report(io.StringIO()), Installer(place, lambda line: True))


def test_uv_uses_the_mirror_that_pip_is_told_to_use() -> None:
    mirror = {"PIP_INDEX_URL": "https://mirror.example/simple"}
    assert pip_index_for_uv(mirror) == {"UV_DEFAULT_INDEX": "https://mirror.example/simple"}
    assert pip_index_for_uv({**mirror, "UV_INDEX_URL": "https://other.example"}) == {}
    assert pip_index_for_uv({}) == {}


def test_the_projects_own_requirements_are_pinned() -> None:
    for name in {*requirements(CPU, dev=True), *requirements(GPU), "requirements-common.txt"}:
        lines = [line.partition("#")[0].strip() for line in (ROOT / name).read_text().splitlines()]
        loose = [line for line in lines if line and not line.startswith("-r ") and "==" not in line]
        assert loose == []
        assert fingerprint(ROOT / name)


# -- vllm-router, at its first use


def router_lines(place: Place, fails: Callable[[str], bool] = lambda line: False) -> list[str]:
    installer = Installer(place, fails)

    def run(argv: Sequence[str], what: str) -> None:
        place.router.mkdir(exist_ok=True)
        installer(argv, what)

    ensure_router(Report(io.StringIO()), place, run)
    return installer.lines


def test_the_router_gets_an_environment_of_its_own_once_by_its_hashes(place: Place) -> None:
    (place.root / "requirements-router.lock").write_text("vllm-router==1 --hash=sha256:1")
    made, installed = router_lines(place)
    assert made.endswith(f"-m uv venv --python {place.python} {place.router}")
    assert f"--python {place.router}/bin/python --require-hashes -r" in installed
    assert router_lines(place) == []
    (place.root / "requirements-router.lock").write_text("vllm-router==2 --hash=sha256:2")
    assert len(router_lines(place)) == 2


def test_a_router_that_was_cut_off_is_made_anew(place: Place) -> None:
    (place.root / "requirements-router.lock").write_text("vllm-router==1 --hash=sha256:1")
    with pytest.raises(SetupError, match="no such thing"):
        router_lines(place, lambda line: "--require-hashes" in line)
    assert len(router_lines(place)) == 2


def test_the_router_is_the_one_that_the_tests_and_the_image_have() -> None:
    line = "vllm-router==0.1.17"
    for name in ("requirements-router.txt", "requirements-deploy.txt", "deploy/Dockerfile"):
        assert line in (ROOT / name).read_text(encoding="utf-8"), name
    lock = (ROOT / "requirements-router.lock").read_text(encoding="utf-8")
    assert f"{line} \\\n    --hash=sha256:" in lock
