"""The page in a real browser: a Streamlit process, and Chromium looking at it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Dialog, Locator, Page, expect, sync_playwright

from tests.conftest import OUTPUT, ROOT, free_port
from tests.stub import status

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
FLAGS = (
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
DESKTOP, PHONE = (1280, 800), (390, 844)
PATIENCE = 60_000  # milliseconds: two cores, shared with a model
EXPANDER = '[data-testid="stExpander"]'
STEP = f"{EXPANDER} {EXPANDER}"  # a step stands inside the expander of all steps


@contextmanager
def streamlit(base_url: str, log: str) -> Iterator[str]:
    """`streamlit run app_reasoning.py`, as a user runs it; gives its address."""
    port = free_port()
    command = [sys.executable, "-m", "streamlit", "run", "app_reasoning.py"]
    options = ["--server.port", str(port), "--server.headless", "true"]
    environment = {**os.environ, "OPENAI_BASE_URL": base_url, "MODEL": "", "OPENAI_API_KEY": ""}
    OUTPUT.mkdir(exist_ok=True)
    with (OUTPUT / log).open("wb") as output:
        process = subprocess.Popen(
            [*command, *options], cwd=ROOT, env=environment, stdout=output, stderr=output
        )
    try:
        address = f"http://127.0.0.1:{port}/"
        until(lambda: _answers(address + "_stcore/health"), 60)
        yield address
    finally:
        process.terminate()
        process.wait(30)


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


@contextmanager
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()


@contextmanager
def visiting(browser: Browser) -> Iterator[Callable[..., Visitor]]:
    """Makes visitors, and sends them home. None of them ever loads a thing from outside."""
    made: list[Visitor] = []

    def visit(address: str, **options: Any) -> Visitor:
        made.append(Visitor(browser, address, **options))
        return made[-1]

    yield visit
    for visitor in made:
        outside, dialogs = visitor.outside, visitor.dialogs
        visitor.close()
        assert outside == []
        assert dialogs == []


def models(name: str, owner: str = "stub") -> Any:
    """What a server that serves one model lists."""
    listed = {"id": name, "object": "model", "owned_by": owner, "created": 0}
    return status(200, {"object": "list", "data": [listed]})


class Visitor:
    """A person with a browser: what is seen, and what the browser asked for from elsewhere."""

    def __init__(
        self,
        browser: Browser,
        address: str,
        size: tuple[int, int] = DESKTOP,
        locale: str = "en-US",
        scheme: str = "light",
    ) -> None:
        self.address = address.split("?")[0]
        options: dict[str, Any] = {"locale": locale, "color_scheme": scheme}
        self.context = browser.new_context(
            viewport={"width": size[0], "height": size[1]}, **options
        )
        self.outside: list[str] = []
        self.dialogs: list[str] = []
        self.page = self.open(address)

    def open(self, address: str) -> Page:
        page = self.context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("request", lambda request: self._asked(request.url))
        page.on("dialog", self._interrupted)
        page.goto(address)
        page.wait_for_selector('[data-testid="stChatInput"]')
        return page

    def _interrupted(self, dialog: Dialog) -> None:
        self.dialogs.append(dialog.message)
        dialog.dismiss()

    def _asked(self, url: str) -> None:
        here = self.address.removeprefix("http://")
        if not re.match(rf"(https?|wss?)://{re.escape(here)}|data:|blob:", url):
            self.outside.append(url)

    # -- what is done

    def ask(self, question: str) -> None:
        box = self.page.locator('[data-testid="stChatInput"] textarea')
        expect(box).to_be_enabled(timeout=PATIENCE)
        box.fill(question)
        box.press("Enter")

    def choose_way(self, name: str) -> None:
        """In the menu of the header; then the menu is closed."""
        self.way.click()
        menu = self.page.locator('[data-testid="stPopoverBody"]')
        menu.get_by_text(name, exact=True).click(timeout=10_000)
        expect(self.way).to_contain_text(name.split(" (")[0])
        self.page.keyboard.press("Escape")

    def stop(self) -> None:
        self.page.locator(".st-key-stop button").click()

    def wait_for_end(self) -> None:
        ended = self.page.locator(".st-key-new button")
        ended.wait_for(timeout=4 * PATIENCE)

    def shoot(self, name: str) -> Path:
        time.sleep(0.4)  # fonts, and the animation of an expander
        path = OUTPUT / f"{name}.png"
        self.page.screenshot(path=str(path))
        return path

    # -- what is seen

    @property
    def steps(self) -> Locator:
        return self.page.locator(STEP)

    @property
    def way(self) -> Locator:
        return self.page.locator(".st-key-way button")

    @property
    def bar(self) -> Locator:
        return self.page.locator(".st-key-bar")

    @property
    def run(self) -> Locator:
        return self.page.locator(".st-key-run")

    def sees(self, text: str | re.Pattern[str]) -> None:
        expect(self.page.locator('[data-testid="stApp"]')).to_contain_text(text, timeout=PATIENCE)

    def close(self) -> None:
        self.context.close()


def until(condition: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited for {seconds} s"
        time.sleep(0.05)
