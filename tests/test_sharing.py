"""The page for others: what is printed, what ssh is told, and a tunnel through a real sshd."""

from __future__ import annotations

import getpass
import http.server
import shutil
import subprocess
import threading
import urllib.request
from argparse import ArgumentTypeError
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from serving.command import Command, Options
from serving.failures import explain
from serving.login import Login
from serving.processes import Service, start, stop
from serving.sharing import Tunnel, addresses_said, page_links, tunnel, tunnel_spec, warning
from tests import processes
from tests.processes import free_port, until

SHARED = Options(ui=True, ui_port=8600, share=True)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("example.org", Tunnel("example.org", "example.org")),
        ("me@example.org:80", Tunnel("me@example.org", "example.org", 80)),
        ("me@10.0.0.7", Tunnel("me@10.0.0.7", "10.0.0.7")),
    ],
)
def test_a_host_may_have_a_user_and_a_port(text: str, meant: Tunnel) -> None:
    assert tunnel(text) == meant


@pytest.mark.parametrize(
    "text", ["", "-oProxyCommand=x", "a b", "me@", "host:0", "host:x", "me@-x", "h;ls", "u@h:1:2"]
)
def test_nothing_else_reaches_ssh(text: str) -> None:
    with pytest.raises(ArgumentTypeError):
        tunnel(text)


def test_the_tunnel_asks_nobody_trusts_no_unknown_host_and_leads_to_the_page() -> None:
    words = tunnel_spec(tunnel("me@example.org:80"), SHARED).command.argv
    assert {"BatchMode=yes", "StrictHostKeyChecking=yes", "ExitOnForwardFailure=yes"} <= set(words)
    assert words[words.index("-R") + 1] == "80:127.0.0.1:8600"
    assert words[-2:] == ("--", "me@example.org")


def test_the_links_hold_the_token_and_the_hosts_own_words_are_shown() -> None:
    said = "debug1: see https://nowhere\nabc.example.org tunneled, https://abc.example.org\nbye\n"
    lines = page_links(SHARED, "t0ken", tunnel("me@example.org:80"), said)
    assert "  http://example.org:80/?token=t0ken" in lines
    assert "  http://127.0.0.1:8600/?token=t0ken" in lines
    assert lines[-1] == "  abc.example.org tunneled, https://abc.example.org"
    assert addresses_said("debug1: https://x\n") == []


def test_a_page_on_all_addresses_is_named_by_this_machines_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "my-machine")
    lines = page_links(Options(ui=True, ui_host="0.0.0.0"), "t0ken", None, "")
    assert lines[2:] == (
        "  http://my-machine:8501/?token=t0ken",
        "  http://127.0.0.1:8501/?token=t0ken",
    )


def test_where_people_log_in_there_is_no_link_but_the_address_of_the_login() -> None:
    options = replace(SHARED, login=Login("https://think.example.org", ("",)))
    lines = page_links(options, "t0ken", tunnel("me@example.org:80"), "")
    assert lines[-1] == "  https://think.example.org"
    assert "t0ken" not in " ".join(lines)
    assert "whoever logs in" in warning(tunnel("me@example.org"), login=True)
    assert "whoever has the link" in warning(tunnel("me@example.org"), login=False)


@pytest.mark.parametrize(
    ("log", "advice"),
    [
        ("Host key verification failed.", "compare the key"),
        ("me@example.org: Permission denied (publickey).", "ssh-copy-id"),
        ("Error: remote port forwarding failed for listen port 80", "HOST:PORT"),
    ],
)
def test_what_ssh_fails_with_is_told_with_advice(log: str, advice: str) -> None:
    failure = explain(f"debug1: Connecting\n{log}\ndebug1: bye\n", 255)
    assert failure.lines == (log,)
    assert advice in failure.advice


# -- through a real sshd

SSHD = shutil.which("sshd") or shutil.which("/usr/sbin/sshd")


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"the page")

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def page() -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()


def key(file: Path) -> Path:
    made = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(file)]
    subprocess.run(made, check=True)
    return file


@contextmanager
def sshd(folder: Path) -> Iterator[int]:
    """A server that takes one key of ours, on a port of loopback."""
    port, host, user = free_port(), key(folder / "host"), key(folder / "user")
    (folder / "authorized").write_text(user.with_suffix(".pub").read_text())
    config = folder / "sshd_config"
    config.write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {host}\nPidFile none\nUsePAM no\n"
        f"AuthorizedKeysFile {folder / 'authorized'}\nStrictModes no\nPermitRootLogin yes\n"
    )
    assert SSHD is not None
    server = processes.start([SSHD, "-D", "-e", "-f", str(config)], stderr=subprocess.DEVNULL)
    until(lambda: subprocess.run(["ssh-keyscan", "-p", str(port), "127.0.0.1"],
                                 capture_output=True, check=False).stdout, 30)  # fmt: skip
    yield port
    server.kill()
    server.wait()


def tunnelled(folder: Path, port: int, page: int, known: str) -> tuple[Service, int]:
    """A tunnel's process to that sshd, and the port that is to listen there."""
    outside, hosts = free_port(), folder / "known_hosts"
    hosts.write_text(known)
    spec = tunnel_spec(Tunnel(f"{getpass.getuser()}@127.0.0.1", "127.0.0.1", outside),
                       replace(SHARED, ui_port=page))  # fmt: skip
    mine = ["-F", "none", "-p", str(port), "-i", str(folder / "user")]
    mine += ["-o", f"UserKnownHostsFile={hosts}", "-o", "IdentitiesOnly=yes"]
    command = Command((spec.command.argv[0], *mine, *spec.command.argv[1:]))
    return start(replace(spec, command=command), folder / "share.log"), outside


@pytest.mark.slow
@pytest.mark.skipif(SSHD is None, reason="there is no sshd on this machine")
def test_a_tunnel_leads_to_the_page_and_ends_with_the_program(tmp_path: Path) -> None:
    with page() as inside, sshd(tmp_path) as port:
        known = f"[127.0.0.1]:{port} {(tmp_path / 'host.pub').read_text()}"
        service, outside = tunnelled(tmp_path, port, inside, known)
        until(service.answers, 30)
        with urllib.request.urlopen(f"http://127.0.0.1:{outside}/", timeout=10) as response:
            assert response.read() == b"the page"
        stop([service], lambda: True)
        with pytest.raises(OSError, match="refused"):
            urllib.request.urlopen(f"http://127.0.0.1:{outside}/", timeout=10)


@pytest.mark.slow
@pytest.mark.skipif(SSHD is None, reason="there is no sshd on this machine")
def test_a_host_whose_key_is_not_known_is_refused(tmp_path: Path) -> None:
    with page() as inside, sshd(tmp_path) as port:
        service, _ = tunnelled(tmp_path, port, inside, "")
        until(lambda: service.status is not None, 30)
    failure = service.failure()
    assert "Host key verification failed." in failure.lines
    assert "compare the key" in failure.advice
