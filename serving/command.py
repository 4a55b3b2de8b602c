"""What is started for a model: a command and its environment, as values.

Pure: a model, what the user asked for and a machine go in, a Command comes out.
What it starts works for the CUDA wheel and for the CPU wheel of vLLM alike.
"""

from __future__ import annotations

import ipaddress
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from serving.catalogue import ROOT, Model
from serving.machine import Machine

HOST = "127.0.0.1"
PORT = 8000
UI_PORT = 8501

# The wheel for the CPU has no working `vllm serve`; this module is in both wheels.
VLLM = ("-m", "vllm.entrypoints.openai.api_server")

# Calls nobody, and reads the weights from the folder it is given.
QUIET = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"}

# Without the backend's name vLLM refuses the second key, which keeps a model from
# filling its tokens with blanks between a JSON object's parts.
COMPACT_JSON = '{"backend":"xgrammar","disable_any_whitespace":true}'
ALWAYS = (
    "--structured-outputs-config",
    COMPACT_JSON,
    "--enable-prompt-tokens-details",
    "--disable-uvicorn-access-log",
    "--no-enable-log-requests",  # questions stay out of the log, whatever the default
)

# Compiling takes a minute and makes a CPU no faster; blocks of 128 tokens would lose
# a third of a chain's shared prefix.
ON_CPU = ("--enforce-eager", "--block-size", "32")
FIRST_BFLOAT16 = 8.0  # compute capability


@dataclass(frozen=True, slots=True)
class Options:
    """What the user asked for on the command line."""

    host: str = HOST
    port: int = PORT
    ui: bool = False
    ui_port: int = UI_PORT
    max_model_len: int | None = None
    served_model_name: str | None = None
    chat_template: Path | None = None
    extra: tuple[str, ...] = ()  # to vLLM as it is

    @property
    def is_loopback(self) -> bool:
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def address(self) -> str:
        """Where this machine itself reaches the server."""
        everywhere = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "::1": "[::1]"}
        return f"http://{everywhere.get(self.host, self.host)}:{self.port}"

    @property
    def page_address(self) -> str:
        return f"http://{HOST}:{self.ui_port}"


@dataclass(frozen=True, slots=True)
class Command:
    """A command; `environment` goes over the one it is started in."""

    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        settings = [f"{key}={shlex.quote(value)}" for key, value in self.environment.items()]
        return " ".join([*settings, shlex.join(self.argv)])


def served_name(model: Model, options: Options) -> str:
    return options.served_model_name or model.served_name


def vllm_command(
    model: Model,
    options: Options,
    machine: Machine,
    weights: Path,
    python: Path,
    given: Mapping[str, str],
) -> Command:
    """The vLLM server for this model on this machine.

    The user's own flags come last, for vLLM takes the last of two; what the user's
    environment, `given`, sets already stays.
    """
    argv = [str(python), *VLLM, "--model", str(weights)]
    argv += ["--served-model-name", served_name(model, options)]
    argv += ["--host", options.host, "--port", str(options.port)]
    argv += _model_flags(model, options)
    argv += [*ALWAYS, *model.flags, *_machine_flags(model, machine), *options.extra]
    environment = {k: v for k, v in vllm_environment(machine).items() if k not in given}
    return Command(tuple(argv), environment)


def _model_flags(model: Model, options: Options) -> list[str]:
    length = options.max_model_len or model.max_model_len
    template = options.chat_template
    if template is None and model.chat_template is not None:
        template = ROOT / model.chat_template
    flags = ["--max-model-len", str(length)] if length else []
    return flags + (["--chat-template", str(template)] if template else [])


def _machine_flags(model: Model, machine: Machine) -> list[str]:
    if not machine.gpus:
        return [*ON_CPU, *model.cpu_flags]
    parallel = ["--tensor-parallel-size", str(model.gpus)] if model.gpus > 1 else []
    old = min(gpu.capability for gpu in machine.gpus) < FIRST_BFLOAT16
    return parallel + (["--dtype", "half"] if old else []) + list(model.gpu_flags)


def vllm_environment(machine: Machine) -> dict[str, str]:
    if machine.gpus:
        return dict(QUIET)
    cache = max(1, min(4, int(machine.memory_gb // 8)))  # GiB; a chain needs less than one
    preload = {"LD_PRELOAD": ":".join(machine.preload)} if machine.preload else {}
    return {**QUIET, "VLLM_CPU_KVCACHE_SPACE": str(cache), **preload}


def page_command(model: Model, options: Options, python: Path) -> Command:
    """The page, on this machine only: it has no key of its own to ask for."""
    argv = [str(python), "-m", "streamlit", "run", str(ROOT / "app_reasoning.py")]
    argv += ["--server.address", HOST, "--server.port", str(options.ui_port)]
    argv += ["--server.headless", "true", "--browser.gatherUsageStats", "false"]
    return Command(tuple(argv), client_environment(model, options))


def client_environment(model: Model, options: Options) -> dict[str, str]:
    """What points the page and the openai client at this server."""
    return {"OPENAI_BASE_URL": f"{options.address}/v1", "MODEL": served_name(model, options)}


def too_long(config: Mapping[str, Any], length: int | None) -> str | None:
    """Why a model with this config.json cannot have that context, or None when it may.

    vLLM says so too, after half a minute. A config that stretches its positions is vLLM's to judge.
    """
    most = config.get("max_position_embeddings")
    if not isinstance(most, int) or not length or length <= most:
        return None
    stretched = config.get("rope_scaling") or config.get("rope_parameters") or {}
    if isinstance(stretched, dict) and "factor" in stretched:
        return None
    return f"The model's context ends at {most} tokens, {length} were asked for."


def curl(model: Model, options: Options, with_key: bool) -> Sequence[str]:
    """Lines of a curl command that works as it stands, in a POSIX shell."""
    question = {"role": "user", "content": "What is 17 + 25?"}
    body = json.dumps({"model": served_name(model, options), "messages": [question]})
    lines = [f"curl {options.address}/v1/chat/completions", "-H 'Content-Type: application/json'"]
    lines += ['-H "Authorization: Bearer $VLLM_API_KEY"'] if with_key else []
    return [*lines, f"-d {shlex.quote(body)}"]
