"""Whether a port is free, and who holds it. Linux, standard library alone."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import tempfile
from pathlib import Path
from typing import IO

LISTENING = "0A"  # /proc/net/tcp's word for it


class PortError(Exception):
    """The port cannot be used: one line that says why and what to do."""


def take(host: str, port: int, flag: str) -> IO[str]:
    """Makes sure that the port is free and claims it. Raises PortError."""
    check(host, port, flag)
    return claim(port, flag)


def check(host: str, port: int, flag: str) -> None:
    """Raises PortError when nothing could listen there. `flag` is the one that changes the port."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except socket.gaierror:
        raise PortError(f"{host!r} is no address of this machine. Try --host 127.0.0.1.") from None
    except OSError as error:
        raise PortError(_why(error, host, port, flag)) from None


def _why(error: OSError, host: str, port: int, flag: str) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} is in use by {holder(port)}. Stop it, or choose another with {flag}."
    if error.errno == errno.EACCES:
        return f"Port {port} is for root alone. Choose one above 1023 with {flag}."
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{host} is no address of this machine. Try --host 127.0.0.1."
    return f"Nothing can listen on {host}, port {port}: {error.strerror}."


def holder(port: int) -> str:
    """Who listens on a port: the process and its command, as far as we may see."""
    sockets = {f"socket:[{inode}]" for inode in _listening(port)}
    processes = os.listdir("/proc") if sockets else ()  # no /proc outside Linux, and no sockets
    for pid in (name for name in processes if name.isdigit()):
        if sockets & _open_files(pid):
            return f"process {pid} ({_command(pid)})"
    return "a process of another user"


def _listening(port: int) -> set[str]:
    rows: list[list[str]] = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            rows += [line.split() for line in Path(table).read_text().splitlines()[1:]]
    wanted = f":{port:04X}"
    return {row[9] for row in rows if row[1].endswith(wanted) and row[3] == LISTENING}


def _open_files(pid: str) -> set[str]:
    files: set[str] = set()
    with contextlib.suppress(OSError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                files.add(os.readlink(entry.path))
    return files


def _command(pid: str) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")
    except OSError:
        return "?"
    command = " ".join(words).strip()
    return command if len(command) <= 80 else command[:77] + "..."


def claim(port: int, flag: str) -> IO[str]:
    """Holds the port's name while a server is on its way to it; closing gives it back.

    A model takes a while to come up, and a second start in that time would only
    find out at the end that it came second.
    """
    path = Path(tempfile.gettempdir()) / f"stepwise-{os.getuid()}-{port}.lock"
    try:
        handle = os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise PortError(f"{path} cannot be opened: {error.strerror}. Remove it.") from None
    file = os.fdopen(handle, "r+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        by = file.read().strip() or "?"
        file.close()
        raise PortError(
            f"Port {port} is taken by a server that is starting (process {by}). "
            f"Stop it, or choose another with {flag}."
        ) from None
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file
