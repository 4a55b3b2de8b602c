"""Whose history it is: nobody sees another's, by no link."""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from history.request import RunRequest
from history.run import Run
from page.context import PageContext
from page.health import ServerState
from page.i18n import Words
from page.owner import COOKIE, BrowserCookie, loopback, person_of
from page.security_headers import Message
from serving.command import PAGE_TOKEN
from tests.page_browser import PageServer, expect, on_stage, page_server, thinking

NAME = re.compile(rf"{COOKIE}=(browser-[A-Za-z0-9_-]{{32}});")
SIDEBAR = '[data-testid="stSidebar"]'
MINE = "browser-" + "a" * 32
TOKEN = "a-token-that-nobody-guesses-in-their-life"


async def cookie(kind: str = "text/html; charset=utf-8", **scope: Any) -> str:
    """What the middleware sets on a response of that kind; "" is nothing."""
    sent: list[Message] = []

    async def app(scope: Message, receive: Any, send: Any) -> None:
        headers = [(b"content-type", kind.encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request"}

    await BrowserCookie(app)({"type": "http", "scheme": "http", **scope}, receive, send)
    return b"".join(value for name, value in sent[0]["headers"] if name == b"set-cookie").decode()


async def test_a_page_names_a_new_browser_so_that_nobody_can_guess_it() -> None:
    one, other = NAME.match(await cookie()), NAME.match(await cookie())
    assert one
    assert other
    assert one[1] != other[1]


async def test_no_script_reads_the_name_and_no_other_site_sends_it() -> None:
    assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= set((await cookie()).split("; "))


async def test_only_a_page_names_a_browser() -> None:
    assert await cookie("application/javascript") == ""


@pytest.mark.parametrize(
    "given",
    [
        f"{COOKIE}={MINE}".encode(),
        f"a=1; {COOKIE}={MINE}; b=2".encode(),
        f'odd="{{\x01,; {COOKIE}={MINE}; \xff=='.encode("latin-1"),
    ],
)
async def test_a_named_browser_keeps_its_name(given: bytes) -> None:
    assert f"{COOKIE}={MINE};" in await cookie(headers=[(b"cookie", given)])


@pytest.mark.parametrize("named", ["", "x", "aya@example.org", "browser-short", MINE + "$"])
async def test_a_name_that_is_not_ours_is_not_kept(named: str) -> None:
    given = await cookie(headers=[(b"cookie", f"{COOKIE}={named}".encode())])
    assert NAME.match(given)


@pytest.mark.parametrize(
    "scope", [{"scheme": "https"}, {"headers": [(b"x-forwarded-proto", b"https")]}]
)
async def test_over_https_the_name_goes_over_https_alone(scope: dict[str, Any]) -> None:
    assert "Secure" in await cookie(**scope)
    assert "Secure" not in await cookie()


@pytest.mark.parametrize(
    ("names", "alone"),
    [
        (["127.0.0.1"], True),
        (["127.0.0.1", "localhost", "127.0.0.1", "[::1]"], True),
        (["::1"], True),
        (["0.0.0.0"], False),
        ([None], False),
        ([""], False),
        (["192.168.1.7"], False),
        (["127.0.0.1", "my-machine.local"], False),
        (["localhost.example.org"], False),
    ],
)
def test_a_page_is_for_one_where_every_name_means_this_machine(
    names: list[str | None], alone: bool
) -> None:
    assert loopback(names) is alone


@pytest.mark.parametrize("owner", ["", "ben"])
def test_a_run_opens_for_its_owner_alone(owner: str) -> None:
    runs = {
        "hers": Run(RunRequest("Why?"), owner="aya"),
        "his": Run(RunRequest("How?"), owner=owner),
    }
    services: Any = SimpleNamespace(runs=runs)
    context = PageContext(Words("en"), services, ServerState(), "", owner, ())
    assert context.run("hers") is None
    assert context.run("his") is runs["his"]
    assert context.run(None) is None


def test_a_person_is_who_the_provider_says_and_not_a_mail_address() -> None:
    """It goes from hand to hand, and two providers may give one to two."""
    aya = {"iss": "https://one.example", "sub": "7", "email": "a@example.org", "name": "Aya"}
    others = [{**aya, "sub": "8"}, {**aya, "iss": "https://two.example"}]
    assert person_of(aya) == person_of({**aya, "email": "b@example.org"})
    assert len({person_of(one) for one in (aya, *others)}) == 3


@pytest.mark.parametrize("lacking", ["iss", "sub"])
def test_without_a_name_of_the_providers_nobody_has_a_history(lacking: str) -> None:
    user = {"iss": "https://one.example", "sub": "7", "email": "a@example.org"}
    del user[lacking]
    with pytest.raises(KeyError):
        person_of(user)


# -- in browsers


@pytest.fixture
def shared(port: int) -> Iterator[PageServer]:
    """A page that listens to the network, as ./serve.sh --ui-host starts it."""
    base_url = f"http://127.0.0.1:{port}/v1"
    network = ("--server.address", "0.0.0.0", "--server.allowedHosts", "*")
    with (
        on_stage(thinking(), port=port),
        page_server(base_url, "page-owner.log", *network, **{PAGE_TOKEN: TOKEN}) as page,
    ):
        yield page


def test_each_browser_has_its_own_history_and_opens_no_run_of_another(
    shared: PageServer, visitors: Any
) -> None:
    link = f"{shared.address}?token={TOKEN}"
    aya, ben = visitors(link), visitors(link)
    assert TOKEN not in aya.page.url
    aya.ask("What does Aya ask?")
    aya.wait_for_end()
    lines = aya.page.locator(".st-key-threads")
    expect(lines).to_contain_text("What does Aya ask?")
    ben.page.reload()
    expect(ben.page.locator(SIDEBAR)).to_contain_text("What you ask is kept")
    other = ben.open(aya.page.url)
    expect(other.locator("body")).to_contain_text("This address names a run that is not known here")
    expect(other.locator("body")).not_to_contain_text("What does Aya ask?")
    aya.page.reload()
    expect(lines).to_contain_text("What does Aya ask?")


def test_without_the_link_there_is_no_page(shared: PageServer) -> None:
    for path in ("", "?token=guessed", "_stcore/host-config", "static/index.html"):
        with pytest.raises(HTTPError, match="401") as refused:
            urlopen(shared.address + path, timeout=30)
        assert b"./serve.sh" in refused.value.read()


def test_a_page_for_this_machine_alone_has_one_history(page: str, port: int, visitors: Any) -> None:
    with on_stage(thinking(), port=port):
        one, other = visitors(page), visitors(page)
        one.ask("Who asks here?")
        one.wait_for_end()
        other.page.reload()
        expect(other.page.locator(".st-key-threads")).to_contain_text("Who asks here?")
