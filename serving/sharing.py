"""How others get to the page: a link with a token in it, and an ssh tunnel to a public host.

Pure but for `new_token`. The page asks for the token (page/access.py). The tunnel is the ssh client
of this machine with the user's own keys; it is one more server of serve.sh's, and ends with it.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
from argparse import ArgumentTypeError
from collections.abc import Sequence
from dataclasses import dataclass

from serving.command import PAGE_TOKEN, Command, Options, ServerSpec, is_everywhere, port_number

# An option's letter first would be one to ssh.
PLACE = re.compile(r"(?P<login>(?:[\w.-]+@)?(?P<host>\w[\w.-]*))(?::(?P<port>\d+))?", re.ASCII)
FORWARDED = r"remote forward success"  # what ssh -v says once the host listens for us
MOST_SAID = 5  # lines

# Asks nobody anything, takes no host for known that is not, and shares no connection that would
# outlive it. A host that does not answer for 45 s is gone.
SSH = (
    *("ssh", "-v", "-N", "-T", "-a", "-x"),
    *("-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "UpdateHostKeys=no"),
    *("-o", "ExitOnForwardFailure=yes", "-o", "ControlMaster=no", "-o", "ControlPath=none"),
    *("-o", "ConnectTimeout=15", "-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=3"),
)


@dataclass(frozen=True, slots=True)
class Tunnel:
    """A host that lets people through to the page: `login` as ssh takes it, the port there."""

    login: str
    host: str
    port: int | None = None  # None: the page's own


def tunnel(text: str) -> Tunnel:
    """A flag's [USER@]HOST[:PORT]. Raises ArgumentTypeError."""
    if not (found := PLACE.fullmatch(text)):
        raise ArgumentTypeError(f"expected [USER@]HOST[:PORT], got {text!r}")
    port = port_number(found["port"]) if found["port"] else None
    return Tunnel(found["login"], found["host"], port)


def tunnel_spec(to: Tunnel, options: Options) -> ServerSpec:
    """The ssh that has the host listen, and hand on to the page whoever comes."""
    page = options.page
    inside = page.address.removeprefix("http://")
    forward = ("-R", f"{to.port or page.port}:{inside}")
    command = Command((*SSH, *forward, "--", to.login))
    return ServerSpec("The tunnel", "share", command, page.address, sign=FORWARDED)


def warning(to: Tunnel, login: bool) -> str:
    """What is said before it connects."""
    who = "logs in" if login else "has the link"
    return (
        f"--share opens the page to the internet through {to.host}: whoever {who} can ask "
        f"this model, and {to.host} can read what passes unless it ends https."
    )


def new_token() -> str:
    """A new token, put where the page finds it."""
    os.environ[PAGE_TOKEN] = secrets.token_urlsafe(32)
    return os.environ[PAGE_TOKEN]


def page_links(options: Options, token: str, to: Tunnel | None, said: str) -> Sequence[str]:
    """The links for others; `said` is what the tunnel's host has said so far.

    Where people log in it is the one address to which the login leads back.
    """
    if options.login is not None:
        return ("", "The page opens to whoever logs in there:", f"  {options.login.origin}")
    addresses = [options.page.address]
    if is_everywhere(options.ui_host):
        addresses.insert(0, f"http://{socket.gethostname()}:{options.ui_port}")
    if to is not None:
        addresses.insert(0, f"http://{to.host}:{to.port or options.ui_port}")
    links = [f"  {address}/?token={token}" for address in addresses]
    theirs = addresses_said(said) if to is not None else []
    words = ["The tunnel's host says (put /?token=... behind its address):"] if theirs else []
    lines = [*links, *words, *(f"  {line}" for line in theirs)]
    return ("", "The page opens to whoever has this link:", *lines)


def addresses_said(log: str) -> list[str]:
    """The lines of a tunnel's log in which its host names an address of its own."""
    lines = [line.strip() for line in log.splitlines() if not line.startswith("debug")]
    return [line for line in lines if re.search(r"https?://", line)][:MOST_SAID]
