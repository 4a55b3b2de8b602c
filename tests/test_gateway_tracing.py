"""The spans of a chain: held in memory, and as a collector gets them over HTTP."""

from __future__ import annotations

import http.server
import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes as gen_ai
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.trace import SpanKind, StatusCode

from gateway.observers import Chain, observe
from gateway.tracing import Tracing, TracingError, tracing_from
from reasoning.errors import Busy
from reasoning.events import Event, Settings, Stopped
from tests.processes import free_port
from tests.scripted import Scripted, good, pieces, run

TRACE, PARENT = 0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331
CARRIER = {"traceparent": f"00-{TRACE:032x}-{PARENT:016x}-01"}
CHAIN = Chain("chatcmpl-1", 2, "scripted-vote5", "scripted", "json_steps", CARRIER)
QUESTION = "What would Rosa eat?"
THREE = [good(1), good(2), good(3, "final_answer"), "Bread, said Rosa."]
SECRETS = ("Rosa", "Bread", "Title", "Work")
SECOND = 10**9


class Clock:
    """A second goes by each time it is read."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        self.now += SECOND
        return self.now


def told(traced: Tracing, events: Sequence[Event]) -> None:
    with observe([traced], CHAIN) as observer:
        for event in events:
            observer.event(event)
        observer.spent(100, 80)


def spans_of(events: Sequence[Event]) -> tuple[ReadableSpan, list[ReadableSpan]]:
    """The chain's span, and those below it in the order of their ends."""
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    told(Tracing(provider, Clock()), events)
    *parts, chain = exporter.get_finished_spans()
    assert chain.context is not None
    for part in parts:
        assert part.parent is not None
        assert part.parent.span_id == chain.context.span_id
    return chain, parts


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


async def test_a_chain_is_a_span_below_the_callers_with_one_per_step_and_answer() -> None:
    chain, parts = spans_of(await run(Scripted(*THREE)))
    assert [part.name for part in parts] == ["step", "step", "step", "answer"]
    assert (chain.name, chain.kind) == ("chat scripted-vote5", SpanKind.SERVER)
    assert chain.parent is not None
    assert (chain.parent.trace_id, chain.parent.span_id) == (TRACE, PARENT)


async def test_the_parts_of_a_chain_follow_each_other_within_it() -> None:
    chain, parts = spans_of(await run(Scripted(*THREE)))
    assert chain.start_time is not None
    before = chain.start_time
    for part in parts:
        assert part.start_time is not None
        assert part.end_time is not None
        assert before < part.start_time < part.end_time
        before = part.end_time
    assert chain.end_time is not None
    assert before < chain.end_time


async def test_a_chains_span_bears_the_conventions_names() -> None:
    settings = Settings(temperature=0.5, seed=7, top_p=0.9, budget=5000)
    chain, _ = spans_of(await run(Scripted(*THREE), settings=settings))
    spent = sum(len(text) // 4 for text in THREE)
    assert attributes(chain).pop(gen_ai.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK) > 0
    assert (
        attributes(chain).items()
        >= {
            gen_ai.GEN_AI_OPERATION_NAME: "chat",
            gen_ai.GEN_AI_PROVIDER_NAME: "stepwise",
            gen_ai.GEN_AI_REQUEST_MODEL: "scripted-vote5",
            gen_ai.GEN_AI_RESPONSE_MODEL: "scripted",
            gen_ai.GEN_AI_RESPONSE_ID: "chatcmpl-1",
            gen_ai.GEN_AI_REQUEST_TEMPERATURE: 0.5,
            gen_ai.GEN_AI_REQUEST_TOP_P: 0.9,
            gen_ai.GEN_AI_REQUEST_SEED: 7,
            gen_ai.GEN_AI_REQUEST_MAX_TOKENS: 5000,
            gen_ai.GEN_AI_RESPONSE_FINISH_REASONS: ("stop",),
            gen_ai.GEN_AI_USAGE_INPUT_TOKENS: 100,
            gen_ai.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS: 80,
            gen_ai.GEN_AI_USAGE_OUTPUT_TOKENS: spent,
            "stepwise.way": "json_steps",
            "stepwise.chain.number": 2,
            "stepwise.chain.steps": 3,
        }.items()
    )


async def test_a_steps_span_says_which_it_is_and_what_it_cost() -> None:
    broken = Scripted("no step at all", *THREE)
    _, parts = spans_of(await run(broken))
    first = attributes(parts[0])
    assert first["stepwise.step.number"] == 1
    assert first["stepwise.step.action"] == "continue"
    assert first["stepwise.step.attempts"] == 2
    assert first[gen_ai.GEN_AI_USAGE_OUTPUT_TOKENS] >= len(THREE[0]) // 4
    (retry,) = parts[0].events
    assert retry.name == "retry"
    assert set(retry.attributes or {}) == {"cause", "attempt", "wait"}
    assert not parts[1].events


async def test_a_spans_retries_are_one_count_whatever_failed() -> None:
    busy = Busy("The server is busy (503).", "Try again later.")
    _, parts = spans_of(await run(Scripted(busy, "no step at all", busy, *THREE)))
    told = [(event.attributes or {}) for event in parts[0].events]
    assert [(one["attempt"], one["cause"]) for one in told] == [
        (1, "busy"),
        (2, "not_json"),
        (3, "busy"),
    ]


async def test_an_answer_that_was_cut_ended_for_its_length() -> None:
    chain, _ = spans_of(await run(Scripted(*THREE[:3], pieces("Bread", "length"))))
    assert attributes(chain)[gen_ai.GEN_AI_RESPONSE_FINISH_REASONS] == ("length",)


async def test_a_failure_marks_the_part_and_the_chain_with_its_code() -> None:
    busy = Busy("The server is busy (503).", "Try again later.", 200.0)
    events = await run(Scripted(THREE[0], busy), settings=Settings(attempts=1))
    chain, parts = spans_of(events)
    assert [part.name for part in parts] == ["step", "unfinished"]
    for span in (chain, parts[-1]):
        assert attributes(span)[ERROR_TYPE] == "busy"
        assert span.status.status_code is StatusCode.ERROR
    assert parts[0].status.status_code is StatusCode.UNSET


async def test_a_client_that_goes_away_is_no_error_and_leaves_no_span_open() -> None:
    events = await run(Scripted(*THREE))
    chain, parts = spans_of([*events[:12], Stopped(1.0)])
    assert parts[-1].name == "unfinished"
    assert chain.status.status_code is StatusCode.UNSET


async def test_no_word_of_a_question_or_a_reply_is_in_a_span() -> None:
    events = await run(Scripted("Rosa says no", *THREE), QUESTION)
    chain, parts = spans_of(events)
    text = " ".join(span.to_json() for span in (chain, *parts))
    assert not [word for word in SECRETS if word in text]


# -- over HTTP, to a collector


class Collector(http.server.ThreadingHTTPServer):
    """Takes spans as OTLP over HTTP, and remembers them; answers with `status`."""

    def __init__(self, status: int = 200) -> None:
        super().__init__(("127.0.0.1", 0), Taking)
        self.status = status
        self.taken: list[ExportTraceServiceRequest] = []
        self.paths: list[str] = []
        self.came = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Taking(http.server.BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.paths.append(self.path)
        self.server.taken.append(ExportTraceServiceRequest.FromString(body))
        self.server.came.set()
        self.send_response(self.server.status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def collecting(status: int = 200) -> Iterator[Collector]:
    with Collector(status) as collector:
        thread = threading.Thread(target=collector.serve_forever, daemon=True)
        thread.start()
        yield collector
        collector.shutdown()
        thread.join(30)


def configured(monkeypatch: pytest.MonkeyPatch, url: str, **more: str) -> Tracing:
    settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": url, **more}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    traced = tracing_from(settings)
    assert traced is not None
    return traced


async def test_a_collector_gets_a_chain_over_http(monkeypatch: pytest.MonkeyPatch) -> None:
    with collecting() as collector:
        traced = configured(monkeypatch, collector.url)
        told(traced, await run(Scripted(*THREE), QUESTION))
        traced.close()
    assert set(collector.paths) == {"/v1/traces"}
    (resource,) = [group for request in collector.taken for group in request.resource_spans]
    named = {item.key: item.value.string_value for item in resource.resource.attributes}
    assert named["service.name"] == "stepwise-gateway"
    spans = [span for scope in resource.scope_spans for span in scope.spans]
    assert sorted(span.name for span in spans) == ["answer", "chat scripted-vote5", *["step"] * 3]
    assert {span.trace_id for span in spans} == {TRACE.to_bytes(16, "big")}
    assert not [word for word in SECRETS if word in str(resource)]


async def test_the_usual_variables_name_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    with collecting() as collector:
        traced = configured(monkeypatch, collector.url, OTEL_SERVICE_NAME="mine")
        told(traced, [Stopped()])
        traced.close()
    named = collector.taken[0].resource_spans[0].resource.attributes
    assert {item.key: item.value.string_value for item in named}["service.name"] == "mine"


def test_without_a_collector_there_is_no_tracing() -> None:
    assert tracing_from({}) is None
    assert tracing_from({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}) is None


def test_a_protocol_that_we_do_not_speak_is_refused_with_what_to_do() -> None:
    asked = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    with pytest.raises(TracingError, match=r"http/protobuf, got 'grpc'.*4318"):
        tracing_from(asked)


@pytest.mark.parametrize("alive", [True, False], ids=["refuses", "is gone"])
async def test_a_collector_that_takes_nothing_is_said_once_and_hurts_nobody(
    alive: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with collecting(400) as collector, caplog.at_level(logging.DEBUG, "gateway"):
        url = collector.url if alive else f"http://127.0.0.1:{free_port()}"
        traced = configured(monkeypatch, url, OTEL_EXPORTER_OTLP_TIMEOUT="0.5")
        for _ in range(3):
            told(traced, await run(Scripted(*THREE)))
            traced.provider.force_flush()
        traced.close()
    said = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert said == ["The OpenTelemetry collector takes no spans; the gateway goes on without."]
