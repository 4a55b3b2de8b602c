"""Texts that would run a script or load a thing from elsewhere, and a server that nobody may call.

BEACON stands for that server's address.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

LOADS = (  # from elsewhere, as BEACON tells
    '<img src="BEACON">',
    "![x](BEACON)",
    "![x][r]\n\n[r]: BEACON",
    "[![x](BEACON)](BEACON)",
    '<iframe src="BEACON"></iframe>',
    '<object data="BEACON"></object>',
    '<embed src="BEACON">',
    '<link rel="stylesheet" href="BEACON">',
    '<style>@import "BEACON";</style>',
    '<div style="background:url(BEACON)">x</div>',
    '<video poster="BEACON" src="BEACON"></video>',
    '<audio src="BEACON" autoplay></audio>',
    '<input type="image" src="BEACON">',
    '<base href="BEACON">',
    '<meta http-equiv="refresh" content="0;url=BEACON">',
    '<form action="BEACON"><button autofocus>x</button></form>',
    "$\\includegraphics{BEACON}$",
    '<svg><image href="BEACON"/></svg>',
    '<script src="BEACON"></script>',
    '<picture><source srcset="BEACON"><img></picture>',
)
RUNS = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg onload=alert(1)></svg>",
    '<iframe srcdoc="<script>alert(1)</script>"></iframe>',
    "<body onload=alert(1)>",
    "<details open ontoggle=alert(1)><summary>x</summary></details>",
    "<input autofocus onfocus=alert(1)>",
    "<a href='javascript:alert(1)'>x</a>",
    "[x](javascript:alert(1))",
    "[x](data:text/html,<script>alert(1)</script>)",
    "$\\href{javascript:alert(1)}{x}$",
    "<math><mtext><script>alert(1)</script></mtext></math>",
    "<svg><script>alert(1)</script></svg>",
)
FORMS = ("{}", "a `{} b` {}", "| x |\n|---|\n| {} |", "> - {}\n\n$x$ {}")
HUNDRED = tuple(
    form.replace("{}", payload) for form in FORMS for payload in (*LOADS, *RUNS)
)[:100]  # fmt: skip


@contextmanager
def beacon() -> Iterator[tuple[str, list[str]]]:
    """Its address, and the calls that it got."""
    calls: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            calls.append(self.path)
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    httpd = HTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}", calls
    httpd.shutdown()
