"""What is started for a model: a command and its environment, as values.

Pure: a model, what the user asked for and a machine go in, a Command comes out.
What it starts works for the CUDA wheel and for the CPU wheel of vLLM alike.
"""

from __future__ import annotations

import ipaddress
import json
import os
import shlex
from argparse import ArgumentTypeError
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reasoning.logs import LOG_CONTENT
from serving.catalogue import ROOT, Model
from serving.hardware import Machine, cards
from serving.login import Login
from serving.precision import Precision

HOST = "127.0.0.1"
PORT = 8000
GATEWAY_PORT = 8001
UI_PORT = 8501
ROUTER_AT = 10  # ports above the API's; the replicas follow
PAGE_HEALTH = "/_stcore/health"
PAGE_TOKEN = "STEPWISE_PAGE_TOKEN"  # the variable that holds what a visitor of the page must have
RESTARTED = "STEPWISE_RESTARTED"  # reasoning/endpoint.py's, which needs more than Python alone
RESTART_SECONDS = 300  # for which a chain waits for a vLLM that is started again

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
    *("--load-format", "safetensors"),  # a pickle runs code when it is read
    "--no-enable-log-requests",  # questions stay out of the log, whatever the default
    "--middleware",
    "serving.gate.VLLMGate",
)

# Compiling takes a minute and makes a CPU no faster; blocks of 128 tokens would lose
# a third of a chain's shared prefix.
ON_CPU = ("--enforce-eager", "--block-size", "32")
PLUGIN = ROOT / "serving" / "plugin"  # where vLLM finds the name of serving/tuning.py
META_ACTIONS = ("<|continue|>", "<|reflect|>", "<|explore|>")  # with which Satori begins a step
FIRST_BFLOAT16 = 8.0  # compute capability


@dataclass(frozen=True, slots=True)
class Listener:
    """A place where one of our servers listens; `flag` is what changes its port."""

    name: str
    host: str
    port: int
    flag: str
    path: str = "/v1"

    @property
    def address(self) -> str:
        """Where this machine itself reaches it."""
        host = {"0.0.0.0": HOST, "::": "::1"}.get(self.host, self.host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def url(self) -> str:
        """What a client is given."""
        return self.address + self.path


@dataclass(frozen=True, slots=True)
class Options:
    """What the user asked for on the command line.

    `host` is where the API is opened to others: the gateway where there is one, and then
    vLLM stays on this machine. `precision` is one of serving/precision.py's.
    """

    host: str = HOST
    port: int = PORT
    gateway: bool = False
    gateway_port: int = GATEWAY_PORT
    ui: bool = False
    ui_host: str = HOST
    ui_port: int = UI_PORT
    login: Login | None = None  # by which people come to the page, instead of a link with a token
    share: bool = False  # through a tunnel (serving/sharing.py)
    max_model_len: int | None = None
    served_model_name: str | None = None
    chat_template: Path | None = None
    precision: str = "auto"
    log_content: bool = False  # the page's log and the gateway's may hold what is asked
    extra: tuple[str, ...] = ()  # to vLLM as it is
    replicas: int = 1
    worker_urls: tuple[str, ...] = ()  # servers of other machines

    @property
    def vllm(self) -> Listener:
        return Listener("API", HOST if self.gateway else self.host, self.port, "--port")

    @property
    def gateway_listener(self) -> Listener:
        return Listener("gateway", self.host, self.gateway_port, "--gateway-port")

    @property
    def page(self) -> Listener:
        return Listener("page", self.ui_host, self.ui_port, "--ui-port", path="")

    @property
    def routed(self) -> bool:
        """Whether several servers stand behind the one address."""
        return self.replicas > 1 or bool(self.worker_urls)

    @property
    def router(self) -> Listener:
        return Listener("router", HOST, self.port + ROUTER_AT, "--port", path="")

    def replica(self, number: int) -> Listener:
        """Where a replica listens, counted from 0; the only one without a router is the API."""
        if not self.routed:
            return self.vllm
        return Listener(f"replica {number + 1}", HOST, self.router.port + 1 + number, "--port")

    @property
    def ui_for_others(self) -> bool:
        """Whether others than who sits at this machine can reach the page."""
        return self.ui and (self.share or not is_loopback(self.ui_host))

    @property
    def listeners(self) -> tuple[Listener, ...]:
        """Those that people are told of."""
        gateway = (self.gateway_listener,) if self.gateway else ()
        return (self.vllm, *gateway, *((self.page,) if self.ui else ()))

    @property
    def all_listeners(self) -> tuple[Listener, ...]:
        """Those too that stand behind the API."""
        if not self.routed:
            return self.listeners
        replicas = map(self.replica, range(self.replicas))
        return (*self.listeners, self.router, *replicas)


@dataclass(frozen=True, slots=True)
class Deployment:
    """What is served, where and how: all that the commands follow from.

    `weights` is the model's folder, in `precision`; `python` the one that has vLLM; `given` the
    user's environment.
    """

    model: Model
    options: Options
    machine: Machine
    weights: Path
    python: Path
    given: Mapping[str, str] = field(default_factory=dict)
    precision: Precision = field(default_factory=Precision)


@dataclass(frozen=True, slots=True)
class Command:
    """A command; `environment` goes over the one it is started in."""

    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        settings = [f"{key}={shlex.quote(value)}" for key, value in self.environment.items()]
        return " ".join([*settings, shlex.join(self.argv)])


@dataclass(frozen=True, slots=True)
class ServerSpec:
    """One server to start: `name` for people, `word` in the name of its log.

    `health` is the path that answers 200 once it is up; `sign` is what the log of one that is
    asked nothing says then.
    """

    name: str
    word: str
    command: Command
    address: str  # http://host:port
    health: str = "/health"
    sign: str = ""


def port_number(text: str) -> int:
    """A flag's port. Raises ArgumentTypeError."""
    if not (text.isdecimal() and 0 < int(text) < 65536):
        raise ArgumentTypeError(f"expected a port from 1 to 65535, got {text!r}")
    return int(text)


def is_everywhere(host: str) -> bool:
    return host in ("0.0.0.0", "::")


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def served_name(model: Model, options: Options) -> str:
    return options.served_model_name or model.served_name


def vllm_command(deployment: Deployment, replica: int = 0) -> Command:
    """The vLLM server of this deployment; of several replicas number `replica`.

    The user's own flags come last, for vLLM takes the last of two; what the user's
    environment sets already stays.
    """
    model, options, machine = deployment.model, deployment.options, deployment.machine
    listener, dtype = options.replica(replica), deployment.precision.dtype
    argv = [str(deployment.python), *VLLM, "--model", str(deployment.weights)]
    argv += ["--served-model-name", served_name(model, options)]
    argv += ["--host", listener.host, "--port", str(listener.port)]
    argv += _model_flags(model, options)
    argv += [*ALWAYS, *model.flags, *_machine_flags(model, machine)]
    argv += [*(["--dtype", dtype] if dtype else []), *options.extra]
    environment = vllm_environment(machine, deployment.given)
    plugin = () if machine.gpus else (PLUGIN,)
    return Command(tuple(argv), environment | python_path(deployment.given, *plugin))


def python_path(given: Mapping[str, str], *folders: Path) -> dict[str, str]:
    """With this project in front: what it names is found from any folder."""
    theirs = given.get("PYTHONPATH")
    parts = [ROOT, *folders, *([theirs] if theirs else [])]
    return {"PYTHONPATH": os.pathsep.join(map(str, parts))}


def _model_flags(model: Model, options: Options) -> list[str]:
    length = options.max_model_len or model.max_model_len
    template = options.chat_template
    if template is None and model.chat_template is not None:
        template = ROOT / model.chat_template
    flags = ["--max-model-len", str(length)] if length else []
    flags += ["--chat-template", str(template)] if template else []
    if model.tool_parser:  # a request with tools is refused without the two
        flags += ["--enable-auto-tool-choice", "--tool-call-parser", model.tool_parser]
    return flags


def _machine_flags(model: Model, machine: Machine) -> list[str]:
    if not machine.gpus:
        return [*ON_CPU, *model.cpu_flags]
    count = cards(model, machine.gpus) or model.gpus
    parallel = ["--tensor-parallel-size", str(count)] if count > 1 else []
    old = min(gpu.capability for gpu in machine.gpus) < FIRST_BFLOAT16
    return parallel + (["--dtype", "half"] if old else []) + list(model.gpu_flags)


def vllm_environment(machine: Machine, given: Mapping[str, str]) -> dict[str, str]:
    """What vLLM is told beside its flags; what the user's environment sets stays."""
    ours = QUIET if machine.gpus else {**QUIET, **_cpu_environment(machine, given)}
    return {key: value for key, value in ours.items() if key not in given}


def _cpu_environment(machine: Machine, given: Mapping[str, str]) -> dict[str, str]:
    """The settings of the threads go together: who sets one has all of them from vLLM."""
    cache = max(1, min(4, int(machine.memory_gb // 8)))  # GiB; a chain needs less than one
    preload = {"LD_PRELOAD": ":".join(machine.preload)} if machine.preload else {}
    threads = {} if machine.cpu.openmp.keys() & given.keys() else machine.cpu.openmp
    return {"VLLM_CPU_KVCACHE_SPACE": str(cache), **preload, **threads}


def gateway_command(
    model: Model, options: Options, python: Path, given: Mapping[str, str]
) -> Command:
    """The gateway in front of this vLLM. It finds the key in the environment, as vLLM does."""
    listener = options.gateway_listener
    argv = [str(python), "-m", "gateway", "--host", listener.host, "--port", str(listener.port)]
    return Command(tuple(argv), client_environment(model, options) | python_path(given))


def page_command(model: Model, options: Options, python: Path) -> Command:
    """The page. It finds the token that it asks others for in the environment.

    With a token any name may lead to it: a name that is bent to it (DNS rebinding) has no cookie.
    """
    argv = [str(python), "-m", "streamlit", "run", str(ROOT / "app_reasoning.py")]
    argv += ["--server.address", options.page.host, "--server.port", str(options.page.port)]
    argv += ["--server.allowedHosts", "*"] if options.ui_for_others else []
    argv += ["--server.headless", "true", "--browser.gatherUsageStats", "false"]
    return Command(tuple(argv), client_environment(model, options))


def client_environment(model: Model, options: Options) -> dict[str, str]:
    """What points the page, the gateway and the openai client at this server."""
    names = {"OPENAI_BASE_URL": options.vllm.url, "MODEL": served_name(model, options)}
    told = {LOG_CONTENT: "1"} if options.log_content else {}
    return {**names, RESTARTED: str(RESTART_SECONDS), **told}


def context_problem(config: Mapping[str, Any], length: int | None) -> str | None:
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


def way_problem(model: Model, tokenizer: str, named: bool) -> str | None:
    """Why these weights cannot think as the model's table says, by their tokenizer's text, or None.

    Only a table, by which the model is `named`, can be wrong that its way is not Satori's: of
    other weights the way is found by asking.
    """
    knows = all(f'"{token}"' in tokenizer for token in META_ACTIONS)
    if not tokenizer or knows == (model.way == "coat") or not (named or model.way == "coat"):
        return None
    tokens = ", ".join(META_ACTIONS)
    if knows:
        return (
            f'These weights have Satori\'s tokens ({tokens}), and their table does not say "coat".'
        )
    return f'The table says "coat", and these weights lack Satori\'s tokens ({tokens}).'


def curl_lines(model: Model, options: Options, key: str) -> Sequence[str]:
    """Lines of a curl command that works as it stands, in a POSIX shell.

    It asks the gateway where there is one, for steps as they are written. `key` is what stands
    for the key in the shell, "" for none.
    """
    name = served_name(model, options)
    if options.gateway:
        steps = {"model": f"{name}-steps", "stream": True}
        return _curl("curl -N", options.gateway_listener, key, steps)
    return _curl("curl", options.vllm, key, {"model": name})


def _curl(command: str, listener: Listener, key: str, asked: Mapping[str, Any]) -> Sequence[str]:
    question = {"role": "user", "content": "What is 17 + 25?"}
    body = json.dumps({**asked, "messages": [question]})
    lines = [f"{command} {listener.url}/chat/completions"]
    lines += ["-H 'Content-Type: application/json'"]
    lines += [f'-H "Authorization: Bearer {key}"'] if key else []
    return [*lines, f"-d {shlex.quote(body)}"]
