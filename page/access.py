"""Who may open the page: whoever came by the link with its token, where it has one.

Where people log in, the token is not asked for, and the page itself lets nobody in who has not
(page/login.py).

serve.sh makes a token at its start where others can reach the page (--ui-host, --share), prints
it in a link and hands it over in the environment. The link leaves a cookie in the browser, and
the token leaves the address. Without the cookie there is nothing to see, on no path.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Callable, Mapping
from urllib.parse import parse_qsl, urlencode

from page.security_headers import Application, Message, Receive, Send
from serving.command import PAGE_HEALTH, PAGE_TOKEN
from serving.gate import hang_up_on_slow_heads

CLOSED = (
    "This page opens with the link that ./serve.sh printed when it was started.\n"
    "请使用 ./serve.sh 启动时打印的链接打开本页面。\n"
)
POLICY_VIOLATION = 1008  # RFC 6455, section 7.4.1


class TokenAccess:
    """ASGI middleware: lets in who has the token, in the address once, then in a cookie."""

    def __init__(
        self,
        app: Application,
        environment: Mapping[str, str] = os.environ,
        login: Callable[[], bool] = lambda: False,
    ) -> None:
        self._app, self._token = app, "" if login() else environment.get(PAGE_TOKEN, "")
        # Not the token itself; and cookies of one host are shared by all its ports.
        self._pass = hashlib.sha256(f"cookie of {self._token}".encode()).hexdigest()
        self._cookie = f"stepwise-{self._pass[:8]}"

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            hang_up_on_slow_heads()
        if not self._token or scope["type"] == "lifespan" or self._may_enter(scope):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": POLICY_VIOLATION})
        elif self._has_token(scope):
            await _respond(send, 303, (b"location", _without_token(scope)), self._set_cookie(scope))
        else:
            await _respond(send, 401, (b"content-type", b"text/plain; charset=utf-8"))

    def _may_enter(self, scope: Message) -> bool:
        if scope["type"] == "http" and scope["path"] == PAGE_HEALTH:
            return True
        return any(_same(value, self._pass) for value in _cookies(scope, self._cookie))

    def _has_token(self, scope: Message) -> bool:
        return any(name == "token" and _same(value, self._token) for name, value in _query(scope))

    def _set_cookie(self, scope: Message) -> tuple[bytes, bytes]:
        secure = "; Secure" if is_encrypted(scope) else ""
        value = f"{self._cookie}={self._pass}; Path=/; HttpOnly; SameSite=Lax{secure}"
        return b"set-cookie", value.encode()


def is_encrypted(scope: Message) -> bool:
    """A proxy that ends https says so. Who lies here spoils his own cookie alone."""
    forwarded = header_values(scope, b"x-forwarded-proto")
    return scope.get("scheme") == "https" or b"https" in forwarded


def header_values(scope: Message, header: bytes) -> list[bytes]:
    return [value for name, value in scope.get("headers", ()) if name == header]


def cookie_pairs(scope: Message) -> list[tuple[str, str]]:
    """The browser's cookies; another's beside ours may be as odd as it likes."""
    pairs = b";".join(header_values(scope, b"cookie")).decode("latin-1").split(";")
    return [(name, value) for name, _, value in (pair.strip().partition("=") for pair in pairs)]


def _cookies(scope: Message, wanted: str) -> list[str]:
    return [value for name, value in cookie_pairs(scope) if name == wanted]


def _query(scope: Message) -> list[tuple[str, str]]:
    text = scope.get("query_string", b"").decode("latin-1")
    return parse_qsl(text, keep_blank_values=True)


def _same(given: str, due: str) -> bool:
    """In one time, whatever is given."""
    return hmac.compare_digest(given.encode(), due.encode())


def _without_token(scope: Message) -> bytes:
    """The same address on this host, whatever slashes its path begins with."""
    rest = urlencode([(name, value) for name, value in _query(scope) if name != "token"])
    path: bytes = scope.get("raw_path") or scope["path"].encode()
    return b"/" + path.lstrip(b"/\\\\") + (f"?{rest}".encode() if rest else b"")


async def _respond(send: Send, status: int, *headers: tuple[bytes, bytes]) -> None:
    body = CLOSED.encode() if status == 401 else b""
    length = (b"content-length", str(len(body)).encode())
    cache = (b"cache-control", b"no-store")
    await send(
        {"type": "http.response.start", "status": status, "headers": [*headers, length, cache]}
    )
    await send({"type": "http.response.body", "body": body})
