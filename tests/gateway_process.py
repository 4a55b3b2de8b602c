"""A gateway in a process of its own, as a person starts it: `python -m gateway`, with a key."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from serving.gate import KEY
from tests.processes import ROOT, free_port, start

PATIENCE = 120.0  # seconds; two busy cores take long to import it all
SECRET = "sesame-0815"


@dataclass
class Running:
    """A gateway in a process of its own, in front of a port where a stub may come and go."""

    port: int
    upstream: int
    process: subprocess.Popen[bytes]
    log: Path

    def ask(self, method: str, path: str, body: Any = None, key: str = SECRET) -> tuple[int, bytes]:
        response = self.sent(method, path, body, key).getresponse()
        return response.status, response.read()

    def sent(
        self, method: str, path: str, body: Any = None, key: str = SECRET
    ) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
        connection.request(method, path, json.dumps(body) if body else None, headers)
        return connection

    def metric(self, name: str, **labels: str) -> float:
        text = self.ask("GET", "/metrics")[1].decode()
        samples = [s for family in text_string_to_metric_families(text) for s in family.samples]
        return sum(
            s.value for s in samples if s.name == name and s.labels.items() >= labels.items()
        )


def started(log: Path, **environment: str) -> Running:
    port, upstream = free_port(), free_port()
    given = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    given |= {"OPENAI_BASE_URL": f"http://127.0.0.1:{upstream}/v1", KEY: SECRET, **environment}
    with log.open("wb") as out:
        words = [sys.executable, "-m", "gateway", "--port", str(port)]
        process = start(words, stdout=out, stderr=out, cwd=ROOT, env=given)
    running = Running(port, upstream, process, log)
    late = time.monotonic() + PATIENCE
    while True:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < late, "it did not come up in time"
        try:
            running.ask("GET", "/health")
        except ConnectionRefusedError:
            time.sleep(0.1)
        else:
            return running
