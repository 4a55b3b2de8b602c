"""Debian's nginx with deploy/nginx/stepwise.conf, before page processes of the tests."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from tests.processes import ROOT, free_port, is_free, start, until

PROGRAM = ROOT / ".venv-deploy" / "bin" / "nginx"
CONF = ROOT / "deploy" / "nginx" / "stepwise.conf"
PLACE = "stepwise_place"  # the cookie that says where a visit sticks
PORTS = ("127.0.0.1:8501", "127.0.0.1:8511")  # of the pages, in that file
TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


class Nginx:
    """The address in front, and which page a cookie leads to."""

    def __init__(self, port: int, log: Path) -> None:
        self.address = f"http://127.0.0.1:{port}/"
        self._log = log

    def place_at(self, page: str) -> str:
        """A value of the cookie that leads to the page at that address."""
        wanted = urlsplit(page).netloc
        for value in map(str, range(100)):
            if self._leads_to(value) == wanted:
                return value
        raise AssertionError(f"expected a cookie that leads to {wanted}, got none in 100")

    def _leads_to(self, value: str) -> str:
        """As the log has it, which may come after the reply."""
        ask = Request(self.address + "_stcore/health", headers={"Cookie": f"{PLACE}={value}"})
        with urlopen(ask) as response:
            response.read()
        until(lambda: f" {value}\n" in self._log.read_text())
        places = dict(line.split(" ")[::-1] for line in self._log.read_text().splitlines())
        return places[value]


@contextmanager
def nginx(*pages: str) -> Iterator[Nginx]:
    """In front of page processes at two addresses."""
    with tempfile.TemporaryDirectory(prefix="stepwise-") as folder:
        port = free_port()
        conf = write_conf(Path(folder), port, pages)
        command = [PROGRAM, "-p", folder, "-c", conf, "-e", "stderr"]
        with (Path(folder) / "said").open("w") as said:
            process = start(command, stdout=said, stderr=said)
        try:
            until(lambda: not is_free(port))
            yield Nginx(port, Path(folder) / "places")
        finally:
            process.terminate()
            process.wait()


def write_conf(folder: Path, port: int, pages: Sequence[str]) -> Path:
    """A whole configuration, about ours: one process that writes nowhere but into the folder."""
    ours = CONF.read_text(encoding="utf-8").replace("listen 80;", f"listen 127.0.0.1:{port};")
    for known, page in zip(PORTS, pages, strict=True):
        ours = ours.replace(known, urlsplit(page).netloc)
    (folder / "stepwise.conf").write_text(ours, encoding="utf-8")
    temporary = "\n".join(f"{kind}_temp_path {folder}/{kind};" for kind in TEMPORARY)
    conf = folder / "nginx.conf"
    conf.write_text(
        f"""daemon off; master_process off; pid {folder}/pid;
events {{}}
http {{
    log_format places "$upstream_addr $cookie_{PLACE}";
    access_log {folder}/places places;
    {temporary}
    include {folder}/stepwise.conf;
}}
"""
    )
    return conf


def check(folder: Path) -> None:
    """Raises where nginx has something against the file."""
    conf = write_conf(folder, 80, [f"http://{port}/" for port in PORTS])
    subprocess.run([PROGRAM, "-t", "-q", "-p", folder, "-c", conf, "-e", "stderr"], check=True)
