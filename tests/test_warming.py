"""What is asked of a server before the first question, and in which order."""

from __future__ import annotations

import pytest

from gateway.upstream import Upstream
from reasoning.endpoint import Endpoint
from reasoning.parsing import StepAction, step_grammar
from reasoning.prompts import prompt
from reasoning.warming import reader_language, warm
from serving.served import Served, publish
from tests.page_browser import SERVED, models
from tests.stub import Stub, says

Actions = tuple[StepAction, ...]
GO_ON: Actions = ("continue",)
END: Actions = ("final_answer",)
DECIDE = GO_ON + END


async def warmed(language: str) -> tuple[Stub, list[int]]:
    """The server, and how many requests it had answered when it was called ready."""
    with Stub(says("{"), models=models("any", "vllm")) as server:
        endpoint, ready = Endpoint(server.base_url), list[int]()
        await warm(endpoint, language, lambda: ready.append(len(server.requests)))
        await endpoint.close()
    return server, ready


def opening(language: str) -> str:
    return prompt(language, "step", question="?")


@pytest.mark.parametrize(("language", "other"), [("en", "zh"), ("zh", "en")])
async def test_the_readers_language_comes_first_and_is_all_that_is_waited_for(
    language: str, other: str
) -> None:
    server, ready = await warmed(language)
    first, *between, last = server.requests
    assert ready == [1]
    assert first["messages"][0]["content"] == opening(language)
    assert last["messages"][0]["content"] == opening(other)
    assert [asked["prompt"] for asked in between] == ["?", "?"]  # no prompt is read for a grammar


async def test_each_grammar_is_compiled_and_no_more_than_a_token_written() -> None:
    server, _ = await warmed("en")
    grammars = [asked["structured_outputs"]["grammar"] for asked in server.requests]
    assert grammars == [step_grammar(*actions) for actions in (DECIDE, END, GO_ON, DECIDE)]
    assert {asked["max_tokens"] for asked in server.requests} == {1}


@pytest.mark.parametrize(
    ("environment", "language"),
    [
        ({}, "en"),
        ({"LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "C.UTF-8"}, "en"),
        ({"LANG": "fr_FR"}, "en"),
        ({"LC_ALL": "", "LANG": "zh_TW"}, "zh"),
        ({"LC_ALL": "en_GB.UTF-8", "LANG": "zh_CN.UTF-8"}, "en"),
        ({"LC_MESSAGES": "zh_CN", "LANG": "en_US"}, "zh"),
    ],
)
def test_the_locale_tells_the_readers_language(environment: dict[str, str], language: str) -> None:
    assert reader_language(environment) == language


@pytest.mark.parametrize(("by_us", "requests"), [(True, 0), (False, 4)])
async def test_what_serve_sh_serves_here_it_warms_itself(by_us: bool, requests: int) -> None:
    with Stub(says("{"), models=models(SERVED, "vllm")) as server:
        upstream = Upstream(Endpoint(server.base_url))
        with publish(Served(SERVED, "SmolLM2 135M", by_us=by_us), server.port):
            await upstream.warm_up()
        await upstream.endpoint.close()
    assert len(server.requests) == requests
