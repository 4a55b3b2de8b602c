"""What is chosen in the browser, the keyboard, and the first visit."""

from __future__ import annotations

import json
from typing import Any

from tests.page_browser import (
    PageServer,
    Visitor,
    expect,
    on_stage,
    thinking,
    until,
)
from tests.stub import NEVER, step

PIRATE = "Answer like a pirate."


def thought(visitor: Visitor, question: str) -> None:
    visitor.ask(question)
    visitor.sees(f"The answer to {question}")
    visitor.wait_for_end()


def stand_open(visitor: Visitor, *wanted: bool) -> None:
    """Whether each step stands open: it does, after a moment."""

    def seen() -> bool:
        every = visitor.steps.locator("> details").all()
        return tuple(box.evaluate("details => details.open") for box in every) == wanted

    until(seen)


# -- the first visit


def test_a_first_visit_shows_a_sentence_three_examples_and_nothing_else(
    page: str, port: int, visitors: Any
) -> None:
    with on_stage(thinking(), port=port) as stub:
        visitor = visitors(page)
        examples = visitor.page.locator("[class*='st-key-example_'] button")
        expect(examples).to_have_count(3)
        expect(examples.first).to_be_enabled(timeout=60_000)
        visitor.sees("Ask a question and watch an open model")
        expect(visitor.page.locator(".st-key-bar button:visible")).to_have_count(0)
        expect(visitor.threads).to_have_count(0)
        assert visitor.page.evaluate("document.activeElement.tagName") in ("TEXTAREA", "BODY")
        question = examples.nth(1).inner_text()
        examples.nth(1).click()
        visitor.sees("The answer to")
        visitor.wait_for_end()
        assert stub.requests[0]["messages"][1]["content"].startswith(question)


# -- settings


def test_how_steps_fold_is_a_choice(page: str, port: int, visitors: Any) -> None:
    with on_stage(thinking(), port=port):
        visitor = visitors(page, size=(1280, 1400))  # all steps open, and the menu above them
        thought(visitor, "Fold?")
        stand_open(visitor, False, False, False)
        for choice, wanted in (("All open", True), ("All folded", False), ("Current open", False)):
            visitor.open_settings().get_by_text(choice, exact=True).click()
            visitor.leave()
            stand_open(visitor, wanted, wanted, wanted)


def test_the_step_being_written_is_open_and_finished_ones_fold(
    page: str, port: int, visitors: Any
) -> None:
    slow = step("Slow", "word " * 400, until=NEVER)
    with on_stage(step("One", "First."), step("Two", "Second."), slow, port=port):
        visitor = visitors(page)
        visitor.ask("Current?")
        expect(visitor.steps.nth(2)).to_contain_text("word word", timeout=60_000)
        stand_open(visitor, False, False, True)
        visitor.stop()
        visitor.wait_for_end()


def test_settings_bind_the_next_question_and_are_remembered(
    page: str, port: int, visitors: Any
) -> None:
    with on_stage(thinking(steps=40), port=port) as stub:
        visitor = visitors(page)
        visitor.set_slider("Steps, at least and at most", "Home")
        menu = visitor.open_settings()
        most = menu.locator('[data-testid="stSlider"]').first.locator("input").nth(1)
        most.press("Home")
        most.press("ArrowRight")
        visitor.settle()
        visitor.leave()
        visitor.set_slider("Tokens for each step", "Home")
        thought(visitor, "Bound?")
        expect(visitor.steps).to_have_count(2)
        assert stub.requests[0]["max_tokens"] == 100
        visitor.page.reload()
        visitor.settle()
        expect(menu_value(visitor, "Tokens for each step")).to_have_value("100")
        other = visitors(page)
        expect(menu_value(other, "Tokens for each step")).to_have_value("100")
        other.page.locator(".st-key-reset button").click()
        other.settle()
        expect(menu_value(other, "Tokens for each step", opened=True)).to_have_value("600")


def menu_value(visitor: Visitor, label: str, opened: bool = False) -> Any:
    menu = visitor.page.get_by_test_id("stPopoverBody") if opened else visitor.open_settings()
    return menu.get_by_test_id("stSlider").filter(has_text=label).locator("input").first


def test_settings_and_history_survive_a_restart_of_the_page(
    staged: PageServer, port: int, visitors: Any
) -> None:
    with on_stage(thinking(), port=port):
        visitor = visitors(staged.address)
        visitor.set_slider("Tokens for each step", "Home")
        visitor.choose_way("Direct")
        staged.stop()
        staged.start()
        again = visitors(staged.address)
        expect(again.way).to_contain_text("Direct", timeout=60_000)
        expect(menu_value(again, "Tokens for each step")).to_have_value("100")


def test_an_edited_prompt_is_what_is_sent_until_it_is_reset(
    page: str, port: int, visitors: Any
) -> None:
    with on_stage(thinking(), port=port) as stub:
        visitor = visitors(page)
        change_prompt(visitor, "For the answer", PIRATE)
        visitor.shoot("prompts")
        visitor.button("done").click()
        thought(visitor, "Mine?")
        assert "like a pirate" in json.dumps(stub.requests[-1]["messages"][-1])
        visitor.open_settings()
        visitor.button("prompts").click()
        dialog = visitor.page.get_by_role("dialog")
        dialog.locator("summary", has_text="For the answer").click()
        dialog.get_by_role("button", name="Take ours again").click()
        expect(dialog.get_by_role("textbox", name="For the answer")).not_to_have_value(PIRATE)
        expect(dialog.get_by_text("changed", exact=True)).to_have_count(0)
        visitor.button("done").click()
        visitor.begin_anew()
        thought(visitor, "Ours?")
        assert "like a pirate" not in json.dumps(stub.requests[-1]["messages"][-1])


def test_a_prompt_with_an_unknown_word_is_refused_by_name(
    page: str, port: int, visitors: Any
) -> None:
    with on_stage(thinking(), port=port) as stub:
        visitor = visitors(page)
        change_prompt(visitor, "For each step", "Write step $numbre.")
        expect(visitor.page.get_by_role("dialog")).to_contain_text("$numbre")
        visitor.button("done").click()
        visitor.ask("Wrong?")
        visitor.sees("numbre")
        visitor.wait_for_end()
        assert all("numbre" not in json.dumps(request) for request in stub.requests)


def change_prompt(visitor: Visitor, label: str, text: str) -> None:
    visitor.open_settings()
    visitor.button("prompts").click()
    dialog = visitor.page.get_by_role("dialog").filter(has_text="The prompts that will be sent")
    dialog.get_by_text(label, exact=True).first.click()
    box = dialog.get_by_role("textbox", name=label)
    box.fill(text)
    box.press("Control+Enter")
    expect(dialog).to_contain_text("changed")


# -- the keyboard


def test_the_keyboard_alone_asks_stops_and_begins_anew(page: str, port: int, visitors: Any) -> None:
    with on_stage(step("Slow", "word " * 400, until=NEVER), port=port) as stub:
        visitor = visitors(page)
        box = visitor.page.locator('[data-testid="stChatInput"] textarea')
        expect(box).to_be_enabled(timeout=60_000)
        visitor.page.evaluate("document.activeElement.blur()")
        until(lambda: presses(visitor, "/") and in_the_box(visitor))  # the keys are heard soon
        visitor.page.keyboard.type("Keys / only?")
        visitor.page.keyboard.press("Enter")
        visitor.steps.first.wait_for()
        visitor.page.keyboard.press("Escape")
        visitor.sees("Stopped.")
        until(lambda: stub.gone == 1)
        expect(visitor.page.locator(".st-key-question")).to_have_text("Keys / only?")
        visitor.page.keyboard.press("Control+Shift+O")
        visitor.sees("Try one of these")


def presses(visitor: Visitor, key: str) -> bool:
    visitor.page.keyboard.press(key)
    return True


def in_the_box(visitor: Visitor) -> bool:
    return bool(visitor.page.evaluate("document.activeElement.tagName === 'TEXTAREA'"))


def test_escape_closes_a_menu_and_stops_nothing(page: str, port: int, visitors: Any) -> None:
    with on_stage(step("Slow", "word " * 400, until=NEVER), port=port) as stub:
        visitor = visitors(page)
        visitor.ask("Menu?")
        visitor.steps.first.wait_for()
        visitor.way.click()
        visitor.page.get_by_test_id("stPopoverBody").wait_for()
        visitor.leave()
        expect(visitor.button("stop")).to_be_visible()
        assert stub.gone == 0
        visitor.stop()
        visitor.wait_for_end()
