"""A process that starts another and takes its whole family with it when it ends.

    python serving/supervisor.py PARENT_PID COMMAND ...

vLLM's engine and workers outlive a `kill -9` of vLLM, and everything outlives a
`kill -9` of serve.sh. So each server runs under a supervisor, which leads a session of
its own, adopts every orphan below it, and ends them all when the server has ended,
when its parent has died, or when it is told to. Standard library alone, nothing of
ours: it must come up at once and never fail.

SIGTERM: asks the server to stop, waits GRACE seconds, then kills. SIGQUIT: kills now.
It exits with the server's own status, as a shell counts it (137: killed).
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import signal
import subprocess
import sys
import time

GRACE = 6.0  # seconds; stopping must be over within 10
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
WATCHED = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGCHLD}


def prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def die_with_parent() -> None:
    """For `preexec_fn`: the kernel kills this process when its parent's life ends."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def processes_below(root: int) -> list[int]:
    """Every living descendant of a process, and every process of its session."""
    table = {pid: stat for pid in _pids() if (stat := _parent_and_session(pid))}
    found: set[int] = set()
    grown = True
    while grown:
        more = {
            pid
            for pid, (parent, session) in table.items()
            if parent in found or parent == root or session == root
        }
        grown = not more <= found
        found |= more
    return sorted(found - {root, os.getpid()})


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _parent_and_session(pid: int) -> tuple[int, int] | None:
    """None for a process that is gone or only waits to be collected."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    state, parent, session = fields[0], int(fields[1]), int(fields[3])
    return None if state in "ZX" else (parent, session)


def kill_all_below(root: int) -> None:
    """Until none is left: one that is being killed may still start another."""
    while alive := processes_below(root):
        for pid in alive:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        _collect()
        time.sleep(0.02)


def _collect() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def run(argv: list[str]) -> int:
    """Runs the command to its end, or to ours. Returns its exit status as a shell counts it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
    server = subprocess.Popen(argv, preexec_fn=_in_the_server)
    deadline = math.inf
    while server.poll() is None and time.monotonic() < deadline:
        wait = min(deadline - time.monotonic(), 60.0)
        told = signal.sigtimedwait(WATCHED, max(wait, 0.0))
        if told and told.si_signo == signal.SIGQUIT:
            deadline = 0.0
        elif told and told.si_signo != signal.SIGCHLD and deadline == math.inf:
            deadline = time.monotonic() + GRACE
            server.terminate()
    status = server.returncode
    kill_all_below(os.getpid())
    return 128 + signal.SIGKILL if status is None else status if status >= 0 else 128 - status


def _in_the_server() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, WATCHED)
    die_with_parent()


def main(parent: int, argv: list[str]) -> int:
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died before we could ask to be told
        return 1
    return run(argv)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
