"""Whose history it is: a person who logged in, a browser, or whoever sits at this machine.

It keeps apart what different people asked. A run opens for its owner alone
(page/context.py), and its id cannot be guessed.

Where people log in to the page (page/login.py) a history belongs to the provider's name for the
person, which no two share: the issuer and the subject. A proxy that names the user
(server.trustedUserHeaders) comes next. Without either, a page that listens on this machine alone
has one history, "". Any other page gives each browser a random name in a cookie, which no script
in the page can read.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from typing import Any

import streamlit as st

from page.access import cookie_pairs, is_encrypted
from page.login import is_logged_in
from page.security_headers import Application, Message, Receive, Send

COOKIE = "stepwise"
LASTS = 400 * 24 * 3600  # seconds: the longest that browsers keep a cookie; each visit renews it
_NAME = re.compile(r"browser-[A-Za-z0-9_-]{32,64}")  # no address of a person looks like this
_FORWARDED = {"forwarded", "x-forwarded-for"}


def current_owner() -> str:
    """The owner of what this visitor asks; "" is everybody's at this machine."""
    user = st.user.to_dict()
    if is_logged_in():
        return person_of(user)
    return _named_by_proxy(user) or ("" if _is_local_only() else _browser_name())


def person_of(user: Mapping[str, Any]) -> str:
    """Who logged in, as the provider alone names him: a mail address goes from hand to hand."""
    return f"{user['iss']} {user['sub']}"


def _named_by_proxy(user: Mapping[str, Any]) -> str:
    """A mail address that nobody vouches for is nobody's: then it is his own id."""
    if not st.get_option("server.trustedUserHeaders"):
        return ""
    known = user.get("email") if user.get("email_verified") is not False else None
    return str(known or user.get("sub") or "")


def _is_local_only() -> bool:
    """Whether only who sits at this machine can reach the page: no network, no proxy, no name."""
    names = (st.get_option("server.address"), *st.get_option("server.allowedHosts"))
    forwarded = any(name.lower() in _FORWARDED for name in st.context.headers)
    return loopback(names) and not forwarded


def loopback(names: Iterable[str | None]) -> bool:
    """Whether all of these names and addresses mean this machine. None is every address."""
    return all(_is_loopback(name or "") for name in names)


def _is_loopback(name: str) -> bool:
    try:
        return name == "localhost" or ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


def _browser_name() -> str:
    """The cookie's name; a browser that keeps none has a history as long as its visit."""
    named = st.context.cookies.get(COOKIE, "")
    if _NAME.fullmatch(named):
        return named
    visit: str = st.session_state.setdefault("visit", _new_name())
    return visit


def _new_name() -> str:
    return f"browser-{secrets.token_urlsafe(24)}"


class BrowserCookie:
    """ASGI middleware: a page comes with the browser's name in a cookie, a new one or its own."""

    def __init__(self, app: Application) -> None:
        self._app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        async def with_name(message: Message) -> None:
            if message["type"] == "http.response.start" and _is_page(message):
                message["headers"] = [*message.get("headers", ()), (b"set-cookie", _cookie(scope))]
            await send(message)

        await self._app(scope, receive, with_name if scope["type"] == "http" else send)


def _is_page(message: Message) -> bool:
    kinds = [value for name, value in message.get("headers", ()) if name == b"content-type"]
    return any(kind.startswith(b"text/html") for kind in kinds)


def _cookie(scope: Message) -> bytes:
    value = f"{COOKIE}={_name_in_cookies(scope) or _new_name()}; Path=/; Max-Age={LASTS}"
    secure = "; Secure" if is_encrypted(scope) else ""
    return f"{value}; HttpOnly; SameSite=Lax{secure}".encode()


def _name_in_cookies(scope: Message) -> str:
    """The name in the browser's cookies."""
    pairs = cookie_pairs(scope)
    names = [value for key, value in pairs if key == COOKIE and _NAME.fullmatch(value)]
    return names[0] if names else ""
