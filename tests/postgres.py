"""A PostgreSQL server of the tests' own: made in a new folder, on a free port, gone at the end.

Debian's package is enough (scripts/setup). The server refuses to be root's: as root it is
started as the package's user, `postgres`.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from tests.processes import free_port, start

USER, PASSWORD = "stepwise", "a secret % of @ its own"
WRITTEN = "a%20secret%20%25%20of%20%40%20its%20own"  # as it stands in an address
START = 60.0  # seconds
SPEED = ("-c", "fsync=off", "-c", "max_connections=50", "-c", "shared_buffers=32MB")


class Postgres:
    """The server. Its one user has a password that an address must quote."""

    def __init__(self, folder: Path, flags: Sequence[str] = SPEED) -> None:
        self.port = free_port()
        self._folder, self._flags = folder, flags
        self._bin = _programs()
        self._process: subprocess.Popen[bytes] | None = None
        password = folder / "password"
        password.write_text(PASSWORD, encoding="utf-8")
        if _as():
            for path in (folder, password):
                shutil.chown(path, "postgres", "postgres")
        make: list[str | Path] = [self._bin / "initdb", "-D", folder / "data", "-U", USER]
        make += ["--no-sync", "-E", "UTF8"]
        make += ["-A", "scram-sha-256", "--pwfile", password, "--locale", "C.UTF-8"]
        subprocess.run(make, check=True, stdout=subprocess.DEVNULL, cwd=folder, **_as())

    def start(self) -> None:
        listen = (
            "-c",
            "listen_addresses=127.0.0.1",
            "-c",
            f"unix_socket_directories={self._folder}",
        )
        command: list[str | Path] = [self._bin / "postgres", "-D", self._folder / "data"]
        command += ["-p", str(self.port)]
        with (self._folder / "log").open("ab") as log:
            self._process = start(
                [*command, *listen, *self._flags], cwd=self._folder, stdout=log, stderr=log, **_as()
            )
        deadline = time.monotonic() + START
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self._folder / "log").read_text(encoding="utf-8"))
            time.sleep(0.05)

    def stop(self) -> None:
        """At once, in the middle of whatever it does."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(START)
            self._process = None

    @property
    def pid(self) -> int:
        assert self._process, "it does not run"
        return self._process.pid

    def url(self) -> str:
        """An empty place of its own: a schema, which is made much faster than a database."""
        name = f"of_{secrets.token_hex(6)}"
        with psycopg.connect(self.address(), autocommit=True) as connection:
            connection.execute(f"CREATE SCHEMA {name}".encode())
        return f"{self.address()}?options=-csearch_path%3D{name}"

    def address(self, name: str = "postgres") -> str:
        return f"postgresql://{USER}:{WRITTEN}@127.0.0.1:{self.port}/{name}"

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.address(), connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True


@contextmanager
def postgres(flags: Sequence[str] = SPEED) -> Iterator[Postgres]:
    with tempfile.TemporaryDirectory(prefix="stepwise-postgres-") as folder:
        server = Postgres(Path(folder), flags)
        try:
            server.start()
            yield server
        finally:
            server.stop()


def _programs() -> Path:
    """The newest version's folder: Debian does not put it on the PATH."""
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    folders = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    newest = sorted(folders, key=lambda path: float(path.parts[-3]))
    if not newest:
        raise FileNotFoundError("expected PostgreSQL's initdb, found none: run scripts/setup")
    return newest[-1].parent


def _as() -> dict[str, Any]:
    return {"user": "postgres", "group": "postgres", "extra_groups": []} if not os.getuid() else {}
