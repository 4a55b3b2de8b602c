"""OpenTelemetry spans: one per chain, one below it per step and for the answer.

They go out, by OTLP over HTTP, only where OTEL_EXPORTER_OTLP_ENDPOINT (or its _TRACES_ form)
names a collector; the other OTEL_ variables mean what they mean everywhere. What has a
name in the GenAI semantic conventions (github.com/open-telemetry/semantic-conventions-genai)
bears it. A question, a title, a word of a reply is in no span: attributes are
names, numbers and the codes of failures.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from opentelemetry.exporter.otlp.proto.http import trace_exporter
from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from gateway.observers import Chain
from reasoning.events import (
    Answer,
    Delta,
    Event,
    Failed,
    Notice,
    Retry,
    Settings,
    Started,
    Step,
    Trace,
)

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
TIMEOUTS = ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT")
PROTOCOL = "http/protobuf"
PATIENCE = 3.0  # seconds for one export, so that a dead collector does not hold up an end
SERVICE = "stepwise-gateway"
log = logging.getLogger(__name__)

Attributes = dict[str, AttributeValue]


class TracingError(Exception):
    """The settings ask for what is not there: one line that says what to do."""


class Tracing:
    """An Observer that makes spans. `clock` is in nanoseconds since the epoch."""

    def __init__(self, provider: TracerProvider, clock: Callable[[], int] = time.time_ns) -> None:
        self.provider = provider
        self._tracer = provider.get_tracer("stepwise")
        self._clock = clock

    @contextmanager
    def chain(self, chain: Chain) -> Iterator[ChainSpans]:
        spans = ChainSpans(self._tracer, chain, self._clock)
        try:
            yield spans
        finally:
            spans.over()

    def close(self) -> None:
        """Sends what waits, within seconds; later chains are not traced."""
        self.provider.shutdown()


class ChainSpans:
    """The spans of one chain. A step's begins where the one before it ended."""

    def __init__(self, tracer: Tracer, chain: Chain, clock: Callable[[], int]) -> None:
        self._tracer, self._clock = tracer, clock
        self._began = clock()
        self._span = tracer.start_span(
            f"chat {chain.model}",
            TraceContextTextMapPropagator().extract(dict(chain.carrier)),
            SpanKind.SERVER,
            chain_attributes(chain),
            start_time=self._began,
        )
        self._part: Span | None = None
        self._written = False
        self._events: list[Event] = []  # no Delta: they are many, and a Trace counts without

    def event(self, event: Event) -> None:
        if isinstance(event, Delta):
            self._text(event)
            return
        self._events.append(event)
        match event:
            case Started(settings=settings):
                self._span.set_attributes(settings_attributes(settings))
                self._begin()
            case Retry(cause=cause, attempt=attempt, wait=wait):
                noted: Attributes = {"cause": cause, "attempt": attempt, "wait": wait}
                self._current().add_event("retry", noted, self._clock())
            case Notice(code=code):
                self._span.add_event("notice", {"code": code}, self._clock())
            case Step():
                self._end("step", step_attributes(event))
                self._begin()
            case Answer():
                self._end("answer", answer_attributes(event))
                finish = "length" if event.cut else "stop"
                self._span.set_attribute("gen_ai.response.finish_reasons", [finish])
            case Failed(code=code):
                self._fail(code)

    def _text(self, delta: Delta) -> None:
        if not self._written and delta.part != "action":
            self._written = True
            waited = (self._clock() - self._began) / 1e9
            self._span.set_attribute("gen_ai.response.time_to_first_chunk", waited)

    def spent(self, prompt_tokens: int, cached_tokens: int) -> None:
        self._span.set_attribute("gen_ai.usage.input_tokens", prompt_tokens)
        self._span.set_attribute("gen_ai.usage.cache_read.input_tokens", cached_tokens)

    def over(self) -> None:
        """The chain's end. A part that has no end of its own was left unfinished."""
        if self._part is not None:
            self._end("unfinished", {})
        trace = Trace(tuple(self._events))
        self._span.set_attribute("stepwise.chain.steps", len(trace.steps))
        self._span.set_attribute("gen_ai.usage.output_tokens", trace.tokens)
        self._span.end(self._clock())

    def _begin(self) -> None:
        around = set_span_in_context(self._span)
        self._part = self._tracer.start_span("writing", around, start_time=self._clock())

    def _current(self) -> Span:
        return self._part or self._span

    def _end(self, name: str, attributes: Attributes) -> None:
        """What is being written turns out to be a step or the answer only when it is there."""
        if self._part is not None:
            self._part.update_name(name)
            self._part.set_attributes(attributes)
            self._part.end(self._clock())
            self._part = None

    def _fail(self, code: str) -> None:
        for span in (self._current(), self._span):
            span.set_attribute("error.type", code)
            span.set_status(StatusCode.ERROR)


def chain_attributes(chain: Chain) -> Attributes:
    return {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "stepwise",
        "gen_ai.request.model": chain.model,
        "gen_ai.response.model": chain.served,
        "gen_ai.response.id": chain.id,
        "stepwise.way": chain.way,
        "stepwise.chain.number": chain.number,
    }


def settings_attributes(settings: Settings) -> Attributes:
    asked = {
        "gen_ai.request.temperature": settings.temperature,
        "gen_ai.request.top_p": settings.top_p,
        "gen_ai.request.seed": settings.seed,
        "gen_ai.request.max_tokens": settings.budget,
    }
    return {name: value for name, value in asked.items() if value is not None}


def step_attributes(step: Step) -> Attributes:
    return {
        "gen_ai.usage.output_tokens": step.tokens,
        "stepwise.step.number": step.number,
        "stepwise.step.action": step.action,
        "stepwise.step.attempts": step.attempts,
        "stepwise.step.cut": step.cut,
        **_first_token(step),
    }


def answer_attributes(answer: Answer) -> Attributes:
    return {"gen_ai.usage.output_tokens": answer.tokens, **_first_token(answer)}


def _first_token(part: Step | Answer) -> Attributes:
    known = part.first_token is not None
    return {"gen_ai.response.time_to_first_chunk": part.first_token or 0.0} if known else {}


def tracing_from(environment: Mapping[str, str]) -> Tracing | None:
    """What the environment asks for; None without a collector. Raises TracingError."""
    if not any(environment.get(name) for name in ENDPOINTS):
        return None
    asked = next((environment[name] for name in PROTOCOLS if environment.get(name)), PROTOCOL)
    if asked != PROTOCOL:
        raise TracingError(
            f"Expected OTEL_EXPORTER_OTLP_PROTOCOL to be {PROTOCOL}, got {asked!r}: leave it out, "
            "and give the collector's port for HTTP (mostly 4318)."
        )
    patience = None if any(environment.get(name) for name in TIMEOUTS) else PATIENCE
    return Tracing(batched(OneWarningExporter(trace_exporter.OTLPSpanExporter(timeout=patience))))


def batched(exporter: SpanExporter) -> TracerProvider:
    """One that sends in the background. It tells the collector who it is."""
    named = Resource.create({SERVICE_NAME: SERVICE}).merge(OTELResourceDetector().detect())
    made = TracerProvider(resource=named, shutdown_on_exit=False)
    made.add_span_processor(BatchSpanProcessor(exporter))
    return made


class OneWarningExporter(SpanExporter):
    """An exporter that says once that its collector is not there, and once that it is again."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._failing = False
        # it would say it for every batch, and for each of its tries
        logging.getLogger(trace_exporter.__name__).setLevel(logging.CRITICAL)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        failing = result is not SpanExportResult.SUCCESS
        if failing and not self._failing:
            log.warning("The OpenTelemetry collector takes no spans; the gateway goes on without.")
        elif self._failing and not failing:
            log.warning("The OpenTelemetry collector takes spans again.")
        self._failing = failing
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)
