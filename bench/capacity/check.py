"""The simulation beside what was measured, in runs that it was not fitted to: others' and ours."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from statistics import median

from bench.capacity.gpus import A100, H100, L4, RTX_4090, Gpu, asked
from bench.capacity.replica import Call, Engine, Replica

REQUESTS, ROUNDS = 300, 3  # AccelMark's, at each rate


@dataclass(frozen=True, slots=True)
class Run:
    """Requests at a rate, by chance, or, at rate 0, eight at a time for half an hour."""

    gpu: Gpu
    rate: float
    what: str
    measured: float


EIGHT = "eight at a time, tokens/s"
WORD, TOKEN = "first token, ms", "between tokens, ms"
RUNS = (
    Run(L4, 0, EIGHT, 116.6),
    Run(RTX_4090, 0, EIGHT, 339.8),
    Run(A100, 0, EIGHT, 712.3),
    Run(H100, 0, EIGHT, 907.1),
    *(Run(RTX_4090, 5, WORD, 107.99), Run(RTX_4090, 5, TOKEN, 50.81)),
    *(Run(A100, 5, WORD, 40.2), Run(A100, 5, TOKEN, 13.21)),
    *(Run(A100, 25, WORD, 75.24), Run(A100, 25, TOKEN, 22.28)),
    *(Run(H100, 5, WORD, 26.79), Run(H100, 5, TOKEN, 9.52)),
    *(Run(H100, 25, WORD, 38.5), Run(H100, 25, TOKEN, 24.47)),
)


def simulated(run: Run) -> float:
    engine = run.gpu.fitted
    if run.what == EIGHT:
        return eight_at_a_time(engine)
    calls = [call for seed in range(ROUNDS) for call in at_a_rate(engine, run.rate, seed)]
    if run.what == WORD:
        return 1000 * median(call.wait for call in calls)
    return 1000 * median((call.ended - call.said) / (call.tokens - 1) for call in calls)


def eight_at_a_time(engine: Engine, count: int = 100) -> float:
    """Tokens a second of eight clients that ask again and again."""
    replica = Replica(engine)
    replica.run((0.0, one_after_the_other(asked(count, seed))) for seed in range(8))
    return replica.written / replica.clock


def one_after_the_other(calls: list[Call]) -> Call:
    for call, after in pairwise(calls):
        call.after = after
    return calls[0]


def at_a_rate(engine: Engine, rate: float, seed: int) -> list[Call]:
    replica = Replica(engine)
    replica.run(arriving(rate, seed))
    return replica.ended


def arriving(rate: float, seed: int) -> Iterator[tuple[float, Call]]:
    chance, at = Random(seed), 0.0
    for call in asked(REQUESTS, seed):
        at += chance.expovariate(rate)
        yield at, call


# SmolLM2 on two cores: one stream and its first token from bench/results/loop.md, eight from the
# arm `cot` of docs/evals.md. Eight chains of 210 tokens, four at a time, through the gateway
# (bench/results/gateway.md): their seconds, and milliseconds between tokens.
ONE, FIRST, EIGHT_STREAMS = 18.9, 0.15, 8 * 110 / 12.4
CHAIN, CALLS, CLIENTS, EACH = 210, 4, 4, 2
OURS = {"first word, s": 0.70, "whole reply, s": 15.2, "between tokens, ms": 67.0}


def ours() -> dict[str, float]:
    """What the simulation says of that run."""
    engine = Engine(1 / ONE, (8 / EIGHT_STREAMS - 1 / ONE) / 7, FIRST - 1 / ONE, CLIENTS)
    clients = [[Call(1, CHAIN / CALLS, 5) for _ in range(CALLS * EACH)] for _ in range(CLIENTS)]
    Replica(engine).run([(0.0, one_after_the_other(calls)) for calls in clients])
    chains = [calls[at : at + CALLS] for calls in clients for at in (0, CALLS)]
    tokens = [(call.ended - call.said) / (call.tokens - 5) for calls in clients for call in calls]
    return {
        "first word, s": median(chain[0].wait for chain in chains),
        "whole reply, s": median(chain[-1].ended - chain[0].asked for chain in chains),
        "between tokens, ms": 1000 * median(tokens),
    }


# Qwen2.5-Coder-0.5B in int8 on two replicas of a core each (bench/results/replicas.md): what one
# writes and reads by itself; the calls that each had of eight chains that began together, with
# their mean tokens and the prompt tokens that were read anew; the seconds until each had ended.
TOGETHER = 8
ALONE, FOUR, READ = 15.4, 59.1, 381.0
SHARES, WRITTEN, ANEW = (21, 63), 85.0, 65.7
REPLICAS = {"until half have ended, s": 83.0, "until all have ended, s": 129.0}


def two_replicas() -> dict[str, float]:
    """What the simulation says of that run."""
    engine = Engine(1 / ALONE, (4 / FOUR - 1 / ALONE) / 3, 1 / READ, TOGETHER)
    ends: list[float] = []
    for calls in SHARES:
        chains = round(TOGETHER * calls / sum(SHARES))
        each = round(calls / chains)
        began = [
            one_after_the_other([Call(ANEW, WRITTEN) for _ in range(each)]) for _ in range(chains)
        ]
        replica = Replica(engine)
        replica.run([(0.0, call) for call in began])
        ends += [call.ended for call in replica.ended if call.after is None]
    return dict(zip(REPLICAS, (median(ends), max(ends)), strict=True))
