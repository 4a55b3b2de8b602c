"""What ./serve.sh makes of this CPU, beside vLLM as it starts by itself in bfloat16.

    scripts/bench serve [--models NAME,...] [--rounds 3] [--tokens 64] [--prompt 500] [--write FILE]

In each round each model is served by ./serve.sh, measured and stopped, then by vLLM alone: so a
machine's changing speed touches both. Each start's figures are said as they come; printed at the
end, and after a Ctrl-C: medians, with the smallest and the largest.

* start: from the command to the word that it answers (vLLM alone: to a healthy /health)
* one stream, eight streams: tokens/s once the first is written, of short prompts
* prompt: tokens/s of a prompt that is new to the server
* cached prefix: seconds to the first token of the same prompt with ten tokens more
* memory: of all its processes, after the measurement; what they share is counted in each of
  them (RSS) and once (PSS)
* disk: the folder that is served
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import openai
import psutil

from bench.loop import spread
from bench.record import keep
from bench.streams import Client
from serving import hardware, precision, processes, weights
from serving.catalogue import ROOT, Model, find, load, models_root
from serving.command import QUIET, VLLM, Command, ServerSpec, vllm_environment
from serving.hardware import Machine
from serving.processes import Service
from serving.quantise import BFLOAT16, INT8
from serving.report import Report
from serving.supervisor import processes_below
from tests.processes import free_port

MODELS = "smollm2-135m-instruct,qwen2.5-coder-0.5b-instruct,qwen2.5-coder-1.5b-instruct"
PATIENCE = 1800.0  # seconds; vLLM by itself compiles first, on a busy machine for ten minutes
POLL = 0.1
CACHE = "VLLM_CPU_KVCACHE_SPACE"
READY = "Ctrl-C stops everything."  # ./serve.sh's last word before it only serves


@dataclass(frozen=True, slots=True)
class Start:
    """A way to serve a model from a folder: the command, and the sign that it can be asked."""

    name: str
    model: Model
    folder: Path
    command: Callable[[int], Command]
    ready: Callable[[Service], bool]


def starts(model: Model, here: Machine, report: Report) -> tuple[Start, Start]:
    """As shipped, and as vLLM starts by itself; the weights of both are fetched and made first.

    Both get the same key-value cache: vLLM by itself takes nine tenths of the memory for it, or
    does not start where others have some.
    """
    cache = {CACHE: vllm_environment(here, {})[CACHE]}
    form = INT8 if precision.choose("auto", model, here, {}).convert else BFLOAT16
    plain = weights.fetch(model, models_root(), None, report)
    shipped = weights.fetch(model, models_root(), None, report, form)

    def ours(port: int) -> Command:
        return Command((str(ROOT / "serve.sh"), "--model", model.name, "--port", str(port)))

    def theirs(port: int) -> Command:
        given = ("--model", str(plain), "--served-model-name", model.served_name)
        where = ("--host", "127.0.0.1", "--port", str(port), "--dtype", BFLOAT16)
        return Command((sys.executable, *VLLM, *given, *where), {**QUIET, **cache})

    return (
        Start(f"./serve.sh, {form}", model, shipped, ours, lambda service: READY in service.said()),
        Start("vLLM by itself, bfloat16", model, plain, theirs, Service.answers),
    )


@dataclass(frozen=True, slots=True)
class Figures:
    """One start's. Sizes in GB of 10**9 bytes, rates in tokens/s."""

    start: float
    one: float
    eight: float
    prompt: float
    cached: float
    rss: float
    pss: float
    disk: float


ROWS = {
    "start": "start, s",
    "one": "one stream, tokens/s",
    "eight": "eight streams, tokens/s",
    "prompt": "prompt of {prompt} tokens, tokens/s",
    "cached": "first token after a cached prefix, s",
    "rss": "memory, RSS, GB",
    "pss": "memory, PSS, GB",
    "disk": "disk, GB",
}
LESS_IS_BETTER = {"start", "cached", "rss", "pss", "disk"}


class Died(Exception):
    """The server ended before it answered: its last words."""


@contextmanager
def running(start: Start, port: int) -> Iterator[tuple[Service, float]]:
    """The server once it answers, and after how many seconds. Raises Died."""
    address, log = f"http://127.0.0.1:{port}", ROOT / "logs" / f"bench-{port}.log"
    began = time.perf_counter()
    spec = ServerSpec(start.name, "bench", start.command(port), address)
    service = processes.start(spec, log)
    try:
        while not start.ready(service):
            late = time.perf_counter() - began > PATIENCE
            if late or service.status is not None:
                words = "\n".join(service.failure().lines)
                raise Died(f"{'silent too long' if late else 'ended'}: {words} (see {log})")
            time.sleep(POLL)
        yield service, time.perf_counter() - began
    finally:
        processes.stop([service], lambda: False)


def measure(start: Start, tokens: int, prompt: int) -> Figures:
    """Raises Died."""
    port = free_port()
    with running(start, port) as (service, seconds):
        figures = asyncio.run(_ask(f"http://127.0.0.1:{port}/v1", start, tokens, prompt))
        rss, pss = memory(processes_below(service.supervisor.pid))
    files = (file.stat().st_size for file in start.folder.iterdir() if file.is_file())
    return Figures(seconds, *figures, rss / 1e9, pss / 1e9, sum(files) / 1e9)


async def _ask(
    base_url: str, start: Start, tokens: int, prompt: int
) -> tuple[float, float, float, float]:
    """Of one stream, of eight, of a prompt; the wait after a cached prefix."""
    asker = openai.AsyncOpenAI(base_url=base_url, api_key="none", timeout=PATIENCE, max_retries=0)
    client = Client(asker, start.model.served_name, tokens)
    await client.time_prompt(prompt)  # what is compiled on first use is no speed
    one, eight = await client.writing(1), await client.writing(8)
    read, wait = await client.time_prompt(prompt)
    await asker.close()
    return one, eight, read, wait


def memory(pids: Sequence[int]) -> tuple[int, int]:
    """RSS and PSS of the processes, each added up, in bytes."""
    held = [psutil.Process(pid).memory_full_info() for pid in pids]
    return sum(one.rss for one in held), sum(one.pss for one in held)


Results = dict[str, dict[str, list[Figures]]]  # model's title -> start's name -> a start each


def report(results: Results, prompt: int, command: str, where: str) -> str:
    head = f"# Serving on a CPU\n\n    {command}\n\n{where}. Median (smallest to largest).\n"
    return head + "".join(table(title, found, prompt) for title, found in results.items())


def table(title: str, found: dict[str, list[Figures]], prompt: int) -> str:
    """A model's figures, a column for each start; the last says how many times better ours is."""
    ours, theirs = found.values()
    head = f"\n## {title}\n\n| | {' | '.join(found)} | times better |\n|---|---|---|---|\n"
    lines = [row(field.name, ours, theirs, prompt) for field in fields(Figures)]
    return head + "\n".join(lines) + "\n"


def row(name: str, ours: list[Figures], theirs: list[Figures], prompt: int) -> str:
    """A start that never came up has no figures."""
    mine, others = ([getattr(one, name) for one in kind] for kind in (ours, theirs))
    cells = [spread(values) if values else "did not start" for values in (mine, others)]
    times = statistics.median(mine) / statistics.median(others) if mine and others else 0.0
    times = 1 / times if times and name in LESS_IS_BETTER else times
    what = ROWS[name].format(prompt=prompt)
    return f"| {what} | {' | '.join(cells)} | {f'{times:.1f}' if times else ''} |"


def measured(models: Sequence[Model], rounds: int, tokens: int, prompt: int) -> Results:
    here, said = hardware.detect(), Report(sys.stderr)
    pairs = {model.title or model.name: starts(model, here, said) for model in models}
    results: Results = {title: {start.name: [] for start in pair} for title, pair in pairs.items()}
    turns = [
        (title, start) for _ in range(rounds) for title, pair in pairs.items() for start in pair
    ]
    with suppress(KeyboardInterrupt):  # what was measured until then is not lost
        for number, (title, start) in enumerate(turns, 1):
            try:
                figures = measure(start, tokens, prompt)
                results[title][start.name].append(figures)
                outcome = line(figures, prompt)
            except Died as died:
                outcome = str(died)
            said.say(f"{number}/{len(turns)} {title}, {start.name}: {outcome}")
    return results


def line(figures: Figures, prompt: int) -> str:
    """One start's figures, in a line."""
    told = {ROWS[name].format(prompt=prompt): value for name, value in asdict(figures).items()}
    return "; ".join(f"{what} {value:.2f}" for what, value in told.items())


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--models", default=MODELS, help="names of --list, with commas between")
    flags.add_argument("--rounds", type=int, default=3)
    flags.add_argument("--tokens", type=int, default=64, help="of each reply")
    flags.add_argument("--prompt", type=int, default=500, help="tokens of the prompt that is read")
    flags.add_argument("--write", type=Path, help="the tables there, their figures beside them")
    given = flags.parse_args()
    catalogue, here = load(), hardware.detect()
    if here.gpus:
        flags.error("it compares starts without a GPU: set CUDA_VISIBLE_DEVICES to nothing")
    models = [find(name, catalogue) for name in given.models.split(",")]
    results = measured(models, given.rounds, given.tokens, given.prompt)
    sizes = f"--rounds {given.rounds} --tokens {given.tokens} --prompt {given.prompt}"
    command = f"scripts/bench serve --models {given.models} {sizes}"
    text = report(results, given.prompt, command, f"{here.cpu.name}: {here.description}")
    keep(text, results, given.write)


if __name__ == "__main__":
    main()
