"""bench/capacity: queues whose waits are known, and what is made of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from heapq import heappop, heappush
from math import factorial
from operator import sub
from pathlib import Path
from statistics import mean

import pytest

from bench.capacity.__main__ import HELP, loads, measured, parser, report
from bench.capacity.check import OURS, RUNS, ours
from bench.capacity.check import simulated as check
from bench.capacity.gpus import GPUS, HUNDRED, PROMPT, Gpu, Server, asked
from bench.capacity.limits import PARTS, Part
from bench.capacity.load import Load, calls_of
from bench.capacity.picture import draw
from bench.capacity.replica import Call, Engine, Replica
from bench.capacity.sizing import bears, plan, serve

CALLS = 20_000
SERVICE = 1000  # tokens of a mean call; a token takes a millisecond


def servers(count: int) -> Engine:
    """As many as there are streams: each call is written at the same speed, however many are."""
    return Engine(token=0.001, more=0.0, prompt=0.0, streams=count)


def poisson(rate: float, tokens: Callable[[random.Random], float]) -> Iterator[tuple[float, Call]]:
    chance, at = random.Random(7), 0.0
    for _ in range(CALLS):
        at += chance.expovariate(rate)
        yield at, Call(0, tokens(chance))


def memoryless(chance: random.Random) -> float:
    return chance.expovariate(1 / SERVICE)


def constant(_: random.Random) -> float:
    return SERVICE


def simulated(engine: Engine, rate: float, tokens: Callable[[random.Random], float]) -> Replica:
    replica = Replica(engine)
    replica.run(poisson(rate, tokens))
    return replica


def waited(replica: Replica) -> float:
    """Mean seconds in the queue: all but the service, a millisecond a token."""
    return mean(call.seconds - call.tokens / 1000 for call in replica.ended)


def erlang_c(servers: int, load: float) -> float:
    """The share of calls that must wait."""
    last = load**servers / factorial(servers) / (1 - load / servers)
    return last / (sum(load**n / factorial(n) for n in range(servers)) + last)


def test_one_memoryless_server_waits_as_m_m_1_says() -> None:
    found = waited(simulated(servers(1), 0.7, memoryless))
    assert found == pytest.approx(0.7 / (1 - 0.7), rel=0.15)


@pytest.mark.parametrize(("count", "rate"), [(2, 1.4), (5, 3.5)])
def test_several_memoryless_servers_wait_as_erlang_c_says(count: int, rate: float) -> None:
    found = waited(simulated(servers(count), rate, memoryless))
    assert found == pytest.approx(erlang_c(count, rate) / (count - rate), rel=0.15)


@pytest.mark.parametrize("tokens", [memoryless, constant])
def test_each_call_starts_when_the_first_of_the_servers_is_free(
    tokens: Callable[[random.Random], float],
) -> None:
    """The same calls by the recursion of Kiefer and Wolfowitz, to the last digit."""
    free, expected = [0.0] * 10, []
    for at, call in poisson(8.5, tokens):
        start = max(at, heappop(free))
        heappush(free, start + call.tokens / 1000)
        expected.append(start + call.tokens / 1000)
    found = [call.ended for call in simulated(servers(10), 8.5, tokens).ended]
    assert max(map(abs, map(sub, found, sorted(expected)))) < 1e-6


def test_one_server_of_constant_service_waits_as_pollaczek_and_khinchine_say() -> None:
    found = waited(simulated(servers(1), 0.75, constant))
    assert found == pytest.approx(0.75 / 2 / (1 - 0.75), rel=0.15)


@pytest.mark.parametrize(("count", "rate"), [(2, 1.4), (5, 3.5)])
def test_several_servers_of_constant_service_wait_half_of_erlang_c(count: int, rate: float) -> None:
    """And a little more (Cosmetatos 1975)."""
    found = waited(simulated(servers(count), rate, constant))
    busy = rate / count
    more = (1 - busy) * (count - 1) * ((4 + 5 * count) ** 0.5 - 2) / (16 * rate)
    assert found == pytest.approx((1 + more) / 2 * erlang_c(count, rate) / (count - rate), rel=0.15)


@pytest.mark.parametrize("tokens", [memoryless, constant])
def test_a_server_that_all_share_keeps_each_as_long_as_its_length_says(
    tokens: Callable[[random.Random], float],
) -> None:
    """A step that takes twice as long for two is processor sharing: the mean is that of M/M/1
    whatever the lengths are, and twice the tokens take twice as long.
    """
    shared = Engine(token=0.001, more=0.001, prompt=0.0, streams=10**6)
    replica = simulated(shared, 0.7, tokens)
    assert mean(call.seconds for call in replica.ended) == pytest.approx(1 / (1 - 0.7), rel=0.15)
    long = [call.seconds / call.tokens for call in replica.ended if call.tokens >= SERVICE]
    assert mean(long) == pytest.approx(0.001 / (1 - 0.7), rel=0.15)


@pytest.mark.parametrize("engine", [servers(3), Engine(0.001, 0.0004, 0.0, 20)])
def test_who_is_there_is_how_many_come_times_how_long_they_stay(engine: Engine) -> None:
    """Little's law, of two counts that know nothing of each other."""
    replica = simulated(engine, 1.5, memoryless)
    come = len(replica.ended) / replica.clock
    stay = mean(call.seconds for call in replica.ended)
    assert replica.present_seconds / replica.clock == pytest.approx(come * stay)
    assert len(replica.ended) == CALLS


def test_a_prompt_is_read_before_the_first_word_and_stops_all_others() -> None:
    engine = Engine(token=0.1, more=0.0, prompt=0.01, streams=8)
    first, second = Call(prompt=100, tokens=10), Call(prompt=50, tokens=10, word=3)
    Replica(engine).run([(0.0, first), (1.5, second)])
    assert first.wait == pytest.approx(1.0 + 0.1)
    assert first.seconds == pytest.approx(1.0 + 10 * 0.1 + 0.5)
    assert second.wait == pytest.approx(0.5 + 3.5 * 0.1)


def test_the_next_step_of_a_chain_is_asked_when_the_last_has_ended() -> None:
    last = Call(0, 5)
    chain = Call(0, 10, after=last)
    Replica(Engine(1.0, 0.0, 0.0, 1)).run([(3.0, chain)])
    assert (last.asked, last.ended) == (13.0, 18.0)


def test_who_finds_no_place_waits_for_one() -> None:
    calls = [Call(0, 10) for _ in range(3)]
    Replica(Engine(1.0, 0.0, 0.0, 2)).run([(0.0, call) for call in calls])
    assert [call.ended for call in calls] == [10.0, 10.0, 20.0]


# -- the GPUs: what was measured of them


@pytest.mark.parametrize("gpu", GPUS.values(), ids=GPUS)
def test_a_gpu_does_what_was_measured_of_it(gpu: Gpu) -> None:
    alone, all_at_once = Replica(gpu.fitted), Replica(gpu.fitted)
    alone.run([(0.0, Call(PROMPT, 300))])
    all_at_once.run((0.0, call) for call in asked(HUNDRED))
    assert 1000 * alone.ended[0].wait == pytest.approx(gpu.first_token)
    assert 1000 * gpu.fitted.step(1) == pytest.approx(gpu.token)
    assert all_at_once.clock == pytest.approx(gpu.hundred, rel=0.001)


def test_what_it_was_not_fitted_to_is_not_far_off() -> None:
    off = [abs(check(run) / run.measured - 1) for run in RUNS]
    off += [abs(found / OURS[what] - 1) for what, found in ours().items()]
    assert max(off) < 0.3
    assert mean(off) < 0.15


def test_a_longer_context_leaves_fewer_places() -> None:
    places = [GPUS["rtx-4090"].server(context).engine.streams for context in (500, 1000, 4000)]
    assert places == [69, 34, 8]


def test_a_server_of_ones_own_is_as_the_three_figures_say() -> None:
    engine = measured("20,80,400", 0.5).engine
    assert (1 / engine.step(1), 8 / engine.step(8)) == pytest.approx((20, 80))
    assert (engine.prompt, engine.streams) == (1 / 400, 8)


# -- the load: what people ask


def test_a_tenth_of_a_day_comes_in_its_busiest_hour() -> None:
    assert Load(users=3600, questions=10).rate == 1.0


def test_a_chain_is_a_call_for_each_step_and_reads_anew_what_is_not_cached() -> None:
    ((_, chain),) = Load(steps=4, tokens=50, prompt=100, cached=0.9).chains(1.0, 1, seed=4)
    calls = list(calls_of(chain))
    said, expected = 100.0, [100.0]
    for call in calls[:-1]:
        said += call.tokens
        expected.append(0.1 * said)
    assert [call.prompt for call in calls] == pytest.approx(expected)
    assert 3 <= len(calls) <= 7


def test_chains_have_the_steps_and_tokens_that_were_asked_for_in_the_mean() -> None:
    for load in (Load(), Load(single=True)):
        chains = [list(calls_of(chain)) for _, chain in load.chains(1.0, 4000)]
        assert mean(map(len, chains)) == pytest.approx(load.calls, rel=0.03)
        written = mean(sum(call.tokens for call in chain) for chain in chains)
        assert written == pytest.approx(load.written, rel=0.03)


# -- the plan

SMALL = Server("small", 0.5, Engine(0.01, 0.001, 0.0001, 16))
ONE = Load(single=True)


def test_what_a_replica_bears_is_where_the_first_word_begins_to_come_late() -> None:
    rate = bears(ONE, SMALL.engine, 0.5)
    early, late = serve(ONE, SMALL.engine, 0.9 * rate), serve(ONE, SMALL.engine, 1.1 * rate)
    assert early.first_word[1] < 0.5 < late.first_word[1]


def test_text_must_come_as_fast_as_it_is_read_whatever_the_first_word_may_take() -> None:
    slow = Engine(0.09, 0.01, 0.0, 16)
    rate = bears(ONE, slow, first_word=1000.0)
    assert serve(ONE, slow, rate).token[1] == pytest.approx(0.1, rel=0.1)


def test_a_plan_has_as_many_as_the_busiest_hour_needs_and_pays_them_all_month() -> None:
    made = plan(Load(users=3600, questions=10), SMALL, rate=0.3)
    assert made.replicas == 4
    assert made.dollars == 4 * 0.5 * 730
    assert made.cents == pytest.approx(100 * 4 * 0.5 * 24 / 36_000)


def test_more_cached_tokens_are_sooner_words() -> None:
    waits = [
        serve(Load(steps=4, cached=cached), Engine(0.01, 0.001, 0.002, 8), 0.1).first_word[1]
        for cached in (0.0, 0.5, 0.9)
    ]
    assert waits == sorted(waits, reverse=True)


def test_a_part_is_full_at_the_questions_whose_tokens_fill_a_share_of_a_core() -> None:
    load = Load(steps=9, tokens=100, busy=0.1)
    assert Part("page", 2.0, "").day(load) == pytest.approx(0.6 / 0.002 / 1000 * 3600 / 0.1)


# -- what is said of it


def test_every_part_of_a_load_is_a_flag() -> None:
    given = parser().parse_args(["--users", "30", "--cached", "0.5", "--single"])
    (load,) = loads(given)
    assert load == Load(users=30, cached=0.5, single=True)
    assert set(HELP) == set(Load.__dataclass_fields__)
    assert [load.day for load in loads(parser().parse_args([]))][-1] == 1_000_000


def test_the_report_has_a_row_for_each_plan_and_each_part() -> None:
    made = plan(Load(users=3600, questions=10), SMALL, rate=0.3)
    text = report([made, made], 1.0, "scripts/bench capacity")
    assert text.count("| 36,000 | 1 | small | 4 |") == 2
    assert all(f"| {part.name} |" in text for part in PARTS)


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    services = {"small": [(share, serve(ONE, SMALL.engine, share)) for share in (0.1, 0.2)]}
    draw(ONE, {"small": 0.5}, services, PARTS, tmp_path / "plan.png")
    assert (tmp_path / "plan.png").read_bytes().startswith(b"\x89PNG")
