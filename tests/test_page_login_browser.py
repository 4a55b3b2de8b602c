"""People log in to the page at a provider of ours, and each sees what he asked himself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from tests.oidc import CLIENT, SECRET, Provider, provider
from tests.page_browser import (
    ENGLISH,
    PATIENCE,
    PageServer,
    expect,
    on_stage,
    page_server,
    thinking,
)

pytest.importorskip("authlib", reason="requirements-login.txt is not installed")

BOX = '[data-testid="stChatInput"] textarea'
WHOLE = """
[auth]
redirect_uri = "http://127.0.0.1:{{port}}/oauth2callback"
cookie_secret = "a-cookie-secret-that-nobody-guesses"
client_id = "{client}"
client_secret = "{secret}"
server_metadata_url = "{issuer}/.well-known/openid-configuration"
"""
QUESTION = "What does Aya ask?"


@pytest.fixture
def idp() -> Iterator[Provider]:
    with provider("Aya", "Ben") as one:
        yield one


def secrets_file(folder: Path, issuer: str) -> Path:
    file = folder / "secrets.toml"
    file.write_text(WHOLE.format(client=CLIENT, secret=SECRET, issuer=issuer))
    return file


@pytest.fixture
def page(tmp_path: Path, port: int, idp: Provider) -> Iterator[PageServer]:
    """A page where people log in, open to the network and with no token."""
    network = ("--server.address", "0.0.0.0", "--server.allowedHosts", "*")
    options = (*network, "--secrets.files", str(secrets_file(tmp_path, idp.issuer)))
    with (
        on_stage(thinking(), port=port),
        page_server(f"http://127.0.0.1:{port}/v1", "page-login.log", *options) as one,
    ):
        yield one


@pytest.fixture
def person(browser: Browser) -> Iterator[Callable[[str], Page]]:
    """A tab in a browser of somebody's own."""
    contexts: list[BrowserContext] = []

    def come(address: str) -> Page:
        contexts.append(browser.new_context(locale=ENGLISH))
        tab = contexts[-1].new_page()
        tab.set_default_timeout(3 * PATIENCE)
        tab.goto(address)
        return tab

    yield come
    for context in contexts:
        context.close()


def log_in(tab: Page, name: str) -> None:
    tab.get_by_role("button", name="Log in").click()
    tab.get_by_role("link", name=name).click()
    expect(tab.locator(BOX)).to_be_enabled()


def test_each_sees_what_he_asked_himself_and_nobody_anything_without_a_login(
    page: PageServer, person: Callable[[str], Page]
) -> None:
    aya = person(page.address)
    expect(aya.get_by_role("button", name="Log in")).to_be_visible(timeout=3 * PATIENCE)
    expect(aya.locator(BOX)).to_have_count(0)
    log_in(aya, "Aya")
    aya.locator(BOX).fill(QUESTION)
    aya.locator(BOX).press("Enter")
    aya.locator(".st-key-new button").wait_for()
    expect(aya.locator(".st-key-threads")).to_contain_text(QUESTION)
    expect(aya.locator(".st-key-person")).to_contain_text("Aya")

    ben = person(aya.url)
    expect(ben.get_by_role("button", name="Log in")).to_be_visible()
    expect(ben.locator("body")).not_to_contain_text(QUESTION)
    log_in(ben, "Ben")
    expect(ben.locator('[data-testid="stSidebar"]')).to_contain_text("What you ask is kept")
    ben.goto(aya.url)
    expect(ben.locator("body")).to_contain_text("This address names a run that is not known here")
    expect(ben.locator("body")).not_to_contain_text(QUESTION)

    again = person(page.address)  # from another machine
    log_in(again, "Aya")
    expect(again.locator(".st-key-threads")).to_contain_text(QUESTION)
    again.locator(".st-key-logout button").click()
    expect(again.locator("body")).to_contain_text("Logged out.")
    again.goto(aya.url)
    expect(again.get_by_role("button", name="Log in")).to_be_visible()
    expect(again.locator("body")).not_to_contain_text(QUESTION)


def test_at_another_address_than_the_logins_it_says_which(
    page: PageServer, person: Callable[[str], Page]
) -> None:
    tab = person(page.address.replace("127.0.0.1", "localhost"))
    expect(tab.locator("body")).to_contain_text(f"leads back to {page.address.rstrip('/')}")
    expect(tab.get_by_role("button", name="Log in")).to_have_count(0)


def test_a_login_that_cannot_be_lets_nobody_in_and_says_why(
    tmp_path: Path, port: int, person: Callable[[str], Page]
) -> None:
    file = tmp_path / "secrets.toml"
    file.write_text('[auth]\ncookie_secret = "short"\n')
    base_url = f"http://127.0.0.1:{port}/v1"
    with page_server(base_url, "page-bad-login.log", "--secrets.files", str(file)) as page:
        tab = person(page.address)
        expect(tab.locator("body")).to_contain_text("[auth] of secrets.toml has no redirect_uri")
        expect(tab.locator(BOX)).to_have_count(0)
