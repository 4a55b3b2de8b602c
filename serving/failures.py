"""From a dead server's log to the lines that matter. Pure: text in, words out."""

from __future__ import annotations

import re
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
        r"SafetensorError|header too large|InvalidHeader",
        "The weights are damaged: fetch them again with python model_download.py.",
    ),
)
KILLED = (
    "It ended without a word, most often because the machine ran out of memory: "
    "take a smaller model (./serve.sh --list) or a smaller --max-model-len."
)


@dataclass(frozen=True, slots=True)
class Failure:
    """`lines` is what the server said last that matters, `advice` what to do, or ""."""

    lines: tuple[str, ...]
    advice: str


def explain(log: str, status: int) -> Failure:
    """The innermost error in a server's log, and what is known to help."""
    lines = [_bare(line) for line in log.splitlines()]
    said = [n for n, line in enumerate(lines) if SAID.match(line) or REFUSED.match(line)]
    telling = [n for n in said if not ECHOES.search(lines[n])]
    errors = "\n".join(line for n in said for line in lines[n : n + MOST_LINES])
    advice = next((words for pattern, words in KNOWN if re.search(pattern, errors)), "")
    if not telling and (said or status == 128 + 9):
        advice = advice or KILLED
    shown = _with_more(lines, (telling or said)[-1]) if said else [ln for ln in lines if ln]
    return Failure(tuple(shown[-MOST_LINES:]), advice)


def _bare(line: str) -> str:
    bare = NOISE.sub("", PREFIX.sub("", line, count=1)).rstrip()
    return bare if len(bare) <= WIDEST else bare[: WIDEST - 3] + "..."


def _with_more(lines: list[str], at: int) -> list[str]:
    """An error's line, and what it goes on with, indented, below."""
    after = lines[at + 1 : at + MOST_LINES]
    return [lines[at], *(line.strip() for line in after if line.startswith("  ") and line.strip())]
