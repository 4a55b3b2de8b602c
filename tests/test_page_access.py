"""A page with a token opens to whoever has its link, and to nobody else on any path."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from page.access import TokenAccess
from page.security_headers import Message
from serving.command import PAGE_TOKEN

TOKEN = "a-token-that-nobody-guesses-in-their-life"


class Door:
    """The middleware before an app that notes what reached it."""

    def __init__(self, token: str = TOKEN, login: bool = False) -> None:
        self.reached: list[str] = []
        self.access = TokenAccess(self.app, {PAGE_TOKEN: token}, lambda: login)

    async def app(self, scope: Message, receive: Any, send: Any) -> None:
        self.reached.append(scope["type"])
        await send({"type": "http.response.start", "status": 200, "headers": []})

    def come(self, path: str = "/", query: str = "", cookie: str = "", **scope: Any) -> Message:
        """What is sent first."""
        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)

        async def receive() -> Message:
            return {"type": "http.request"}

        headers = [(b"cookie", cookie.encode("latin-1"))] if cookie else []
        asked = {"type": "http", "path": path, "query_string": query.encode(), "headers": headers}
        asyncio.run(self.access({**asked, **scope}, receive, send))
        return sent[0]


def headers(message: Message) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in message["headers"]}


def cookie_of(door: Door) -> str:
    return headers(door.come(query=f"token={TOKEN}"))["set-cookie"].partition(";")[0]


def test_the_link_leaves_a_cookie_that_opens_the_page_and_its_socket() -> None:
    door = Door()
    cookie = cookie_of(door)
    assert door.reached == []
    assert door.come(cookie=f"other=1; {cookie}; odd=\xff")["status"] == 200
    door.come("/_stcore/stream", cookie=cookie, type="websocket")
    assert door.reached == ["http", "websocket"]


def test_the_token_leaves_the_address_and_the_rest_of_it_stays() -> None:
    sent = Door().come("/", f"run=abc&token={TOKEN}&lang=zh")
    assert sent["status"] == 303
    assert headers(sent)["location"] == "/?run=abc&lang=zh"


def test_no_script_reads_the_cookie_and_it_is_not_the_token() -> None:
    door = Door()
    sent = headers(door.come(query=f"token={TOKEN}", scheme="https"))["set-cookie"]
    assert {"HttpOnly", "SameSite=Lax", "Path=/", "Secure"} <= set(sent.split("; "))
    assert TOKEN not in sent


@pytest.mark.parametrize("path", ["//evil.example/x", "/\\evil.example"])
def test_the_link_leads_to_no_other_host(path: str) -> None:
    sent = Door().come(path, f"token={TOKEN}")
    assert headers(sent)["location"] == "/evil.example" + ("/x" if "/x" in path else "")


@pytest.mark.parametrize("path", ["/", "/_stcore/host-config", "/media/x.png", "/static/js/x.js"])
@pytest.mark.parametrize("query", ["", "token=", f"token={TOKEN}x", f"Token={TOKEN}", "token=ü"])
def test_without_the_token_there_is_nothing_on_any_path(path: str, query: str) -> None:
    door = Door()
    sent = door.come(path, query, cookie="stepwise-00000000=no")
    assert (sent["status"], door.reached) == (401, [])
    assert "set-cookie" not in headers(sent)


def test_another_tokens_cookie_opens_nothing() -> None:
    """Also of the start before: a token is new at each."""
    cookie = cookie_of(Door())
    assert Door(TOKEN + "2").come(cookie=cookie)["status"] == 401


def test_a_socket_without_the_cookie_is_closed_also_with_the_token() -> None:
    door = Door()
    sent = door.come("/_stcore/stream", f"token={TOKEN}", type="websocket")
    assert (sent["type"], door.reached) == ("websocket.close", [])


def test_whether_the_page_is_up_may_be_asked() -> None:
    assert Door().come("/_stcore/health")["status"] == 200
    assert Door().come("/_stcore/health/x")["status"] == 401


def test_where_people_log_in_the_page_itself_asks() -> None:
    """Also where serve.sh made a token: the page lets nobody further than to its login."""
    door = Door(login=True)
    assert door.come()["status"] == 200


def test_a_page_without_a_token_asks_for_none() -> None:
    assert Door("").come()["status"] == 200
