"""What a container leaves of its host: processor time and memory, by cgroup v1 and v2. Pure.

`read` gives a file's text, or "" where there is none. A group is bound by its own limit and by
those of all groups above it. Inside a container the path of a group may be the host's, which is
not there; then the limit stands at the top.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import PurePosixPath

Read = Callable[[str], str]

GROUPS = "/proc/self/cgroup"
MOUNT = PurePosixPath("/sys/fs/cgroup")


def cpu_quota(read: Read) -> float | None:
    """How many cores' worth of time there is, or None without a limit."""
    new = [read(f"{folder}/cpu.max").split() for folder in _folders(read, "")]
    old = [
        [read(f"{folder}/cpu.cfs_{name}_us").strip() for name in ("quota", "period")]
        for folder in _folders(read, "cpu")
    ]
    shares = [int(words[0]) / int(words[1]) for words in new + old if _are_numbers(words, 2)]
    return min(shares, default=None)


def memory_limit(read: Read) -> int | None:
    """Bytes, or None without a limit; cgroup v1 says none with a number beyond any machine."""
    new = [read(f"{folder}/memory.max").split() for folder in _folders(read, "")]
    old = [read(f"{folder}/memory.limit_in_bytes").split() for folder in _folders(read, "memory")]
    return min((int(words[0]) for words in new + old if _are_numbers(words, 1)), default=None)


def oom_kills(read: Read) -> int:
    """How many processes the kernel has killed for want of memory: of our group, else of all."""
    files = [f"{folder}/memory.events" for folder in _folders(read, "")]
    files += [f"{folder}/memory.oom_control" for folder in _folders(read, "memory")]
    for file in (*files, "/proc/vmstat"):
        for line in read(file).splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


def _are_numbers(words: list[str], count: int) -> bool:
    """ "max" and -1 stand for no limit."""
    return len(words) == count and all(word.isdecimal() and int(word) > 0 for word in words)


def _folders(read: Read, controller: str) -> Iterator[PurePosixPath]:
    """Where a limit of ours may stand: our group and those above; "" is all of cgroup v2."""
    for line in read(GROUPS).splitlines():
        _, controllers, path = line.split(":", 2) if line.count(":") >= 2 else ("", "-", "")
        if controller in controllers.split(","):
            group = MOUNT / controller / path.strip("/")
            yield from (one for one in (group, *group.parents) if one.is_relative_to(MOUNT))
