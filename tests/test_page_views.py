"""Every view of the page, light and dark: drawn whole, and shutting nobody out.

One walk on a desktop and one on a Chinese phone go through all views in the order a reader may.
They keep a picture of each, and say at their end what axe-core found and what did not fit.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import ConsoleMessage

from page.i18n import load
from tests.axe import COLOURS, serious
from tests.page_browser import (
    PHONE,
    PageServer,
    Visitor,
    asked,
    expect,
    on_stage,
    thinking,
)
from tests.stub import NEVER, Play, says, status, step

LOOKS: list[Any] = [("desktop", {}), ("zh-phone", {"size": PHONE, "locale": "zh-CN"})]
RICH = """First \\(x^2 = 2\\), so `x` is **about** 1.41:

```python
# a guess, and better ones
def root(number: float, guess: float = 1.0) -> float:
    for _ in range(20): guess = (guess + number / guess) / 2  # Newton's, as the Babylonians had it
    return guess
```

| step | x |
|---|---|
| 1 | 1.5 |

> As [told](https://example.org) before.
"""


def model(request: dict[str, Any]) -> Play:
    """Thinks about anything; slowly, not at all, or in code and formulas where it is asked to."""
    question, number = asked(request)
    if "fail" in question:
        return status(401, {"error": "no"})
    if "slow" in question and number > 1:
        return step("Slowly", "word " * 80, until=NEVER)
    if "response_format" not in request:
        return says(f"The answer is {request.get('seed') or len(question)}.\n\n{RICH}")
    if number == 2:
        return step("In code and formulas", RICH)
    play: Play = thinking()(request)  # type: ignore[assignment, arg-type, call-arg]
    return play


class Walk:
    """A visitor who looks at each view with axe's eyes, in the visitor's language."""

    def __init__(self, visitor: Visitor, look: str) -> None:
        self.visitor, self.page, self.look = visitor, visitor.page, look
        self.words = load("zh" if "zh" in look else "en")
        self.findings: list[str] = []
        self.schemes = ["light", "dark"]
        for said in self.page.console_messages():  # until now
            self.hear(said)
        self.page.on("console", self.hear)

    def hear(self, said: ConsoleMessage) -> None:
        """Notes what the browser had to forbid."""
        if "Content Security Policy" in said.text:
            self.findings.append(said.text)

    def see(self, view: str) -> None:
        """Notes what is wrong with the view; a picture of it is kept.

        Each view begins in the theme in which the last one ended: all of a page is drawn anew
        in another one.
        """
        for scheme in self.schemes:
            self.page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            self.visitor.shoot(f"view-{view}-{self.look}-{scheme}")
            only = COLOURS if scheme == "dark" else {}  # all else is the same in both
            self.findings += [f"{view}, {scheme}: {line}" for line in serious(self.page, **only)]
        self.schemes.reverse()
        wide = self.page.evaluate("document.documentElement.scrollWidth - innerWidth")
        if wide > 0:
            self.findings.append(f"{view}: {wide} px wider than the window")

    def says(self, table: str, key: str) -> str:
        """A label without its icon."""
        text: str = self.words[table][key]
        return text.rpartition(": ")[2]

    def think(self, question: str) -> None:
        self.visitor.ask(question)
        expect(self.page.locator("[class*='st-key-question']").last).to_contain_text(question)
        self.visitor.wait_for_end()

    def steer(self, number: int, how: str) -> None:
        menu = self.visitor.unfold(number).get_by_role("button", name=self.says("steer", "menu"))
        menu.click()
        self.page.get_by_role("menuitem").first.wait_for()
        if how:
            self.visitor.pick(self.says("steer", how))

    def open_sidebar(self) -> None:
        opener = self.page.get_by_test_id("stExpandSidebarButton")
        if opener.is_visible():
            opener.click()
        expect(self.page.locator(".st-key-search input")).to_be_in_viewport()

    def close_sidebar(self) -> None:
        """Where it lies over the page."""
        if self.page.viewport_size == {"width": PHONE[0], "height": PHONE[1]}:
            self.page.get_by_test_id("stSidebarCollapseButton").locator("button").click()
            expect(self.page.locator(".st-key-search input")).not_to_be_in_viewport()

    def open_menu(self, conversation: str) -> None:
        self.open_sidebar()
        self.visitor.thread(conversation).locator('[class*="st-key-menu-"] button').click()
        self.page.get_by_role("menuitem").first.wait_for()

    def close_dialog(self) -> None:
        self.page.keyboard.press("Escape")
        expect(self.page.get_by_role("dialog")).to_have_count(0)


@pytest.mark.long
@pytest.mark.parametrize(("look", "options"), LOOKS)
def test_every_view_is_drawn_whole_and_shuts_nobody_out(
    staged: PageServer, port: int, visitors: Any, look: str, options: dict[str, Any]
) -> None:
    walk = Walk(visitors(staged.address, **options), look)
    expect(walk.page.locator("body")).to_contain_text("./serve.sh")
    walk.see("no-server")
    with on_stage(model, port=port):
        first_visit(walk)
        one_run(walk)
        steering(walk)
        ends(walk)
        sidebar(walk)
        several(walk, staged)
        walk.page.goto(f"{staged.address}?run=nobody")
        walk.visitor.sees(re.compile(walk.words["unknown_run"][:12]))
        walk.see("unknown-run")
    assert not walk.findings, "\n".join(walk.findings)


def first_visit(walk: Walk) -> None:
    expect(walk.visitor.button("example_1")).to_be_enabled()
    walk.see("first-visit")
    menu = walk.visitor.open_settings()
    walk.see("settings")
    menu.locator(".st-key-prompts button").click()
    walk.page.get_by_role("dialog").locator("summary").first.click()
    expect(walk.page.get_by_role("dialog").locator("textarea").first).to_be_visible()
    walk.see("prompts")
    walk.close_dialog()
    walk.visitor.way.click()
    walk.page.get_by_role("radio").first.wait_for(state="attached")
    walk.see("ways")
    walk.visitor.leave()


def one_run(walk: Walk) -> None:
    visitor = walk.visitor
    walk.think("What is the root?")
    walk.see("run")
    for number in (1, 2, 3):
        visitor.unfold(number)
    walk.see("run-open")
    expect(walk.page.locator("canvas, [data-testid*='Chart']")).to_have_count(0)
    walk.page.get_by_text(walk.says("charts", "open"), exact=True).click()
    expect(walk.page.locator('[data-testid="stEChartsChart"] canvas')).to_have_count(2)
    for head in ("time", "tokens"):
        visitor.sees(walk.says("charts", head))
    walk.see("charts")
    walk.page.locator(".st-key-export button").first.click()
    visitor.button("export-json").wait_for()
    walk.see("take-away")
    visitor.leave()


def steering(walk: Walk) -> None:
    walk.steer(2, "")
    walk.see("step-menu")
    walk.page.keyboard.press("Escape")
    walk.steer(2, "edit")
    walk.page.get_by_role("dialog").get_by_role("textbox").first.wait_for()
    walk.see("edit")
    walk.page.get_by_role("button", name=walk.says("steer", "edit_go")).click()
    expect(walk.page.locator(".st-key-branches")).to_be_visible()
    walk.visitor.wait_for_end()
    walk.see("branches")
    walk.think("And its square?")
    walk.see("follow-up")
    walk.visitor.begin_anew()


def ends(walk: Walk) -> None:
    visitor = walk.visitor
    visitor.ask("Think slow")
    expect(visitor.steps.nth(1)).to_contain_text("word word")
    walk.see("thinking")
    visitor.stop()
    visitor.wait_for_end()
    walk.see("stopped")
    visitor.begin_anew()
    walk.think("Please fail")
    walk.see("failed")
    visitor.begin_anew()


def sidebar(walk: Walk) -> None:
    walk.page.locator(".st-key-figures summary").click()
    expect(walk.page.locator('[data-testid="stEChartsChart"]').first).to_be_visible()
    walk.see("figures")
    walk.open_menu("What is the root?")
    walk.visitor.pick(walk.says("history", "pin"))
    heading = walk.says("history", "pinned")
    expect(walk.page.locator(".st-key-threads")).to_contain_text(heading)
    walk.see("sidebar")
    walk.open_menu("Please fail")
    walk.see("thread-menu")
    walk.visitor.pick(walk.says("history", "rename"))
    walk.page.locator("[class*='st-key-name-'] input").wait_for()
    walk.see("rename")
    walk.open_menu("Think slow")
    walk.visitor.pick(walk.says("history", "delete"))
    walk.visitor.button("undo").wait_for()
    walk.see("deleted")
    walk.visitor.button("import").first.click()
    walk.page.get_by_test_id("stFileUploaderDropzone").wait_for()
    walk.see("import")
    walk.page.keyboard.press("Escape")
    walk.visitor.search("no such words")
    walk.visitor.sees(walk.says("history", "nothing"))
    walk.see("nothing-found")
    walk.close_sidebar()


def several(walk: Walk, served: PageServer) -> None:
    """Chains asked together and the plain answer beside them; two runs side by side."""
    served.prefer(chains=3, also_direct=True)
    walk.page.goto(served.address)
    expect(walk.visitor.button("example_1")).to_be_enabled()
    walk.think("All at once?")
    expect(walk.page.locator(".st-key-beside")).to_be_visible()
    walk.see("several")
    walk.open_menu("What is the root?")
    walk.visitor.pick(walk.says("history", "compare"))
    expect(walk.page.locator(".st-key-question-left")).to_be_visible()
    walk.close_sidebar()
    walk.see("compare")
