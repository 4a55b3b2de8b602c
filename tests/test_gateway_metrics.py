"""What Prometheus is told of the chains, read back with its own parser."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from gateway.metrics import Metrics
from gateway.observers import Chain, observe
from reasoning.errors import Busy
from reasoning.events import Event, Settings, Stopped
from tests.scripted import Line, Scripted, Time, good, pieces, run

CHAIN = Chain("chatcmpl-1", 0, "scripted-steps", "scripted", "json_steps")
QUESTION = "What would Rosa eat?"
THREE = [good(1), good(2), good(3, "final_answer"), "Bread, said Rosa."]


LABELS = ("end", "cause", "le")


def exposed(metrics: Metrics) -> str:
    return generate_latest(metrics.registry).decode()


def values(metrics: Metrics, name: str) -> dict[tuple[str, ...], float]:
    """A metric's values by its labels, without the model and the way, which are one here."""
    found = {}
    for family in text_string_to_metric_families(exposed(metrics)):
        for sample in family.samples:
            if sample.name == name:
                assert sample.labels.pop("model") == CHAIN.model
                assert sample.labels.pop("way") == CHAIN.way
                key = tuple(sample.labels[label] for label in LABELS if label in sample.labels)
                found[key] = sample.value
    return found


def told(metrics: Metrics, events: Sequence[Event], time: Time | None = None) -> None:
    """A chain of these events, an event a second; then 100 prompt tokens, 80 of them cached."""
    with observe([metrics], CHAIN) as observer:
        for event in events:
            if time is not None:
                time.now += 1
            observer.event(event)
        observer.spent(100, 80)


async def test_a_chain_is_counted_with_what_it_cost() -> None:
    metrics = Metrics()
    events = await run(Scripted(*THREE), QUESTION)
    told(metrics, events)
    assert values(metrics, "stepwise_chains_total") == {("answer", ""): 1}
    assert values(metrics, "stepwise_steps_total") == {(): 3}
    spent = sum(len(text) // 4 for text in THREE)
    assert values(metrics, "stepwise_completion_tokens_total") == {(): spent}
    assert values(metrics, "stepwise_prompt_tokens_total") == {(): 100}
    assert values(metrics, "stepwise_cached_prompt_tokens_total") == {(): 80}


async def test_each_end_has_a_name_and_a_failure_its_cause() -> None:
    metrics = Metrics()
    settings = Settings(attempts=1)
    busy = Busy("The server is busy (503).", "Try again later.", 200.0)
    cut: list[Line] = [*THREE[:3], pieces("Bread", "length")]
    told(metrics, await run(Scripted(*THREE)))
    told(metrics, await run(Scripted(*cut)))
    told(metrics, await run(Scripted(busy), settings=settings))
    told(metrics, [Stopped(1.0)])
    told(metrics, [])
    assert values(metrics, "stepwise_chains_total") == {
        ("answer", ""): 1,
        ("cut", ""): 1,
        ("failed", "busy"): 1,
        ("gone", ""): 2,
    }


async def test_a_retry_is_counted_by_its_cause() -> None:
    metrics = Metrics()
    broken = Scripted("no step at all", "nor this", *THREE)
    told(metrics, await run(broken))
    (counted,) = values(metrics, "stepwise_retries_total").values()
    assert counted == 2
    assert values(metrics, "stepwise_chains_total") == {("answer", ""): 1}


async def test_the_first_token_is_timed_from_the_chains_begin_and_once() -> None:
    time = Time()
    metrics = Metrics(clock=time)
    told(metrics, await run(Scripted(*THREE)), time)  # Started at 1 s, the first Delta at 2 s
    assert values(metrics, "stepwise_time_to_first_token_seconds_count") == {(): 1}
    assert values(metrics, "stepwise_time_to_first_token_seconds_sum") == {(): 2}


async def test_a_chain_that_writes_nothing_has_no_first_token() -> None:
    metrics = Metrics()
    busy = Busy("The server is busy (503).", "Try again later.", 200.0)
    told(metrics, await run(Scripted(busy), settings=Settings(attempts=1)))
    assert values(metrics, "stepwise_time_to_first_token_seconds_count") == {}


async def test_the_thinking_time_is_the_runs_own() -> None:
    metrics = Metrics()
    told(metrics, [Stopped(7.5)])
    assert values(metrics, "stepwise_thinking_seconds_sum") == {(): 7.5}
    buckets = values(metrics, "stepwise_thinking_seconds_bucket")
    assert (buckets[("5.0",)], buckets[("10.0",)]) == (0, 1)


def test_a_chain_runs_until_its_context_ends_however_it_ends() -> None:
    metrics = Metrics()
    try:
        with observe([metrics], CHAIN):
            assert values(metrics, "stepwise_chains_running") == {(): 1}
            raise KeyError("a fault of ours")
    except KeyError:
        pass
    assert values(metrics, "stepwise_chains_running") == {(): 0}
    assert values(metrics, "stepwise_chains_total") == {("gone", ""): 1}


async def test_no_word_of_a_question_or_a_reply_is_exposed() -> None:
    metrics = Metrics()
    told(metrics, await run(Scripted("Rosa says no", *THREE), QUESTION))
    text = exposed(metrics)
    for word in ("Rosa", "Bread", "Title", "Work"):
        assert word not in text


def test_two_apps_do_not_share_their_counts() -> None:
    one, other = Metrics(), Metrics()
    told(one, [Stopped()])
    assert values(other, "stepwise_chains_total") == {}
    assert "process_resident_memory_bytes" in exposed(other)
