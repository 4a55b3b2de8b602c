"""From a dead server's log to the lines that matter. Pure: text in, words out."""

from __future__ import annotations

import json
import re
import signal
from dataclasses import dataclass

# "(EngineCore pid=6234) ERROR 11-20 22:18:43 [core.py:725] " before what was said
PREFIX = re.compile(
    r"^(\(\w[^)]*pid=\d+\)\s?)?((ERROR|WARNING|CRITICAL) [\d-]+ [\d:,]+ \[[^\]]*\]\s?)?"
)
SAID = re.compile(r"^(?:[\w.]+\.)?\w*(?:Error|Exception|Interrupt|Exit)\b(?:\(.*\))?: \S")
REFUSED = re.compile(r"^\S+\.py: error: ")
# What only repeats that something else failed.
ECHOES = re.compile(
    r"Engine core initialization failed|See root cause above|cancelled"
    r"|Worker proc \S+ died|WorkerProc initialization failed|died unexpectedly"
    r"|EngineDeadError|EngineCore encountered an issue"
)
NOISE = re.compile(r"\s*\[type=\w+, input_value=.*|^\s*For further information visit .*")
MOST_LINES = 3
WIDEST = 300  # characters; vLLM's longest messages go on with essays

# The first that is found in the log names the cause.
KNOWN: tuple[tuple[str, str], ...] = (
    (
        r"larger than the maximum number of tokens that can be stored in KV cache"
        r"|larger than the available KV cache memory|No available memory for the cache blocks",
        "There is too little memory for this context: give a smaller --max-model-len. On a GPU "
        "`-- --gpu-memory-utilization 0.95` gives more, on a CPU VLLM_CPU_KVCACHE_SPACE=4 (GiB).",
    ),
    (
        r"max_model_len.{0,80}greater than the derived|context ends at",
        "The model cannot read that much: give a smaller --max-model-len, or leave it out.",
    ),
    (
        r"CUDA out of memory|OutOfMemoryError|less than desired GPU memory utilization",
        "The GPU's memory is too small or in use (nvidia-smi shows by whom): stop the others, "
        "give a smaller --max-model-len, or a smaller model (./serve.sh --list).",
    ),
    (
        r"MemoryError|Cannot allocate memory|can't allocate memory|not enough memory",
        "This machine has too little memory for the model: take a smaller one (./serve.sh --list).",
    ),
    (
        r"[Aa]ddress already in use",
        "Another program took the port meanwhile: choose one with --port.",
    ),
    (
        r"driver on your system is too old|CUDA driver version is insufficient",
        "Update the NVIDIA driver.",
    ),
    (
        r"Bfloat16 is only supported on GPUs",
        "This GPU knows no bfloat16: add `-- --dtype half`.",
    ),
    (
        r"unrecognized arguments|invalid choice|expected (one|at least one) argument",
        "vLLM does not take that flag: what stands after -- goes to vLLM as it is.",
    ),
    (
        r"do not have a fast tokenizer|chat template",
        "Give the model's chat template with --chat-template FILE.",
    ),
    (
        r"libnuma\.so|libtbb|cannot open shared object file",
        "A library of the system is missing: install it by the name in the line above.",
    ),
    (
        r"Host key verification failed",
        "ssh does not know that host by this key. Connect once by hand (ssh HOST), compare the key "
        "that it shows with the host's own, then start again.",
    ),
    (
        r"Permission denied \(",
        "The host took none of your ssh keys: set one up (ssh-copy-id HOST), or name USER@HOST.",
    ),
    (
        r"remote port forwarding failed",
        "The host gives that port to nobody, or to somebody else: name another, HOST:PORT.",
    ),
    (
        r"SafetensorError|header too large|InvalidHeader",
        "The weights are damaged: fetch them again with python model_download.py.",
    ),
)
OUT_OF_MEMORY = (
    "The machine ran out of memory meanwhile, and the kernel killed a process: take a smaller "
    "model (./serve.sh --list) or a smaller --max-model-len."
)
UNKNOWN = "Its log does not say why. Where memory ran out, the kernel's log does: dmesg."
BELOW = re.compile(r"^\((?:EngineCore|Worker)\w* ?[^)]*\)")  # what the engine itself says
ENGINE_DIED = re.compile(
    r"EngineDeadError|engine core exited unexpectedly|Worker proc \S+ died unexpectedly"
)
# What a log is full of, and what interpreters say as they end.
CHATTER = re.compile(
    r"^(?:\(\w[^)]*pid=\d+\)\s?)?(?:INFO|WARNING|DEBUG)\b|\| \d+/\d+ \["
    r"|^debug\d: |^ - (?:leaked|\.\.\.)|^nanobind|resource_tracker|^\s*warnings\.warn"
)


@dataclass(frozen=True, slots=True)
class Failure:
    """`what` happened, in words that follow the server's name; `lines` is what the server said
    last that matters, `advice` what to do, or "".
    """

    what: str
    lines: tuple[str, ...]
    advice: str


def explain(log: str, status: int, out_of_memory: bool = False) -> Failure:
    """The innermost error in a server's log, and what is known to help.

    `status` is as a shell counts it; `out_of_memory`: the kernel has killed a process meanwhile.
    """
    engine = ENGINE_DIED.search(log) is not None
    said_all = [_plain(line) for line in log.splitlines()]
    whole = [line for line in said_all if line.strip() and not CHATTER.search(line)]
    if _is_killed(status):
        whole = []
    elif engine:
        whole = [line for line in whole if BELOW.match(line)]  # the server's are echoes
    lines = [_bare(line) for line in whole]
    said = [n for n, line in enumerate(lines) if SAID.match(line) or REFUSED.match(line)]
    telling = [n for n in said if not ECHOES.search(lines[n])]
    told = [line for n in said for line in lines[n : n + MOST_LINES]]
    errors = "\n".join(told or lines[-MOST_LINES:])
    advice = next((words for pattern, words in KNOWN if re.search(pattern, errors)), "")
    if not telling and (said or engine or _is_killed(status)):
        advice = advice or (OUT_OF_MEMORY if out_of_memory else UNKNOWN)
    shown = _with_more(lines, (telling or said)[-1]) if said else [] if engine else lines
    return Failure(_what(status, engine), tuple(shown[-MOST_LINES:]), advice)


def _plain(line: str) -> str:
    """A line of our own log (reasoning/logs.py) as vLLM would write it; any other as it is."""
    try:
        values = json.loads(line) if line.startswith('{"time": ') else None
    except ValueError:  # it was cut off
        return line
    if not isinstance(values, dict) or "message" not in values:
        return line
    if values.get("level") not in ("error", "critical"):
        return f"INFO {values['message']}"
    kinds = [f"{error['type']}: " for error in values.get("errors", ())]
    return f"{''.join(kinds[:1])}{values['message']}"


def _is_killed(status: int) -> bool:
    """By SIGKILL: no server can have said anything about it."""
    return status in (128 + signal.SIGKILL, -signal.SIGKILL)


def _what(status: int, engine: bool) -> str:
    """What the exit status and the engine tell of the end."""
    number = status - 128 if status > 128 else -status
    if number > 0 and number in {one.value for one in signal.Signals}:
        return f"was ended by {signal.Signals(number).name}"
    if engine:
        return "has stopped, for its engine ended"
    return f"has stopped (status {status})" if status else "has stopped by itself"


def _bare(line: str) -> str:
    bare = NOISE.sub("", PREFIX.sub("", line, count=1)).rstrip()
    return bare if len(bare) <= WIDEST else bare[: WIDEST - 3] + "..."


def _with_more(lines: list[str], at: int) -> list[str]:
    """An error's line, and what it goes on with, indented, below."""
    after = lines[at + 1 : at + MOST_LINES]
    return [lines[at], *(line.strip() for line in after if line.startswith("  ") and line.strip())]
