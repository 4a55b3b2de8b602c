"""What is taken away and looked at in the browser: files, the clipboard, charts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reasoning.events import Answer
from reasoning.traces import trace_from_json
from tests.page_browser import Visitor, expect, on_stage, thinking

QUESTION = "What is taken?"


@pytest.fixture
def visitor(page: str, port: int, visitors: Any) -> Iterator[Visitor]:
    """Somebody who looks at an answer."""
    with on_stage(thinking(), port=port):
        it: Visitor = visitors(page)
        it.ask(QUESTION)
        it.sees(f"The answer to {QUESTION}")
        it.wait_for_end()
        yield it


def test_the_markdown_holds_steps_and_answer_or_the_answer_alone(visitor: Visitor) -> None:
    whole = visitor.take("markdown")
    for part in (QUESTION, "Thought 2", f"About {QUESTION}: 2.", f"The answer to {QUESTION}"):
        assert part in whole
    visitor.button("export").first.click()
    visitor.page.get_by_text("With the steps").click()
    visitor.settle()
    visitor.leave()
    short = visitor.take("markdown")
    assert "Thought 2" not in short
    assert f"The answer to {QUESTION}" in short


def test_the_messages_are_what_openais_api_takes(visitor: Visitor) -> None:
    messages = json.loads(visitor.take("messages"))
    assert [message["role"] for message in messages] == ["user", "assistant"]
    assert messages[0] == {"role": "user", "content": QUESTION}
    for part in ("Thought 2", f"About {QUESTION}: 2.", f"The answer to {QUESTION}"):
        assert part in messages[-1]["content"]


def test_the_html_page_stands_alone(visitor: Visitor, tmp_path: Path) -> None:
    file = tmp_path / "run.html"
    file.write_text(visitor.take("html"), encoding="utf-8")
    page, asked = visitor.context.new_page(), []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(file.as_uri())
    expect(page.locator("body")).to_contain_text(f"The answer to {QUESTION}")
    expect(page.locator("body")).to_contain_text("Thought 2")
    assert asked == [file.as_uri()]
    page.screenshot(path="tests/output/taken.png")


def test_a_run_that_was_taken_away_is_shown_again(visitor: Visitor, tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    file.write_text(visitor.take("json"), encoding="utf-8")
    trace = trace_from_json(json.loads(file.read_text(encoding="utf-8")))
    assert isinstance(trace.end, Answer)
    assert len(trace.steps) == 3
    shown, first = visitor.run.inner_text(), visitor.page.url
    visitor.begin_anew()
    bring(visitor, file)
    visitor.sees(f"The answer to {QUESTION}")
    visitor.wait_for_end()
    assert visitor.page.url != first
    expect(visitor.run).to_have_text(shown, use_inner_text=True)


def test_a_file_that_is_no_run_is_refused_in_words(visitor: Visitor, tmp_path: Path) -> None:
    file = tmp_path / "other.json"
    file.write_text('{"version": 1}', encoding="utf-8")
    bring(visitor, file)
    visitor.sees("expected a trace")


def bring(visitor: Visitor, file: Path) -> None:
    visitor.button("import").first.click()
    visitor.page.get_by_test_id("stFileUploaderDropzoneInput").set_input_files(file)


def test_step_and_answer_are_copied_as_the_model_wrote_them(visitor: Visitor) -> None:
    visitor.context.grant_permissions(["clipboard-read", "clipboard-write"])
    visitor.unfold(2).get_by_role("button", name="Copy step 2").click()
    expect(visitor.steps.nth(1)).to_contain_text("Copied")
    assert clipboard(visitor) == f"About {QUESTION}: 2."
    visitor.page.get_by_role("button", name="Copy the answer").click()
    visitor.page.wait_for_function(
        "text => navigator.clipboard.readText().then(it => it.startsWith(text))",
        arg="The answer to",
    )


def clipboard(visitor: Visitor) -> str:
    text: str = visitor.page.evaluate("navigator.clipboard.readText()")
    return text


def test_charts_are_drawn_when_they_are_asked_for_and_say_their_figures(
    visitor: Visitor,
) -> None:
    expect(visitor.page.locator("canvas, [data-testid*='Chart']")).to_have_count(0)
    visitor.page.get_by_text("Charts", exact=True).click()
    visitor.sees("Seconds for each step")
    visitor.sees("Tokens for each step")
    charts = visitor.page.get_by_test_id("stEChartsChart")
    expect(charts).to_have_count(2)
    expect(charts.first.locator("canvas, svg").first).to_be_visible()
    visitor.page.set_viewport_size({"width": 1280, "height": 1400})
    visitor.shoot("charts")
