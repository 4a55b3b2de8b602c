"""Exports and import in the browser: a run as a file of each form, and back."""

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
STEP, ANSWER = ("Thought 2", f"About {QUESTION}: 2."), f"The answer to {QUESTION}"


@pytest.fixture
def visitor(page: str, port: int, visitors: Any) -> Iterator[Visitor]:
    """Somebody who looks at an answer."""
    with on_stage(thinking(), port=port):
        it: Visitor = visitors(page)
        it.ask(QUESTION)
        it.sees(ANSWER)
        it.wait_for_end()
        yield it


def test_a_run_is_exported_in_every_form(visitor: Visitor, tmp_path: Path) -> None:
    the_markdown_holds_steps_and_answer(visitor)
    the_messages_are_what_openais_api_takes(visitor)
    the_html_page_stands_alone(visitor, tmp_path / "run.html")
    the_json_is_the_whole_run(visitor)
    the_markdown_holds_the_answer_alone_where_that_is_chosen(visitor)


def the_markdown_holds_steps_and_answer(visitor: Visitor) -> None:
    text = visitor.take("markdown")
    for part in (QUESTION, *STEP, ANSWER):
        assert part in text


def the_messages_are_what_openais_api_takes(visitor: Visitor) -> None:
    messages = json.loads(visitor.take("messages"))
    assert [message["role"] for message in messages] == ["user", "assistant"]
    assert messages[0] == {"role": "user", "content": QUESTION}
    for part in (*STEP, ANSWER):
        assert part in messages[-1]["content"]


def the_html_page_stands_alone(visitor: Visitor, file: Path) -> None:
    file.write_text(visitor.take("html"), encoding="utf-8")
    page, asked = visitor.context.new_page(), []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(file.as_uri())
    for part in (STEP[0], ANSWER):
        expect(page.locator("body")).to_contain_text(part)
    assert asked == [file.as_uri()]
    page.screenshot(path="tests/output/taken.png")
    page.close()


def the_json_is_the_whole_run(visitor: Visitor) -> None:
    trace = trace_from_json(json.loads(visitor.take("json")))
    assert isinstance(trace.end, Answer)
    assert len(trace.steps) == 3


def the_markdown_holds_the_answer_alone_where_that_is_chosen(visitor: Visitor) -> None:
    visitor.button("export").first.click()
    visitor.page.get_by_text("With the steps").click()
    visitor.settle()
    visitor.leave()
    text = visitor.take("markdown")
    assert STEP[0] not in text
    assert ANSWER in text


def test_a_run_that_was_exported_is_shown_again_and_a_file_that_is_none_is_refused(
    visitor: Visitor, tmp_path: Path
) -> None:
    run, other = tmp_path / "run.json", tmp_path / "other.json"
    run.write_text(visitor.take("json"), encoding="utf-8")
    other.write_text('{"version": 1}', encoding="utf-8")
    shown, first = visitor.run.inner_text(), visitor.page.url
    visitor.begin_anew()
    visitor.button("import").first.click()
    bring(visitor, other)
    visitor.sees("expected a trace")
    bring(visitor, run)
    visitor.sees(ANSWER)
    visitor.wait_for_end()
    assert visitor.page.url != first
    expect(visitor.run).to_have_text(shown, use_inner_text=True)


def bring(visitor: Visitor, file: Path) -> None:
    visitor.page.get_by_test_id("stFileUploaderDropzoneInput").set_input_files(file)
