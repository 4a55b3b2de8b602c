"""Every way of thinking on the page: badges, corrections, the path, the choice, a swapped model."""

from __future__ import annotations

import re
from typing import Any

from tests.page_browser import DESKTOP, PHONE, SERVED, Visitor, expect, models
from tests.real_servers import Server
from tests.reciter import AYA as ASKED
from tests.reciter import NAME as RECITER
from tests.stub import NEVER, Script, Stub, recites, says, status, step, thinks
from tests.switch import Switch

SATORI, SMALL, QWEN = "Satori-7B-Round2", "SmolLM2-135M-Instruct", "Qwen3-8B"
TOKEN = re.compile(r"<\|\w+\|>|</?think>")
META = ("<|continue|>", "<|reflect|>", "<|explore|>")
AYA = (
    "<|continue|>First, we determine the time Aya walks: $$ s(4 - \\frac{t}{60}) = 9 $$\n"
    "<|continue|>After simplifying, the answer is: $$ \\boxed{192} $$\n"
    "<|reflect|>Wait, let's reassess my previous conclusion. It is too long for $t < 4$.\n"
    "<|explore|>Let's switch to a new solution. From $t = 24$ we get $s = 2.5$.\n"
    "<|continue|>At 3 kilometers per hour it takes $180 + 24$ minutes, "
    "so the answer is: $$ \\boxed{\\frac{408}{2}} $$"
)
THOUGHT = (
    "Okay, I count the letters one by one.\n\n"
    "There are two, I think: $1 < 2$.\n\n"
    "Wait, the word ends in r, r, y.\n\n"
    "Alternatively, I split it: one and two."
)


def serving(name: str, *script: Script, port: int, special: tuple[str, ...] = ()) -> Stub:
    return Stub(*script, models=models(name), port=port, special=special)


def in_json() -> list[Any]:
    return [step("One", "a"), step("Two", "b"), step("Three", "c", "final_answer"), says("Done.")]


# -- Satori's


def test_a_coat_chain_shows_badges_a_correction_and_its_path(
    page: str, port: int, visitors: Any
) -> None:
    with serving(SATORI, recites(AYA), port=port) as stub:
        visitor = visitors(page)
        visitor.ask("How many minutes does it take?")
        visitor.wait_for_end()
        expect(visitor.steps).to_have_count(5)
        kinds = ("Continue", "Continue", "Reflect", "Explore", "Continue")
        for number, kind in enumerate(kinds):
            expect(visitor.steps.nth(number).locator("summary")).to_contain_text(kind)
        path = visitor.page.locator(".st-key-path svg g.node")
        expect(path).to_have_count(6)
        shown = visitor.run.inner_text()
        expect(visitor.unfold(3)).to_contain_text("Wait, let's reassess my previous conclusion")
        corrected = visitor.unfold(5).get_by_text("Corrected: 192, then")
        expect(corrected).to_have_count(1)
        expect(corrected.locator(".katex")).to_have_count(1)
        expect(visitor.run).to_contain_text(f"{SATORI} · COAT")
        expect(visitor.page.locator("body")).not_to_contain_text(TOKEN, use_inner_text=True)
        assert "prompt" in stub.requests[0]
    visitor.page.reload()
    visitor.wait_for_end()
    expect(path).to_have_count(6)
    expect(visitor.run).to_have_text(shown, use_inner_text=True)


def test_the_kind_of_a_coat_step_is_seen_while_it_is_written(
    page: str, port: int, visitors: Any
) -> None:
    slow = "<|reflect|>Wait, this comes slowly. " + "More follows. " * 40
    with serving(SATORI, recites("<|continue|>So it is 4.\n" + slow, until=NEVER), port=port):
        visitor = visitors(page)
        visitor.ask("Slowly?")
        second = visitor.steps.nth(1)
        expect(second).to_contain_text("More follows")
        expect(second.locator("summary")).to_contain_text("Reflect")
        text = second.inner_text()
        assert "tokens" not in text
        assert text.lower().count("reflect") == 1
        visitor.shoot("ways-coat-live")
        visitor.stop()
        visitor.wait_for_end()


def test_a_coat_chain_fits_every_width_and_theme_in_chinese(
    page: str, port: int, visitors: Any
) -> None:
    with serving(SATORI, recites(AYA + 20 * "<|continue|>On.\n<|reflect|>Hm."), port=port) as stub:
        visitor = visitors(page, locale="zh-CN")
        visitor.ask("How many minutes does it take?")
        visitor.wait_for_end()
        expect(visitor.page.locator(".st-key-path svg g.node")).to_have_count(46)
        fits(visitor, "long")
        stub.script = [recites(AYA)]
        visitor.begin_anew()
        visitor.ask("How many minutes does it take?")
        visitor.wait_for_end()
        expect(visitor.page.locator(".st-key-path svg g.node")).to_have_count(6)
        fits(visitor, "short")


def fits(visitor: Visitor, name: str) -> None:
    for width in (DESKTOP[0], PHONE[0]):
        visitor.page.set_viewport_size({"width": width, "height": 1900})
        for scheme in visitor.in_both_themes():
            visitor.shoot(f"ways-coat-{name}-{width}-{scheme}")
            assert visitor.page.evaluate("document.documentElement.scrollWidth") <= width
    visitor.page.set_viewport_size({"width": DESKTOP[0], "height": DESKTOP[1]})


def test_an_unknown_model_with_satoris_tokens_that_was_cut_is_asked_for_its_answer(
    page: str, port: int, visitors: Any
) -> None:
    cut = recites(AYA[:-40], finish_reason="length")
    with serving("My-Satori", cut, recites("204} $$"), port=port, special=META) as stub:
        visitor = visitors(page)
        visitor.ask("Cut?")
        visitor.wait_for_end()
        expect(visitor.run).to_contain_text("My-Satori · COAT")
        visitor.sees("The thought was cut off before its end")
        visitor.page.get_by_role("button", name="Ask for the answer now").click()
        expect(visitor.page.get_by_role("button", name="Ask for the answer now")).to_have_count(0)
        visitor.wait_for_end()
        expect(visitor.steps).to_have_count(5)
        expect(visitor.run.locator(".katex", has_text="204")).to_have_count(1)
        assert stub.requests[1]["prompt"].endswith("\\boxed{")


def test_a_chain_without_tokens_or_a_box_says_so(page: str, port: int, visitors: Any) -> None:
    text = "First, we add. It is 2.\nWait, let's reassess my previous conclusion. It is 3."
    with serving(SATORI, recites(text), port=port):
        visitor = visitors(page)
        visitor.ask("Hidden?")
        visitor.wait_for_end()
        visitor.sees("hides the model's step tokens")
        visitor.sees("named no final answer")


# -- a model's own thinking, and none


def test_a_models_own_thinking_becomes_steps_and_its_answer_stands_apart(
    page: str, port: int, visitors: Any
) -> None:
    with serving(QWEN, thinks(THOUGHT, "There are **three**."), port=port):
        visitor = visitors(page)
        visitor.ask("How many?")
        visitor.wait_for_end()
        expect(visitor.steps).to_have_count(3)
        expect(visitor.steps.nth(1).locator("summary")).to_contain_text("Reflect")
        expect(visitor.steps.nth(2).locator("summary")).to_contain_text("Explore")
        expect(visitor.run).not_to_contain_text("Continue")
        expect(visitor.run.locator("strong", has_text="three")).to_have_count(1)
        expect(visitor.run).to_contain_text(f"{QWEN} · Own thinking")
        visitor.page.locator(".st-key-path svg g.node").first.wait_for()
        visitor.shoot("ways-native")


def test_the_plain_answer_is_chosen_for_the_next_question_and_has_no_steps(
    page: str, port: int, visitors: Any
) -> None:
    with serving(SMALL, says("It is **four**."), port=port) as stub:
        visitor = visitors(page)
        expect(visitor.way).to_contain_text("JSON steps")
        visitor.way.click()
        visitor.page.get_by_role("radio").first.wait_for(state="attached")
        visitor.shoot("ways-menu")
        visitor.page.keyboard.press("Escape")
        visitor.choose_way("Direct")
        visitor.ask("What is 2+2?")
        visitor.wait_for_end()
        visitor.sees("four")
        expect(visitor.run).to_contain_text(f"{SMALL} · Direct")
        expect(visitor.run.locator('[data-testid="stExpander"]')).to_have_count(0)
        assert len(stub.requests) == 1
        assert "response_format" not in stub.requests[0]
        visitor.shoot("ways-direct")


def test_a_run_goes_on_in_the_way_it_was_made(page: str, port: int, visitors: Any) -> None:
    broken = [*in_json()[:2], status(401, {"error": "no"})]
    with serving(SATORI, *broken, *in_json()[2:], port=port) as stub:
        visitor = visitors(page)
        expect(visitor.way).to_contain_text("COAT")
        visitor.choose_way("JSON steps")
        visitor.ask("On?")
        visitor.wait_for_end()
        expect(visitor.steps).to_have_count(2)
        visitor.choose_way("COAT (the model's own)")
        visitor.page.get_by_role("button", name="Go on from step 3").click()
        visitor.sees("Done.")
        visitor.wait_for_end()
        expect(visitor.run).to_contain_text(f"{SATORI} · JSON steps")
        expect(visitor.run).not_to_contain_text("Continue")
        expect(visitor.page.locator(".st-key-path")).to_have_count(0)
        assert all("messages" in request for request in stub.requests)


# -- another model in its place


def test_a_swapped_model_is_said_and_a_run_keeps_the_model_and_way_it_was_made_with(
    page: str, port: int, visitors: Any
) -> None:
    with serving(SMALL, says("Plainly."), port=port):
        visitor = visitors(page)
        expect(visitor.way).to_contain_text("JSON steps")
        visitor.choose_way("Direct")
        visitor.ask("Before?")
        visitor.wait_for_end()
        first = visitor.page.url
    with serving(SATORI, recites(AYA), port=port):
        toast = visitor.page.get_by_test_id("stToast")
        expect(toast).to_contain_text("Now served: Satori 7B", timeout=30_000)
        visitor.shoot("ways-swapped")
        expect(visitor.way).to_contain_text("COAT")
        expect(visitor.run).to_contain_text(f"{SMALL} · Direct")
        visitor.ask("After?")
        expect(visitor.run).to_contain_text(f"{SATORI} · COAT")
        visitor.wait_for_end()
        expect(visitor.steps).to_have_count(5)
        visitor.page.goto(first)
        visitor.wait_for_end()
        expect(visitor.run).to_contain_text(f"{SMALL} · Direct")
        visitor.sees("Plainly.")


def test_a_real_server_is_swapped_for_another_under_the_open_page(
    page: str, port: int, reciter: Server, visitors: Any
) -> None:
    with (
        Stub(says("Paris."), models=models(SERVED)) as plain,
        Switch(plain.base_url, port) as switch,
    ):
        visitor = visitors(page)
        expect(visitor.way).to_contain_text("JSON steps")
        visitor.choose_way("Direct")
        visitor.ask("What is the capital of France?")
        visitor.wait_for_end()
        first = visitor.page.url
        switch.to(reciter.base_url)
        toast = visitor.page.get_by_test_id("stToast")
        expect(toast).to_contain_text(f"Now served: {RECITER}")
        expect(visitor.way).to_contain_text("COAT")
        visitor.begin_anew()
        visitor.ask(ASKED)
        expect(visitor.run).to_contain_text(f"{RECITER} · COAT")
        visitor.wait_for_end()
        shows_satoris_steps(visitor)
        visitor.page.goto(first)
        visitor.wait_for_end()
        expect(visitor.run).to_contain_text(f"{SERVED} · Direct")


def shows_satoris_steps(visitor: Visitor) -> None:
    expect(visitor.steps).to_have_count(6)
    for number, kind in ((2, "Continue"), (3, "Reflect"), (4, "Explore")):
        expect(visitor.steps.nth(number).locator("summary")).to_contain_text(kind)
    expect(visitor.unfold(6)).to_contain_text("Corrected: 192, then 204")
    expect(visitor.page.locator(".st-key-path svg g.node")).to_have_count(7)
    expect(visitor.page.locator("body")).not_to_contain_text(TOKEN, use_inner_text=True)
    visitor.shoot("ways-coat-real")
