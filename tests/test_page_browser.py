"""The page as people see it: a real browser, a real vLLM, and a stub for what goes wrong."""

from __future__ import annotations

import json
import re
import socket
import threading
import urllib.request
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from serving.served import Served, publish
from tests.page_browser import PHONE, SERVED, TITLE, PageServer, Visitor, expect, on_stage, until
from tests.payloads import beacon
from tests.real_servers import Server, finished, running
from tests.reciter import ENDLESS
from tests.stub import NEVER, says, status, step, step_number


def chain(until: threading.Event | None = None) -> list[Any]:
    """Three steps and an answer; the last step waits in its middle for `until`."""
    return [
        step("Read the question", "The word is **strawberry**. We look at \\(r\\)."),
        step("Count", "\\[ 1 + 2 = 3 \\]\n\nand it costs $5 or $6."),
        step("Check", "```python\n'strawberry'.count('r')\n```", "final_answer", until),
        says("There are **three**: $1 + 2 = 3$."),
    ]


# -- in front of a real server


@pytest.mark.alone
def test_stop_ends_the_servers_work_and_keeps_what_was_written(
    real_page: PageServer, reciter: Server, visitors: Any
) -> None:
    """In the model's own way, in which it would recite to the end of its context."""
    real_page.prefer()
    visitor = visitors(real_page.address)
    before = finished(reciter)
    visitor.ask(ENDLESS)
    visitor.steps.first.wait_for()
    until(lambda: running(reciter) > 0)
    visitor.stop()
    visitor.sees("Stopped. The finished steps are kept.")
    until(lambda: running(reciter) == 0)
    assert finished(reciter) == before  # it was broken off, and did not come to its end
    assert visitor.steps.count() >= 1
    expect(visitor.bar).to_contain_text("Thought for")
    visitor.shoot("real-stopped")


# -- what is seen while it is written


def test_the_first_words_of_a_step_are_seen_before_the_step_is_whole(
    page: str, port: int, visitors: Any
) -> None:
    go_on = threading.Event()
    text = "These first words come early. " + "More follow. " * 30
    with on_stage(step("Slow title", text, until=go_on), *chain(), port=port):
        visitor = visitors(page)
        visitor.ask("Slowly?")
        first = visitor.steps.first
        expect(first).to_contain_text("Slow title")
        expect(first).to_contain_text("These first words")
        assert "tokens" not in first.inner_text()
        assert not re.search(r'[{"]', first.inner_text())
        expect(visitor.bar).to_contain_text("Step 1 of at most 25")
        visitor.shoot("live")
        go_on.set()
        expect(first).to_contain_text("tokens")
        visitor.wait_for_end()


def test_mathematics_code_and_money_look_right_and_fit_a_phone(
    page: str, port: int, visitors: Any
) -> None:
    with on_stage(*chain(), port=port):
        visitor = visitors(page, size=PHONE, locale="en-GB")
        visitor.ask("How many R's are in strawberry?")
        visitor.wait_for_end()
        expect(visitor.steps).to_have_count(3)
        expect(visitor.unfold(1).locator(".katex")).to_have_count(1)
        expect(visitor.unfold(2).locator(".katex-display")).to_have_count(1)
        expect(visitor.steps.nth(1)).to_contain_text("and it costs $5 or $6.")
        expect(visitor.unfold(3).locator("pre code")).to_contain_text("'strawberry'.count")
        expect(visitor.run.locator("strong", has_text="three")).to_have_count(1)
        expect(visitor.bar).to_contain_text("in 3 steps")
        fits_in_both_themes(visitor, "en-phone-answer")


def fits_in_both_themes(visitor: Visitor, name: str) -> None:
    for scheme in visitor.in_both_themes():
        visitor.shoot(f"{name}-{scheme}")
        wide = visitor.page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0


def test_a_reload_and_a_switch_of_language_in_the_middle_lose_nothing(
    page: str, port: int, visitors: Any
) -> None:
    go_on = threading.Event()
    with on_stage(*chain(go_on), port=port) as stub:
        visitor = visitors(page)
        visitor.ask("Reload?")
        expect(visitor.steps).to_have_count(3)
        visitor.page.reload()
        expect(visitor.unfold(1)).to_contain_text("strawberry")
        visitor.page.locator(".st-key-language button").click()
        expect(visitor.bar).to_contain_text("最多 25 步")
        go_on.set()
        visitor.wait_for_end()
        expect(visitor.bar).to_contain_text("共 3 步")
        expect(visitor.run).to_contain_text("答案")
        live = visitor.run.inner_text()
        assert len(stub.requests) == 4
    visitor.page.reload()
    visitor.wait_for_end()
    expect(visitor.steps).to_have_count(3)
    expect(visitor.run).to_have_text(live, use_inner_text=True)


def test_attempts_that_failed_are_told_in_words(page: str, port: int, visitors: Any) -> None:
    script = [says("no JSON"), *chain()[:2], status(503, {}, "Retry-After: 1"), *chain()[2:]]
    with on_stage(*script, port=port):
        visitor = visitors(page)
        visitor.ask("Again?")
        visitor.wait_for_end()
        expect(visitor.unfold(1)).to_contain_text("Attempt 1 failed")
        expect(visitor.steps.nth(0)).to_contain_text("2 attempts")
        expect(visitor.unfold(3)).to_contain_text(re.compile(r"Trying again after 1\.[0-3] s"))
        expect(visitor.bar).to_contain_text(re.compile(r"1\.[0-3] s of waiting"))
        visitor.shoot("retries")


# -- one question at a time


def test_bad_questions_start_none_and_eight_quick_clicks_one(
    page: str, port: int, visitors: Any
) -> None:
    with on_stage(*chain(), port=port) as stub:
        visitor = visitors(page)
        visitor.ask("x" * 8_001)
        visitor.sees("At most 8,000")
        visitor.ask("   ")
        visitor.settle()
        assert stub.requests == []
        expect(visitor.button("example_1")).to_be_enabled()
        visitor.page.evaluate(
            "() => { const b = document.querySelector('.st-key-example_1 button');"
            " for (let i = 0; i < 8; i++) b.click(); }"
        )
        visitor.wait_for_end()
        visitor.settle()
        assert len(stub.requests) == 4


def test_two_tabs_are_independent(page: str, port: int, visitors: Any) -> None:
    both = threading.Event()

    def echo(request: dict[str, Any]) -> Any:
        question = request["messages"][0]["content"].split("\n\n")[0]
        if "response_format" not in request:
            return says(f"Answer to {question}")
        number = step_number(request)
        words = f"About {question} {number}."
        if number < 3:
            return step(f"{question} {number}", words)
        return step(f"{question} {number}", words, "final_answer", both)

    with on_stage(echo, port=port):
        one, two = visitors(page), visitors(page)
        one.ask("Apples")
        two.ask("Pears")
        for visitor in (one, two):
            expect(visitor.steps).to_have_count(3)
        both.set()
        for visitor, mine, others in ((one, "Apples", "Pears"), (two, "Pears", "Apples")):
            visitor.wait_for_end()
            visitor.sees(f"Answer to {mine}")
            expect(visitor.run).not_to_contain_text(others)
        assert one.page.url != two.page.url


def test_the_next_question_leaves_nothing_of_the_last(page: str, port: int, visitors: Any) -> None:
    with on_stage(*chain(), step("Other", "Quite different.", until=NEVER), port=port):
        visitor = visitors(f"{page}?run=guess")
        visitor.sees("is not known here")
        visitor.ask("First?")
        visitor.sees("three")
        visitor.wait_for_end()
        first = visitor.page.url
        visitor.ask("Second?")
        expect(visitor.steps.first).to_contain_text("Other")
        expect(visitor.steps).to_have_count(1)
        expect(visitor.run).not_to_contain_text("Read the question")
        visitor.stop()
        visitor.wait_for_end()
        visitor.page.go_back()
        visitor.page.wait_for_url(first)
        visitor.sees("On to: Second?")
        expect(visitor.unfold(1)).to_contain_text("strawberry")
        visitor.page.locator(".st-key-new button").click()
        visitor.sees("Try one of these")
        expect(visitor.steps).to_have_count(0)


# -- the server goes and comes


def test_without_a_server_the_page_says_what_starts_one_and_sees_it_and_the_next(
    page: str, port: int, visitors: Any
) -> None:
    visitor = visitors(page)
    visitor.sees("No model server")
    visitor.sees("./serve.sh")
    visitor.shoot("no-server")
    with on_stage(*chain(), name="little-one", port=port):
        visitor.sees("little-one")
        expect(visitor.page.locator("body")).not_to_contain_text("./serve.sh", use_inner_text=True)
    with on_stage(*chain(), port=port):
        visitor.sees(TITLE)
        visitor.ask("There?")
        visitor.wait_for_end()
        visitor.sees("three")


def test_a_phone_shows_what_is_served_in_what_precision_and_how_fast(
    page: str, port: int, visitors: Any
) -> None:
    facts = Served(SERVED, TITLE, "int8", 12.3, by_us=True)
    with publish(facts, port), on_stage(*chain(), port=port):
        visitor = visitors(page, size=PHONE)
        badge = visitor.page.locator(".st-key-health .stMarkdownBadge")
        expect(badge).to_contain_text(f"{TITLE}, int8, about 12 tokens/s")
        visitor.shoot("en-phone-served")
        assert badge.evaluate("it => it.scrollHeight <= it.clientHeight")  # none of it is cut
        assert badge.evaluate("it => it.scrollWidth <= it.clientWidth")


def test_a_server_that_dies_leaves_the_steps_a_remedy_and_a_way_on(
    page: str, port: int, visitors: Any
) -> None:
    visitor = visitors(page)
    dying = [*chain()[:2], step("Slow", "word " * 200, until=NEVER)]
    with on_stage(*dying, port=port):
        visitor.ask("Dying?")
        expect(visitor.steps).to_have_count(3)
    visitor.wait_for_end()
    visitor.sees("No server answers")
    visitor.sees("Start one with ./serve.sh")
    expect(visitor.page.locator("body")).not_to_contain_text("Traceback", use_inner_text=True)
    visitor.shoot("failed")
    with on_stage(*chain()[2:], port=port) as stub:
        visitor.sees(TITLE)
        visitor.page.get_by_role("button", name="Go on from step 3").click()
        expect(visitor.bar).to_contain_text("in 3 steps")
        visitor.sees("three")
        assert "strawberry" in json.dumps(stub.requests[0]["messages"])
        assert len(stub.requests) == 2


def test_a_step_whose_time_is_over_is_named_and_the_run_goes_on_from_it(
    staged: PageServer, port: int, visitors: Any
) -> None:
    """The finished step stays, the server's work ends, and the page's log names the run alone."""
    staged.prefer(step_seconds=5)
    slow = step("Slow", "word " * 200, until=NEVER)
    with on_stage(chain()[0], slow, *chain()[1:], port=port) as stub:
        visitor = visitors(staged.address)
        visitor.ask("Is that too slow?")
        visitor.wait_for_end()
        visitor.sees("Step 2 was not done in 5 s.")
        visitor.sees("allow more seconds for a step")
        expect(visitor.steps).to_have_count(2)
        expect(visitor.unfold(1)).to_contain_text("strawberry")
        expect(visitor.steps.nth(1)).to_contain_text("unfinished")
        expect(visitor.bar).to_contain_text("in 1 step")
        until(lambda: stub.gone == 1)
        visitor.shoot("deadline")
        run = dict(parse_qsl(urlsplit(visitor.page.url).query))["run"]
        visitor.page.get_by_role("button", name="Go on from step 2").click()
        visitor.sees("three")
        expect(visitor.bar).to_contain_text("in 3 steps")
    logged = [json.loads(line) for line in staged.log.read_text().splitlines() if line[:1] == "{"]
    (failed,) = [line for line in logged if line.get("run") == run and line.get("code")]
    assert (failed["message"], failed["code"]) == ("A run failed", "deadline")
    for words in ("too slow", "strawberry"):
        assert words not in staged.log.read_text()


def test_ask_again_begins_anew(page: str, port: int, visitors: Any) -> None:
    with on_stage(status(401, {"error": "Unauthorized"}), *chain(), port=port) as stub:
        visitor = visitors(page)
        visitor.ask("Key?")
        visitor.wait_for_end()
        visitor.sees("OPENAI_API_KEY")
        assert len(stub.requests) == 1
        visitor.page.get_by_role("button", name="Ask again").click()
        visitor.sees("three")


# -- hostile text


QUESTION = "<img src=x onerror=alert(1)> **bold** $x$ :smile: ![a](http://127.0.0.1:9/a.png)"
PAYLOADS = """<script>alert(1)</script>
<img src=x onerror=alert(2)> <svg onload=alert(3)></svg>
<iframe srcdoc="<script>alert(4)</script>"></iframe> <base href="BEACON">
<style>*{color:red}</style>
<form action="BEACON"><input name=a></form> <meta http-equiv="refresh" content="0;url=BEACON">
![a](BEACON/1.png) ![b][r] ![r] [![c](BEACON/3.png)](BEACON)
[r]: BEACON/2.png

[x]:
![d](BEACON/4.png)

- a `
- ![e](BEACON/5.png) ` b

$`$ ![f](BEACON/6.png) ` <img src="BEACON/7.png"> :red[![g](BEACON/8.png)]

$\\includegraphics{BEACON/9.png}$ $\\href{javascript:alert(5)}{x}$ [j](javascript:alert(6))

| ![h](BEACON/10.png) |
|---|
| ![i](BEACON/11.png) ` | ` |
"""


@pytest.fixture
def beacon_server() -> Iterator[tuple[str, list[str]]]:
    with beacon() as server:
        yield server


def test_hostile_text_runs_nothing_and_loads_nothing(
    page: str, port: int, visitors: Any, beacon_server: tuple[str, list[str]]
) -> None:
    address, calls = beacon_server
    text = PAYLOADS.replace("BEACON", address)
    title = " ".join(text.split()) * 20
    script = [
        step(title, text),
        step("Two", text[::-1] + text),
        step("Three", "ok", "final_answer"),
    ]
    with on_stage(*script, says(text), port=port):
        visitor = visitors(page)
        visitor.ask(QUESTION)
        visitor.wait_for_end()
        expect(visitor.page.locator(".st-key-question")).to_have_text(QUESTION)
        expect(visitor.steps).to_have_count(3)
        visitor.shoot("hostile")
        for tag in ("img", "script", "iframe", "svg[onload]", "form", "base", "meta", "style"):
            expect(visitor.run.locator(tag)).to_have_count(0)
        expect(visitor.run.locator("a[href^='javascript']")).to_have_count(0)
        label = visitor.steps.first.locator("summary")
        assert "<script>alert(1)</script>" in label.inner_text()
        assert len(label.inner_text()) < 200
        expect(visitor.run).to_contain_text("<iframe srcdoc=")
        visitor.settle()
    assert calls == []
    assert visitor.dialogs == []


def test_the_browser_itself_may_load_nothing_from_outside(page: str) -> None:
    with urllib.request.urlopen(page, timeout=10) as response:
        policy = response.headers["Content-Security-Policy"]
        assert response.headers["X-Frame-Options"] == "DENY"
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert not re.search(r"https?:|\*", policy)


@pytest.mark.parametrize(
    ("header", "status"),
    [("Origin: http://evil.example", 403), ("Host: evil.example", 403), ("X-Own: yes", 101)],
)
def test_a_foreign_host_or_origin_gets_no_socket(page: str, header: str, status: int) -> None:
    place = urlsplit(page)
    host = "" if header.startswith("Host") else f"Host: {place.netloc}\r\n"
    request = (
        f"GET /_stcore/stream HTTP/1.1\r\n{host}{header}\r\nConnection: Upgrade\r\n"
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    with socket.create_connection((place.hostname or "", place.port or 0), timeout=10) as wire:
        wire.sendall(request.encode())
        assert wire.recv(100).decode().split()[1] == str(status)
