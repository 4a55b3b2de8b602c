"""What is known of a served model beside its name: who says it, and when nobody does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from serving.served import Served, describe, publish, served_at
from tests.processes import start

PORT, NAME = 8000, "Qwen2.5-Coder-1.5B-Instruct"
ADDRESS = f"http://127.0.0.1:{PORT}/v1"
FACTS = Served(NAME, "Qwen2.5-Coder 1.5B", "int8", 12.3, by_us=True)
BY_NAME = Served(NAME, "Qwen2.5-Coder 1.5B")  # what the catalogue alone tells


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path / "stepwise"


def test_it_is_known_while_it_is_served_and_no_longer() -> None:
    with publish(FACTS, PORT):
        assert served_at(ADDRESS, NAME) == FACTS
        assert served_at(f"http://localhost:{PORT}/v1", NAME) == FACTS
    assert served_at(ADDRESS, NAME) == BY_NAME


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("http://127.0.0.1:8001/v1", NAME),  # another server of this machine
        (f"http://example.org:{PORT}/v1", NAME),  # another machine's
        (ADDRESS, "SmolLM2-135M-Instruct"),  # another model in its place
    ],
)
def test_what_is_noted_of_one_server_says_nothing_of_another(address: str, name: str) -> None:
    with publish(FACTS, PORT):
        found = served_at(address, name)
    assert (found.precision, found.speed, found.by_us) == ("", None, False)


def test_a_model_that_nobody_knows_goes_by_its_name() -> None:
    assert served_at(ADDRESS, "llama3.1:8b") == Served("llama3.1:8b", "llama3.1:8b")


def test_the_note_of_one_that_was_killed_is_not_believed(state: Path) -> None:
    gone = start(["true"])
    gone.wait()
    with publish(FACTS, PORT):
        file = state / f"served-{PORT}.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "pid": gone.pid}))
        assert served_at(ADDRESS, NAME) == BY_NAME


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"pid": 1}', '{"pid": 1, "other": 2}'])
def test_a_broken_note_is_none(state: Path, text: str) -> None:
    state.mkdir()
    (state / f"served-{PORT}.json").write_text(text)
    assert served_at(ADDRESS, NAME) == BY_NAME


def test_what_cannot_be_noted_is_served_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    with publish(FACTS, PORT):
        assert served_at(ADDRESS, NAME) == BY_NAME


def test_a_server_without_a_port_in_its_address_is_asked_for_at_80() -> None:
    with publish(FACTS, 80):
        assert served_at("http://127.0.0.1/v1", NAME) == FACTS


def test_an_address_that_is_none_is_no_error() -> None:
    assert served_at("http://127.0.0.1:99999/v1", NAME) == BY_NAME


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (FACTS, "Qwen2.5-Coder 1.5B, int8, about 12 tokens/s"),
        (Served("m", "M", "bfloat16", 0.4), "M, bfloat16, under 1 token/s"),
        (Served("m", "M", speed=3.6), "M, about 3.5 tokens/s"),
        (Served("m", "M", speed=1.1), "M, about 1 token/s"),
        (Served("m", "M", speed=9.9), "M, about 10 tokens/s"),
        (Served("m", "M"), "M"),
    ],
)
def test_it_is_told_in_words_as_far_as_it_is_known(facts: Served, words: str) -> None:
    assert describe(facts) == words
