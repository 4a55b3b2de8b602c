"""`python -m gateway` as a person starts it: what it refuses, how it waits, serves and ends."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute, Route

from gateway.__main__ import GATEWAY_CALLS, guarded_app, main, without_secrets
from reasoning.detection import PROBE
from reasoning.endpoint import Endpoint
from reasoning.logs import LOG_CONTENT
from serving.gate import KEY
from tests.gateway_process import PATIENCE, SECRET, Running, started
from tests.gateway_server import events_of, thinker
from tests.processes import free_port, is_free, until
from tests.stub import NEVER, Play, Script, Stub, raw, says, step

QUESTION = "What would Rosa eat?"
LONG = "sesame-0815-and-twenty-one-letters"
ASKED = {"model": "stub-steps", "messages": [{"role": "user", "content": QUESTION}]}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One for all tests; its collector of spans is not there."""
    log = tmp_path_factory.mktemp("gateway") / "log"
    collector = f"http://127.0.0.1:{free_port()}"
    running = started(log, OTEL_EXPORTER_OTLP_ENDPOINT=collector)
    yield running
    running.process.kill()
    running.process.wait(30)


def probed(play: Play) -> Script:
    """Plays for a chain; a gateway that no test has asked before finds out how to ask first."""

    def reply(request: dict[str, Any]) -> Play:
        return says("It is 2.") if request["messages"][-1]["content"] == PROBE else play

    return reply


# -- what it refuses


@pytest.mark.parametrize(
    ("words", "environment", "status", "said"),
    [
        (["--host", "0.0.0.0"], {}, 2, f"set {KEY}"),
        (["--host", "0.0.0.0"], {KEY: SECRET}, 2, "32 characters"),
        ([], {KEY: " "}, 2, "nothing but blanks"),
        (["--host", "192.0.2.77"], {KEY: LONG}, 1, "192.0.2.77 is no address"),
        (["--port", "0"], {}, 2, "expected a port"),
        (["--port", "65536"], {}, 2, "expected a port"),
        (["--por", "8001"], {}, 2, "--por"),
        (
            [],
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            1,
            "http/protobuf",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_started_is_said_in_one_line(
    words: list[str],
    environment: dict[str, str],
    status: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv(KEY, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    port = [] if "--port" in words else ["--port", str(free_port())]
    try:
        ended = main([*words, *port])
    except SystemExit as end:  # argparse's
        ended = int(end.code or 0)
    assert ended == status
    shown = capsys.readouterr().err
    assert said in shown.splitlines()[-1]
    assert SECRET not in shown


def test_a_port_in_use_names_who_holds_it(
    gateway: Running, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(KEY, raising=False)
    assert main(["--port", str(gateway.port)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"Port {gateway.port} is in use by process {gateway.process.pid} (" in line
    assert "--port" in line


def test_no_password_of_the_model_servers_address_is_printed() -> None:
    assert without_secrets("https://me:secret@host:1/v1") == "https://host:1/v1"


# -- how it serves


def test_it_starts_before_the_model_server_and_is_ready_once_that_is(gateway: Running) -> None:
    status, body = gateway.ask("GET", "/health", key="")
    assert (status, json.loads(body)["status"]) == (503, "waiting")
    with Stub(thinker, port=gateway.upstream):
        status, body = gateway.ask("GET", "/health", key="")
    assert (status, json.loads(body)) == (200, {"status": "ready", "model": "stub"})


@pytest.mark.parametrize("key", ["", "sesame-0816"])
def test_all_but_health_needs_the_key(gateway: Running, key: str) -> None:
    calls = [("GET", "/v1/models"), ("GET", "/metrics"), ("POST", "/v1/chat/completions")]
    with Stub(thinker, port=gateway.upstream) as stub:
        for method, path in calls:
            assert gateway.ask(method, path, ASKED, key)[0] == 401
        assert stub.requests == []


def test_what_is_not_named_is_not_there(gateway: Running) -> None:
    for path in ("/docs", "/redoc", "/v1/embeddings", "/v1/chat/completions/", "/invocations"):
        status, body = gateway.ask("POST", path, ASKED)
        assert (status, json.loads(body)["error"]["code"]) == (404, "unknown_url")


def test_a_body_that_is_too_long_is_refused_before_it_is_read(gateway: Running) -> None:
    long = {**ASKED, "user": "x" * 9_000_000}
    status, body = gateway.ask("POST", "/v1/chat/completions", long)
    assert (status, json.loads(body)["error"]["code"]) == (413, "body_too_long")


def test_the_openai_client_reads_the_refusals(gateway: Running) -> None:
    base_url = f"http://127.0.0.1:{gateway.port}/v1"
    with openai.OpenAI(base_url=base_url, api_key="wrong", max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError) as unknown:
            client.models.list()
        assert unknown.value.code == "invalid_api_key"
    with openai.OpenAI(base_url=base_url, api_key=SECRET, max_retries=0) as client:
        with pytest.raises(openai.NotFoundError, match="POST /v1/chat/completions"):
            client.embeddings.create(model="stub", input="x")
        with pytest.raises(openai.APIStatusError) as long:
            client.completions.create(model="stub", prompt="x" * 9_000_000)
        assert (long.value.status_code, long.value.code) == (413, "body_too_long")


def test_a_chain_is_answered_and_counted(gateway: Running) -> None:
    before = gateway.metric("stepwise_chains_total", end="answer")
    with Stub(thinker, port=gateway.upstream):
        status, body = gateway.ask("POST", "/v1/chat/completions", ASKED)
    assert status == 200, body
    assert json.loads(body)["choices"][0]["message"]["content"] == "The answer is 42."
    assert gateway.metric("stepwise_chains_total", end="answer") == before + 1
    assert gateway.metric("stepwise_steps_total", model="stub-steps", way="json_steps") >= 3
    assert gateway.metric("stepwise_time_to_first_token_seconds_count") >= 1
    assert gateway.metric("stepwise_completion_tokens_total") > 0
    assert gateway.metric("stepwise_prompt_tokens_total") >= 40  # ten a request, by the stub
    assert gateway.metric("stepwise_chains_running") == 0


def test_a_client_that_goes_away_is_counted_as_gone(gateway: Running) -> None:
    before = gateway.metric("stepwise_chains_total", end="gone")
    hanging = raw(b"HTTP/1.1 200 X\r\nContent-Type: text/event-stream\r\n\r\n", end="hang")
    with Stub(probed(hanging), port=gateway.upstream):
        client = gateway.sent("POST", "/v1/chat/completions", ASKED)
        until(lambda: gateway.metric("stepwise_chains_running") == 1)
        client.close()
        until(lambda: gateway.metric("stepwise_chains_total", end="gone") == before + 1)
    assert gateway.metric("stepwise_chains_running") == 0


def test_the_gates_list_is_what_the_gateway_answers() -> None:
    app: Any = guarded_app(Endpoint("http://127.0.0.1:1/v1"), None, "")._app
    there = set(_calls(app.routes))
    listed = {(method, path) for path, methods in GATEWAY_CALLS.items() for method in methods}
    assert there == listed


def _calls(routes: list[BaseRoute]) -> Iterator[tuple[str, str]]:
    for route in routes:
        if isinstance(route, (Route, APIRoute)):
            for method in (route.methods or set()) - {"HEAD"}:
                yield method, route.path.replace("{name:path}", "*")


@pytest.mark.parametrize(("words", "told"), [([], None), (["--log-content"], "1")])
def test_the_log_holds_content_where_that_is_typed(
    words: list[str], told: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, str] = {}
    monkeypatch.delenv(LOG_CONTENT, raising=False)
    monkeypatch.setattr("gateway.__main__.start_logging", given.update)
    monkeypatch.setattr("gateway.__main__.serve", lambda *_: 0)
    assert main(["--port", str(free_port()), *words]) == 0
    assert given.get(LOG_CONTENT) == told


# -- how it ends, and what it leaves behind


def test_it_ends_while_a_stream_is_open_and_no_word_or_key_is_in_its_log(
    gateway: Running,
) -> None:
    """The last test: it ends the gateway of all, whose log is of a whole life then."""
    assert gateway.ask("POST", "/v1/chat/completions", ASKED)[0] >= 500
    endless = step("The answer is 42.", QUESTION * 200, until=NEVER)
    with Stub(probed(endless), port=gateway.upstream):
        asked = {**ASKED, "stream": True}
        stream = gateway.sent("POST", "/v1/chat/completions", asked).getresponse()
        assert stream.readline().startswith(b"data: ")
        gateway.process.send_signal(signal.SIGTERM)
        assert gateway.process.wait(PATIENCE) == 130
        *_, failed, end = events_of(stream.read().decode())
    assert (failed["error"]["code"], end) == ("shutting_down", "[DONE]")
    said = gateway.log.read_text()
    for secret in (SECRET, "Rosa", "The answer is"):
        assert secret not in said
    assert said.count("collector takes no spans") == 1
    logged = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    assert {"A run begins", "A run was stopped"} <= {it["message"] for it in logged}
    assert all(it["run"].startswith("chatcmpl-") for it in logged if "run" in it)
    until(lambda: is_free(gateway.port), 10)
