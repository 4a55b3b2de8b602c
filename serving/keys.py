"""The key that clients must send: where it comes from, and whether it will do.

From VLLM_API_KEY, or from a file that only its owner reads, which is made where there is none.
It is on no command line and in no log; servers find it in their environment.
"""

from __future__ import annotations

import os
import secrets
import shlex
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from serving.catalogue import state_root
from serving.command import is_loopback
from serving.gate import KEY

LEAST = 32  # characters, for a host that others reach: nobody guesses it in a lifetime
LEAST_DIFFERENT = 8  # of them; "changeme", however often it is written, has seven


class BadKey(Exception):
    """The key cannot be used: one line that says why and what to do. It holds no key."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """The key, "" for none, and the file it is in, if it is in one."""

    key: str = ""
    file: Path | None = None

    @property
    def shell(self) -> str:
        """What stands for it in a shell's double quotes; "" where there is none."""
        if self.file is not None:
            return f"$(cat {shlex.quote(str(self.file))})"
        return f"${KEY}" if self.key else ""


def choose_key(host: str, file: Path | None, environment: Mapping[str, str]) -> ApiKey:
    """The key for a server on that host; one is made for another host than this machine.

    Raises BadKey.
    """
    given = environment.get(KEY, "")
    if file is None and not given and not is_loopback(host):
        file = state_root() / "api-key"
    chosen = ApiKey(given) if file is None else ApiKey(read_key(file), file)
    if chosen.key:
        check_key(chosen.key, host, str(chosen.file or KEY))
    return chosen


def check_key(key: str, host: str, where: str = KEY) -> None:
    """Raises BadKey for one that no header can carry, or that is too easy to guess on that host."""
    if not key.strip():
        raise BadKey(f"{where} holds nothing but blanks: give it a key, or leave it out.")
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise BadKey(f"The key in {where} must be letters, digits and signs of ASCII, no blanks.")
    if is_loopback(host):
        return
    if len(key) < LEAST or len(set(key)) < LEAST_DIFFERENT:
        raise BadKey(
            f"The key in {where} is too easy to guess for --host {host}, which others reach: "
            f"expected {LEAST} characters or more, {LEAST_DIFFERENT} of them different. "
            "Without a key ./serve.sh makes a good one."
        )


def read_key(file: Path) -> str:
    """The key in the file; a new one where there is no file. Raises BadKey."""
    try:
        _make(file)
    except FileExistsError:
        pass
    except OSError as error:
        raise BadKey(f"{file} cannot be written: {error.strerror}.") from None
    try:
        mode, text = file.stat().st_mode, file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadKey(f"{file} cannot be read: {getattr(error, 'strerror', error)}.") from None
    if stat.S_IMODE(mode) & 0o077:
        raise BadKey(f"Others may read the key in {file}: chmod 600 {shlex.quote(str(file))}")
    return text.removesuffix("\n") or " "


def _make(file: Path) -> None:
    """A new key in a new file. Raises FileExistsError."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as out:
        out.write(secrets.token_urlsafe(32) + "\n")
