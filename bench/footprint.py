"""What it takes of a machine: the disk by package, what nobody uses, the memory by process.

    scripts/bench footprint [--model NAME] [--write FILE]

./serve.sh starts model, gateway and page; the gateway is asked for a chain and a browser asks the
page. Each Python process notes what it has imported, and its libraries are in its memory: a
package of which nobody has a file is installed for nothing, or for what was not asked for here (a
hub, a table on the page, another model).

* disk: the files of a package, in MB of 10**6 bytes; only what ./serve.sh installs
* memory: what a process has for itself and its share of what it shares (PSS)
"""

from __future__ import annotations

import argparse
import re
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from importlib.metadata import distributions
from itertools import pairwise
from pathlib import Path

import httpx2
import psutil

from bench.record import keep
from bench.serve import READY, Start, running
from serving.catalogue import Model, find, load, models_root
from serving.command import Command
from serving.supervisor import processes_below
from tests.page_browser import Visitor, chromium, stranger
from tests.processes import ROOT, free_port

MODEL = "qwen2.5-coder-1.5b-instruct"
QUESTION = "A shop sells pens at 3 for 2 dollars. What do 12 pens cost?"
PATIENCE = 600.0  # seconds for an answer
NOTED = "STEPWISE_IMPORTED"  # the folder in which each process notes what it imported
PINS = (ROOT / "requirements-cpu.lock", ROOT / "requirements-cpu.txt")
SHOWN = 12  # packages of each list
NOTES = f"""
import os, sys, threading, time

def note():
    while True:
        files = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
        with open(os.path.join(os.environ["{NOTED}"], str(os.getpid())), "w") as notes:
            notes.write("\\n".join(sorted(file for file in files if file)))
        time.sleep(2)

threading.Thread(target=note, daemon=True).start()
"""


@dataclass(frozen=True, slots=True)
class Package:
    """One that is installed; its size in MB."""

    name: str
    size: float
    used: bool


@dataclass(frozen=True, slots=True)
class Process:
    """One that runs; its memory in MB."""

    name: str
    memory: float


@dataclass(frozen=True, slots=True)
class Footprint:
    packages: list[Package]
    processes: list[Process]


def measure(model: Model) -> Footprint:
    gateway, page = free_port(), free_port()
    with tempfile.TemporaryDirectory(prefix="stepwise-") as folder, chromium() as home:
        notes = Path(folder, "notes")
        notes.mkdir()
        Path(folder, "sitecustomize.py").write_text(NOTES, encoding="utf-8")
        given = {"PYTHONPATH": folder, NOTED: str(notes), "DATABASE_URL": f"sqlite:///{folder}/db"}
        with running(everything(model, gateway, page, given), free_port()) as (service, _):
            ask_gateway(gateway)
            ask_page(Visitor(stranger(home), f"http://127.0.0.1:{page}"))
            time.sleep(5)  # for the last notes
            pids = processes_below(service.supervisor.pid)
            held, used = memory_of(pids), mapped(pids)
        used |= {line for note in notes.iterdir() for line in note.read_text().splitlines()}
    return Footprint(sorted(packages(used), key=lambda it: -it.size), held)


def everything(model: Model, gateway: int, page: int, given: Mapping[str, str]) -> Start:
    """./serve.sh with all that it can start, in an environment of ours."""

    def command(port: int) -> Command:
        numbers = {"--port": port, "--gateway-port": gateway, "--ui-port": page}
        words = [str(word) for pair in numbers.items() for word in pair]
        program = (str(ROOT / "serve.sh"), "--model", model.name, "--gateway", "--ui")
        return Command((*program, *words), given)

    return Start(
        "./serve.sh", model, models_root(), command, lambda service: READY in service.said()
    )


def ask_gateway(port: int) -> None:
    base = f"http://127.0.0.1:{port}/v1"
    names = [model["id"] for model in httpx2.get(f"{base}/models").json()["data"]]
    steps = next(name for name in names if name.endswith("-steps"))
    asked = {"model": steps, "messages": [{"role": "user", "content": QUESTION}]}
    httpx2.post(f"{base}/chat/completions", json=asked, timeout=PATIENCE).raise_for_status()


def ask_page(visitor: Visitor) -> None:
    visitor.ask(QUESTION)
    visitor.wait_for_end()
    visitor.close()


def memory_of(pids: Sequence[int]) -> list[Process]:
    found = [psutil.Process(pid) for pid in pids]
    held = [Process(name_of(it), it.memory_full_info().pss / 1e6) for it in found]
    return sorted(held, key=lambda process: -process.memory)


def mapped(pids: Sequence[int]) -> set[str]:
    """The files that are in their memory: a library need not be imported to be used."""
    return {found.path for pid in pids for found in psutil.Process(pid).memory_maps()}


def name_of(process: psutil.Process) -> str:
    """vLLM's names for its own, else the module or the program that it runs."""
    words = process.cmdline()
    modules = [after for word, after in pairwise(words) if word == "-m"]
    return modules[0] if modules else Path(words[0]).name.strip()


def packages(used: Set[str]) -> Iterator[Package]:
    """Those that ./serve.sh installs where there is no GPU."""
    pins = "\n".join(file.read_text(encoding="utf-8") for file in PINS)
    wanted = {plain(name) for name in re.findall(r"^([\w.-]+)==", pins, re.M)}
    for distribution in distributions():
        if plain(distribution.name) in wanted:
            files = [Path(str(distribution.locate_file(it))) for it in distribution.files or ()]
            size = sum(file.stat().st_size for file in files if file.is_file())
            is_used = any(str(file) in used for file in files)
            yield Package(distribution.name, size / 1e6, is_used)


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def report(found: Footprint, command: str) -> str:
    idle = [package for package in found.packages if not package.used]
    disk = sum(package.size for package in found.packages)
    memory = sum(process.memory for process in found.processes)
    lines = [
        f"# What it takes of a machine\n\n    {command}\n",
        f"{len(found.packages)} packages, {disk:,.0f} MB. Nobody used {len(idle)} of them, "
        f"{sum(package.size for package in idle):,.0f} MB. Memory: {memory:,.0f} MB.\n",
        *table("package", found.packages[:SHOWN]),
        *table("package that nobody used", idle[:SHOWN]),
        "| process | memory, MB |\n|---|---|",
        *(f"| {process.name} | {process.memory:,.0f} |" for process in found.processes),
    ]
    return "\n".join(lines) + "\n"


def table(what: str, found: Sequence[Package]) -> list[str]:
    rows = [f"| {package.name} | {package.size:,.1f} |" for package in found]
    return [f"| {what} | MB |\n|---|---|", *rows, ""]


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--model", default=MODEL)
    flags.add_argument("--write", type=Path, help="the table there, its figures beside it")
    given = flags.parse_args()
    found = measure(find(given.model, load()))
    keep(report(found, f"scripts/bench footprint --model {given.model}"), found, given.write)


if __name__ == "__main__":
    main()
