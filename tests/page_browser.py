"""The page in a real browser: a Streamlit process, and Chromium looking at it."""

from __future__ import annotations

import os
import re
import shutil
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from playwright.sync_api import (
    BrowserContext,
    Dialog,
    Locator,
    Page,
    expect,
    sync_playwright,
)
from playwright.sync_api import (
    Error as PlaywrightError,
)
from playwright.sync_api import (
    TimeoutError as PlaywrightTimeout,
)
from sqlalchemy import select

from history.database import Database
from history.store import Store
from history.tables import PREFERENCES, RUNS, THREADS
from tests.processes import OUTPUT, ROOT, free_port, start, until
from tests.stub import Play, Script, Stub, says, status, step, step_number

CHROMIUM = shutil.which("chromium-headless-shell") or shutil.which("chromium")
FLAGS = (
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
DESKTOP, PHONE = (1280, 800), (390, 844)
ENGLISH = "en-US"
PATIENCE = 60_000  # milliseconds: two cores, shared with a model
STILL = """() => document.fonts.status === 'loaded' && document.getAnimations().every(
    it => it.playState !== 'running' || it.effect.getComputedTiming().iterations === Infinity)"""
MOTIONLESS = """
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(`*, *::before, *::after {
        animation-duration: 1ms !important; animation-delay: 0s !important;
        animation-iteration-count: 1 !important;
        transition-duration: 1ms !important; transition-delay: 0s !important;
    }`);
    document.adoptedStyleSheets = [sheet];
"""
EXPANDER = '[data-testid="stExpander"]'
THREAD = '.st-key-threads [class*="st-key-open-"] button:not([disabled]):visible'
STEP = f"{EXPANDER} {EXPANDER}"  # a step stands inside the expander of all steps

expect.set_options(timeout=PATIENCE)  # its own five seconds are short on two busy cores


class PageServer:
    """`streamlit run` of a script, as a user runs it, with a history of its own."""

    def __init__(
        self,
        base_url: str,
        log: str,
        folder: Path,
        *options: str,
        script: str = "app_reasoning.py",
        **given: str,
    ) -> None:
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}/"
        self.history = folder / "history.db"
        self.log = OUTPUT / log
        own = ["--server.port", str(self.port), "--server.headless", "true"]
        self._command = [sys.executable, "-m", "streamlit", "run", script, *own, *options]
        self._environment = {
            **os.environ,
            "OPENAI_BASE_URL": base_url,
            "OPENAI_API_KEY": "",
            "MODEL": "",
            "DATABASE_URL": f"sqlite:///{self.history}",
            **given,
        }

    def start(self) -> None:
        OUTPUT.mkdir(exist_ok=True)
        with self.log.open("ab") as output:
            self.process = start(
                self._command, cwd=ROOT, env=self._environment, stdout=output, stderr=output
            )
        until(lambda: _answers(self.address + "_stcore/health"))

    def prefer(self, **values: Any) -> None:
        """As if somebody had chosen this in the settings, and nothing else."""
        Store(f"sqlite:///{self.history}").prefer("", values)

    def forget(self) -> None:
        """As on its first day. A run that a test left thinking ends with its process."""
        database = Database(f"sqlite:///{self.history}")
        with database.reading() as connection:
            thinking = connection.scalar(select(RUNS.c.id).where(RUNS.c.state == "thinking"))
        if thinking:
            self.stop()
            self.start()
        with database.writing() as connection:
            connection.execute(THREADS.delete())  # and with them all that was thought in them
            connection.execute(PREFERENCES.delete())
        database.close()

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)

    def kill(self) -> None:
        """As a power cut: nothing is put in order."""
        self.process.kill()
        self.process.wait(30)


@contextmanager
def page_server(base_url: str, log: str, *options: str, **given: str) -> Iterator[PageServer]:
    """A page in front of that model server; its log and its history begin empty."""
    (OUTPUT / log).unlink(missing_ok=True)
    with TemporaryDirectory(prefix="stepwise-") as folder:
        page = PageServer(base_url, log, Path(folder), *options, **given)
        try:
            page.start()
            yield page
        finally:
            page.stop()


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


@contextmanager
def chromium(profile: Path | str = "") -> Iterator[BrowserContext]:
    """A browser at home: the profile is the folder where it keeps what it has loaded, compiled."""
    with sync_playwright() as playwright:
        home = playwright.chromium.launch_persistent_context(
            profile, executable_path=CHROMIUM, args=list(FLAGS), locale=ENGLISH
        )
        yield home
        home.close()


@contextmanager
def visiting(home: BrowserContext, made: list[Visitor]) -> Iterator[Callable[..., Visitor]]:
    """Makes visitors, and sends them home. None of them ever loads a thing from outside.

    The first comes from home, where the page need not be compiled again; whoever comes beside
    is somebody else.
    """

    def visit(address: str, size: tuple[int, int] = DESKTOP, locale: str = ENGLISH) -> Visitor:
        context = stranger(home, locale) if made or locale != ENGLISH else home
        context.tracing.start()
        made.append(Visitor(context, address, size))
        return made[-1]

    try:
        yield visit
    finally:
        for visitor in made:
            leave_nothing(visitor, home)
    for visitor in made:
        assert visitor.outside == []
        assert visitor.dialogs == []


def stranger(home: BrowserContext, locale: str = ENGLISH) -> BrowserContext:
    assert home.browser
    return home.browser.new_context(locale=locale)


def leave_nothing(visitor: Visitor, home: BrowserContext) -> None:
    """The browser at home forgets the visit; it keeps a tab, or it would end, and the cache."""
    if visitor.context is not home:
        visitor.close()
        return
    blank, *visited = home.pages
    for page in visited:
        page.close()
    devtools = home.new_cdp_session(blank)
    kept = "cookies,local_storage,indexeddb,service_workers"
    devtools.send("Storage.clearDataForOrigin", {"origin": visitor.address, "storageTypes": kept})
    devtools.detach()
    home.clear_permissions()
    with suppress(PlaywrightError):  # the trace of a test that failed has been taken
        home.tracing.stop()


def models(name: str, owner: str = "stub") -> Any:
    """What a server that serves one model lists."""
    listed = {"id": name, "object": "model", "owned_by": owner, "created": 0}
    return status(200, {"object": "list", "data": [listed]})


LED = {"ways": {"Reciter": "json_steps"}}  # by who prefers it: its own way is Satori's
SERVED = "SmolLM2-135M-Instruct"  # a name of the catalogue: its way of thinking is not asked for
TITLE = "SmolLM2 135M"  # and what people call it


def on_stage(*script: Script, port: int, name: str = SERVED) -> Stub:
    """A model that says what it is told to, at the port where a page looks for one."""
    return Stub(*script, port=port, models=models(name))


def thinking(steps: int = 3, until: threading.Event | None = None) -> Script:
    """A model that thinks about whatever it is asked: known words, and any number of runs.

    Each last step waits in its middle for `until`.
    """

    def reply(request: dict[str, Any]) -> Play:
        question, number = asked(request)
        if "response_format" not in request:
            return says(f"The answer to {question} is {len(question)}.")
        words = f"About {question}: {number}."
        if number < steps:
            return step(f"Thought {number}", words)
        return step(f"Thought {number}", words, "final_answer", until)

    return reply


def asked(request: dict[str, Any]) -> tuple[str, int]:
    """The question that a chain of JSON steps is about, and the number of the step wanted."""
    turns = [turn["content"] for turn in request["messages"] if turn["role"] == "user"]
    question = next((text for text in turns if '"next_action"' in text), turns[0])
    return question.split("\n\n")[0], step_number(request)


class Visitor:
    """A person with a browser: what is seen, and what the browser asked for from elsewhere."""

    def __init__(
        self, context: BrowserContext, address: str, size: tuple[int, int] = DESKTOP
    ) -> None:
        self.address = address.split("?")[0]
        self.context, self.size = context, size
        self.outside: list[str] = []
        self.dialogs: list[str] = []
        self.page = self.open(address)

    def open(self, address: str) -> Page:
        page = self.context.new_page()
        page.set_viewport_size({"width": self.size[0], "height": self.size[1]})
        page.set_default_timeout(PATIENCE)
        page.on("request", lambda request: self._asked(request.url))
        page.on("dialog", self._interrupted)
        page.add_init_script(MOTIONLESS)  # to draw it is a seventh of a test
        self.prepare(page)
        page.goto(address)
        # the first page of a server imports all that it needs: a minute on two busy cores
        page.wait_for_selector('[data-testid="stChatInput"]', timeout=3 * PATIENCE)
        return page

    def prepare(self, page: Page) -> None:
        """For who wants to look on: the tab is open, and nothing is loaded yet."""

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
        self.pick_way(name)
        expect(self.way).to_contain_text(name.split(" (")[0])
        self.page.keyboard.press("Escape")

    def pick_way(self, name: str) -> None:
        """In that menu, which is open."""
        menu = self.page.locator('[data-testid="stPopoverBody"]')
        menu.get_by_text(name, exact=True).click(timeout=10_000)

    def stop(self) -> None:
        self.button("stop").click()

    def begin_anew(self) -> None:
        self.button("new").click()
        self.button("example_1").wait_for()

    def unfold(self, number: int) -> Locator:
        """Opens a step, unless it is open."""
        box = self.steps.nth(number - 1)
        if not box.locator("details").first.evaluate("details => details.open"):
            box.locator("summary").first.click()
        return box

    def steer(self, number: int, how: str) -> None:
        """In the menu at the foot of a finished step."""
        self.choose(self.unfold(number).get_by_role("button", name="From here"), how)

    def choose(self, button: Locator, option: str) -> None:
        """In the menu that a button opens, and that a redraw may close again."""
        item = self.page.get_by_role("menuitem", name=option)
        self._open(button, item, item)
        item.click()

    def _open(self, button: Locator, menu: Locator, last: Locator) -> None:
        """Until the last of the menu is there; a redraw may close it again."""

        def stands_open() -> bool:
            if menu.count() == 0:
                button.click()
            with suppress(PlaywrightTimeout):
                last.wait_for(timeout=5_000)
                return True
            return False

        until(stands_open, PATIENCE / 1000)

    def pick(self, option: str) -> None:
        """In a menu that is open."""
        self.page.get_by_role("menuitem", name=option).click()

    def do_with(self, thread: str, act: str) -> None:
        """In the menu of a conversation in the sidebar."""
        self.choose(self.thread(thread).locator('[class*="st-key-menu-"] button'), act)

    def search(self, words: str) -> None:
        box = self.page.locator(".st-key-search input")
        box.fill(words)
        box.press("Enter")

    def show_settings(self) -> Locator:
        """The menu of settings, while a run is followed, too; a redraw may close it again."""
        menu = self.page.locator('[data-testid="stPopoverBody"]')
        button = self.page.locator(".st-key-settings button").first
        self._open(button, menu, menu.locator(".st-key-reset button"))
        return menu

    def open_settings(self) -> Locator:
        """The same once the page has come to rest; Escape closes it."""
        menu = self.show_settings()
        self.settle()
        return menu

    def switch(self, label: str) -> None:
        """One of the settings that are on or off."""
        self.open_settings().get_by_text(label, exact=True).click()
        self.settle()
        self.leave()

    def set_slider(self, label: str, keys: str) -> None:
        """With the keyboard: a key or several, such as "End ArrowLeft"."""
        sliders = self.open_settings().locator('[data-testid="stSlider"]')
        thumb = sliders.filter(has_text=label).locator("input").first
        for key in keys.split():
            thumb.press(key)
        self.settle()
        self.leave()

    def leave(self) -> None:
        """Closes what is open over the page."""
        self.page.keyboard.press("Escape")
        expect(self.page.locator('[data-testid="stPopoverBody"]')).to_have_count(0)

    def in_both_themes(self) -> Iterator[str]:
        """As if the reader turned the whole machine dark, and light again."""
        for scheme in ("dark", "light"):
            self.page.emulate_media(color_scheme=scheme)
            yield scheme

    def settle(self) -> None:
        """Waits until the page's script has done what the last click asked for."""
        self.page.wait_for_timeout(400)  # a slider tells its value when it stands still
        app = self.page.locator('[data-testid="stApp"]')
        expect(app).to_have_attribute("data-test-script-state", "notRunning", timeout=PATIENCE)

    def take(self, form: str) -> str:
        """The text of a file from the menu to take a run away."""
        self.page.locator(".st-key-export button").first.click()
        with self.page.expect_download() as download:
            self.button(f"export-{form}").click()
        self.leave()
        return download.value.path().read_text(encoding="utf-8")

    def wait_for_end(self) -> None:
        ended = self.page.locator(".st-key-new button")
        ended.wait_for(timeout=4 * PATIENCE)

    def shoot(self, name: str) -> Path:
        """A picture of what is seen, once it stands still."""
        self.page.wait_for_function(STILL)
        path = OUTPUT / f"{name}.png"
        self.page.screenshot(path=str(path))
        return path

    # -- what is seen

    def connection(self) -> str:
        """As Streamlit's own page tells it of itself: to the server, and of the script."""
        app = self.page.get_by_test_id("stApp")
        states = (f"data-test-{what}-state" for what in ("connection", "script"))
        return " ".join(str(app.get_attribute(state, timeout=1_000)) for state in states)

    @property
    def steps(self) -> Locator:
        """The steps of the run that is shown."""
        return self.run.locator(STEP)

    @property
    def threads(self) -> Locator:
        """The lines of the sidebar."""
        return self.page.locator(THREAD)

    def thread(self, name: str) -> Locator:
        """A line of the sidebar with its menu."""
        rows = "[class*='st-key-thread-'], .st-key-shown-thread"
        return self.page.locator(rows).filter(has_text=name)

    def button(self, key: str) -> Locator:
        return self.page.locator(f".st-key-{key} button:visible")  # one with help has a twin

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
        expect(self.page.locator("body")).to_contain_text(text, timeout=PATIENCE)

    def close(self) -> None:
        self.context.close()
