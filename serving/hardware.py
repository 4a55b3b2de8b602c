"""What this machine has, and which models it holds.

`detect` reads the machine; all else here is pure and takes a Machine, so that a
test can say "two cards of 24 GB". Sizes are in GB of 10**9 bytes.
"""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from serving.catalogue import ROOT, Model
from serving.cgroup import memory_limit
from serving.cpu import Cpu
from serving.cpu import detect as detect_cpu
from serving.speed import bytes_read

NVIDIA_SMI = ("nvidia-smi", "--query-gpu=name,memory.total,compute_cap")
NVIDIA_FORMAT = "--format=csv,noheader,nounits"
PATIENCE = 15.0  # seconds; a driver that has to wake its cards takes several
DRIVER = Path("/proc/driver/nvidia/version")

BESIDE_GB = 2.0  # of memory beside a model's weights: vLLM, page and gateway
ON_EACH_CARD_GB = 3.0  # that are not divided among cards: activations, CUDA graphs, the driver
SPREADS = (1, 2, 4, 8)  # cards: what the heads of a model for several can be divided by

# Faster memory and threads for vLLM on a CPU, a few per cent together.
TCMALLOC = ("libtcmalloc_minimal.so.4", "libtcmalloc.so.4")
LIBRARY_FOLDERS = ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64")


@dataclass(frozen=True, slots=True)
class Gpu:
    name: str
    memory_gb: float
    capability: float = 9.0  # below 8.0 a card knows no bfloat16


@dataclass(frozen=True, slots=True)
class Machine:
    """`preload` are the libraries that make vLLM on a CPU faster, where they are installed.

    `warning` says why a GPU that seems to be there is not used.
    """

    gpus: tuple[Gpu, ...] = ()
    memory_gb: float = 8.0
    cpu: Cpu = field(default_factory=Cpu)
    system: str = "Linux"
    preload: tuple[str, ...] = ()
    warning: str = ""

    @property
    def description(self) -> str:
        if not self.gpus:
            cores = "1 CPU core" if self.cpu.count == 1 else f"{self.cpu.count} CPU cores"
            return f"no GPU, {cores}, {self.memory_gb:.0f} GB of memory"
        many = f"{len(self.gpus)} x " if len(self.gpus) > 1 else ""
        return f"{many}{self.gpus[0].name}, {self.gpus[0].memory_gb:.0f} GB"

    def part(self, number: int, of: int, cards: int = 1) -> Machine:
        """What one of `of` servers gets, counted from 0: so many cards, else cores and memory."""
        if self.gpus:
            return replace(self, gpus=self.gpus[number * cards : (number + 1) * cards])
        return replace(self, cpu=self.cpu.part(number, of), memory_gb=self.memory_gb / of)


def detect(environment: Mapping[str, str] = os.environ) -> Machine:
    gpus, warning = _gpus(environment)
    return Machine(
        gpus=gpus,
        memory_gb=_memory_gb(),
        cpu=detect_cpu(read, _affinity()),
        system=platform.system(),
        preload=_preload(),
        warning=warning,
    )


def read(path: str) -> str:
    """A file of /proc or /sys, or "" where it is not there or not for us."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _affinity() -> set[int]:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else {0}


def _gpus(environment: Mapping[str, str]) -> tuple[tuple[Gpu, ...], str]:
    try:
        answer = subprocess.run(
            [*NVIDIA_SMI, NVIDIA_FORMAT], capture_output=True, text=True, timeout=PATIENCE
        )
    except FileNotFoundError:
        return (), ""
    except (OSError, subprocess.TimeoutExpired) as error:
        return (), f"nvidia-smi does not answer ({error}), so the GPU is not used."
    if answer.returncode != 0:
        said = (answer.stdout + answer.stderr).strip().splitlines()
        driver = "" if DRIVER.exists() else " Is the NVIDIA driver loaded?"
        return (), f"nvidia-smi fails, so no GPU is used: {said[0] if said else 'no word'}.{driver}"
    return visible(parse_gpus(answer.stdout), environment.get("CUDA_VISIBLE_DEVICES")), ""


def parse_gpus(text: str) -> tuple[Gpu, ...]:
    """The cards in nvidia-smi's table. A card without memory of its own shares the machine's."""
    rows = [[cell.strip() for cell in line.split(",")] for line in text.splitlines()]
    return tuple(_gpu(*row) for row in rows if len(row) == 3)


def _gpu(name: str, memory_mib: str, capability: str) -> Gpu:
    memory = float(memory_mib) * 2**20 / 1e9 if _is_number(memory_mib) else _memory_gb()
    return Gpu(name, memory, float(capability) if _is_number(capability) else 9.0)


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).isdecimal()


def visible(gpus: tuple[Gpu, ...], wanted: str | None) -> tuple[Gpu, ...]:
    """The cards that CUDA_VISIBLE_DEVICES leaves; of names (GPU-..., MIG-...) only the count."""
    if wanted is None:
        return gpus
    names = [name.strip() for name in wanted.split(",") if name.strip()]
    if all(name.isdecimal() for name in names):
        return tuple(gpus[int(name)] for name in names if int(name) < len(gpus))
    return gpus[: len([name for name in names if not name.startswith("-")])]


def _memory_gb() -> float:
    """The machine's, or what a container may have of it."""
    try:
        whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):  # Windows and some others do not tell
        return 8.0
    return min(whole, memory_limit(read) or whole) / 1e9


def _preload() -> tuple[str, ...]:
    named = ((Path(folder) / name) for folder in LIBRARY_FOLDERS for name in TCMALLOC)
    tcmalloc = [str(path) for path in named if path.exists()][:1]
    openmp = ROOT / ".venv" / "lib" / "libiomp5.so"
    return (*tcmalloc, *([str(openmp)] if openmp.exists() else []))


def explain_misfit(model: Model, machine: Machine, precision: str = "auto") -> str | None:
    """Why the machine cannot hold the model, in a sentence, or None when it can.

    In `precision`, as it was asked for: float32's weights lie there twice, for the CPU's library
    packs a copy of its own.
    """
    if machine.gpus:
        return _gpu_misfit(model, machine.gpus)
    needed, how = model.cpu_gb or model.size_gb * 1.2 + BESIDE_GB, ""
    if precision == "float32":
        needed, how = max(needed, 2 * bytes_read(model, precision) / 1e9 + BESIDE_GB), " in float32"
    if machine.memory_gb < needed:
        has = f"this machine has {machine.memory_gb:.0f}"
        return f"{model.name}{how} needs {needed:.0f} GB of memory without a GPU, {has}."
    return None


def _gpu_misfit(model: Model, gpus: tuple[Gpu, ...]) -> str | None:
    if cards(model, gpus) is not None:
        return None
    several = "a GPU" if model.gpus == 1 else f"{model.gpus} GPUs"
    others = [f"{count} of {card_gb(model, count):.0f}" for count in _spreads(model)[1:]]
    instead = f" (or {', '.join(others)})" if others else ""
    has = ", ".join(f"{gpu.memory_gb:.0f} GB" for gpu in gpus)
    needed = f"{several} of {card_gb(model, model.gpus):.0f} GB{instead}"
    return f"{model.name} needs {needed}, this machine has {has}."


def cards(model: Model, gpus: tuple[Gpu, ...]) -> int | None:
    """On how many of these cards the model goes, None where it does not.

    As many as its table says; else fewer that are larger, or more that are smaller.
    """
    for count in _spreads(model):
        if sum(gpu.memory_gb >= card_gb(model, count) for gpu in gpus) >= count:
            return count
    return None


def card_gb(model: Model, count: int) -> float:
    """What the model needs of each of `count` cards: the more, the less of its weights."""
    one = model.gpu_gb or model.size_gb * 1.15 + 2
    return (one - ON_EACH_CARD_GB) * model.gpus / count + ON_EACH_CARD_GB


def _spreads(model: Model) -> list[int]:
    """The numbers of cards it can go on, the likeliest first. A model for one is not divided."""
    if model.gpus == 1:
        return [1]
    counts = {*SPREADS, model.gpus}
    return sorted(counts, key=lambda count: (count > model.gpus, abs(count - model.gpus)))


def holds(model: Model, machine: Machine) -> bool:
    """Whether the model is worth offering here: without a GPU, only what is made for it."""
    made = model.cpu_gb is not None and (model.precision != "int8" or machine.cpu.int8)
    return (bool(machine.gpus) or made) and explain_misfit(model, machine) is None


def choose(models: Iterable[Model], machine: Machine) -> Model | None:
    """The model served when nobody named one, or None when nothing fits.

    The largest default a GPU here holds; without a GPU the largest bundled one, which needs no hub.
    """
    held = [model for model in models if model.default and holds(model, machine)]
    if not machine.gpus:
        held = [model for model in held if model.package]
    return max(held, key=lambda model: model.size_gb, default=None)
