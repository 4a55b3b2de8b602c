"""The processor: which cores a model may have, how many threads, and what they compute in.

Pure: the texts of /proc and /sys come from `read` (serving/cgroup.py), so that a test can say
"four cores, eight threads, a container with two of them".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from serving.cgroup import Read, cpu_quota

CPUINFO = "/proc/cpuinfo"
NODES = "/sys/devices/system/node"

# Instructions by which vLLM multiplies int8; on AVX2 alone its int8 layers do not start.
INT8 = frozenset({"avx512_vnni", "amx_int8", "i8mm"})
BFLOAT16 = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
# All cores of a small machine write: vLLM's other processes nap (serving/tuning.py), and
# page and gateway need little. One of many is not missed, and they answer sooner.
FEW = 4
BLOCKTIME = "5"  # ms; vLLM's own for threads that it binds: then they sleep, and others run


@dataclass(frozen=True, slots=True)
class Cpu:
    """`cores` are processors that may be used, one for each physical core of one memory node.

    `quota` is the container's share in cores, None where there is none.
    """

    name: str = "CPU"
    cores: tuple[int, ...] = (0,)
    features: frozenset[str] = frozenset()
    quota: float | None = None

    @property
    def count(self) -> int:
        """Whole cores' worth of time: a thread beyond them would make all others wait."""
        return len(self.cores) if self.quota is None else min(len(self.cores), self._share)

    @property
    def threads(self) -> int:
        """How many of them the model gets."""
        return self.count if self.count <= FEW else self.count - 1

    @property
    def int8(self) -> bool:
        return bool(self.features & INT8)

    @property
    def bfloat16(self) -> bool:
        return bool(self.features & BFLOAT16)

    @property
    def openmp(self) -> dict[str, str]:
        """vLLM's threads as settings. A share of a host is no core: the kernel places those."""
        shared = self.count < len(self.cores)
        bound = "nobind" if shared else ",".join(map(str, self.cores[: self.threads]))
        return {
            "VLLM_CPU_OMP_THREADS_BIND": bound,
            "VLLM_CPU_NUM_OF_RESERVED_CPU": str(self.count - self.threads),
            "OMP_NUM_THREADS": str(self.threads),
            **({"KMP_BLOCKTIME": BLOCKTIME} if shared else {}),
        }

    def part(self, number: int, of: int) -> Cpu:
        """What one of `of` models gets, counted from 0: cores of its own, of a quota its share."""
        each = self.count // of
        if self.count < len(self.cores):
            return replace(self, quota=float(each))
        return replace(self, cores=self.cores[number * each : (number + 1) * each])

    @property
    def _share(self) -> int:
        return max(1, int(self.quota or 1))


def detect(read: Read, affinity: Iterable[int]) -> Cpu:
    """The processor as far as this process may use it: `affinity` are the ids it may run on."""
    allowed = sorted(affinity)
    rows = [row for row in processors(read(CPUINFO)) if int(row["processor"]) in allowed]
    near = node_of(read, allowed)
    return Cpu(
        name=next((row["model name"] for row in rows if "model name" in row), "CPU"),
        cores=physical([row for row in rows if int(row["processor"]) in near]) or tuple(near),
        features=features(rows),
        quota=cpu_quota(read),
    )


def processors(cpuinfo: str) -> list[dict[str, str]]:
    """A table of each processor that /proc/cpuinfo describes."""
    tables: list[dict[str, str]] = []
    for line in cpuinfo.splitlines():
        key, _, value = (part.strip() for part in line.partition(":"))
        if key == "processor" and value.isdecimal():
            tables.append({})
        if key and tables:
            tables[-1][key] = value
    return tables


def features(rows: Iterable[Mapping[str, str]]) -> frozenset[str]:
    """What every core can do: x86 calls it flags, ARM features."""
    sets = [frozenset((row.get("flags") or row.get("Features") or "").split()) for row in rows]
    return frozenset.intersection(*sets) if sets else frozenset()


def physical(rows: Iterable[Mapping[str, str]]) -> tuple[int, ...]:
    """The first processor of each core; one that names no core is one (ARM, some hypervisors)."""
    first: dict[tuple[str, ...], int] = {}
    for row in rows:
        number = row["processor"]
        core = (row.get("physical id", ""), row["core id"]) if "core id" in row else (number,)
        first.setdefault(core, int(number))
    return tuple(sorted(first.values()))


def node_of(read: Read, allowed: list[int]) -> list[int]:
    """Of the processors those beside the first: vLLM keeps a model in one node's memory."""
    for node in ids(read(f"{NODES}/online")):
        members = ids(read(f"{NODES}/node{node}/cpulist"))
        if allowed and allowed[0] in members:
            return [number for number in allowed if number in members]
    return allowed


def ids(text: str) -> list[int]:
    """The numbers of a kernel's list: 0-2,5 are 0, 1, 2 and 5."""
    ends = [part.split("-") for part in text.strip().split(",") if part]
    return [number for end in ends for number in range(int(end[0]), int(end[-1]) + 1)]
