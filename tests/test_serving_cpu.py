"""Processors that are not here: each row of the table is a machine, and what vLLM is told on it."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from serving.cgroup import cpu_quota, memory_limit, oom_kills
from serving.cpu import Cpu, detect, ids

AVX2 = "fpu sse2 avx2"
VNNI = "fpu avx2 avx512f avx512_vnni"
GENOA = f"{VNNI} avx512_bf16"
SAPPHIRE = f"{GENOA} amx_bf16 amx_int8 amx_tile"
NEOVERSE = "fp asimd bf16 i8mm"


def x86(cores: int, flags: str, threads: int = 1, sockets: int = 1) -> str:
    """/proc/cpuinfo as Linux numbers it: all first hyperthreads, then all second ones."""
    every = [(socket, core) for socket in range(sockets) for core in range(cores)] * threads
    return "\n".join(
        f"processor\t: {number}\nmodel name\t: Some x86\nphysical id\t: {socket}\n"
        f"core id\t\t: {core}\nflags\t\t: {flags}\n"
        for number, (socket, core) in enumerate(every)
    )


def arm(cores: int, features: str) -> str:
    return "\n".join(f"processor\t: {n}\nFeatures\t: {features}\n" for n in range(cores))


def v2(quota: str, group: str = "/") -> dict[str, str]:
    return {
        "/proc/self/cgroup": f"0::{group}\n",
        f"/sys/fs/cgroup{group.rstrip('/')}/cpu.max": quota,
    }


def v1(quota: int, group: str = "/", at: str = "/") -> dict[str, str]:
    folder = f"/sys/fs/cgroup/cpu{at.rstrip('/')}"
    return {
        "/proc/self/cgroup": f"4:memory:{group}\n3:cpuacct,cpu:{group}\n",
        f"{folder}/cpu.cfs_quota_us": f"{quota}\n",
        f"{folder}/cpu.cfs_period_us": "100000\n",
    }


def nodes(*cpulists: str) -> dict[str, str]:
    folder = "/sys/devices/system/node"
    members = {f"{folder}/node{n}/cpulist": text + "\n" for n, text in enumerate(cpulists)}
    return {f"{folder}/online": f"0-{len(cpulists) - 1}\n", **members}


@dataclass(frozen=True)
class Row:
    cpuinfo: str
    affinity: int  # it may run on 0 ... affinity - 1
    bound: str
    reserved: int = 0
    threads: int = 1
    int8: bool = False
    files: dict[str, str] = field(default_factory=dict)


TABLE = {
    "one core": Row(x86(1, AVX2), 1, "0"),
    "two cores, none is kept back": Row(x86(2, AVX2), 2, "0,1", threads=2),
    "four cores": Row(x86(4, VNNI), 4, "0,1,2,3", threads=4, int8=True),
    "five cores, one is kept back": Row(x86(5, VNNI), 5, "0,1,2,3", 1, 4, True),
    "16 cores of 32 hyperthreads": Row(
        x86(16, SAPPHIRE, 2), 32, ",".join(map(str, range(15))), 1, 15, True
    ),
    "one core of two hyperthreads": Row(x86(1, GENOA, 2), 2, "0", int8=True),
    "an affinity of two of 32": Row(x86(16, GENOA, 2), 2, "0,1", threads=2, int8=True),
    "each processor a socket, as a hypervisor may say": Row(
        x86(1, AVX2, sockets=4), 4, "0,1,2,3", threads=4
    ),
    "two memory nodes: the near one": Row(
        x86(2, VNNI, sockets=2), 4, "0,1", threads=2, int8=True, files=nodes("0-1", "2-3")
    ),
    "ARM with i8mm": Row(arm(4, NEOVERSE), 4, "0,1,2,3", threads=4, int8=True),
    "ARM without": Row(arm(2, "fp asimd"), 2, "0,1", threads=2),
    "no /proc/cpuinfo": Row("", 2, "0,1", threads=2),
    "a quota of two of 64": Row(
        x86(64, GENOA), 64, "nobind", threads=2, int8=True, files=v2("200000 100000")
    ),
    "a quota of one and a half": Row(x86(8, AVX2), 8, "nobind", files=v2("150000 100000")),
    "a quota of half a core": Row(x86(8, AVX2), 8, "nobind", files=v2("50000 100000")),
    "a quota of eight": Row(x86(64, AVX2), 64, "nobind", 1, 7, files=v2("800000 100000")),
    "no quota": Row(x86(2, AVX2), 2, "0,1", threads=2, files=v2("max 100000")),
    "a quota beyond the cores": Row(x86(2, AVX2), 2, "0,1", threads=2, files=v2("800000 100000")),
    "the quota of a group above": Row(
        x86(8, AVX2),
        8,
        "nobind",
        files={**v2("max 100000", "/a/b"), "/sys/fs/cgroup/a/cpu.max": "100000 100000"},
    ),
    "cgroup v1": Row(x86(8, AVX2), 8, "nobind", threads=2, files=v1(200_000)),
    "cgroup v1 without a quota": Row(x86(2, AVX2), 2, "0,1", threads=2, files=v1(-1)),
    "cgroup v1 in a container, which has the host's path": Row(
        x86(8, AVX2), 8, "nobind", threads=2, files=v1(200_000, "/docker/abc", at="/")
    ),
}


def cpu_of(row: Row) -> Cpu:
    files = {"/proc/cpuinfo": row.cpuinfo, **row.files}
    return detect(lambda path: files.get(path, ""), range(row.affinity))


@pytest.mark.parametrize("row", TABLE.values(), ids=TABLE)
def test_each_machine_gets_its_threads_and_says_whether_int8_runs(row: Row) -> None:
    cpu = cpu_of(row)
    told = dict(cpu.openmp)
    assert told.pop("KMP_BLOCKTIME", None) == ("5" if row.bound == "nobind" else None)
    assert told == {
        "VLLM_CPU_OMP_THREADS_BIND": row.bound,
        "VLLM_CPU_NUM_OF_RESERVED_CPU": str(row.reserved),
        "OMP_NUM_THREADS": str(row.threads),
    }
    assert cpu.int8 == row.int8


@pytest.mark.parametrize(
    ("flags", "bfloat16"),
    [(AVX2, False), (VNNI, False), (GENOA, True), (SAPPHIRE, True), ("avx_vnni avx2", False)],
)
def test_bfloat16_is_read_from_the_flags(flags: str, bfloat16: bool) -> None:
    assert cpu_of(Row(x86(1, flags), 1, "0")).bfloat16 == bfloat16


def test_what_only_some_cores_can_do_is_not_counted_on() -> None:
    text = arm(1, NEOVERSE) + "\n" + arm(2, "fp asimd").split("\n\n")[1]
    assert not cpu_of(Row(text, 2, "0,1")).int8


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({}, None),
        ({"/proc/self/cgroup": "0::/\n", "/sys/fs/cgroup/memory.max": "max\n"}, None),
        ({"/proc/self/cgroup": "0::/\n", "/sys/fs/cgroup/memory.max": "8589934592\n"}, 2**33),
        (
            {
                "/proc/self/cgroup": "4:memory:/docker/abc\n",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes": "4294967296\n",
            },
            2**32,
        ),
        ({"/proc/self/cgroup": "nonsense\n"}, None),
    ],
)
def test_a_containers_memory_is_its_limit(files: dict[str, str], limit: int | None) -> None:
    assert memory_limit(lambda path: files.get(path, "")) == limit
    assert cpu_quota(lambda path: files.get(path, "")) is None


def test_the_kernels_lists_are_read() -> None:
    assert ids("0-2,5,7-8\n") == [0, 1, 2, 5, 7, 8]
    assert ids("\n") == []


@pytest.mark.parametrize(
    ("files", "kills"),
    [
        ({}, 0),
        ({"/proc/vmstat": "nr_free 9\noom_kill 3\n"}, 3),
        (v2("max") | {"/sys/fs/cgroup/memory.events": "oom 2\noom_kill 1\n"}, 1),
        (
            {
                "/proc/self/cgroup": "4:memory:/x\n",
                "/sys/fs/cgroup/memory/x/memory.oom_control": "oom_kill_disable 0\noom_kill 2\n",
                "/proc/vmstat": "oom_kill 9\n",  # the host's, others' included
            },
            2,
        ),
    ],
)
def test_the_kernels_kills_for_want_of_memory_are_those_of_our_group(
    files: dict[str, str], kills: int
) -> None:
    assert oom_kills(lambda path: files.get(path, "")) == kills
